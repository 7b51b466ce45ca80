from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from salattack.attacks import Attack
from salattack.errors import SalattackError
from salattack.experiments.ledger import Ledger
from salattack.experiments.paper_reading import (
    ARITHMETIC,
    ATTACK_READINGS,
    ATTACK_STRENGTHS,
    PAPER,
    PRINTED,
    Arithmetic,
    Reading,
    attacks_of,
    concentration,
    findings,
    measure,
    nearest,
    presentable,
    printed,
    rank,
    rounding,
    save_readings,
)
from salattack.experiments.study import open_study
from salattack.presets import ATTACKERS
from salattack.reporting import charts, style

STRENGTH = "bound 0.05, step 0.01"
MASKED, UNMASKED = "in the ball", "in the ball, noise unmasked"
FEW = ("i-fgsm", "saliency-aware")
SALIENT = 0.6
ORDER = ["place", "attacker", "precision"]


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=2, image_size=32, device="cpu")


@pytest.fixture(scope="module")
def ledger():
    return Ledger()


@pytest.fixture(scope="module")
def measured(study, ledger):
    readings = [MASKED, UNMASKED]
    return measure(study, [STRENGTH], readings, of=FEW, ledger=ledger, progress=False)


def made_up(arithmetic: str, strength: str = STRENGTH, reading: str = MASKED, spread: float = 0.0):
    """Rows of four faces from which this arithmetic makes the printed numbers, up to a spread."""
    factors = ARITHMETIC[arithmetic]
    rows = []
    for (l1, l2_x100), name in zip(printed(), PRINTED, strict=True):
        l2 = l2_x100 / 100 / factors.l2
        for face, sign in enumerate((1, -1, 1, -1)):
            away = 1 + spread * sign * (1 if name == "i-fgsm" else 0.5)
            values = {
                "l1": l1 / factors.l1 * away,
                "l2": (l2**2 if factors.root else l2) * (away**2 if factors.root else away),
            }
            # The background changes as much as the rest; where M alone counts, that comes on top.
            values |= {f"background_{measure}": value for measure, value in values.items()}
            if factors.masked:
                values |= {measure: values[measure] * (2 - SALIENT) for measure in ("l1", "l2")}
            keys = {
                "salient": SALIENT,
                "face_id": f"{face}",
                "attacker": name,
                "precision": "uint8",
            }
            rows.append(keys | values | {"strength": strength, "attackers": reading})
    return pd.DataFrame(rows)


# The attackers


@pytest.mark.parametrize("strength", ATTACK_STRENGTHS)
@pytest.mark.parametrize("reading", ATTACK_READINGS)
def test_every_reading_gives_the_four_attackers_at_its_strength(strength, reading):
    attacks = attacks_of(strength, reading)
    assert tuple(attacks) == PRINTED
    for name, attack in attacks.items():
        assert (attack.bound, attack.step_size, attack.steps) == ATTACK_STRENGTHS[strength]
        in_ball = name in ATTACK_READINGS[reading].ball
        assert attack.start == (attack.bound if in_ball else ATTACKERS[name].start)
        assert (attack.start_in == "everywhere") == (
            name == "saliency-aware" and "unmasked" in reading
        )


def test_the_plain_reading_is_the_presets():
    assert attacks_of(STRENGTH, "at the photo") == {name: ATTACKERS[name] for name in PRINTED}


def test_readings_differ():
    chosen = [tuple(attacks_of(s, r).values()) for s in ATTACK_STRENGTHS for r in ATTACK_READINGS]
    assert len(set(chosen)) == len(ATTACK_STRENGTHS) * len(ATTACK_READINGS)


def test_the_paper_preset_is_a_known_reading():
    assert PAPER.arithmetic in ARITHMETIC and PAPER.precision in ("uint8", "float32")
    assert tuple(attacks_of(PAPER.strength, PAPER.attackers)) == PRINTED


def test_unknown_readings_are_refused(study):
    with pytest.raises(SalattackError, match=r"unknown strength 'strong'; known: bound 0.05"):
        attacks_of("strong", MASKED)
    with pytest.raises(SalattackError, match="unknown attack reading 'on foot'; known: at the ph"):
        measure(study, None, ["on foot"], progress=False)
    with pytest.raises(SalattackError, match="unknown attacker of Table I 'pgd'; known: i-fgsm"):
        measure(study, [STRENGTH], [MASKED], of=["pgd"], progress=False)
    for nothing in ({"strengths": []}, {"readings": []}, {"of": []}):
        with pytest.raises(SalattackError, match="nothing to compare: give a strength"):
            measure(study, **nothing, progress=False)


# A start that is not masked


@pytest.fixture(scope="module")
def unmasked():
    return Attack(
        bound=0.1, step_size=0.01, steps=1, start=0.1, start_in="everywhere", region="saliency"
    )


def test_an_unmasked_start_leaves_noise_in_the_background(
    unmasked, generator, photos, target, saliency_map
):
    after = unmasked(generator, photos, target, saliency_map)
    change = (after - photos).abs()
    assert change.max() <= 0.1 + 1e-6
    background = (saliency_map == 0).expand_as(photos) & (photos.abs() < 0.9)
    # Uniform noise in ±0.1: half of it in the mean, a third of its square.
    assert change[background].mean().item() == pytest.approx(0.05, rel=0.02)
    assert change[background].square().mean().item() == pytest.approx(0.01 / 3, rel=0.03)
    masked = Attack(bound=0.1, step_size=0.01, steps=1, start=0.1, region="saliency")
    kept = (masked(generator, photos, target, saliency_map) - photos).abs()
    assert kept[background].max() == 0


def test_its_background_is_the_start_alone(unmasked, generator, photos, target, saliency_map):
    more = replace(unmasked, step_size=0.05)
    first, second = (a(generator, photos, target, saliency_map) for a in (unmasked, more))
    background = (saliency_map == 0).expand_as(photos)
    assert torch.equal(first[background], second[background])
    assert not torch.equal(first, second)


def test_with_nothing_masked_it_is_the_unmasked_attack(unmasked, generator, photos, target):
    ones = torch.ones_like(photos[:, :1])
    everywhere = Attack(bound=0.1, step_size=0.01, steps=1, start=0.1)
    expected = everywhere(generator, photos, target)
    assert torch.equal(unmasked(generator, photos, target, ones), expected)


def test_an_unmasked_start_refuses_a_bound_that_masks_it(unmasked):
    with pytest.raises(SalattackError, match="bound_by='saliency' masks the start"):
        replace(unmasked, bound_by="saliency")


def test_an_unmasked_start_needs_its_map(unmasked, generator, photos, target):
    with pytest.raises(SalattackError, match="needs a saliency_map"):
        unmasked(generator, photos, target)


# Measuring


def test_a_shared_attacker_runs_once(study, ledger, measured):
    kept = ledger.rows()
    assert len(kept) == 3 * 2 * len(study.faces)  # I-FGSM once, Saliency-Aware twice; precisions
    again = measure(study, [STRENGTH], [UNMASKED], of=FEW, ledger=ledger, progress=False)
    assert len(ledger.rows()) == len(kept)  # nothing was attacked again
    expected = measured[measured["attackers"] == UNMASKED].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.sort_values(ORDER), expected.sort_values(ORDER))


def test_every_reading_has_its_rows(study, measured):
    assert len(measured) == 2 * len(FEW) * 2 * len(study.faces)  # readings, precisions
    table = measured[measured["precision"] == "float32"].groupby(["attackers", "attacker"])
    l1 = table[["l1", "background_l1"]].mean()
    assert l1.loc[(MASKED, "i-fgsm")].equals(l1.loc[(UNMASKED, "i-fgsm")])
    aware = l1.xs("saliency-aware", level="attacker")
    assert aware.loc[UNMASKED, "background_l1"] > 3 * aware.loc[MASKED, "background_l1"]


# Ranking


@pytest.mark.parametrize("name", ARITHMETIC)
def test_the_arithmetic_that_was_used_comes_first(name):
    table = rank(made_up(name))
    first = table.iloc[0]
    assert first["distance"] == pytest.approx(0, abs=1e-9) and first["tied"]
    assert tuple(first[list(Reading._fields)]) == Reading(STRENGTH, MASKED, name, "uint8")
    assert table.loc[1, "distance"] > 0.1 and not table.loc[1, "tied"]


def test_units():
    assert ARITHMETIC["[-1, 1]"] == Arithmetic(1, 1)
    assert ARITHMETIC["[0, 1]"] == Arithmetic(0.5, 0.25)
    assert ARITHMETIC["L1 [0, 1], L2 [-1, 1]"] == Arithmetic(0.5, 1)
    assert ARITHMETIC["[-1, 1], half unchanged"] == Arithmetic(0.5, 0.5)
    assert ARITHMETIC["[0, 1], L2 root"] == Arithmetic(0.5, 0.5, True)
    assert ARITHMETIC["[0, 1], of I × M"] == Arithmetic(0.5, 0.25, masked=True)


def test_a_distance_by_hand():
    rows = made_up("[-1, 1]")
    twice = rows.assign(l1=2 * rows["l1"], l2=2 * rows["l2"])
    assert rank(twice)["arithmetic"][0] == "[-1, 1], half unchanged"
    line = rank(twice).set_index("arithmetic").loc["[-1, 1]"]
    assert line["distance"] == pytest.approx(np.log(2))
    assert line["level"] == pytest.approx(np.log(2)) and line["shape"] == pytest.approx(0)
    assert line["i-fgsm l1"] == pytest.approx(2 * 0.019)
    one = rows["attacker"] == "i-fgsm"
    other = rows.assign(l1=rows["l1"].where(~one, 2 * rows["l1"]))
    line = rank(other).set_index("arithmetic").loc["[-1, 1]"]
    assert line["distance"] == pytest.approx(np.log(2) / 8**0.5)
    assert line["level"] ** 2 + line["shape"] ** 2 == pytest.approx(line["distance"] ** 2)
    assert line["level"] == pytest.approx(np.log(2) / 4 / 2**0.5)


def test_units_move_the_level_and_not_the_shape():
    table = rank(made_up("[-1, 1]", spread=0.3)).set_index("arithmetic")
    squares = [n for n, a in ARITHMETIC.items() if not (a.root or a.masked) and n in table.index]
    assert np.ptp(table.loc[squares, "shape"]) < 1e-9 < np.ptp(table.loc[squares, "level"])


def test_intervals_hold_the_distance_and_what_ties_is_said():
    near, far = made_up("[-1, 1]", spread=0.2), made_up("[-1, 1]", "bound 0.1, step 0.1")
    far[["l1", "background_l1"]] *= 1.5
    close = near.assign(attackers=UNMASKED, l1=near["l1"] * 1.001)
    table = rank(pd.concat([near, far, close]))
    first, second = table.iloc[0], table.iloc[1]
    assert {first["attackers"], second["attackers"]} == {MASKED, UNMASKED}
    assert first["tied"] and second["tied"]
    assert 0 < first["distance_low"] < first["distance_high"]
    others = table[table["strength"] == "bound 0.1, step 0.1"]
    assert not others["tied"].any()
    assert rank(pd.concat([near, far, close])).equals(table)


def test_one_face_has_no_interval():
    rows = made_up("[-1, 1]")
    table = rank(rows[rows["face_id"] == "0"])
    assert table[["distance_low", "distance_high"]].isna().all().all()
    assert table.loc[0, "tied"] and not table.loc[1:, "tied"].any()


def test_a_missing_face_is_refused():
    rows = made_up("[-1, 1]")
    with pytest.raises(SalattackError, match=r"not every attacker of 'bound 0.05.* has every face"):
        rank(rows.iloc[1:])


def test_rounding_is_that_of_three_digits():
    far = np.log((printed() + 0.0005) / printed())
    assert rounding() == pytest.approx(np.sqrt((far**2).mean()))
    assert 0.01 < rounding() < 0.03


def test_fewer_attackers_compare_fewer_averages(measured):
    table = rank(measured)
    assert "eot-blur l1" not in table and "saliency-aware l2_x100" in table
    assert set(table["precision"]) == {"uint8", "float32"}
    assert len(nearest(table, 5)) == 2  # the two readings, at their nearest
    assert nearest(table, 1).index.tolist() == [0]


def test_concentration_does_not_depend_on_a_common_factor(measured):
    table = concentration(measured)
    double = concentration(measured.assign(l1=2 * measured["l1"], l2=4 * measured["l2"]))
    pd.testing.assert_frame_equal(table, double)
    assert table.loc[(STRENGTH, MASKED), "I-FGSM"] > 1
    assert table.loc[("Table I", "as printed"), "I-FGSM"] == pytest.approx(0.00088 / 0.019**2)


def test_of_the_face_alone_a_masked_attack_is_counted_in_full(measured):
    table = rank(measured[measured["precision"] == "float32"])
    table = table[table["attackers"] == MASKED].set_index("arithmetic")
    face, everything = table.loc["[-1, 1], of I × M"], table.loc["[-1, 1]"]
    share = measured["salient"].groupby(measured["face_id"]).first().mean()
    ratio = face["i-fgsm l1"] / everything["i-fgsm l1"]
    assert ratio == pytest.approx(share, rel=0.1) and 0.1 < share < 0.9
    assert face["saliency-aware l1"] > 0.8 * everything["saliency-aware l1"]


# What is shown


def test_the_table_as_text(measured):
    text = presentable(rank(made_up("[-1, 1]")).head(3))
    assert text["strength"].tolist() == ["Table I, as printed", *[STRENGTH] * 3]
    assert text["I-FGSM L1"].iloc[0] == "0.0190" == text["I-FGSM L1"].iloc[1]
    assert text["I-FGSM L2 × 100"].iloc[0] == "0.0880" and text["distance"].iloc[0] == "–"
    assert text["tied"].tolist() == ["–", "yes", "no", "no"]
    assert text.index.tolist() == ["–", "1", "2", "3"]
    assert "EoT-Blur L1" not in presentable(rank(measured))


def test_findings_say_what_holds(measured):
    found = findings(measured)
    assert found.shape == (3, 1) and found["holds"].isin([True, False]).all()
    assert len(findings(measured[measured["attackers"] == MASKED])) == 2
    sparse = measured.assign(l2=4 * measured["l2"], background_l2=4 * measured["background_l2"])
    assert found["holds"].iloc[0] and not findings(sparse)["holds"].iloc[0]
    plain = findings(made_up("[0, 1]"))["holds"]
    halved = findings(made_up("[0, 1], half unchanged"))["holds"]
    assert not plain.iloc[1] and halved.iloc[1]


def test_the_tables_are_written(tmp_path):
    table = rank(made_up("[-1, 1]"))
    save_readings(tmp_path / "new", table)
    csv, markdown = (tmp_path / "new" / f"paper_reading.{end}" for end in ("csv", "md"))
    again = pd.read_csv(csv, keep_default_na=False)
    assert again["arithmetic"].tolist() == table["arithmetic"].tolist()
    lines = markdown.read_text().splitlines()
    assert len(lines) == 2 + 4 and lines[0].startswith("Distance of each reading")
    assert sorted(p.name for p in csv.parent.iterdir()) == ["paper_reading.csv", "paper_reading.md"]


def test_the_figure_shows_a_few_readings(measured, tmp_path):
    chosen = nearest(rank(made_up("[-1, 1]", spread=0.1)), 3)
    figure = charts.paper_reading(chosen)
    style.save(figure, tmp_path / "r.png", vector=True)
    assert (tmp_path / "r.pdf").stat().st_size > 1000
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(words) == 1 + len(chosen) and words[0].startswith("printed")
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert len(set(markers)) == len(markers) == len(words)  # readable without colour
    left, right = charts.paper_reading(nearest(rank(measured), 2)).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["I-FGSM", "Saliency-Aware"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("L1", "L2 × 100")

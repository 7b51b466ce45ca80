from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from salattack.errors import SalattackError
from salattack.experiments import smallest_change
from salattack.experiments.statistics import median_over_people
from salattack.experiments.study import open_study
from salattack.experiments.text import SMALLEST_CHANGE
from salattack.generators import EditSet
from salattack.images import as_saved
from salattack.presets import MINIMUM_NORM
from salattack.reporting import charts

FEW = {
    "fixed": ["saliency-aware"],
    "strengths": [(0.05, 0.01, 2), (0.1, 0.03, 2)],
    "gradients": 12,
}


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=2, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def attacks():
    return smallest_change.attacks(**FEW)


@pytest.fixture(scope="module")
def rows(study, attacks):
    return smallest_change.measure(study, attacks, progress=False)


def made(attacker, bound, people, **measures):
    """Rows of two edits for each of these faces, every measure being the given numbers."""
    rows = [{"face_id": f, "attribute": edit} for f in people for edit in ("a", "b")]
    others = dict.fromkeys(("ssim", "l1", "l2", "background_l1", "damage_l2"), 0.1)
    table = pd.DataFrame(rows).assign(attacker=attacker, bound=bound, gradients=10, **others)
    return table.assign(**measures)


def test_fixed_attackers_have_every_bound_and_the_others_none(attacks):
    assert list(attacks) == [
        ("saliency-aware", 0.05),
        ("saliency-aware", 0.1),
        *((name, MINIMUM_NORM.bound) for name in smallest_change.SMALLEST),
    ]
    assert [attack.gradients for attack in attacks.values()] == [2, 2, 12, 12]
    seeded = smallest_change.attacks(**FEW, seed=3)
    assert {attack.seed for attack in seeded.values()} == {3}
    with pytest.raises(SalattackError, match="pgd has a fixed strength"):
        smallest_change.attacks([], [], ["pgd"])


def test_what_is_saved_is_measured_with_its_gradients(rows):
    assert len(rows) == 2 * 4 and set(rows["precision"]) == {"uint8"}
    by_attacker = rows.groupby("attacker")["gradients"].unique().map(list).to_dict()
    assert by_attacker == {
        "saliency-aware": [2],
        "minimum-norm": [12],
        "minimum-norm-everywhere": [12],
    }


def test_summary_by_hand():
    faces = ["P001-selfie", "P001-portrait", "P002-selfie"]
    rows = made("pgd", 0.05, faces, psnr=[30, 31, 32, 33, 34, 90], success=[1, 1, 1, 0, 0, 0])
    row = smallest_change.summarise(rows).loc[("pgd", 0.05)]
    assert row["psnr"] == 32.5 and row["success"] == 0.5 and row["gradients"] == 10
    assert (row["faces"], row["samples"]) == (3, 6)
    # Of two people, either may be drawn twice.
    assert (row["psnr_low"], row["psnr_high"]) == (31.5, 62)
    assert row["success_low"] == pytest.approx(0.118, abs=1e-3)  # exact, 3 of 6


def test_a_median_draws_people_with_all_their_samples():
    rows = made("pgd", 0.05, ["a", "b"], psnr=[1.0, 2.0, 10.0, 20.0])
    lone = median_over_people(rows[:2], "psnr")
    assert lone.value == 1.5 and np.isnan(lone.low)
    more = pd.concat([rows, rows[2:].assign(attribute="c", psnr=30.0)])  # b has four samples
    assert median_over_people(more, "psnr").value == 15.0


def test_tables_are_written_with_their_units(rows, tmp_path):
    table = smallest_change.summarise(rows)
    SMALLEST_CHANGE.save(tmp_path, table)
    text = (tmp_path / "smallest_change.md").read_text()
    assert text.startswith("Change of the photo") and "| Minimum-Norm " in text
    shown = SMALLEST_CHANGE.text(table)
    assert list(shown.index.get_level_values("bound")) == [0.05, 0.1, "–", "–"]
    numbers = pd.read_csv(tmp_path / "smallest_change.csv", index_col=["attacker", "bound"])
    assert numbers["l1"].to_numpy() == pytest.approx(table["l1"].to_numpy(), rel=1e-5)
    cells = shown["L1 in [0, 1]"].str.split().str[0].astype(float)
    assert cells.to_numpy() == pytest.approx(table["l1"].to_numpy() / 2, abs=1e-4)


def test_examples_show_what_was_measured(study, attacks, rows):
    examples = smallest_change.examples(study, attacks, rows, 2)
    assert len(examples) == 2
    for face_id, shown in zip(study.faces.ids, examples, strict=True):
        mine = rows[rows["face_id"] == face_id].set_index(["attacker", "bound"])
        names, bounds = ("saliency-aware", "minimum-norm"), [a.bound for a in shown.attacks]
        for i, key in enumerate(zip(names, bounds, strict=True)):
            assert shown.psnr[i] == pytest.approx(mine.loc[key, "psnr"], abs=0.3)
        assert torch.equal(shown.pictures, as_saved(shown.pictures))
        assert shown.pictures.shape == shown.fakes.shape == (3, 3, 64, 64)
        broken = mine.xs("saliency-aware")["success"] == 1
        assert bounds[0] == (broken.index[broken].min() if broken.any() else 0.1)
    with pytest.raises(SalattackError, match="l2-pgd was not measured"):
        smallest_change.examples(study, attacks, rows, 1, ["l2-pgd"])


@pytest.mark.filterwarnings("ignore::salattack.minimum_norm.UnbrokenWarning")
def test_any_generator_will_do(study, attacks):
    """One that has another edit, and no labels: it darkens what it sees."""

    def darker(images, target):
        return (images - 0.5 * images.square()).clamp(-1, 1)

    edits = EditSet(("darker",), lambda g, labels, names: labels)
    other = replace(study, generator=darker, edits=edits, origin={"generator": "darker"})
    for targets in ("rotate", "joint"):
        rows = smallest_change.measure(other, attacks, targets=targets, progress=False)
        assert len(rows) == 8
        assert len(smallest_change.examples(other, attacks, rows, 1)) == 1


def test_the_chart_draws_a_line_per_attacker_and_a_marker_per_photo():
    faces = [f"f{i}" for i in range(5)]
    success, psnr = np.tile([1, 0], 5), np.arange(30.0, 40.0)
    rows = pd.concat(
        [
            made("pgd", 0.05, faces, psnr=34.0, success=success),
            made("pgd", 0.1, faces, psnr=30.0, success=1),
            made("minimum-norm", 2.0, faces, psnr=psnr, success=success),
        ]
    )
    axes = charts.smallest_change(rows).axes[0]
    curve, _, reached, cloud = axes.lines
    assert curve.get_xdata().tolist() == [34, 30] and curve.get_ydata().tolist() == [50, 100]
    assert cloud.get_xdata().tolist() == [38, 36, 34, 32, 30] and min(cloud.get_ydata()) > 100
    # Drawn as steps: no fake breaks above 38 dB, one of ten above 36 dB, ...
    x, y = np.array(reached.get_path().vertices).T  # what is drawn has the corners as well
    share = {at: y[x >= at].max() for at in (38.5, 37, 35, 31) if (x >= at).any()}
    assert share == {37: 10, 35: 20, 31: 40}
    assert {text.get_text() for text in axes.texts} >= {"PGD", "Minimum-Norm"}
    assert curve.get_marker() != cloud.get_marker()


def test_each_generator_has_its_rows_and_its_panel():
    faces = ["f0", "f1"]
    one = pd.concat(
        [
            made("pgd", 0.05, faces, psnr=34.0, success=0),
            made("pgd", 0.1, faces, psnr=30.0, success=1),
            made("minimum-norm", 2.0, faces, psnr=[40.0, 41.0, 42.0, 43.0], success=1),
        ]
    )
    parts = {name: one.assign(psnr=one["psnr"] + i) for i, name in enumerate("abcd")}
    rows = pd.concat(parts, names=["generator"]).reset_index("generator")
    table = smallest_change.summarise(rows)
    for name, part in parts.items():
        pd.testing.assert_frame_equal(table.loc[name], smallest_change.summarise(part))
    figure = charts.smallest_change(rows)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == list("abcd")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["PGD", "Minimum-Norm"]
    clouds = [axes.lines[3].get_xdata()[-1] for axes in panels]  # the photo that changed the most
    assert clouds == [40, 41, 42, 43]

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from salattack.errors import SalattackError
from salattack.experiments import ablation, trade_off
from salattack.experiments.study import open_study
from salattack.experiments.text import ABLATION, EQUAL_DAMAGE, TRADE_OFF
from salattack.experiments.transfer import ENSEMBLE, IN_TURN, across, each_edit
from salattack.generators import ATTRIBUTES
from salattack.presets import attacker
from salattack.reporting import charts, style


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=2, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def rows(study):
    names = ["i-fgsm", "saliency-aware"]
    return trade_off.curves(study, names, [0.1, 0.05, 0.1], 2, progress=False)


def lines(slopes, faces=4):
    """Rows whose damage is slope × l2, exactly, for every face."""
    return pd.DataFrame(
        [
            {
                "face_id": f"f{i}",
                "attacker": name,
                "bound": bound,
                "l2": bound * (1 + i),
                "damage_l2": slope * bound * (1 + i),
            }
            for name, slope in slopes.items()
            for i in range(faces)
            for bound in (0.1, 0.2)
        ]
    )


def test_every_attacker_at_every_bound_is_measured_on_what_is_saved(rows):
    assert len(rows) == 2 * 2 * 2  # faces × attackers × bounds
    assert set(rows["bound"]) == {0.05, 0.1} and set(rows["precision"]) == {"uint8"}
    assert (rows["linf"] <= rows["bound"] + 1e-6).all()
    means = trade_off.means(rows)
    assert (means.xs(0.1, level="bound")["l2"] > means.xs(0.05, level="bound")["l2"]).all()


def test_at_equal_damage_by_hand():
    table = trade_off.at_equal(lines({"i-fgsm": 1.0, "pgd": 2.0}), "damage_l2", "l2")
    # Mean damage of I-FGSM reaches 0.2 × 2.5 = 0.5; nine tenths of that are compared.
    assert table["level"].to_numpy() == pytest.approx(0.45)
    assert table.loc["i-fgsm", "value"] == pytest.approx(0.45)
    assert table.loc["pgd", "value"] == pytest.approx(0.225)
    # The faces differ, the ratio does not: drawn together, it has no spread.
    assert table.loc["pgd", ["ratio", "ratio_low", "ratio_high"]].to_numpy(float) == pytest.approx(
        0.5
    )
    assert table.loc["pgd", "value_low"] <= 0.225 <= table.loc["pgd", "value_high"]
    fixed = trade_off.at_equal(lines({"i-fgsm": 1.0, "pgd": 2.0}), level=0.7)
    assert np.isnan(fixed.loc["i-fgsm", "value"]) and fixed.loc["pgd", "value"] == pytest.approx(
        0.35
    )


def test_people_are_drawn_and_not_faces():
    rows = lines({"i-fgsm": 1.0, "pgd": 2.0})
    named = [f"P00{1 + i // 2}-{'selfie' if i % 2 else 'portrait'}" for i in range(4)]
    two = rows.assign(
        face_id=rows["face_id"].map(dict(zip(rows["face_id"].unique(), named, strict=True)))
    )
    faces, people = trade_off.at_equal(rows, level=0.2), trade_off.at_equal(two, level=0.2)
    assert people["value"].to_numpy() == pytest.approx(faces["value"].to_numpy())
    alone = two[two["face_id"].str.startswith("P001")]
    assert trade_off.at_equal(alone, level=0.1).filter(regex="_(low|high)$").isna().all(axis=None)


def test_area_by_hand():
    table = trade_off.area(lines({"i-fgsm": 1.0, "pgd": 2.0}))
    assert table["up_to"].to_numpy() == pytest.approx(0.5)
    assert table["area"].to_numpy() == pytest.approx([0.25, 0.5])


def test_refuses(study):
    with pytest.raises(SalattackError, match="two different bounds or more"):
        trade_off.curves(study, ["pgd"], [0.05, 0.05])
    with pytest.raises(SalattackError, match="unknown attacker 'cw'; known: fgsm"):
        trade_off.curves(study, ["cw"], [0.05, 0.1])
    with pytest.raises(SalattackError, match="reference i-fgsm is not among"):
        trade_off.at_equal(lines({"pgd": 1.0}))
    with pytest.raises(SalattackError, match="unknown question 'colour'; known: mask, blur"):
        ablation.ablate(study, ["colour"])


@pytest.fixture(scope="module")
def ablated(study):
    questions = ["mask", "start", "step", "steps"]
    return ablation.ablate(study, questions, steps=[1, 2], strength=(0.05, 0.02, 2), progress=False)


def test_every_variant_is_there_and_shared_ones_are_the_same(ablated):
    counts = ablated.groupby(["question", "variant"], sort=False).size()
    assert (counts == 2).all()
    assert len(counts) == sum(len(ablation.ABLATIONS[q]) for q in ("mask", "start", "step")) + 2
    papers = [
        ablated.query("question == @q and variant == @v")["damage_l2"].to_numpy()
        for q, v in (("mask", "PFAN, soft (paper)"), ("step", "sign (paper)"), ("steps", "2"))
    ]
    assert np.array_equal(papers[0], papers[1]) and np.array_equal(papers[0], papers[2])


def test_the_mask_decides_where_the_photo_changes(ablated):
    table = ablation.summarise(ablated)
    background = table.loc["mask"]["background_l1"]
    assert (
        background["PFAN, soft (paper)"] < background["none"] < background["PFAN, complement"] * 2
    )
    assert background["PFAN, binary"] < 0.2 * background["none"]
    assert table.loc[("mask", "PFAN, soft (paper)"), "damage_per_l2"] == pytest.approx(1)
    assert table.loc[("steps", "2"), "l1"] > table.loc[("steps", "1"), "l1"]
    text = ABLATION.text(table)
    assert len(text) == len(table) and "[" in text["L1 in [0, 1]"].iloc[0]


def test_a_mask_without_features_needs_none(tmp_path):
    Image.new("L", (64, 64), 255).save(tmp_path / "all.png")
    weights = str(tmp_path / "all.png")
    study = open_study(n_images=2, image_size=64, saliency="mask", saliency_weights=weights)
    rows = trade_off.curves(study, ["i-fgsm"], [0.05, 0.1], 1, progress=False)
    means = trade_off.means(rows)
    table = TRADE_OFF.text(means)
    assert "damage in features" not in table and "damage where edited" in table
    assert len(charts.trade_off_appendix(means).axes) == 4
    rows = ablation.ablate(study, ["loss"], strength=(0.05, 0.05, 1), progress=False)
    assert list(rows["variant"].unique()) == ["MSE (paper)", "L1"]


def test_transfer_is_a_full_matrix(study, tmp_path):
    attack = attacker("i-fgsm", steps=1, step_size=0.05)
    edits = each_edit(study)
    matrix = across(study, edits, attack, in_turn=True, batch_size=1, progress=False)
    assert list(matrix.columns) == list(ATTRIBUTES)
    assert list(matrix.index) == [*ATTRIBUTES, ENSEMBLE, IN_TURN] and (matrix > 0).all(axis=None)
    style.save(charts.transfer(matrix), tmp_path / "m.png", vector=True)
    assert {p.name for p in tmp_path.iterdir()} == {"m.png", "m.pdf"}


def test_tables_and_chart_are_written(rows, ablated, tmp_path):
    means = trade_off.means(rows)
    assert len(charts.trade_off_appendix(means).axes) == 6
    TRADE_OFF.save(tmp_path, means)
    EQUAL_DAMAGE.save(tmp_path, trade_off.at_equal(rows))
    text = (tmp_path / "trade_off_at_equal_damage.md").read_text()
    assert text.startswith("Change of the photo") and "Saliency-Aware" in text
    assert "nan" not in text + (tmp_path / "trade_off_means.md").read_text()
    back = pd.read_csv(tmp_path / "trade_off_means.csv")
    assert back["damage_l2"].to_numpy() == pytest.approx(means["damage_l2"].to_numpy(), rel=1e-5)
    ABLATION.save(tmp_path, ablation.summarise(ablated))
    text = (tmp_path / "ablation.md").read_text()
    assert "what g edits" in text and text.startswith("One choice of the saliency-aware attack")
    table = TRADE_OFF.text(means)
    assert table.index.names == ["attacker", "bound"] and len(table) == len(means)
    shown = table["L1 in [0, 1]"].astype(float).to_numpy()
    assert shown == pytest.approx(means["l1"].to_numpy() / 2, abs=1e-4)
    assert "damage in features" in table
    figure = charts.trade_off(means)
    drawn = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert len(drawn) == 2
    assert drawn[0].get_xdata() == pytest.approx(100 * means["l2"][:2].to_numpy())
    assert len({(line.get_marker(), line.get_linestyle()) for line in drawn}) == 2

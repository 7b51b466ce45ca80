from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from salattack import metrics
from salattack.errors import SalattackError
from salattack.experiments import demonstration, evaluation, robustness, table_1, text, trade_off
from salattack.experiments import study as studies
from salattack.faces import load_faces
from salattack.generators import ATTRIBUTES, edit_labels
from salattack.images import to_pil
from salattack.presets import ATTACKERS, LABELS, attacker, label_of
from salattack.regions import REGIONS
from salattack.reporting import charts, tables


@pytest.fixture(scope="module")
def study():
    return studies.open_study(n_images=4, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def attacks():
    return evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 3)


@pytest.fixture(scope="module")
def rows(study, attacks):
    return evaluation.evaluate(study, attacks, batch_size=3, progress=False)


def test_one_row_for_each_combination(rows):
    assert len(rows) == 4 * 2 * 2  # faces × attackers × precisions
    assert not rows.duplicated(["face_id", "attacker", "attribute", "precision"]).any()
    assert list(rows.groupby("face_id", sort=False)["attribute"].first()) == list(ATTRIBUTES[:4])
    assert rows.drop(columns=["background_psnr"]).notna().all(axis=None)


def test_the_table_does_not_depend_on_the_batches(study, rows, attacks):
    whole = evaluation.evaluate(study, attacks, batch_size=100, progress=False)
    keys = ["face_id", "attacker", "attribute", "precision"]
    ours, theirs = (r.set_index(keys).sort_index() for r in (rows, whole))
    # Rounding differs with the batch and sign() amplifies it; the measures hardly move.
    assert np.allclose(ours["l1"], theirs["l1"], rtol=0.02)
    assert np.allclose(ours["damage_l2"], theirs["damage_l2"], rtol=0.1)


def test_the_same_run_gives_the_same_table(study, rows, attacks):
    again = evaluation.evaluate(study, attacks, batch_size=3, progress=False)
    pd.testing.assert_frame_equal(again, rows)


def test_rows_are_measured_on_what_is_saved(study, rows, attacks):
    photos, labels, ids = next(study.batches(3))
    target = study.targets(labels, ATTRIBUTES[:3])
    perturbed = study.disrupt(photos, target, attacks["i-fgsm"], study.saliency_map(photos))
    bits = ((perturbed + 1) * 127.5).round() - ((photos + 1) * 127.5).round()
    expected = bits.abs().flatten(1).mean(1) / 127.5
    found = rows.query("attacker == 'i-fgsm' and precision == 'uint8'").set_index("face_id")["l1"]
    assert found.loc[ids].to_numpy() == pytest.approx(expected.numpy(), rel=1e-4)
    unrounded = rows.query("attacker == 'i-fgsm' and precision == 'float32'").set_index("face_id")
    expected = (perturbed - photos).abs().flatten(1).mean(1)
    assert unrounded["l1"].loc[ids].to_numpy() == pytest.approx(expected.numpy(), rel=1e-4)


def test_saliency_aware_changes_the_photo_less_on_every_sample(rows):
    found = table_1.less_change(rows)
    assert found.loc["I-FGSM", "Saliency-Aware has less L1"] == "4 of 4"
    assert found.loc["I-FGSM", "Saliency-Aware has less L2"] == "4 of 4"
    assert (found["photos left unchanged"] == "0 of 4").all()
    wide = rows.pivot_table("background_l1", "face_id", "attacker")
    assert (wide["saliency-aware"] < 0.6 * wide["i-fgsm"]).all()


def table_of(values):
    frame = pd.DataFrame(values, columns=["face_id", "attacker", "l1", "l2"])
    filler = {"background_l1": 0.1, "ssim": 0.9, "damage_l2": 0.2, "success": 1.0}
    place = pd.factorize(frame["face_id"])[0]
    return frame.assign(attribute="Male", precision="uint8", place=place, **filler)


def test_table_1_by_hand():
    rows = table_of(
        [("a", "i-fgsm", 0.04, 0.002), ("b", "i-fgsm", 0.06, 0.004), ("a", "pgd", 0.01, 0.003)]
    )
    table = table_1.table_1(rows)  # [0, 1]: half of L1, a quarter of L2
    assert table.loc["i-fgsm", "l1"] == pytest.approx(0.025)
    assert table.loc["i-fgsm", "l2_x100"] == pytest.approx(0.075)
    assert table.loc["pgd", "l1_ratio"] == pytest.approx(0.2)
    assert table.loc["i-fgsm", "l1_low"] == pytest.approx(0.02)
    assert table.loc["i-fgsm", "l1_high"] == pytest.approx(0.03)
    assert np.isnan(table.loc["pgd", "l1_low"])  # one face has no interval
    assert table.loc["i-fgsm", "paper_l2_x100"] == 0.088
    assert np.isnan(table.loc["pgd", "paper_l1"])
    other = table_1.table_1(rows, unit="[-1, 1]")
    assert other.loc["i-fgsm", "l1"] == pytest.approx(0.05)
    assert other.loc["i-fgsm", "l2_x100"] == pytest.approx(0.3)


def test_paired_differences_by_hand():
    rows = table_of(
        [
            ("a", "i-fgsm", 0.04, 0.002),
            ("b", "i-fgsm", 0.06, 0.004),
            ("a", "pgd", 0.03, 0.002),
            ("b", "pgd", 0.05, 0.002),
        ]
    )
    line = table_1.table_1(rows).loc["pgd"]
    assert line["l1_difference"] == pytest.approx(-0.005)
    # Face by face the difference is the same, however much the faces differ.
    assert line["l1_difference_low"] == pytest.approx(-0.005)
    assert line["l1_difference_high"] == pytest.approx(-0.005)
    assert line["l2_x100_difference_low"] == pytest.approx(-0.05)
    assert line["l2_x100_difference_high"] == pytest.approx(0)


def test_tables_by_sample_size(tmp_path):
    values = [(f"f{i:03}", "i-fgsm", 0.04 if i < 100 else 0.06, 0.002) for i in range(150)]
    rows = table_of(values)
    sizes = table_1.by_sample_size(rows)
    assert sizes.loc[("tiny", "i-fgsm"), "l1"] == pytest.approx(0.02)
    assert sizes.loc[("all", "i-fgsm"), "l1"] == pytest.approx((0.02 * 2 + 0.03) / 3)
    assert list(sizes["faces"]) == [100, 150]
    assert sizes.loc[("tiny", "i-fgsm"), "paper_l2_x100"] == 0.089
    assert np.isnan(sizes.loc[("all", "i-fgsm"), "paper_l1"])
    partial = rows.query("place < 120").assign(attacker="pgd")
    both = table_1.by_sample_size(pd.concat([rows, partial]))
    assert set(both.loc["tiny"].index) == {"i-fgsm", "pgd"}
    assert set(both.loc["all"].index) == {"i-fgsm"}  # PGD did not see all of them
    tables.save_tables(rows, tmp_path)
    text = (tmp_path / "table_1.md").read_text()
    assert "**0.0200** / **0.0500**" in text and "0.020 / 0.089" in text and "150 faces" in text


def of_places(n):
    return table_of([(f"f{i:04}", "i-fgsm", 0.04, 0.002) for i in range(n)])


@pytest.mark.parametrize(("n", "images"), [(1999, 1999), (2000, 2000), (2500, 2000)])
def test_the_largest_sample_is_stargans_test_split_too(n, images):
    sizes = table_1.by_sample_size(of_places(n))
    samples = ["tiny", "small", "middle", "large"] + ["all"] * (n > 2000)
    assert list(sizes.index.unique("sample")) == samples
    assert list(sizes["faces"])[:4] == [100, 500, 1000, images]
    assert sizes["paper_l1"].notna()[:4].all()


def test_a_sample_whose_last_image_is_unreadable_is_still_that_sample(tmp_path):
    rows = of_places(99)
    sizes = table_1.by_sample_size(rows, 100)
    assert list(sizes.index) == [("tiny", "i-fgsm")] and list(sizes["faces"]) == [99]
    assert sizes["paper_l2_x100"].item() == 0.089
    tables.save_tables(rows, tmp_path, 100)
    assert "tiny" in (tmp_path / "table_1_by_size.csv").read_text()
    assert "all" not in table_1.by_sample_size(of_places(999), 1000).index


def test_an_attacker_under_a_name_of_ones_own_is_in_every_table(study, attacks, tmp_path):
    attacks = {"mine": attacks["i-fgsm"], "i-fgsm": attacks["i-fgsm"]} | attacks
    two = replace(study, faces=study.faces.subset(2))
    rows = evaluation.evaluate(two, attacks, progress=False)
    assert list(table_1.less_change(rows).index) == ["mine", "I-FGSM", "Saliency-Aware"]
    table = table_1.table_1(rows)
    assert list(tables.damage_table(table).index) == ["mine", "I-FGSM", "Saliency-Aware"]
    tables.save_tables(rows, tmp_path, 100)
    assert "mine" in (tmp_path / "table_1_by_size.csv").read_text()
    shown = trade_off.means(rows.assign(bound=0.05))
    assert text.TRADE_OFF.text(shown).index.get_level_values("attacker")[0] == "mine"
    assert charts.trade_off(shown).axes[0].lines[0].get_label() == "mine"


def test_bfloat16_keeps_the_measures(study, rows, attacks):
    coarse = evaluation.evaluate(
        replace(study, compute="bfloat16"), attacks, batch_size=3, progress=False
    )
    ours, theirs = (r.groupby("attacker")[["l1", "damage_l2"]].mean() for r in (rows, coarse))
    assert not coarse.equals(rows)
    assert np.allclose(ours["l1"], theirs["l1"], rtol=0.01)
    assert np.allclose(ours["damage_l2"], theirs["damage_l2"], rtol=0.1)
    # I-FGSM starts nearer to the photo than bfloat16 resolves, and stays in float32.
    same = [r.query("attacker == 'i-fgsm'").reset_index(drop=True) for r in (rows, coarse)]
    pd.testing.assert_frame_equal(*same)


def test_bfloat16_takes_the_same_first_step(study):
    coarse = replace(study, compute="bfloat16")
    photos, labels, _ = next(study.batches(3))
    target, saliency_map = study.targets(labels, ["Blond_Hair"] * 3), study.saliency_map(photos)
    for name, attack in evaluation.attackers(["spread-spectrum", "pgd"], 0.05, 0.01, 1).items():
        steps = [s.disrupt(photos, target, attack, saliency_map) - photos for s in (study, coarse)]
        same = steps[0].sign() == steps[1].sign()
        assert same.float().mean() >= 0.98, name
        assert not torch.equal(*steps)


def test_a_face_counts_once_however_many_edits_it_was_attacked_on():
    rows = table_of([("a", "pgd", 0.02, 0.1), ("a", "pgd", 0.04, 0.1), ("b", "pgd", 0.06, 0.1)])
    assert table_1.table_1(rows).loc["pgd", "l1"] == pytest.approx(0.045 / 2)
    assert table_1.table_1(rows).loc["pgd", "faces"] == 2


def test_printed_values_are_the_papers():
    printed = table_1.printed_table_1()
    ours = printed.query("attacker == 'saliency-aware'")
    assert (ours["l1"] == 0.016).all() and (ours["l2_x100"] == 0.068).all()
    assert list(printed.query("attacker == 'i-fgsm'")["images"].dropna()) == [100, 500, 1000, 2000]


def test_tables_are_written_in_every_format(rows, tmp_path):
    table = table_1.table_1(rows)
    paths = tables.save_tables(rows, tmp_path)
    assert {p.name for p in paths} == {p.name for p in tmp_path.iterdir()}
    back = pd.read_csv(tmp_path / "table_1.csv").set_index("attacker")
    assert back["l1"].to_numpy() == pytest.approx(table["l1"].to_numpy(), rel=1e-5)
    damage = (tmp_path / "table_1_damage.tex").read_text()
    assert r"\toprule" in damage and "%" not in damage.replace(r"\%", "")
    tex = (tmp_path / "table_1.tex").read_text()
    assert r"\caption{" in tex and r"\multicolumn{2}{c}{4 faces}" in tex
    assert tex.count(r"\cmidrule") == 6 and tex.count(r"\textbf") == 12
    assert "–" not in tex + damage


def test_table_1_in_the_papers_layout():
    printed = table_1.printed_table_1()
    values = [
        (f"f{i:04}", row.attacker, 2 * row.l1, 0.04 * row.l2_x100)
        for row in printed[printed["sample"] == "average"].itertuples()
        for i in range(100)
    ]
    layout = tables.paper_layout(table_1.by_sample_size(table_of(values)))
    assert layout.shape == (8, 10)  # no column but the paper's
    for row in printed.itertuples():
        shown = layout.loc[label_of(row.attacker), "printed"][tables.TITLES[row.sample]]
        assert list(shown) == [row.l1, row.l2_x100]
    here = layout.xs("here", level=1)
    assert here["Tiny (100)"].loc["I-FGSM"].tolist() == pytest.approx([0.019, 0.088])
    assert here.drop(columns="Tiny (100)", level=0).isna().all(axis=None)  # nor an average of one
    text = tables.shown_layout(layout)
    assert text.loc[("Saliency-Aware", "here"), ("Tiny (100)", "l1")] == "**0.0160**"
    assert text.loc[("I-FGSM", "here"), ("Average", "l1")] == "–"
    assert (text.stack([0, 1], future_stack=True).str.startswith("**").sum()) == 12


def test_intervals_are_over_people_and_kinds_apart():
    values = [
        (f"P{i:03}-{kind}", "pgd", 0.02 + 0.002 * i + (kind == "selfie") * 0.02, 0.001)
        for i in range(10)
        for kind in ("selfie", "portrait")
    ]
    table = table_1.table_1(table_of(values)).loc["pgd"]
    assert (table["faces"], table["people"]) == (20, 10)
    alone = [(f"{i}", "pgd", 0.03 + 0.002 * i, 0.001) for i in range(10)]
    expected = table_1.table_1(table_of(alone)).loc["pgd"]
    for end in ("", "_low", "_high"):
        assert table[f"l1{end}"] == pytest.approx(expected[f"l1{end}"])
    kinds = table_1.by_kind(table_of(values))
    assert kinds.loc[("selfie", "pgd"), "l1"] == pytest.approx(0.0245)
    assert kinds.loc[("portrait", "pgd"), "l1"] == pytest.approx(0.0145)
    assert table_1.by_kind(table_of(alone)) is None


def test_a_share_has_an_exact_interval():
    rows = table_of([(f"{i}", "pgd", 0.02, 0.001) for i in range(20)]).assign(success=0.0)
    shown = tables.damage_table(table_1.table_1(rows)).loc["PGD", "Broken %"]
    assert shown == "0 [0, 17]"


def test_edits_are_those_of_the_saved_photo(study):
    attack = evaluation.attackers(["saliency-aware"], 0.1, 0.05, 2)["saliency-aware"]
    each = demonstration.edit_faces(study, attack)
    assert each.fakes.shape == each.broken.shape == each.perturbed.shape == (4, 5, 3, 64, 64)
    bits = (each.perturbed + 1) * 127.5
    assert (bits - bits.round()).abs().max() < 1e-3
    once = demonstration.edit_faces(study, attack, aimed_at="Male")
    assert torch.equal(once.perturbed[:, 0], once.perturbed[:, 3])
    assert torch.equal(once.perturbed[:, 3], each.perturbed[:, 3])
    assert not torch.equal(each.perturbed[:, 0], each.perturbed[:, 3])
    labels = study.faces.labels
    again = study.generate(each.perturbed[:, 1], edit_labels(labels, "Blond_Hair"))
    assert torch.allclose(again, each.broken[:, 1], atol=1e-5)
    damage = demonstration.damage_by_edit(each)
    assert list(damage.index) == list(ATTRIBUTES) and (damage["damage_l2"] > 0).all()
    kept = demonstration.kept_exactly(once)
    assert (kept["background"] > kept["photo"]).all()


def test_aims():
    assert evaluation.aims("rotate", 3, 3) == [["Male", "Young", "Black_Hair"]]
    assert evaluation.aims("all", 0, 2) == [[name] * 2 for name in ATTRIBUTES]
    assert evaluation.aims("Male", 5, 2) == [["Male", "Male"]]


def test_stargan_rule_for_targets():
    labels = torch.tensor([[1.0, 0, 0, 0, 1]])
    assert edit_labels(labels, "Blond_Hair").tolist() == [[0, 1, 0, 0, 1]]
    assert edit_labels(labels, "Male").tolist() == [[1, 0, 0, 1, 1]]
    assert edit_labels(labels, "Young").tolist() == [[1, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evaluation.aims("Smiling", 0, 1),
            "unknown target 'Smiling'; known: rotate, all, joint",
        ),
        (lambda: edit_labels(torch.zeros(1, 5), "Smiling"), "unknown attribute 'Smiling'; known"),
        (
            lambda: evaluation.attackers(["cw"], 0.05, 0.01, 10),
            "unknown attacker 'cw'; known: fgsm",
        ),
        (lambda: evaluation.attackers(None, -1, 0.01, 10), "bound must be ≥ 0"),
        (lambda: evaluation.attackers(None, 0.05, 0.01, 0), "steps must be a whole number ≥ 1"),
        (lambda: studies.open_study(device="tpu9"), "unknown device on this machine 'tpu9'"),
        (lambda: studies.open_study(generator="dalle"), "unknown generator 'dalle'; known"),
        (lambda: studies.open_study(saliency="eye"), "unknown saliency model 'eye'; known"),
        (lambda: studies.open_study(n_images=0), "at least 1"),
        (lambda: studies.open_study(image_size=30), "multiple of 4"),
        (lambda: studies.open_study(compute="int4"), "unknown arithmetic 'int4'; known: float32"),
        (lambda: studies.open_study(faces="nowhere"), "nowhere is not a folder"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(SalattackError, match=message):
        call()


def test_refuses_unknown_units_and_precisions(rows, study, attacks):
    with pytest.raises(SalattackError, match=r"unknown unit '\[0, 255\]'"):
        table_1.table_1(rows, unit="[0, 255]")
    with pytest.raises(SalattackError, match="unknown precision 'bf16'"):
        table_1.table_1(rows, precision="bf16")
    with pytest.raises(SalattackError, match="batch_size must be ≥ 1"):
        evaluation.evaluate(study, attacks, batch_size=0, progress=False)


def test_joint_is_one_disruption_against_all_five(study):
    attack = {"i-fgsm": evaluation.attackers(["i-fgsm"], 0.05, 0.02, 2)["i-fgsm"]}
    joint = evaluation.evaluate(study, attack, targets="joint", progress=False)
    assert set(joint["attribute"]) == {"joint"} and len(joint) == 4 * 2
    photos, labels, _ = next(study.batches(4))
    target = study.targets(labels, ["joint"] * 4)
    fakes = study.generate(photos, target)
    assert len(target) == 5 and fakes.shape == (4, 15, 64, 64)
    male = study.generate(photos, edit_labels(labels, "Male"))
    assert torch.allclose(fakes[:, 9:12], male, atol=1e-5)


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_is_a_map_and_confines(study, region):
    photos, labels, _ = next(study.batches(4))
    target = study.targets(labels, ["joint"] * 4 if region == "edited" else ATTRIBUTES[:4])
    saliency_map = study.saliency_map(photos)
    mask = REGIONS[region](photos, study.generate(photos, target), saliency_map)
    assert mask.shape == (4, 1, 64, 64) and mask.min() >= 0 and mask.max() <= 1
    assert 0.02 < mask.mean() < 0.98
    attack = attacker("saliency-aware", region=region, steps=1)
    moved = study.disrupt(photos, target, attack, saliency_map) - photos
    assert moved.abs().amax((1, 2, 3)).min() > 0
    assert ((moved.abs() <= 0.01 * mask + 1e-6) | (mask > 1)).all()


def test_the_random_region_has_the_same_area_elsewhere(study):
    photos, _, _ = next(study.batches(4))
    m = study.saliency_map(photos)
    shuffled = REGIONS["random"](photos, photos, m)
    assert torch.equal(shuffled.flatten(1).sort(1).values, m.flatten(1).sort(1).values)
    assert not torch.equal(shuffled, m)
    assert torch.equal(shuffled, REGIONS["random"](photos, photos, m))


def test_a_loss_on_features_runs_in_a_study(study):
    photos, labels, _ = next(study.batches(2))
    target = study.targets(labels, ATTRIBUTES[:2])
    m = study.saliency_map(photos)
    attack = attacker("i-fgsm", loss="features", steps=2)
    moved = study.disrupt(photos, target, attack, m)
    fakes = [study.generate(x, target) for x in (photos, moved)]
    assert (metrics.feature_distance(*fakes, study.saliency.feature_maps) > 0).all()


@pytest.fixture
def damaged(tmp_path):
    """A folder of four photos, the first of them no picture."""
    shipped = load_faces(n_images=3, image_size=64)
    for i in range(3):
        to_pil(shipped[i].image).save(tmp_path / f"{i + 1}.png")
    (tmp_path / "0.png").write_text("no picture")
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_the_next_faces_stand_in_for_unreadable_ones(damaged):
    two = studies.open_study(faces=str(damaged), n_images=2, image_size=64, device="cpu")
    attack = evaluation.attackers(["fgsm"], 0.05, 0.01, 1)["fgsm"]
    whole = studies.open_study(faces=str(damaged), image_size=64, device="cpu").faces
    expected = torch.stack([whole[i].image for i in (1, 2)])
    said = r"left out: .*0.png is not a readable picture"
    with pytest.warns(UserWarning, match=said):
        assert torch.equal(demonstration.clean_edits(two)[0], expected)
    with pytest.warns(UserWarning, match=said):
        assert torch.equal(demonstration.edit_faces(two, attack, "Male").photos, expected)
    names = {"1.png", "2.png"}
    with pytest.warns(UserWarning, match=said):
        left = robustness.remaining_damage(two, {"fgsm": attack}, {}, progress=False)
    assert set(left["face_id"]) == names
    with pytest.warns(UserWarning, match=said):
        curves = trade_off.curves(two, ["fgsm"], [0.01, 0.02], 1, progress=False)
    assert set(curves["face_id"]) == names
    for path in (damaged / name for name in ("1.png", "2.png")):
        path.write_text("no picture")
    with pytest.warns(UserWarning, match=said):
        assert two.readable().faces.ids == ["3.png"]
    (damaged / "3.png").unlink()
    with pytest.warns(UserWarning, match=said), pytest.raises(SalattackError, match="none of the"):
        demonstration.clean_edits(two)


@pytest.mark.filterwarnings("error")
def test_a_batch_that_is_too_large_is_halved_and_said_once(study):
    from dataclasses import replace

    photos, labels, _ = next(study.batches(4))
    target = study.targets(labels, ATTRIBUTES[:4])
    m = study.saliency_map(photos)
    attack = attacker("saliency-aware", steps=1)
    whole = study.disrupt(photos, target, attack, m)
    generator = study.generator

    def small(images, labels):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generator(images, labels)

    with pytest.warns(UserWarning, match="4 images at a time .* going on with 2") as said:
        halved = replace(study, generator=small).disrupt(photos, target, attack, m)
    assert len(said) == 1
    assert ((halved - whole).abs() < 0.001).float().mean() > 0.99

    def none(images, labels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        replace(study, generator=none).disrupt(photos[:1], target[:1], attack, m[:1])


def test_a_shared_perturbation_is_never_halved(study):
    photos, labels, _ = next(study.batches(4))
    target, m = study.targets(labels, ATTRIBUTES[:4]), study.saliency_map(photos)

    def small(images, labels):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return study.generator(images, labels)

    with pytest.raises(SalattackError, match=r"4 images .* give a smaller batch_size or fewer"):
        replace(study, generator=small).disrupt(photos, target, attacker("universal"), m)


def test_several_edits_at_once_are_halved_with_their_photos(study):
    photos, labels, _ = next(study.batches(4))
    target, m = study.targets(labels, ["joint"] * 4), study.saliency_map(photos)
    attack, generator = attacker("class-iterative", steps=1, edits="joint"), study.generator

    def small(images, labels):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generator(images, labels)

    with pytest.warns(UserWarning, match="going on with 2"):
        halved = replace(study, generator=small).disrupt(photos, target, attack, m)
    whole = study.disrupt(photos, target, attack, m)
    assert ((halved - whole).abs() < 0.001).float().mean() > 0.99


def test_every_attacker_has_a_label():
    assert set(LABELS) == set(ATTACKERS)


def test_masks_of_the_shipped_faces_are_sound():
    shipped = studies.open_study(n_images=6, device="cpu")
    quality, photos, maps = demonstration.mask_quality(shipped, batch_size=4)
    assert sorted(quality["face_id"]) == sorted(shipped.faces.ids)
    assert quality["inside"].is_monotonic_increasing
    assert (quality["inside"] >= 0.9).all() and (quality["corners"] <= 0.1).all()
    worst = shipped.faces.ids.index(quality["face_id"][0])
    assert torch.equal(photos[0], shipped.faces[worst].image)
    inside = maps[0, 0, shipped.faces.face_ellipse(worst)].mean().item()
    assert inside == pytest.approx(quality["inside"][0], rel=1e-5)

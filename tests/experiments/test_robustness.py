import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from salattack.attacks import Attack, UnmovedWarning
from salattack.errors import SalattackError
from salattack.experiments import evaluation, robustness
from salattack.experiments.robustness import SAVED, TRANSFORMS, TWICE, edited
from salattack.experiments.study import open_study
from salattack.generators import ATTRIBUTES, edit_labels
from salattack.images import as_saved, to_pil, to_tensor, to_uint8
from salattack.presets import attacker
from salattack.reporting import charts, style

IDS = ["a", "b", "c"]
FEW = {name: TRANSFORMS[name] for name in ("JPEG 30", "noise σ 0.05")}


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=3, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def attacks():
    return evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 3)


@pytest.fixture(scope="module")
def rows(study, attacks):
    return robustness.remaining_damage(study, attacks, batch_size=2, progress=False)


@pytest.fixture
def no_attack():
    return {"i-fgsm": Attack(bound=0.0)}


# The transforms


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_gives_another_saved_picture_of_the_same_photo(name, photos):
    after = edited(TRANSFORMS[name], photos, IDS)
    assert after.shape == photos.shape and after.dtype == photos.dtype
    assert torch.equal(as_saved(after), after)
    assert torch.equal(after, photos) == (name == SAVED)
    error = (after - photos).square().flatten(1).mean(1)
    # Cropping moves the picture; all others hardly change it.
    assert error.max() < (0.3 if name.startswith("crop") else 0.05), name


def test_each_transform_starts_from_the_saved_picture(photos):
    unsaved = photos * 0.77
    assert not torch.equal(as_saved(unsaved), unsaved)
    for transform in TRANSFORMS.values():
        expected = edited(transform, as_saved(unsaved), IDS)
        assert torch.equal(edited(transform, unsaved, IDS), expected)


def test_jpeg_is_that_of_another_encoder(photos):
    for quality in (95, 30):
        ours = robustness.jpeg(photos, quality)
        for picture, image in zip(ours, photos, strict=True):
            to_pil(image).save(buffer := io.BytesIO(), "JPEG", quality=quality)
            assert (picture - to_tensor(Image.open(buffer))).abs().mean() < 0.01


def test_lower_qualities_and_wider_blurs_change_more(photos):
    def change(name):
        return (edited(TRANSFORMS[name], photos, IDS) - photos).square().flatten(1).mean(1)

    for order in (
        ("JPEG 95", "JPEG 75", "JPEG 50", "JPEG 30"),
        *robustness.HARDER,
    ):
        changes = torch.stack([change(name) for name in order])
        assert (changes[1:] > changes[:-1]).all(), order


def test_resizing_cropping_and_posterising_by_hand():
    ramp = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64)
    inner = (..., slice(8, -8))
    assert torch.allclose(robustness.resize_and_back(ramp, 0.5)[inner], ramp[inner], atol=0.01)
    cropped = robustness.crop_and_resize(ramp, 0.5)  # the middle half, at half the slope
    assert torch.allclose(cropped[inner], ramp[inner] / 2, atol=0.01)
    levels = to_uint8(TRANSFORMS["4-bit posterise"](ramp)).unique()
    assert (levels % 16 == 0).all() and len(levels) > 8


def test_the_noise_depends_on_seed_and_face_alone(photos):
    transform = TRANSFORMS["noise σ 0.05"]
    grey = torch.zeros_like(photos)
    drawn = edited(transform, grey, IDS)
    assert drawn.std() == pytest.approx(0.05, rel=0.02)
    assert torch.equal(edited(transform, grey[1:], IDS[1:]), drawn[1:])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(edited(transform, grey, IDS, seed=1), drawn)
    # The same on the photo and on the disrupted photo, up to rounding.
    other = edited(transform, grey + 0.1, IDS) - as_saved(grey + 0.1)
    assert (other - (drawn - as_saved(grey))).abs().max() < 0.009


def test_torchs_own_generator_is_left_alone(photos):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    edited(TRANSFORMS["noise σ 0.05"], photos, IDS)
    assert torch.equal(torch.rand(2), expected)


# What is left


def test_one_row_for_each_combination(rows):
    names = [*TRANSFORMS, TWICE]
    assert len(rows) == 3 * 2 * len(names)
    assert list(rows["transform"].unique()) == names
    assert not rows.duplicated(["face_id", "attribute", "attacker", "transform"]).any()
    assert list(rows.groupby("face_id", sort=False)["attribute"].first()) == list(ATTRIBUTES[:3])
    assert rows.notna().all(axis=None) and (rows["damage_l2"] > 0).all()


def test_the_untouched_damage_is_that_of_the_evaluation(study, attacks, rows):
    other = evaluation.evaluate(study, attacks, batch_size=2, progress=False)
    keys = ["face_id", "attribute", "attacker"]
    other = other[other["precision"] == "uint8"].set_index(keys).sort_index()
    ours = rows[rows["transform"] == SAVED].set_index(keys).sort_index()
    for measure in ("l2", "damage_l1", "damage_l2", "success"):
        np.testing.assert_allclose(ours[measure], other[measure], rtol=1e-5)
    assert (ours["remaining"] == 1).all()


def test_a_row_by_hand(study, attacks, rows):
    face = study.faces[1]
    photo = face.image[None]
    photos, labels, _ = next(study.batches(2))
    first = torch.cat([edit_labels(labels[i : i + 1], ATTRIBUTES[i]) for i in (0, 1)])
    maps = study.saliency_map(photos)
    disrupted = as_saved(study.disrupt(photos, first, attacks["i-fgsm"], maps))[1:]
    found = rows.query("face_id == @face.face_id and attacker == 'i-fgsm'").set_index("transform")

    def damage(*pair):
        return (pair[0] - pair[1]).square().mean().item()

    edit, again = first[1:], edit_labels(first[1:], ATTRIBUTES[2])
    pictures = [as_saved(robustness.jpeg(image, 50)) for image in (photo, disrupted)]
    assert found.loc["JPEG 50", "l2"] == pytest.approx(damage(*pictures), rel=1e-4)
    fakes = [study.generate(picture, edit) for picture in pictures]
    assert found.loc["JPEG 50", "damage_l2"] == pytest.approx(damage(*fakes), rel=1e-3)
    fakes = [study.generate(image, edit) for image in (photo, disrupted)]
    untouched = damage(*fakes)
    expected = found.loc["JPEG 50", "damage_l2"] / untouched
    assert found.loc["JPEG 50", "remaining"] == pytest.approx(expected, rel=1e-3)
    twice = damage(*(study.generate(fake, again) for fake in fakes))
    assert found.loc[TWICE, "damage_l2"] == pytest.approx(twice, rel=1e-3)
    assert abs(twice / untouched - 1) > 0.01  # a second edit, not the first


def test_the_table_does_not_depend_on_the_batches(study, attacks, rows):
    whole = robustness.remaining_damage(study, attacks, FEW, batch_size=100, progress=False)
    assert list(whole["transform"].unique()) == [SAVED, *FEW, TWICE]
    keys = ["face_id", "attribute", "attacker", "transform"]
    ours, theirs = (r.set_index(keys)["damage_l2"] for r in (rows, whole))
    # Rounding differs with the batch and sign() amplifies it.
    np.testing.assert_allclose(theirs, ours.loc[theirs.index], rtol=0.15)


@pytest.mark.slow
def test_several_edits_at_once_are_each_edited_again(study, attacks):
    attack = {"i-fgsm": attacks["i-fgsm"]}
    rows = robustness.remaining_damage(study, attack, FEW, targets="joint", progress=False)
    assert len(rows) == 3 * (2 + len(FEW)) and set(rows["attribute"]) == {"joint"}
    photos, labels, _ = next(study.batches(3))
    target = study.targets(labels, ["joint"] * 3)
    moved = study.disrupt(photos, target, attack["i-fgsm"], study.saliency_map(photos))
    damage = 0
    for first, second in zip(ATTRIBUTES, (*ATTRIBUTES[1:], ATTRIBUTES[0]), strict=True):
        once, labels_then = study.targets(labels, [first] * 3), edit_labels(labels, first)
        again = study.targets(labels_then, [second] * 3)
        clean, broken = (
            study.generate(study.generate(as_saved(x), once), again) for x in (photos, moved)
        )
        damage = damage + (broken - clean).square().flatten(1).mean(1) / len(ATTRIBUTES)
    found = rows.loc[rows["transform"] == TWICE, "damage_l2"].to_numpy()
    assert found == pytest.approx(damage.numpy(), rel=1e-3)


def test_what_a_transform_does_by_itself_is_no_damage(study, no_attack):
    with pytest.warns(UnmovedWarning):
        rows = robustness.remaining_damage(study, no_attack, FEW, progress=False)
    assert (rows[["l2", "damage_l2", "success"]] == 0).all(axis=None)
    assert robustness.summarise(rows)["remaining"].isna().all()
    assert robustness.percent_left(robustness.summarise(rows)).iloc[0, 0] == "–"


def test_harder_transforms_leave_less(rows):
    found = robustness.harder_leaves_less(rows)
    assert list(found.index) == ["I-FGSM", "Saliency-Aware"]
    assert found.columns[0] == "Gaussian blur σ 2 below Gaussian blur σ 1"
    assert (found == "3 of 3").all(axis=None)
    swap = dict(robustness.HARDER) | {b: a for a, b in robustness.HARDER}
    swapped = rows.assign(transform=rows["transform"].replace(swap))
    assert (robustness.harder_leaves_less(swapped) == "0 of 3").all(axis=None)


def test_an_attack_through_a_blur_survives_the_blur_better():
    study = open_study(n_images=1, image_size=64, device="cpu")
    attacks = evaluation.attackers(["i-fgsm", "spread-spectrum"], 0.05, 0.01, 9)
    blur = {name: TRANSFORMS[name] for name in ("Gaussian blur σ 2", "average blur 5")}
    table = robustness.summarise(robustness.remaining_damage(study, attacks, blur, progress=False))[
        "remaining"
    ].unstack()
    assert (table.loc[list(blur), "spread-spectrum"] > 2 * table.loc[list(blur), "i-fgsm"]).all()


def test_bad_input_is_refused(study, attacks, tmp_path):
    refuse = robustness.remaining_damage
    with pytest.raises(SalattackError, match="batch_size must be ≥ 1, got 0"):
        refuse(study, attacks, batch_size=0)
    with pytest.raises(SalattackError, match="no attacker to measure"):
        refuse(study, {})
    with pytest.raises(SalattackError, match="unknown target 'Bald'"):
        refuse(study, attacks, targets="Bald")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    damaged = open_study(faces=str(tmp_path), image_size=64, device="cpu")
    with pytest.raises(SalattackError, match=r"broken\.png is not a readable picture"):
        refuse(damaged, attacks, progress=False)


# Tables and the figure


def made_up(values):
    """Rows of I-FGSM on one edit: (face, transform, damage)."""
    frame = pd.DataFrame(values, columns=["face_id", "transform", "damage_l2"])
    success = (frame["damage_l2"] > 0.05).astype(float)
    return frame.assign(attacker="i-fgsm", attribute="Male", l2=0.002, success=success)


def test_the_summary_by_hand():
    untouched = [("a", SAVED, 0.10), ("b", SAVED, 0.30)]
    rows = made_up([*untouched, ("b", "blur", 0.15), ("a", "blur", 0.01)])  # faces in disorder
    summary = robustness.summarise(rows)
    table = summary.loc[("blur", "i-fgsm")]
    assert table["faces"] == 2 and table["success"] == 0.5
    assert table["damage_l2"] == pytest.approx(0.08)
    assert table["remaining"] == pytest.approx(0.16 / 0.40)  # the mean of ratios is 0.3
    assert table["remaining_low"] == pytest.approx(0.1)  # of face a alone: drawn in pairs
    assert table["remaining_high"] == pytest.approx(0.5)  # of face b alone
    assert (table["damage_l2_low"], table["damage_l2_high"]) == pytest.approx((0.01, 0.15))
    text = robustness.percent_left(summary)
    assert list(text.columns) == ["I-FGSM"] and list(text.index) == [SAVED, "blur"]
    assert text.loc["blur", "I-FGSM"] == "40 [10, 50]"


def test_a_face_counts_once_however_many_edits_it_has():
    rows = made_up([("a", SAVED, 0.1), ("a", SAVED, 0.3), ("b", SAVED, 0.3)])
    rows = rows.assign(attribute=["Male", "Young", "Male"])
    table = robustness.summarise(rows).loc[(SAVED, "i-fgsm")]
    assert table["faces"] == 2 and table["damage_l2"] == pytest.approx(0.25)


def test_a_proportional_loss_has_no_width():
    faces = [(f, SAVED, d) for f, d in (("a", 0.1), ("b", 0.2), ("c", 0.6))]
    rows = made_up([*faces, *((f, "blur", d / 4) for f, _, d in faces)])
    table = robustness.summarise(rows).loc[("blur", "i-fgsm")]
    found = table[["remaining", "remaining_low", "remaining_high"]].to_numpy(float)
    assert found == pytest.approx(0.25)
    assert table["damage_l2_low"] < table["damage_l2"] < table["damage_l2_high"]


def test_a_single_face_has_no_interval():
    rows = made_up([("a", SAVED, 0.1), ("a", "blur", 0.05)])
    table = robustness.summarise(rows)
    assert table.filter(regex="_(low|high)$").isna().all(axis=None)
    assert robustness.percent_left(table).loc["blur", "I-FGSM"] == "50"


def test_tables_are_saved(rows, tmp_path):
    table = robustness.summarise(rows)
    robustness.save_left(tmp_path / "new", table)
    paths = [tmp_path / "new" / f"robustness.{end}" for end in ("csv", "md")]
    saved = pd.read_csv(paths[0], index_col=["transform", "attacker"])
    pd.testing.assert_frame_equal(saved, table, rtol=1e-4, check_dtype=False)
    lines = paths[1].read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4 + len(TRANSFORMS) + 1 and "Saliency-Aware" in lines[2]
    assert lines[0].startswith("Damage left, in % of that on the untouched")
    with pytest.raises(SalattackError, match="cannot write"):
        robustness.save_left(paths[0], table)


def test_the_figure_is_readable_without_colour_and_comes_as_pdf_too(rows, tmp_path):
    table = robustness.summarise(rows)
    figure = charts.robustness(table)
    path = style.save(figure, tmp_path / "robustness.png", vector=True)
    with Image.open(path) as image:
        assert image.width >= 2000 and image.info["dpi"][0] == pytest.approx(300, abs=1)
    markers = [line.get_marker() for line in figure.axes[0].lines if "(" in line.get_label()]
    assert len(set(markers)) == len(markers) == table.index.unique("attacker").size
    assert (tmp_path / "robustness.pdf").read_bytes().startswith(b"%PDF")
    assert "%" in figure.axes[0].get_xlabel()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [*TRANSFORMS, TWICE]
    style.save(figure, tmp_path / "alone.png")
    assert not (tmp_path / "alone.pdf").exists()


def test_a_fake_that_must_break_after_transforms_does_and_costs_more(study):
    attack = attacker("minimum-norm", steps=25, radius_step=0.2, until=0.02)
    names = ["JPEG 75", "resize ½ and back"]
    two, few = (
        replace(study, faces=study.faces.subset(2)),
        {name: TRANSFORMS[name] for name in names},
    )
    plain, asked = (
        robustness.remaining_damage(
            two, {"minimum-norm": attack}, few, asked_after=after, progress=False
        )
        for after in ((), names)
    )
    left = [rows[rows["transform"].isin(names)]["damage_l2"] for rows in (plain, asked)]
    assert left[0].min() < 0.02 < left[1].min()
    saved = [rows[rows["transform"] == SAVED] for rows in (plain, asked)]
    assert (saved[1]["damage_l2"] > 0.02).all()
    assert (saved[1]["l2"].to_numpy() > saved[0]["l2"].to_numpy()).all()
    with pytest.raises(SalattackError, match="unknown transform 'GIF'; known: 8 bits, JPEG 95"):
        robustness.remaining_damage(two, {"minimum-norm": attack}, asked_after=["GIF"])

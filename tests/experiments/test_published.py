"""The generators of others, stood in for by narrow networks of their kinds."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from published import AGING, ANIME, small

from salattack.experiments import published, transfer
from salattack.experiments.demonstration import example
from salattack.experiments.study import open_study
from salattack.experiments.text import PUBLISHED_DAMAGE
from salattack.generators import edits_of
from salattack.presets import attacker
from salattack.runtime import assets

STRENGTHS = [(0.05, 0.02, 2), (0.1, 0.04, 2)]
NAMES = ["i-fgsm", "eot-blur", "saliency-aware"]


def study_of(name, n_images=3):
    study = open_study(n_images=n_images, image_size=64, device="cpu")
    return replace(study, generator=small(name), edits=edits_of(name))


@pytest.fixture(scope="module")
def rows():
    parts = {
        name: published.measure(study_of(name), NAMES, STRENGTHS, once=["eot-blur"], progress=False)
        for name in (AGING, ANIME)
    }
    return pd.concat(parts, names=["generator"]).reset_index("generator")


def test_a_row_for_each_generator_bound_and_attacker(rows):
    table = published.summarise(rows)
    wanted = [*NAMES, *published.VARIANTS]
    for name in (AGING, ANIME):
        assert list(table.loc[(name, 0.05)].index) == wanted
        assert list(table.loc[(name, 0.1)].index) == [n for n in wanted if n != "eot-blur"]
    assert (table["faces"] == 3).all()
    stronger = table["damage_l2"].drop("eot-blur", level="attacker").unstack("bound")
    assert (stronger[0.1] > stronger[0.05]).all()


def test_damage_is_told_beside_the_edits_own_change(rows):
    study = study_of(ANIME)
    photos, labels, _ = next(study.batches(3))
    own = (study.generate(photos, study.targets(labels, ["Cute"] * 3)) - photos).square()
    table = published.summarise(rows).loc[(ANIME, 0.1, "i-fgsm")]
    assert table["edit_l2"] == pytest.approx(own.mean().item(), rel=1e-5)
    assert table["relative"] == pytest.approx(table["damage_l2"] / table["edit_l2"])


def test_prices_compare_with_and_without(rows):
    table = published.summarise(rows)
    prices = published.prices(table).loc[(AGING, 0.1)]
    damage = table.loc[(AGING, 0.1), "damage_l2"]
    assert prices["mask"] == damage["saliency-aware"] / damage[published.NO_MASK]
    assert prices["blur"] == damage["saliency-aware"] / damage[published.NO_BLUR]
    own, free = attacker("saliency-aware"), published.VARIANTS[published.NO_MASK]
    assert own.region == "saliency" and free == {"region": "everywhere"}


def test_photos_of_one_size_reach_generators_of_another(photos):
    g = small(ANIME)
    target = torch.zeros(3, 1)
    assert torch.equal(transfer.at_size(g, 64)(photos, target), g(photos, target))
    other = transfer.at_size(g, 96)
    moved = photos.clone().requires_grad_()
    assert other(moved, target).shape == photos.shape
    other(moved, target).sum().backward()
    assert moved.grad.abs().sum() > 0


def test_sentences_and_files(rows, tmp_path):
    table = published.summarise(rows)
    models = {
        name: transfer.asked(small(name), edits_of(name), edits_of(name).names[0])
        for name in (AGING, ANIME)
    }
    attack = attacker("i-fgsm", steps=2)
    matrix = transfer.across(study_of(AGING), models, attack, progress=False)
    said = published.sentences(table, matrix)
    broken = (table.loc[(slice(None), 0.1, "i-fgsm"), "damage_l2"] > 0.05).sum()
    assert f"I-FGSM breaks {broken} of 2 generators" in said and "median over pairs" in said
    PUBLISHED_DAMAGE.save(tmp_path, table)
    back = pd.read_csv(tmp_path / "published.csv")
    assert {"generator", "bound", "attacker", "relative", "success_low"} <= set(back)
    assert "nan" not in (tmp_path / "published.md").read_text()


def test_the_least_and_the_greatest_of_the_smallest_changes_are_named():
    rows = {"psnr": [38.0, 44.0, 20.0], "success": [1.0, 0.9, 0.0]}
    keys = [("a", "minimum-norm", 2.0), ("b", "minimum-norm", 2.0), ("b", "pgd", 0.05)]
    index = pd.MultiIndex.from_tuples(keys, names=["generator", "attacker", "bound"])
    said = published.smallest_sentence(pd.DataFrame(rows, index))
    assert "breaks 90 to 100 %" in said and "38.0 dB (a) and 44.0 dB (b)" in said


def test_an_example_is_a_photo_its_fake_and_the_broken_ones():
    study = study_of(AGING, 1)
    attacks = [attacker("i-fgsm"), attacker("saliency-aware", steps=2)]
    shown = example(study, study.edits.names[0], attacks)
    photo = next(study.batches(1))[0]
    assert torch.equal(shown.pictures[0], photo[0]) and len(shown.pictures) == len(shown.fakes) == 3
    broken = (shown.fakes[1] - shown.fakes[0]).square().mean().item()
    assert shown.damage[0] == pytest.approx(broken)


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path))
    here, missing = published.at_hand()
    assert here == [] and list(missing) == list(published.FIVE)
    path = assets.known(AGING).path
    path.parent.mkdir(parents=True)
    path.touch()
    here, missing = published.at_hand()
    assert here == [AGING] and missing[ANIME] == f"salattack assets fetch {ANIME}"

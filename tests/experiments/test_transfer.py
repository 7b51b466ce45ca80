import pytest
import torch

from salattack.errors import SalattackError
from salattack.experiments.study import open_study
from salattack.experiments.transfer import ENSEMBLE, across, asked, load
from salattack.generators import AttGAN, CycleGAN, StarGAN, edits_of, load_generator
from salattack.presets import attacker
from salattack.reporting import charts, style


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=3, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def generators():
    torch.manual_seed(0)
    other = CycleGAN(8, 1).requires_grad_(False)
    one = asked(load_generator(device="cpu"), StarGAN.edits, "Male")
    return {"one": one, "other": asked(other, edits_of("cyclegan-blond128-w32"), "Blond_Hair")}


def test_what_is_aimed_at_suffers_most(study, generators, tmp_path):
    attack = attacker("i-fgsm", steps=4)
    matrix = across(study, generators, attack, batch_size=2, progress=False)
    assert list(matrix.index) == ["one", "other", ENSEMBLE] and list(matrix) == ["one", "other"]
    for name in generators:
        assert matrix[name].idxmax() == name
        assert matrix.loc[ENSEMBLE, name] > matrix.loc[matrix.index != name, name].min()
    style.save(charts.transfer(matrix), tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_a_universal_perturbation_is_measured_on_other_faces(study, generators):
    attack, seen = attacker("universal", steps=2), []

    def counted(images, target):
        if not torch.is_grad_enabled():
            seen.append(len(images))
        return generators["one"](images, target)

    matrix = across(study, {"one": counted}, attack, made_from=2, progress=False)
    assert (matrix > 0).all(axis=None)
    # Aimed at it alone and as an ensemble: references of the two, then fakes of the third.
    assert seen == [2, 2, 1, 1, 1, 1]


def test_what_does_not_go_together_is_refused(study, generators):
    with pytest.raises(SalattackError, match="made_from belongs to a shared"):
        across(study, generators, attacker("pgd"), made_from=1)
    with pytest.raises(SalattackError, match="made_from belongs to a shared"):
        across(study, generators, attacker("universal"))
    with pytest.raises(SalattackError, match="3 of 3 faces make the perturbation"):
        across(study, generators, attacker("universal"), made_from=3)


def test_each_is_asked_for_an_edit_of_its_own(study, generators):
    photos, labels, _ = next(study.batches(3))
    plain = load_generator(device="cpu")
    expected = plain(photos, StarGAN.edits.targets(plain, labels, ["Male"] * 3))
    assert torch.equal(generators["one"](photos, labels), expected)
    torch.manual_seed(0)
    third = AttGAN(4).requires_grad_(False).eval()
    both = {**generators, "third": asked(third, AttGAN.edits, "Young")}  # 13 attributes, not five
    matrix = across(study, both, attacker("saliency-aware", steps=1), progress=False)
    assert matrix.shape == (4, 3) and matrix.notna().all(axis=None)
    with pytest.raises(SalattackError, match=r"edit of cyclegan-blond128-w32 .*Blond_Hair"):
        load({"cyclegan-blond128-w32": "Male"})

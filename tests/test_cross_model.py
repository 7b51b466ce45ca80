import pytest
import torch

from salattack import charts, figures
from salattack.attacks import attacker
from salattack.cross_model import ENSEMBLE, across
from salattack.errors import SalattackError
from salattack.generators import CycleGAN, load_generator
from salattack.study import open_study


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=3, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def generators():
    torch.manual_seed(0)
    other = CycleGAN(8, 1).requires_grad_(False)
    return {"one": load_generator(device="cpu"), "other": other}


def test_what_is_aimed_at_suffers_most(study, generators, tmp_path):
    matrix = across(
        study, generators, attacker("i-fgsm", steps=4), "Male", batch_size=2, progress=False
    )
    assert list(matrix.index) == ["one", "other", ENSEMBLE] and list(matrix) == ["one", "other"]
    for name in generators:
        assert matrix[name].idxmax() == name
        assert matrix.loc[ENSEMBLE, name] > matrix.loc[matrix.index != name, name].min()
    figures.save(charts.transfer(matrix), tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_a_universal_perturbation_is_measured_on_other_faces(study, generators):
    attack, seen = attacker("universal", steps=2), []

    def counted(images, target):
        if not torch.is_grad_enabled():
            seen.append(len(images))
        return generators["one"](images, target)

    matrix = across(study, {"one": counted}, attack, "Male", made_from=2, progress=False)
    assert (matrix > 0).all(axis=None)
    # Aimed at it alone and as an ensemble: references of the two, then fakes of the third.
    assert seen == [2, 2, 1, 1, 1, 1]


def test_what_does_not_go_together_is_refused(study, generators):
    with pytest.raises(SalattackError, match="made_from belongs to a shared"):
        across(study, generators, attacker("pgd"), "Male", made_from=1)
    with pytest.raises(SalattackError, match="made_from belongs to a shared"):
        across(study, generators, attacker("universal"), "Male")
    with pytest.raises(SalattackError, match="3 of 3 faces make the perturbation"):
        across(study, generators, attacker("universal"), "Male", made_from=3)

"""What a GPU computes is what the CPU computes; skipped where there is none."""

from dataclasses import replace

import pytest
import torch

from salattack.errors import SalattackError
from salattack.experiments.evaluation import attackers, evaluate
from salattack.experiments.study import open_study
from salattack.generators import load_generator
from salattack.metrics import fake_damage
from salattack.presets import ATTACKERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def networks():
    """The shipped generator in double precision on both devices: sign() amplifies rounding."""
    return {place: load_generator(device=place).double() for place in ("cpu", "cuda")}


@pytest.mark.parametrize("name", ATTACKERS)
def test_every_preset_agrees_with_the_cpu(name, networks, photos, target, saliency_map):
    attack = replace(ATTACKERS[name], steps=min(ATTACKERS[name].steps, 3))
    region = None if attack.region == "everywhere" else saliency_map.double()
    tensors = photos.double(), target.double(), region
    results = []
    for place, g in networks.items():
        x, wanted, m = (None if t is None else t.to(place) for t in tensors)
        result = attack(g, x, wanted, m)
        assert result.device.type == place
        results.append((result.cpu(), fake_damage(g(x, wanted), g(result, wanted))["damage_l2"]))
    (here, damage), (there, damage_there) = results
    assert (here - there).abs().max() <= 2 * attack.bound  # both stay in the same ball
    assert ((here - there).abs() > 1e-6).float().mean() < 0.01
    torch.testing.assert_close(damage, damage_there.cpu(), rtol=0.01, atol=1e-5)


def test_the_loop_copies_nothing_to_the_device(networks, photos, target, saliency_map):
    x, wanted, m = (t.double().cuda() for t in (photos, target, saliency_map))
    attack = replace(ATTACKERS["saliency-aware"], steps=1)
    attack(networks["cuda"], x, wanted, m)  # fills the caches

    def copies(steps):
        with torch.profiler.profile() as seen:
            replace(attack, steps=steps)(networks["cuda"], x, wanted, m)
        return sum(event.count for event in seen.key_averages() if "HtoD" in event.key)

    assert copies(6) == copies(1)


def test_a_study_measures_the_same_on_both_devices():
    attacks = attackers(["i-fgsm", "saliency-aware"], 0.05, 0.01, 5)
    here, there = (
        evaluate(open_study(n_images=4, device=place), attacks, progress=False)
        for place in ("cpu", "cuda")
    )
    keys = ["face_id", "attacker", "precision"]
    means = [rows.groupby(keys)[["l1", "damage_l2"]].mean().mean() for rows in (here, there)]
    assert means[0].to_numpy() == pytest.approx(means[1].to_numpy(), rel=0.02)


def test_a_full_device_is_one_sentence_for_a_shared_attack():
    study = open_study(n_images=2, device="cuda")
    photos, labels, _ = next(study.batches(2))
    many = photos.repeat(4096, 1, 1, 1)
    target = study.targets(labels, ["Male"] * 2).repeat(4096, 1)
    maps = torch.ones(len(many), 1, *many.shape[-2:], device="cuda")
    room = (torch.cuda.memory_reserved() + 2**32) / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, room))
    try:
        with pytest.raises(SalattackError, match="too many for the memory"):
            study.disrupt(many, target, ATTACKERS["universal"], maps)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

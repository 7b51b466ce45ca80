import math

import pandas as pd
import pytest
import torch

from salattack.metrics import fake_damage
from salattack.presets import attacker
from salattack.workflow import benchmark


def test_the_reference_loop_is_the_same_attack(generator, photos, target):
    slow = benchmark.reference_loop(generator, photos[:2], target[:2])
    fast = attacker("i-fgsm")(generator, photos[:2], target[:2])
    assert (slow - photos[:2]).abs().max() <= 0.05 + 1e-6
    clean = generator(photos[:2], target[:2])
    damage = [
        fake_damage(clean, generator(x, target[:2]))["damage_l2"].mean().item()
        for x in (slow, fast)
    ]
    assert 0.4 < damage[0] / damage[1] < 2.5  # other starts off the plateau, the same loop


def test_every_row_is_measured(monkeypatch):
    seconds = benchmark.seconds
    monkeypatch.setattr(benchmark, "seconds", lambda work: seconds(work, at_least=0.01))
    monkeypatch.setattr(benchmark, "MATRIX", 128)
    monkeypatch.setattr(benchmark, "STRENGTH", (0.05, 0.01, 2))
    names = ["i-fgsm", "saliency-aware"]
    rows = pd.DataFrame(benchmark.timings(32, 8, 2, names, torch.device("cpu")))
    assert list(rows["what"]) == ["I-FGSM", "Saliency-Aware", "mask alone", "reference loop"]
    assert (rows[["forward_ms", "iteration_ms", "forwards", "process_peak_mb"]] > 0).all(axis=None)
    first = rows.iloc[0]
    assert first["forwards"] == pytest.approx(first["iteration_ms"] / first["forward_ms"])
    assert (rows["plain_forwards"] > 0).all()
    assert math.isnan(rows.iloc[2]["rate"]) and first["rate"] > 0
    shown = benchmark.as_markdown(rows.assign(rate=[0.5, 1.25, math.nan, 0.5]))
    assert "1.25" not in shown and shown.count("0.5 ") == 2

"""Attackers × faces × attributes → one tidy table, a row for each measured picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from .attacks import ATTACKERS, LABELS, Attack
from .errors import SalattackError, one_of
from .generators import ATTRIBUTES
from .metrics import as_saved, fake_damage, photo_change
from .study import Study, edit_targets, progress_bar

PRECISIONS = {"uint8": as_saved, "float32": lambda images: images}


def aims(targets: str, first: int, n: int) -> list[list[str]]:
    """Return which attribute each of ``n`` faces is attacked on, one list for each round.

    Args:
        targets: "rotate" gives every face one attribute, in turn; "all" attacks every face on
            all five; an attribute's name attacks every face on that one.
        first: place of the first of these faces in the whole set.
        n: how many faces.

    Raises:
        SalattackError: an unknown target.
    """
    if targets == "rotate":
        return [[ATTRIBUTES[(first + i) % len(ATTRIBUTES)] for i in range(n)]]
    if targets == "all":
        return [[name] * n for name in ATTRIBUTES]
    if targets not in ATTRIBUTES:
        raise one_of("target", targets, ("rotate", "all", *ATTRIBUTES))
    return [[targets] * n]


def attackers(
    names: Sequence[str] | None, bound: float, step_size: float, steps: int, seed: int = 0
) -> dict[str, Attack]:
    """Return presets by name, all at one strength; every attacker when ``names`` is None.

    Raises:
        SalattackError: an unknown attacker, bound < 0, step_size ≤ 0 or steps < 1.
    """
    chosen = list(ATTACKERS) if names is None else names
    for name in chosen:
        if name not in ATTACKERS:
            raise one_of("attacker", name, ATTACKERS)
    return {
        name: replace(ATTACKERS[name].with_strength(bound, step_size, steps), seed=seed)
        for name in chosen
    }


def evaluate(
    study: Study,
    attacks: Mapping[str, Attack],
    *,
    targets: str = "rotate",
    batch_size: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack every face with every attacker, and measure both sides of the trade.

    Args:
        study: faces and models.
        attacks: name → attacker.
        targets: see `aims`.
        batch_size: faces at a time; may exceed the set.
        progress: show a bar on stderr: attacker, images done, time left.

    Returns:
        One row per face × attacker × attribute × precision with the columns of `photo_change`
        and `fake_damage`. Precision "uint8" is what a user would save; "float32" is unrounded.

    Raises:
        SalattackError: an unknown target, or a face that cannot be read.
    """
    if batch_size < 1:
        raise SalattackError(f"batch_size must be ≥ 1, got {batch_size}")
    rounds = len(aims(targets, 0, 1))
    work = len(study.faces) * rounds * sum(attack.gradients for attack in attacks.values())
    rows: list[pd.DataFrame] = []
    done = 0
    with progress_bar(work, hidden=not progress) as bar:
        for photos, labels, ids in study.batches(batch_size):
            for attributes in aims(targets, done, len(ids)):
                target = edit_targets(labels, attributes)
                for name, attack in attacks.items():
                    bar.set_description(f"{done}/{len(study.faces)} images · {LABELS[name]}")
                    result = study.disrupt(photos, target, attack, bar.update)
                    keys = {"face_id": ids, "attacker": name, "attribute": attributes}
                    for precision, measures in _measure(study, photos, target, *result):
                        keys["precision"] = precision
                        rows.append(pd.DataFrame(keys | measures))
            done += len(ids)
    return pd.concat(rows, ignore_index=True)


def _measure(
    study: Study, photos: Tensor, target: Tensor, perturbed: Tensor, saliency_map: Tensor
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    features = getattr(study.saliency, "feature_maps", None)
    for precision, store in PRECISIONS.items():
        before, after = store(photos), store(perturbed)
        measures = photo_change(before, after, saliency_map, features)
        measures |= fake_damage(study.generate(before, target), study.generate(after, target))
        yield precision, {name: values.cpu().numpy() for name, values in measures.items()}

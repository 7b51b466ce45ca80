"""Photos disrupted against one generator, or one edit, are given to the others.

Generators differ in their targets, but all can be asked by a face's labels: `asked` returns a
generator that takes labels as its target and makes one edit of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks import Attack, universal_perturbation
from ..edits import Targets
from ..errors import SalattackError, one_of
from ..generators import GENERATORS, EditSet, Ensemble, edits_of, load_generator
from ..images import as_saved
from ..interfaces import Generator
from ..metrics import fake_damage
from ..presets import label_of
from ..runtime.progress import progress_bar
from .study import Study
from .text import Column, as_text, save_table

ENSEMBLE, IN_TURN = "all at once", "all in turn"


def asked(generator: Generator, edits: EditSet, edit: str) -> Generator:
    """Return g as one that takes (N, 5) labels of the faces and makes its ``edit`` of them."""

    def ask(images: Tensor, labels: Tensor) -> Tensor:
        return generator(images, edits.targets(generator, labels, [edit] * len(images)))

    return ask


def at_size(generator: Generator, side: int) -> Generator:
    """Return g as one that sees photos of any size resized to its own, and answers in theirs."""

    def resized(images: Tensor, target: Targets) -> Tensor:
        size = images.shape[-2:]
        if size == (side, side):
            return generator(images, target)
        to = partial(F.interpolate, mode="bilinear", antialias=True)
        return to(generator(to(images, (side, side)), target).to(images.dtype), size)

    return resized


def load(edits: Mapping[str, str], device: str = "auto") -> dict[str, Generator]:
    """Return generators of the registry by name, each `asked` for one of its ``edits``.

    All take photos of one size, see `at_size`.

    Raises:
        SalattackError: an unknown name, an edit that the generator does not make, no weights.
    """
    found = {}
    for name, edit in edits.items():
        if edit not in edits_of(name).names:
            raise one_of(f"edit of {name}", edit, edits_of(name).names)
        g = asked(load_generator(name, device=device), edits_of(name), edit)
        found[name] = at_size(g, GENERATORS[name].image_size)
    return found


def each_edit(study: Study) -> dict[str, Generator]:
    """Return the study's generator, `asked` for each of its edits, by the edit's name."""
    return {name: asked(study.generator, study.edits, name) for name in study.edits.names}


def across(
    study: Study,
    generators: Mapping[str, Generator],
    attack: Attack,
    *,
    made_from: int = 0,
    in_turn: bool = False,
    batch_size: int = 10,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the damage that photos, disrupted against one generator, do to each.

    The study gives faces and saliency; its own generator takes no part. The target of these is the
    labels of the faces, see `asked` and `each_edit`. A ``shared`` attack makes its one perturbation
    from the first ``made_from`` faces, which are not measured.

    Returns:
        Mean ``damage_l2`` in [-1, 1] of the saved photos: a row for each generator aimed at, for
        all of them at once (the sum of their losses) and, if ``in_turn``, for all of them, one an
        iteration (see `Attack.edits`); a column for each that is then asked.

    Raises:
        SalattackError: no face can be read or is left to be measured, or ``made_from`` does not
            go with the attack.
    """
    if attack.shared != (made_from > 0):
        raise SalattackError("made_from belongs to a shared perturbation, and to no other")
    study = study.readable()
    if made_from >= len(study.faces):
        raise SalattackError(
            f"{made_from} of {len(study.faces)} faces make the perturbation: none is left"
        )
    members = tuple(generators.values())
    aims = {**generators, ENSEMBLE: Ensemble(*members)}
    if in_turn and not attack.shared:
        aims[IN_TURN] = lambda images, labels: members[int(labels[0, -1])](images, labels[:, :-1])
    damage: dict[str, list[Tensor]] = {name: [] for name in aims}
    work = len(aims) * (made_from or len(study.faces)) * attack.gradients
    shared: dict[str, Tensor] = {}
    with progress_bar(work, hidden=not progress) as bar:
        if attack.shared:
            photos, labels, _ = next(study.batches(made_from))
            for name, g in aims.items():
                shared[name] = universal_perturbation(attack, g, photos, labels)
                bar.update(made_from * attack.gradients)
        kept = replace(study, faces=study.faces.subset(slice(made_from, None)))
        for photos, labels, _ in kept.batches(batch_size):
            saliency_map = study.saliency_map(photos)
            for name, g in aims.items():
                bar.set_description(f"against {name}")
                target, chosen = labels, attack
                if name == IN_TURN:  # the last label says whose turn it is
                    target = tuple(F.pad(labels, (0, 1), value=i) for i in range(len(members)))
                    chosen = replace(attack, edits="cycle")
                if attack.shared:
                    moved = (photos + shared[name]).clamp(-1, 1)
                else:
                    against = replace(study, generator=g)
                    moved = against.disrupt(photos, target, chosen, saliency_map, bar.update)
                damage[name].append(_damages(members, photos, as_saved(moved), labels))
    table = {name: torch.cat(parts).mean(0).tolist() for name, parts in damage.items()}
    columns = pd.Index(generators, name="tested on")
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("aimed at")


@torch.no_grad()
def _damages(members: Sequence[Generator], photos: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """Return the damage (N, generators) to the fake of each."""
    pairs = ((g(photos, labels), g(moved, labels)) for g in members)
    return torch.stack([fake_damage(*pair)["damage_l2"] for pair in pairs], 1).cpu()


def table(matrices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `across` of several attackers, by name, as one table."""
    named = {label_of(name): matrix for name, matrix in matrices.items()}
    return pd.concat(named, names=["attacker"]).round(4)


def save_matrices(folder: str | Path, matrices: Mapping[str, pd.DataFrame]) -> None:
    """Write `table` as ``transfer.csv`` and ``transfer.md``."""
    whole = table(matrices)
    text = as_text(whole, [Column(f"damage to {name}", name, 4) for name in whole])
    title = (
        "Damage (MSE in [-1, 1]) to each generator, by the generator aimed at: means over faces."
    )
    save_table(folder, "transfer", whole, text, title)

"""The smallest change of the photo that breaks the fake, beside attackers of a fixed strength.

Table I fixes the strength and shows how little the photo changes. Here the fake has to break, and
the change that this takes is what is measured. Any `Study` will do, whatever its generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ..attacks import Attack
from ..errors import SalattackError
from ..images import as_saved
from ..metrics import fake_damage, photo_change
from ..presets import MINIMUM_NORM, at_strength, attacker
from .evaluation import evaluate_variants
from .statistics import mean_over_faces, median_over_people, share_of_rows, summarised
from .study import Study
from .text import Column, as_text, save_table

SMALLEST = ("minimum-norm", "minimum-norm-everywhere")
Key = tuple[str, float]  # of an attacker: its name and bound
NO_LIMIT = 2.0  # a bound that holds back nothing in [-1, 1]: that of a minimum-norm attacker
MEASURES = {
    "success": share_of_rows,
    **dict.fromkeys(("psnr", "ssim"), median_over_people),
    **dict.fromkeys(("l1", "l2", "background_l1", "damage_l2"), mean_over_faces),
}
COLUMNS = (
    Column("broken %", "success", 0, 100),
    Column("PSNR in dB, median", "psnr", 1),
    Column("SSIM, median", "ssim", 3),
    Column("L1 in [0, 1]", "l1", 4, 0.5),
    Column("L2 × 100 in [0, 1]", "l2", 4, 25),
    Column("background L1 in [0, 1]", "background_l1", 4, 0.5),
    Column("damage: MSE in [-1, 1]", "damage_l2", 3),
    Column("gradients", "gradients", 0),
)
TITLE = (
    "Change of the photo, and share of fakes above 0.05: medians over photos and edits, means over "
    "photos [95 % over people; of shares exact, over fakes], saved photos."
)


def attacks(
    fixed: Sequence[str],
    strengths: Sequence[tuple[float, float, int]],
    smallest: Sequence[str] = SMALLEST,
    gradients: int = MINIMUM_NORM.steps,
    *,
    seed: int = 0,
) -> dict[Key, Attack]:
    """Return attackers by name and bound: ``fixed`` ones at each strength, ``smallest`` ones once.

    ``strengths`` are bound and step in [-1, 1], and steps. A minimum-norm attacker's bound is
    `NO_LIMIT`, and it spends so many ``gradients`` on a photo and an edit.

    Raises:
        SalattackError: an unknown attacker, or ``smallest`` names one of a fixed strength.
    """
    chosen = {
        (name, strength[0]): replace(at_strength(name, *strength), seed=seed)
        for name, strength in product(fixed, strengths)
    }
    for name in smallest:
        attack = attacker(name, steps=gradients, seed=seed)
        if attack.until is None:
            raise SalattackError(f"{name} has a fixed strength; give it in fixed")
        chosen[name, attack.bound] = attack
    return chosen


def measure(study: Study, attacks: Mapping[Key, Attack], **options: object) -> pd.DataFrame:
    """Return the rows of `attacks` by ``attacker`` and ``bound``, with the ``gradients`` of each.

    Options and errors are those of `evaluate_variants`.
    """
    rows = evaluate_variants(study, attacks, ("attacker", "bound"), **options)
    keys = zip(rows["attacker"], rows["bound"], strict=True)
    return rows.assign(gradients=[attacks[key].gradients for key in keys])


def summarise(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise `measure` for each attacker and bound, in order of appearance.

    Columns: ``faces`` and ``samples`` (a face and an edit each); ``success``, the share of broken
    fakes; the medians over samples of ``psnr`` in dB and ``ssim``; the other means over faces, in
    [-1, 1]; each with ``_low`` and ``_high`` (95 %); and ``gradients`` for each sample.
    """
    table = summarised(rows, ["attacker", "bound"], MEASURES, seed)
    groups = rows.groupby(["attacker", "bound"], sort=False)["gradients"]
    table.insert(1, "samples", groups.size())
    return table.assign(gradients=groups.mean())


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return `summarise`'s result as text, a row per attacker and bound."""
    bounds = {bound: "–" if bound >= NO_LIMIT else f"{bound:g}" for _, bound in table.index}
    return as_text(table, COLUMNS).rename(index=bounds, level="bound")


def save(folder: str | Path, table: pd.DataFrame) -> None:
    """Write `summarise`'s result as CSV (units of [-1, 1]) and Markdown (as shown)."""
    save_table(folder, "smallest_change", table, presentable(table), TITLE)


class Example(NamedTuple):
    """One photo, and what attackers make of it and of its fake; in [-1, 1], saved with 8 bits."""

    names: list[str]  # of the attackers
    bounds: list[float]  # theirs
    pictures: Tensor  # (1 + attackers, 3, H, W): the photo, then as each has disrupted it
    fakes: Tensor  # theirs, alike
    psnr: list[float]  # of each disrupted photo, in dB
    damage: list[float]  # to the fake of each: MSE


def examples(
    study: Study,
    attacks: Mapping[Key, Attack],
    rows: pd.DataFrame,
    n: int,
    names: Sequence[str] = ("saliency-aware", "minimum-norm"),
) -> list[Example]:
    """Disrupt the first ``n`` faces again, to show them; each on the edit that its rows begin with.

    An attacker of a fixed strength is shown at the least bound that breaks the fake by the
    ``rows`` of `measure`, or at the greatest where none does.

    Raises:
        SalattackError: an attacker that the rows lack.
    """
    study = study.readable()
    study, found = replace(study, faces=study.faces.subset(n)), []
    for photo, labels, (face_id,) in study.batches(1):
        mine = rows[rows["face_id"] == face_id]
        edit = mine["attribute"].iloc[0]
        target, saliency_map = study.targets(labels, [edit]), study.saliency_map(photo)
        bounds, pictures = [], [photo]
        for name in names:
            tried = mine.query("attacker == @name and attribute == @edit").sort_values("bound")
            if tried.empty:
                raise SalattackError(f"{name} was not measured; add it to the attackers")
            broken = tried[tried["success"] == 1]
            bounds.append(float((tried.tail(1) if broken.empty else broken)["bound"].iloc[0]))
            attack = attacks[name, bounds[-1]]
            pictures.append(as_saved(study.disrupt(photo, target, attack, saliency_map)))
        fakes = [study.generate(picture, target) for picture in pictures]
        psnr = [photo_change(photo, p, saliency_map)["psnr"].item() for p in pictures[1:]]
        damage = [fake_damage(fakes[0], fake)["damage_l2"].item() for fake in fakes[1:]]
        both = torch.cat(pictures), torch.cat(fakes)[:, :3]  # of several edits, the first
        found.append(Example(list(names), bounds, *both, psnr, damage))
    return found

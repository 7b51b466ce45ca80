"""Generators that others trained and published: which attackers break them, and at what price.

The five differ in kind, size and edit. Each attacker is aimed at each generator itself, at several
strengths; the saliency-aware one also without its mask and without its blur.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ..attacks import Attack
from ..errors import SalattackError
from ..generators import GENERATORS
from ..images import as_saved
from ..metrics import SUCCESS, fake_damage
from ..presets import PLATEAU, label_of
from ..runtime import assets
from .evaluation import attackers as at_one_strength
from .evaluation import evaluate_variants
from .statistics import Estimate, mean_over_faces, share_of_rows, summarised
from .study import Study
from .text import Column, as_text, save_table

# Trained and published by others, and small enough to run on a processor; then the shipped two.
PUBLISHED = (
    "aging-cacd-128",
    "animeganv3-cute",
    "cartoongan-hosoda",
    "cartoongan-shinkai",
    "dpr-512",
)
SHIPPED = ("stargan-celeba128-w32", "cyclegan-blond128-w32")
NO_MASK, NO_BLUR = "Saliency-Aware without its mask", "Saliency-Aware without its blur"
VARIANTS = {NO_MASK: {"region": "everywhere"}, NO_BLUR: {"blurs": (), "start": PLATEAU}}
COLUMNS = (
    Column("faces", "faces", 0),
    Column("PSNR of the photo, dB", "psnr", 1),
    Column("damage: MSE in [-1, 1]", "damage_l2", 3),
    Column("broken %", "success", 0, 100),
    Column("damage, % of the edit's own change", "relative", 0, 100),
)


def at_hand() -> tuple[list[str], dict[str, str]]:
    """Return the generators of `PUBLISHED` that are in the cache, and how to get each other one."""
    paths = {name: assets.known(GENERATORS[name].asset).path for name in PUBLISHED}
    here = [name for name, path in paths.items() if path.exists()]
    return here, {name: f"salattack assets fetch {name}" for name in PUBLISHED if name not in here}


def measure(
    study: Study,
    attackers: Sequence[str],
    strengths: Sequence[tuple[float, float, int]],
    *,
    once: Collection[str] = (),
    seed: int = 0,
    **options: object,
) -> pd.DataFrame:
    """Aim attackers, and the saliency-aware one without its mask or blur, at a study's generator.

    ``strengths`` are (bound, step size, steps), see `at_strength`; attackers that cost much run
    ``once``, at the first. Returns the rows of `evaluate_variants`, with its ``options``, by
    ``attacker`` and ``bound``.

    Raises:
        SalattackError: an unknown attacker, or as `evaluate`.
    """
    attacks = {}
    for place, strength in enumerate(strengths):
        chosen = at_one_strength(attackers, *strength, seed)
        if ours := chosen.get("saliency-aware"):
            chosen |= {name: replace(ours, **changes) for name, changes in VARIANTS.items()}
        kept = {name: a for name, a in chosen.items() if not (place and name in once)}
        attacks |= {(name, strength[0]): attack for name, attack in kept.items()}
    return evaluate_variants(study, attacks, ("attacker", "bound"), **options)


def summary(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row per generator, bound and attacker of `measure`'s rows of several generators.

    Columns: ``faces``; means with ``_low`` and ``_high`` (95 %, over people) of ``psnr`` in dB,
    ``damage_l2`` and ``edit_l2`` in [-1, 1] and ``relative``, damage over the edit's own change
    of the photo; ``success``, the share of broken fakes, with its exact interval.
    """

    def relative(group: pd.DataFrame, _: str, seed: int) -> Estimate:
        return mean_over_faces(group, "damage_l2", seed, "edit_l2")

    measures = dict.fromkeys(("psnr", "damage_l2", "edit_l2"), mean_over_faces)
    measures |= {"success": share_of_rows, "relative": relative}
    table = summarised(rows, ["generator", "bound", "attacker"], measures, seed)
    return table.sort_index(level=["generator", "bound"], sort_remaining=False)


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return `summary`'s result as text."""
    return as_text(table, COLUMNS)


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """Return the damage with the ``mask`` or ``blur`` as a share of that without it.

    A row per generator and bound of `summary`, which has the saliency-aware attacker.
    """
    damage = table["damage_l2"].unstack("attacker")
    ours = damage["saliency-aware"]
    return pd.DataFrame({"mask": ours / damage[NO_MASK], "blur": ours / damage[NO_BLUR]})


def findings(table: pd.DataFrame, matrix: pd.DataFrame) -> str:
    """Say in sentences what `summary` and the transfer ``matrix`` of the same generators show."""
    bound = table.index.unique("bound").max()
    strong = table.xs(bound, level="bound")["damage_l2"].groupby(level="attacker", sort=False)
    lines = [
        f"{label_of(name)} breaks {(damage > SUCCESS).sum()} of {len(damage)} generators on "
        f"average, at bound {bound:g}."
        for name, damage in strong
    ]
    lines += [
        f"With the {name}, the attack keeps {100 * share.min():.0f} to {100 * share.max():.0f} % "
        "of its damage."
        for name, share in prices(table).items()
    ]
    own = matrix.to_numpy().diagonal()
    others = matrix.iloc[: len(own)].to_numpy() / own
    strange = others[~np.eye(len(own), dtype=bool)]
    if len(strange):
        lines.append(
            f"A photo disrupted against another network does {100 * np.median(strange):.0f} % of "
            "the damage of one disrupted against the network itself (median over pairs)."
        )
    return "\n".join(lines)


def side_by_side(study: Study, attacks: Iterable[Attack]) -> tuple[list[Tensor], list]:
    """Return a study's first photo and the first edit that g makes of it, clean and disrupted.

    They are I_org, g(I_org) and g(I_ptb) of each attacker, (3, H, W) in [-1, 1], and the error of
    each to g(I_org), None for the first two.
    """
    photo, labels, _ = next(study.readable().batches(1))
    target = study.targets(labels, study.edits.names[:1])
    fake = study.generate(photo, target)
    pictures, errors = [photo[0], fake[0]], [None, None]
    for attack in attacks:
        moved = as_saved(study.disrupt(photo, target, attack, study.saliency_map(photo)))
        broken = study.generate(moved, target)
        pictures.append(broken[0])
        errors.append(fake_damage(fake, broken)["damage_l2"].item())
    return pictures, errors


def save(folder: str | Path, table: pd.DataFrame) -> None:
    """Write `summary` as ``published.csv`` and ``.md``; `SalattackError` if it has no rows."""
    if table.empty:
        raise SalattackError("no generator was measured")
    title = "Each attacker aimed at each generator, bound in [-1, 1]: means over faces [95 %]."
    save_table(folder, "published", table, presentable(table), title)

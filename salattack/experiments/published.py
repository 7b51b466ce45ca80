"""Generators that others trained and published: which attackers break them, and at what price.

The five differ in kind, size and edit. Each attacker is aimed at each generator itself, at several
strengths; the saliency-aware one also without its mask and without its blur.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..generators import GENERATORS
from ..metrics import SUCCESS
from ..presets import PLATEAU, label_of
from ..runtime import assets
from .evaluation import at_bounds, evaluate_variants
from .statistics import mean_over_faces, share_of_rows, summarised
from .study import Study

# Trained and published by others, and small enough to run on a processor; then the shipped two.
FIVE = (
    "aging-cacd-128",
    "animeganv3-cute",
    "cartoongan-hosoda",
    "cartoongan-shinkai",
    "dpr-512",
)
STUDENTS = ("stargan-celeba128-w32", "cyclegan-blond128-w32")
NO_MASK, NO_BLUR = "Saliency-Aware without its mask", "Saliency-Aware without its blur"
VARIANTS = {NO_MASK: {"region": "everywhere"}, NO_BLUR: {"blurs": (), "start": PLATEAU}}


def at_hand() -> tuple[list[str], dict[str, str]]:
    """Return the generators of `FIVE` that are in the cache, and how to get each other one."""
    paths = {name: assets.known(GENERATORS[name].asset).path for name in FIVE}
    here = [name for name, path in paths.items() if path.exists()]
    return here, {name: f"salattack assets fetch {name}" for name in FIVE if name not in here}


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
    ``once``, at the first. Returns the rows of `evaluate_variants`, whose options and errors it
    has, by ``attacker`` and ``bound``.
    """
    often = [name for name in attackers if name not in once]
    attacks = at_bounds(attackers, strengths[:1], seed) | at_bounds(often, strengths[1:], seed)
    ours = {bound: a for (name, bound), a in attacks.items() if name == "saliency-aware"}
    for name, changes in VARIANTS.items():
        attacks |= {(name, bound): replace(a, **changes) for bound, a in ours.items()}
    return evaluate_variants(study, attacks, ("attacker", "bound"), **options)


def summarise(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row per generator, bound and attacker of `measure`'s rows of several generators.

    Columns: ``faces``; means with ``_low`` and ``_high`` (95 %, over people) of ``psnr`` in dB,
    ``damage_l2`` and ``edit_l2`` in [-1, 1] and ``relative``, damage over the edit's own change
    of the photo; ``success``, the share of broken fakes, with its exact interval.
    """
    measures = dict.fromkeys(("psnr", "damage_l2", "edit_l2"), mean_over_faces)
    measures["success"] = share_of_rows
    measures["relative"] = lambda rows, _, seed: mean_over_faces(rows, "damage_l2", seed, "edit_l2")
    table = summarised(rows, ["generator", "bound", "attacker"], measures, seed)
    return table.sort_index(level=["generator", "bound"], sort_remaining=False)


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """Return the damage with the ``mask`` or ``blur`` as a share of that without it.

    A row per generator and bound of `summarise`, which has the saliency-aware attacker.
    """
    damage = table["damage_l2"].unstack("attacker")
    ours = damage["saliency-aware"]
    return pd.DataFrame({"mask": ours / damage[NO_MASK], "blur": ours / damage[NO_BLUR]})


def sentences(table: pd.DataFrame, matrix: pd.DataFrame) -> str:
    """Say in sentences what `summarise` and the transfer ``matrix`` of the same generators show."""
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


def smallest_sentence(table: pd.DataFrame) -> str:
    """Say how little the minimum-norm attack changes the photos, by `smallest_change.summarise`."""
    found = table.xs("minimum-norm", level="attacker").droplevel("bound")
    psnr, share = found["psnr"], found["success"]
    return (
        f"{label_of('minimum-norm')} breaks {100 * share.min():.0f} to {100 * share.max():.0f} % "
        f"of the fakes. The median PSNR of the photo is between {psnr.min():.1f} dB "
        f"({psnr.idxmin()}) and {psnr.max():.1f} dB ({psnr.idxmax()})."
    )

"""Both sides of an attack at once: damage to the fake against change of the photo.

The paper's Table I shows the change only, at one strength. Here every attacker is run at several
bounds. Attackers are compared where they do the same damage, or change the photo as much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SalattackError
from ..presets import at_strength
from .evaluation import evaluate_variants
from .statistics import by_person, estimate, person_of, ratio_of_means
from .study import Study
from .text import Column, as_text, save_table

STEP_SHARE = 0.2  # of the bound: Ruiz et al.'s 0.01 at 0.05
POINTS = 101  # of a curve, for the area under it
COLUMNS = (
    Column("L1 in [0, 1]", "l1", 4, 0.5),
    Column("L2 × 100 in [0, 1]", "l2", 4, 25),
    Column("background L1 in [0, 1]", "background_l1", 4, 0.5),
    Column("SSIM", "ssim", 3),
    Column("damage: MSE in [-1, 1]", "damage_l2", 4),
    Column("damage where edited", "damage_edited", 4),
    Column("damage in features", "damage_features", 3),
    Column("broken %", "success", 0, 100),
    Column("edit left %", "edit_left", 0, 100),
)
EQUAL = (
    Column("level", "level", 4),
    Column("value there", "value", 5),
    Column("ratio to the reference", "ratio", 2),
)


def curves(
    study: Study,
    attackers: Sequence[str],
    bounds: Sequence[float],
    steps: int = 10,
    *,
    seed: int = 0,
    **options: object,
) -> pd.DataFrame:
    """Return the rows of attackers at several bounds, the step being a fifth of each.

    ``options`` are those of `evaluate_variants`; the columns ``attacker`` and ``bound``.

    Raises:
        SalattackError: as `evaluate`; an unknown attacker; fewer than two bounds.
    """
    if len(set(bounds)) < 2:
        raise SalattackError(f"a curve needs two different bounds or more, got {list(bounds)}")
    attacks = {
        (name, bound): replace(at_strength(name, bound, STEP_SHARE * bound, steps), seed=seed)
        for name, bound in product(attackers, sorted(set(bounds)))
    }
    return evaluate_variants(study, attacks, ("attacker", "bound"), **options)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every measure for each attacker and bound, in order of appearance."""
    numbers = rows.select_dtypes("number").columns.difference(["place", "bound"])
    return rows.groupby(["attacker", "bound"], sort=False)[list(numbers)].mean().reset_index()


def presentable(means: pd.DataFrame) -> pd.DataFrame:
    """Return `means` as a table to read.

    ``edit left %`` is the distance of the broken fake to the photo as a share of the fake's, 0 for
    an edit that is nullified. Measures in features need a saliency model that has them.
    """
    return as_text(means.set_index(["attacker", "bound"]), COLUMNS)


def at_equal(
    rows: pd.DataFrame,
    held: str = "damage_l2",
    compared: str = "l2",
    *,
    level: float | None = None,
    reference: str = "i-fgsm",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare attackers where the measure ``held`` is the same: interpolated on their mean curves.

    Every curve begins at the origin, where nothing is changed and nothing is damaged. People are
    drawn for all attackers alike (paired).

    Returns:
        A row per attacker of `curves`: ``level`` of the measure ``held``, where None is nine tenths
        of the highest that all reach; ``value`` of the measure ``compared`` there and its ``ratio``
        to the reference, each with ``_low`` and ``_high`` (95 %), NaN where it is not reached.

    Raises:
        SalattackError: the reference is not among the rows.
    """
    curves, everyone = _curves(rows, held, compared)
    if reference not in curves:
        raise SalattackError(f"the reference {reference} is not among these attackers")
    if level is None:
        level = 0.9 * _least_end(curves, everyone)

    def read(name: str, chosen: np.ndarray) -> np.ndarray:
        x, y = curves[name](chosen)
        return np.where(x[..., -1] >= level, _read(level, x, y), np.nan)

    def ratio(name: str, chosen: np.ndarray) -> np.ndarray:
        return read(name, chosen) / read(reference, chosen)

    return _table(curves, everyone, {"level": level}, seed, value=read, ratio=ratio)


def area(
    rows: pd.DataFrame, cost: str = "l2", gain: str = "damage_l2", *, seed: int = 0
) -> pd.DataFrame:
    """Return the ``area`` under each attacker's curve: its mean ``gain`` up to a common ``cost``.

    The range ends at the least of the attackers' greatest mean costs, ``up_to``.
    """
    curves, everyone = _curves(rows, cost, gain)
    up_to = _least_end(curves, everyone)

    def under(name: str, chosen: np.ndarray) -> np.ndarray:
        x, y = curves[name](chosen)
        return sum(_read(level, x, y) for level in np.linspace(0, up_to, POINTS)) / POINTS

    return _table(curves, everyone, {"up_to": up_to}, seed, area=under)


def save(folder: str | Path, means: pd.DataFrame, at_equal_damage: pd.DataFrame) -> None:
    """Write ``trade_off_means`` and ``trade_off_at_equal_damage``, each as CSV and Markdown."""
    title = "Damage and change of each attacker at each bound: means over faces, saved photos."
    save_table(folder, "trade_off_means", means, presentable(means), title)
    title = "Change of the photo, L2 in [-1, 1], at equal damage (level: MSE in [-1, 1]) [95 %]."
    text = as_text(at_equal_damage, EQUAL)
    save_table(folder, "trade_off_at_equal_damage", at_equal_damage, text, title)


Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _curve(bounds: Sequence[np.ndarray], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the mean curve of these people, (..., 1 + bounds); x never falls.

    Each bound's array is (3, people): the sums of x, of y and of faces.
    """
    means = [ratio_of_means(sums[:2, chosen], sums[2, chosen]) for sums in bounds]
    x, y = np.stack([np.zeros_like(means[0]), *means], -1)  # from the origin
    return np.maximum.accumulate(x, -1), y


def _curves(rows: pd.DataFrame, *measures: str) -> tuple[dict[str, Curve], np.ndarray]:
    """Return each attacker's `_curve` as a function of the people chosen, and all people."""
    curves = {}
    for name, group in rows.groupby("attacker", sort=False):
        bounds = [by_person(part, measures).to_numpy().T for _, part in group.groupby("bound")]
        curves[name] = partial(_curve, bounds)
    return curves, np.arange(person_of(rows["face_id"]).nunique())


def _least_end(curves: Mapping[str, Curve], everyone: np.ndarray) -> float:
    return min(curve(everyone)[0][-1] for curve in curves.values())


def _read(level: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return y (...) at x = level of many curves (..., points), as np.interp does of one."""
    after = np.where(x[..., -1] >= level, (x >= level).argmax(-1), x.shape[-1] - 1)
    ends = np.stack([after - 1, after], -1).clip(min=0)
    (x0, x1), (y0, y1) = (np.moveaxis(np.take_along_axis(a, ends, -1), -1, 0) for a in (x, y))
    return y0 + (y1 - y0) * ((level - x0) / np.where(x1 > x0, x1 - x0, 1)).clip(0, 1)


def _table(
    curves: Mapping[str, Curve],
    everyone: np.ndarray,
    head: Mapping[str, float],
    seed: int,
    **statistics: Callable[[str, np.ndarray], np.ndarray],
) -> pd.DataFrame:
    table = {name: dict(head) for name in curves}
    for name, (key, statistic) in product(curves, statistics.items()):
        table[name] |= estimate(partial(statistic, name), everyone, seed=seed).columns(key)
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("attacker")

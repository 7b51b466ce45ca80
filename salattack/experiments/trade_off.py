"""Both sides of an attack at once: damage to the fake against change of the photo.

The paper's Table I shows the change only, at one strength. Here every attacker is run at several
bounds. Attackers are compared where they do the same damage, or change the photo as much.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from ..errors import SalattackError
from .evaluation import at_bounds, evaluate_variants
from .statistics import by_person, interval, person_of, ratio_of_means, redrawn
from .study import Study

STEP_SHARE = 0.2  # of the bound: Ruiz et al.'s 0.01 at 0.05
POINTS = 101  # of a curve, for the area under it
REFERENCE = "i-fgsm"  # whose change of the photo the others' is compared to


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

    Options and errors are those of `evaluate_variants`; the columns ``attacker`` and ``bound``.
    Fewer than two bounds are a `SalattackError`.
    """
    if len(set(bounds)) < 2:
        raise SalattackError(f"a curve needs two different bounds or more, got {list(bounds)}")
    strengths = [(bound, STEP_SHARE * bound, steps) for bound in sorted(set(bounds))]
    attacks = at_bounds(attackers, strengths, seed)
    return evaluate_variants(study, attacks, ("attacker", "bound"), **options)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every measure for each attacker and bound, in order of appearance."""
    numbers = rows.select_dtypes("number").columns.difference(["place", "bound"])
    return rows.groupby(["attacker", "bound"], sort=False)[list(numbers)].mean()


def at_equal(
    rows: pd.DataFrame,
    held: str = "damage_l2",
    compared: str = "l2",
    *,
    level: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare attackers where the measure ``held`` is the same: interpolated on their mean curves.

    Every curve begins at the origin, where nothing is changed and nothing is damaged. People are
    drawn for all attackers alike (paired).

    Returns:
        A row per attacker of `curves`: ``level`` of the measure ``held``, where None is nine tenths
        of the highest that all reach; ``value`` of the measure ``compared`` there and its ``ratio``
        to I-FGSM's, each with ``_low`` and ``_high`` (95 %), NaN where it is not reached.

    Raises:
        SalattackError: I-FGSM is not among the rows.
    """
    curves = _curves(rows, held, compared, seed=seed)
    if REFERENCE not in curves:
        raise SalattackError(f"the reference {REFERENCE} is not among these attackers")
    if level is None:
        level = 0.9 * _least_end(curves)
    read = np.vectorize(partial(np.interp, right=np.nan), signature="(),(n),(n)->()")
    values = {name: read(level, *curve) for name, curve in curves.items()}
    lines = {
        name: {"level": level}
        | interval(value).columns("value")
        | interval(value / values[REFERENCE]).columns("ratio")
        for name, value in values.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("attacker")


def area(
    rows: pd.DataFrame, cost: str = "l2", gain: str = "damage_l2", *, seed: int = 0
) -> pd.DataFrame:
    """Return the ``area`` under each attacker's curve: its mean ``gain`` up to a common ``cost``.

    The range ends at the least of the attackers' greatest mean costs, ``up_to``.
    """
    curves = _curves(rows, cost, gain, seed=seed)
    up_to = _least_end(curves)
    costs = np.linspace(0, up_to, POINTS)
    read = np.vectorize(np.interp, signature="(m),(n),(n)->(m)")
    lines = {
        name: {"up_to": up_to} | interval(read(costs, *curve).mean(-1)).columns("area")
        for name, curve in curves.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("attacker")


Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def _curves(rows: pd.DataFrame, *measures: str, seed: int) -> Curves:
    """Return x and y of each attacker's mean curve, (draws, 1 + bounds), beginning at the origin.

    The first is that of all people, the others those of bootstrap samples. x never falls.
    """
    chosen, curves = redrawn(person_of(rows["face_id"]).nunique(), seed), {}
    for name, group in rows.groupby("attacker", sort=False):
        people = [by_person(part, measures).to_numpy().T for _, part in group.groupby("bound")]
        means = [ratio_of_means(sums[:2, chosen], sums[2, chosen]) for sums in people]
        x, y = np.stack([np.zeros_like(means[0]), *means], -1)
        curves[name] = np.maximum.accumulate(x, -1), y
    return curves


def _least_end(curves: Curves) -> float:
    return min(x[0, -1] for x, _ in curves.values())

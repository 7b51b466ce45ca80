"""Both sides of an attack at once: damage to the fake against change of the photo.

The paper's Table I shows the change only, at one strength. Here every attacker is run at several
bounds. Attackers are compared where they do the same damage, or change the photo as much.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from ..errors import SalattackError
from .evaluation import at_bounds, evaluate_variants
from .statistics import by_person, estimate, person_of, ratio_of_means
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

    ``options`` are those of `evaluate_variants`; the columns ``attacker`` and ``bound``.

    Raises:
        SalattackError: as `evaluate`; an unknown attacker; fewer than two bounds.
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
    curves, everyone = _curves(rows, held, compared)
    if REFERENCE not in curves:
        raise SalattackError(f"the reference {REFERENCE} is not among these attackers")
    if level is None:
        level = 0.9 * _least_end(curves, everyone)
    one = partial(np.interp, right=np.nan)
    interpolate = np.vectorize(one, signature="(),(n),(n)->()")

    def read(name: str, chosen: np.ndarray) -> np.ndarray:
        return interpolate(level, *curves[name](chosen))

    def ratio(name: str, chosen: np.ndarray) -> np.ndarray:
        return read(name, chosen) / read(REFERENCE, chosen)

    return _table(curves, everyone, {"level": level}, seed, value=read, ratio=ratio)


def area(
    rows: pd.DataFrame, cost: str = "l2", gain: str = "damage_l2", *, seed: int = 0
) -> pd.DataFrame:
    """Return the ``area`` under each attacker's curve: its mean ``gain`` up to a common ``cost``.

    The range ends at the least of the attackers' greatest mean costs, ``up_to``.
    """
    curves, everyone = _curves(rows, cost, gain)
    up_to = _least_end(curves, everyone)
    interpolate = np.vectorize(np.interp, signature="(m),(n),(n)->(m)")

    def under(name: str, chosen: np.ndarray) -> np.ndarray:
        return interpolate(np.linspace(0, up_to, POINTS), *curves[name](chosen)).mean(-1)

    return _table(curves, everyone, {"up_to": up_to}, seed, area=under)


MeanCurve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _mean_curve(bounds: Sequence[np.ndarray], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the mean curve of these people, (..., 1 + bounds); x never falls.

    Each bound's array is (3, people): the sums of x, of y and of faces.
    """
    means = [ratio_of_means(sums[:2, chosen], sums[2, chosen]) for sums in bounds]
    x, y = np.stack([np.zeros_like(means[0]), *means], -1)  # from the origin
    return np.maximum.accumulate(x, -1), y


def _curves(rows: pd.DataFrame, *measures: str) -> tuple[dict[str, MeanCurve], np.ndarray]:
    """Return each attacker's `_mean_curve` as a function of the people chosen, and all people."""
    curves = {}
    for name, group in rows.groupby("attacker", sort=False):
        bounds = [by_person(part, measures).to_numpy().T for _, part in group.groupby("bound")]
        curves[name] = partial(_mean_curve, bounds)
    return curves, np.arange(person_of(rows["face_id"]).nunique())


def _least_end(curves: Mapping[str, MeanCurve], everyone: np.ndarray) -> float:
    return min(curve(everyone)[0][-1] for curve in curves.values())


def _table(
    curves: Mapping[str, MeanCurve],
    everyone: np.ndarray,
    head: Mapping[str, float],
    seed: int,
    **statistics: Callable[[str, np.ndarray], np.ndarray],
) -> pd.DataFrame:
    table = {name: dict(head) for name in curves}
    for name, (key, statistic) in product(curves, statistics.items()):
        table[name] |= estimate(partial(statistic, name), everyone, seed=seed).columns(key)
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("attacker")

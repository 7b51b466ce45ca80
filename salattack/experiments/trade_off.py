"""Both sides of an attack at once: damage to the fake against change of the photo.

The paper's Table I shows the change alone, at one strength. Here every attacker is run at several
bounds, and compared where it does the same damage, or changes the photo as much.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, bootstrap

from ..errors import SalattackError
from ..presets import at_strength, label_of
from ..runtime.files import written_whole
from .evaluation import evaluate
from .ledger import Ledger
from .study import Study

STEP_SHARE = 0.2  # of the bound: Ruiz et al.'s 0.01 at 0.05
RESAMPLES = 999
POINTS = 101  # of a curve, for the area under it


def curves(
    study: Study,
    attackers: Sequence[str],
    bounds: Sequence[float],
    steps: int = 10,
    *,
    seed: int = 0,
    targets: str = "rotate",
    batch_size: int = 10,
    ledger: Ledger | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run attackers at several bounds, the step being a fifth of each.

    Returns:
        The rows of `evaluate` for what is saved (8 bits), with the ``bound`` of each.

    Raises:
        SalattackError: as `evaluate`; an unknown attacker; fewer than two bounds.
    """
    if len(set(bounds)) < 2:
        raise SalattackError(f"a curve needs two different bounds or more, got {list(bounds)}")
    attacks = {
        f"{name} @ {bound:g}": replace(
            at_strength(name, bound, STEP_SHARE * bound, steps), seed=seed
        )
        for name in attackers
        for bound in sorted(set(bounds))
    }
    study = study.readable()
    rows = evaluate(
        study, attacks, targets=targets, batch_size=batch_size, ledger=ledger, progress=progress
    )
    names = rows["attacker"].str.rsplit(" @ ", n=1, expand=True)
    rows = rows.assign(attacker=names[0], bound=names[1].astype(float))
    return rows[rows["precision"] == "uint8"].reset_index(drop=True)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every measure for each attacker and bound, in order of appearance."""
    numbers = rows.select_dtypes("number").columns.difference(["place", "bound"])
    return rows.groupby(["attacker", "bound"], sort=False)[list(numbers)].mean().reset_index()


def presentable(means: pd.DataFrame) -> pd.DataFrame:
    """Return `means` as a table to read: both sides of each attacker at each bound.

    Photo errors in [0, 1], as in Table I; damage in [-1, 1]. "in features" needs a saliency
    model with features; other runs have no such column. ``edit left %`` is the distance of
    the broken fake to the photo as a share of the fake's, 0 for an edit that is nullified.
    """
    shown = {
        "L1": means["l1"] / 2,
        "L2 × 100": 25 * means["l2"],
        "background L1": means["background_l1"] / 2,
        "SSIM": means["ssim"],
        "damage": means["damage_l2"],
        "where edited": means["damage_edited"],
        "in features": means.get("damage_features"),
        "broken %": (100 * means["success"]).round().astype(int),
        "edit left %": (100 * means["edit_left"]).round().astype(int),
    }
    index = pd.MultiIndex.from_frame(
        means.assign(attacker=means["attacker"].map(label_of))[["attacker", "bound"]]
    )
    shown = {label: column.to_numpy() for label, column in shown.items() if column is not None}
    return pd.DataFrame(shown, index).round(4)


def at_equal(
    rows: pd.DataFrame,
    held: str = "damage_l2",
    compared: str = "l2",
    *,
    level: float | None = None,
    reference: str = "i-fgsm",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare attackers where one measure is the same: interpolated on their mean curves.

    Every curve begins at the origin, where nothing is changed and nothing is damaged.

    Args:
        rows: from `curves`.
        held: the measure that is held equal.
        compared: the measure that is read off there.
        level: of ``held``; None takes nine tenths of the highest that every attacker reaches.
        reference: the attacker that ratios are taken to.
        seed: of the bootstrap over faces, which are drawn for all attackers alike (paired).

    Returns:
        A row per attacker: ``level``, ``value`` of ``compared``, ``ratio`` to the reference, each
        with ``_low`` and ``_high`` (95 %); NaN where an attacker does not reach the level.

    Raises:
        SalattackError: the reference is not among the rows.
    """
    faces = _by_face(rows, held, compared)
    if reference not in faces:
        raise SalattackError(f"the reference {reference} is not among these attackers")
    if level is None:
        level = 0.9 * min(x.mean(0).max() for x, _ in faces.values())

    def read(name: str, chosen: np.ndarray) -> float:
        x, y = (_curve(part, chosen) for part in faces[name])
        x = np.maximum.accumulate(x)
        return float(np.interp(level, x, y)) if x[-1] >= level else np.nan

    def ratio(name: str, chosen: np.ndarray) -> float:
        return read(name, chosen) / read(reference, chosen)

    return pd.DataFrame.from_dict(
        {
            name: {"level": level}
            | _interval("value", lambda chosen, name=name: read(name, chosen), faces, seed)
            | _interval("ratio", lambda chosen, name=name: ratio(name, chosen), faces, seed)
            for name in faces
        },
        orient="index",
    ).rename_axis("attacker")


def area(
    rows: pd.DataFrame, cost: str = "l2", gain: str = "damage_l2", *, seed: int = 0
) -> pd.DataFrame:
    """Return the area under each attacker's curve: its mean ``gain`` up to a common ``cost``.

    Args:
        rows: from `curves`.
        cost: the measure on the horizontal axis; the range ends at the least of the attackers'
            greatest mean costs.
        gain: the measure on the vertical axis.
        seed: of the bootstrap over faces.

    Returns:
        A row per attacker: ``up_to`` and ``area`` with ``_low`` and ``_high`` (95 %).
    """
    faces = _by_face(rows, cost, gain)
    up_to = min(x.mean(0).max() for x, _ in faces.values())
    grid = np.linspace(0, up_to, POINTS)

    def under(name: str, chosen: np.ndarray) -> float:
        x, y = (_curve(part, chosen) for part in faces[name])
        return float(np.interp(grid, np.maximum.accumulate(x), y).mean())

    return pd.DataFrame.from_dict(
        {
            name: {"up_to": up_to}
            | _interval("area", lambda chosen, name=name: under(name, chosen), faces, seed)
            for name in faces
        },
        orient="index",
    ).rename_axis("attacker")


def answer(at_equal_damage: pd.DataFrame, background: pd.DataFrame) -> str:
    """Say in a line what the mask buys at equal damage.

    Args:
        at_equal_damage: `at_equal` of ``damage_l2`` and ``l2``, with Saliency-Aware among them.
        background: the same for ``background_l1``.
    """

    def ratio(table: pd.DataFrame) -> str:
        row = table.loc["saliency-aware"]
        return f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"

    level = at_equal_damage["level"].iloc[0]
    return (
        f"For the same damage (MSE {level:.3f}) the saliency-aware attack changes the photo by "
        f"{ratio(at_equal_damage)} of I-FGSM's L2, and its background by {ratio(background)} of "
        "I-FGSM's L1."
    )


def save(folder: str | Path, **tables: pd.DataFrame) -> None:
    """Write tables as ``trade_off_NAME.csv``, each beside its place and renamed."""
    for name, table in tables.items():
        with written_whole(Path(folder) / f"trade_off_{name}.csv") as beside:
            table.to_csv(beside, float_format="%.6g")


def _by_face(rows: pd.DataFrame, *measures: str) -> dict[str, list[np.ndarray]]:
    """Return for each attacker one (faces, bounds) array a measure, faces in the same order."""
    tables = {}
    for name, group in rows.groupby("attacker", sort=False):
        wide = group.pivot_table(list(measures), "face_id", "bound")
        tables[str(name)] = [wide[measure].to_numpy() for measure in measures]
    return tables


def _curve(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], values[chosen].mean(0)])


def _interval(
    name: str, statistic: Callable[[np.ndarray], float], faces: dict, seed: int
) -> dict[str, float]:
    everyone = np.arange(len(next(iter(faces.values()))[0]))
    value = statistic(everyone)
    low = high = np.nan
    if len(everyone) > 1 and not np.isnan(value):
        with warnings.catch_warnings():  # a ratio may be the same for all faces: no spread
            warnings.simplefilter("ignore", DegenerateDataWarning)
            drawn = bootstrap(
                (everyone,),
                statistic,
                vectorized=False,
                n_resamples=RESAMPLES,
                method="percentile",
                rng=seed,
            ).bootstrap_distribution
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {name: value, f"{name}_low": low, f"{name}_high": high}

"""Means, ratios and shares with their 95 % intervals, over people."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

RESAMPLES = 9999
SHIPPED_FACE = r"^(P\d+)-(\w+)$"  # "P001-selfie": a person and the kind of picture


def columns_of(key: str) -> list[str]:
    """Return the columns that a table has of an estimate: its value and the interval's ends."""
    return [key, f"{key}_low", f"{key}_high"]


class Estimate(NamedTuple):
    """A number and its 95 % interval, NaN where a single person gives none."""

    value: float
    low: float
    high: float

    def columns(self, key: str) -> dict[str, float]:
        """Return it as columns of a table, named as `columns_of` does."""
        return dict(zip(columns_of(key), self, strict=True))

    def text(self, digits: int, factor: float = 1) -> str:
        """Return it as "value [low, high]", each times ``factor``."""
        if np.isnan(self.value):
            return "–"
        value, low, high = (f"{factor * number:.{digits}f}" for number in self)
        return value if np.isnan(self.low) else f"{value} [{low}, {high}]"


def person_of(face_ids: pd.Series) -> pd.Series:
    """Return who is in each picture: a shipped face's person, elsewhere the picture itself."""
    return face_ids.str.extract(SHIPPED_FACE)[0].fillna(face_ids).rename("person")


def by_person(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return a row per person: each column's sum over the person's ``faces``, and their number.

    A face counts once: it is averaged over its samples first. One without a value gives NaN.
    """
    faces = rows.groupby("face_id")[list(columns)].mean().assign(faces=1.0)
    codes, people = pd.factorize(person_of(faces.index.to_series()), sort=True)
    sums = np.zeros((len(people), faces.shape[1]))
    np.add.at(sums, codes, faces.to_numpy())
    return pd.DataFrame(sums, people, faces.columns)


def mean_over_faces(
    rows: pd.DataFrame, column: str, seed: int = 0, over: str = "faces"
) -> Estimate:
    """Return a measure's mean over faces, or its ratio to that of another; people are drawn."""
    people = by_person(rows.dropna(subset=[column]), [column, *({over} - {"faces"})])
    return estimate(ratio_of_means, *people[[column, over]].to_numpy().T, seed=seed)


def median_over_people(rows: pd.DataFrame, column: str, seed: int = 0) -> Estimate:
    """Return a measure's median over samples; people are drawn with all samples of their faces."""
    found = rows[[column]].assign(person=person_of(rows["face_id"]))
    found["sample"] = found.groupby("person").cumcount()
    samples = found.pivot(index="sample", columns="person", values=column).to_numpy()
    return estimate(lambda *drawn: np.nanmedian(np.stack(drawn), (0, -1)), *samples, seed=seed)


def share_of_rows(rows: pd.DataFrame, column: str, seed: int = 0) -> Estimate:
    """Return the share of rows whose ``column`` is 1, and its exact interval (Clopper, Pearson)."""
    if rows.empty:
        return Estimate(np.nan, np.nan, np.nan)
    ones = int(rows[column].sum())
    return Estimate(ones / len(rows), *binomtest(ones, len(rows)).proportion_ci())


def summarised(
    rows: pd.DataFrame,
    by: Sequence[str],
    measures: Mapping[str, Callable[[pd.DataFrame, str, int], Estimate]],
    seed: int = 0,
) -> pd.DataFrame:
    """Return a row per group, in order of appearance: ``faces`` and each measure with its ends.

    ``measures``: column → its estimate, of a group's rows, the column and the bootstrap's seed.
    """
    lines = []
    for key, group in rows.groupby(list(by), sort=False):
        line = dict(zip(by, key, strict=True)) | {"faces": group["face_id"].nunique()}
        for column, measured in measures.items():
            line |= measured(group, column, seed).columns(column)
        lines.append(line)
    return pd.DataFrame(lines).set_index(list(by))


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean along the last axis."""
    return values.mean(-1)


def ratio_of_means(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the mean of one sample over the mean of another, along the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return values.mean(-1) / reference.mean(-1)


def redrawn(n: int, seed: int = 0, resamples: int | None = None) -> np.ndarray:
    """Return indices of n people and of their bootstrap samples, (1 + resamples, n).

    The first row is everybody, and the only one where a single person is all there is. None takes
    `RESAMPLES`, or fewer for a sample so large that the memory would not hold them.
    """
    resamples = min(RESAMPLES, max(999, 5 * 10**7 // n)) if resamples is None else resamples
    drawn = np.random.default_rng(seed).integers(n, size=(resamples if n > 1 else 0, n))
    return np.concatenate([np.arange(n)[None], drawn])


def interval(values: np.ndarray) -> Estimate:
    """Return a statistic of each row of `redrawn` as the estimate with its percentile interval."""
    value, drawn = float(values[0]), values[1:]
    if not len(drawn) or np.isnan(value):
        return Estimate(value, np.nan, np.nan)
    return Estimate(value, *(float(end) for end in np.nanpercentile(drawn, [2.5, 97.5])))


def estimate(statistic: Callable[..., np.ndarray], *samples: np.ndarray, seed: int = 0) -> Estimate:
    """Return a statistic of (n,) values, one per person, and its percentile bootstrap interval.

    It reduces arrays (..., n) along the last axis. Several samples are drawn together (paired).
    """
    if not len(samples[0]):
        return Estimate(np.nan, np.nan, np.nan)
    chosen = redrawn(len(samples[0]), seed)
    return interval(statistic(*(sample[chosen] for sample in samples)))

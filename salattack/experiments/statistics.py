"""Means with their bootstrap intervals."""

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


def interval(values: np.ndarray, seed: int) -> dict[str, float]:
    """Return the mean of (N,) values, and its 95 % bootstrap interval as ``_low``, ``_high``."""
    mean = values.mean() if len(values) else np.nan
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        low = high = mean if len(values) > 1 else np.nan
    else:
        batch = max(1, 10**7 // len(values))  # bounds the memory of large samples
        interval = bootstrap((values,), np.mean, method="percentile", rng=seed, batch=batch)
        low, high = interval.confidence_interval
    return {"": mean, "_low": low, "_high": high}


def with_interval(row: pd.Series, key: str, digits: int, factor: float = 1) -> str:
    """Return a row's value and its interval, if it has one, as text."""
    value, low, high = (row[f"{key}{end}"] * factor for end in ("", "_low", "_high"))
    text = f"{value:.{digits}f}"
    return text if np.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"

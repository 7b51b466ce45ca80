"""Tables for people to read, and the files that they are saved in."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..presets import label_of
from ..runtime.files import write_text
from .statistics import Estimate


class Column(NamedTuple):
    """One statistic of a table: its label and unit, its key, and how it is printed."""

    label: str
    key: str
    digits: int
    factor: float = 1


def as_text(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return those of these columns that the table has as text, attackers by their labels.

    A cell is "value [low, high]" where the table has ``{key}_low`` and ``{key}_high``, and "–"
    where it has no value.
    """

    def cell(row: pd.Series, column: Column) -> str:
        ends = (row.get(f"{column.key}{end}", np.nan) for end in ("", "_low", "_high"))
        return Estimate(*ends).text(column.digits, column.factor)

    return pd.DataFrame(
        {c.label: [cell(row, c) for _, row in table.iterrows()] for c in columns if c.key in table},
        index=table.index,
    ).rename(index=label_of)


def save_table(
    folder: str | Path,
    name: str,
    table: pd.DataFrame,
    text: pd.DataFrame | None = None,
    title: str = "",
) -> None:
    """Write ``name.csv`` (all numbers) and, of ``text``, ``name.md`` under its title.

    Raises:
        SalattackError: the folder cannot be written to.
    """
    unnamed = table.index.names == [None]
    files = {f"{name}.csv": table.to_csv(index=not unnamed, float_format="%.6g")}
    if text is not None:
        shown = text.reset_index().to_markdown(index=False, disable_numparse=True)
        files[f"{name}.md"] = f"{title}\n\n{shown}\n"
    for file, content in files.items():
        write_text(Path(folder) / file, content)

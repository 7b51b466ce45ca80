"""Tables for people to read, and the files that they are saved in."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
    text = pd.DataFrame(index=table.index)
    for label, key, *form in columns:
        if key in table:
            found = table.reindex(columns=[key, f"{key}_low", f"{key}_high"])
            text[label] = [Estimate(*row).text(*form) for row in found.itertuples(index=False)]
    return text.rename(index=label_of)


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
    unnamed, folder = table.index.names == [None], Path(folder)
    write_text(folder / f"{name}.csv", table.to_csv(index=not unnamed, float_format="%.6g"))
    if text is not None:
        shown = text.reset_index().to_markdown(index=False, disable_numparse=True)
        write_text(folder / f"{name}.md", f"{title}\n\n{shown}\n")

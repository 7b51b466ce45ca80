"""The studies' tables as people read them, and the files that they are saved in."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..presets import MINIMUM_NORM, label_of
from ..runtime.files import write_text
from .statistics import Estimate, columns_of


class Column(NamedTuple):
    """One statistic of a table: its label and unit, its key, and how it is printed."""

    label: str
    key: str
    digits: int
    factor: float = 1


class Layout(NamedTuple):
    """How a study's table is shown and saved: name of its files, title, and columns."""

    name: str
    title: str
    columns: Sequence[Column]

    def text(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table as text, see `as_text`."""
        return as_text(table, self.columns)

    def save(self, folder: str | Path, table: pd.DataFrame) -> None:
        """Write the table as CSV (all numbers) and Markdown (as shown), see `save_table`."""
        save_table(folder, self.name, table, self.text(table), self.title)


def as_text(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return those of these columns that the table has as text, attackers by their labels.

    A cell is "value [low, high]" where the table has ``{key}_low`` and ``{key}_high``, and "–"
    where it has no value. The bound of a minimum-norm attacker, which is no limit, is "–" too.
    """
    text = pd.DataFrame(index=table.index)
    for label, key, *form in columns:
        if key in table:
            found = table.reindex(columns=columns_of(key))
            text[label] = [Estimate(*row).text(*form) for row in found.itertuples(index=False)]
    if "bound" in text.index.names:
        text = text.rename(index={MINIMUM_NORM.bound: "–"}, level="bound")
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


BROKEN = Column("broken %", "success", 0, 100)
DAMAGE = Column("damage: MSE in [-1, 1]", "damage_l2", 3)
CHANGE = (  # from errors in [-1, 1]
    Column("L1 in [0, 1]", "l1", 4, 0.5),
    Column("L2 × 100 in [0, 1]", "l2", 4, 25),
    Column("background L1 in [0, 1]", "background_l1", 4, 0.5),
)
ABLATION = Layout(
    "ablation",
    "One choice of the saliency-aware attack changed at a time: means over faces [95 %; of shares "
    "exact].",
    (
        Column("L1 in [0, 1]", "l1", 4),
        Column("L2 × 100 in [0, 1]", "l2_x100", 4),
        Column("background L1 in [0, 1]", "background_l1", 4),
        DAMAGE,
        BROKEN,
        Column("damage per L2, relative", "damage_per_l2", 2),
    ),
)
PUBLISHED_DAMAGE = Layout(
    "published",
    "Each attacker aimed at each generator, bound in [-1, 1]: means over faces [95 %].",
    (
        Column("faces", "faces", 0),
        Column("PSNR of the photo, dB", "psnr", 1),
        DAMAGE,
        BROKEN,
        Column("damage, % of the edit's own change", "relative", 0, 100),
    ),
)
SMALLEST_CHANGE = Layout(
    "smallest_change",
    "Change of the photo, and share of fakes above 0.05: medians over photos and edits, means over "
    "photos [95 % over people; of shares exact, over fakes], saved photos.",
    (
        BROKEN,
        Column("PSNR in dB, median", "psnr", 1),
        Column("SSIM, median", "ssim", 3),
        *CHANGE,
        DAMAGE,
        Column("gradients", "gradients", 0),
    ),
)
# "edit left %" is the distance of the broken fake to the photo as a share of the fake's, 0 for an
# edit that is nullified. Damage in features needs a saliency model that has them.
TRADE_OFF = Layout(
    "trade_off_means",
    "Damage and change of each attacker at each bound: means over faces, saved photos.",
    (
        *CHANGE,
        Column("SSIM", "ssim", 3),
        DAMAGE._replace(digits=4),
        Column("damage where edited", "damage_edited", 4),
        Column("damage in features", "damage_features", 3),
        BROKEN,
        Column("edit left %", "edit_left", 0, 100),
    ),
)
EQUAL_DAMAGE = Layout(
    "trade_off_at_equal_damage",
    "Change of the photo, L2 in [-1, 1], at equal damage (level: MSE in [-1, 1]) [95 %].",
    (
        Column("level", "level", 4),
        Column("value there", "value", 5),
        Column("ratio to the reference", "ratio", 2),
    ),
)

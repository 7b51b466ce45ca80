"""Table I in the paper's layout, and the damage beside it, as CSV, Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..experiments.table_1 import (
    ERRORS,
    PAPER_SIZES,
    PRINTED,
    by_kind,
    by_sample_size,
    printed_table_1,
    table_1,
)
from ..experiments.text import Column, as_text
from ..presets import label_of
from ..runtime.files import write_text

TITLES = {"tiny": "Tiny (100)", "small": "Small (500)", "middle": "Middle (1000)"}
TITLES |= {"large": "Large (2000)", "average": "Average"}

DAMAGE_COLUMNS = (
    Column("Damage", "damage_l2", 3),
    Column("Broken %", "success", 0, 100),
    Column("PSNR (dB)", "psnr", 1),
    Column("SSIM", "ssim", 3),
    Column("Background L1", "background_l1", 4),
)
KIND_COLUMNS = (Column("L1", "l1", 4), DAMAGE_COLUMNS[-1], DAMAGE_COLUMNS[0])
TABLE_CAPTION = (
    "Table I in the paper's layout: change of the photo, printed and measured here. Best in bold; "
    "a dash marks what was not printed or not measured."
)
DAMAGE_CAPTION = (
    "Damage to the fake (mean squared error in [-1, 1]), share of fakes above 0.05, and change of "
    "the photo. Brackets are 95 % intervals, over people by bootstrap; those of shares are exact "
    "(Clopper and Pearson), over fakes."
)
KINDS_CAPTION = (
    "Selfies, which have real backgrounds, beside portraits, which have plain ones: means with "
    "95 % intervals over people. Damage in [-1, 1]."
)


def paper_layout(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return `by_sample_size`'s errors as the paper prints them: its four attackers and samples.

    A row per attacker and source, "printed" or "here"; columns (sample, error). The average is
    over the paper's four samples, and has a value here only where all four were measured. Another
    sample of this run has a last column of its own, which the paper does not have.
    """
    printed = printed_table_1().pivot(index="attacker", columns="sample", values=list(ERRORS))
    here = sizes[list(ERRORS)].unstack("sample").reindex(PRINTED)
    for error in ERRORS:
        four = here[error].reindex(columns=list(PAPER_SIZES))
        here[error, "average"] = four.mean(axis=1, skipna=False)
    titles = dict(TITLES)
    if "all" in sizes.index.unique("sample"):
        titles["all"] = f"{sizes.loc['all', 'faces'].max()} faces"
    both = pd.concat({"printed": printed, "here": here}).swaplevel().swaplevel(axis=1)
    return both.reindex(
        index=pd.MultiIndex.from_product([PRINTED, ["printed", "here"]]),
        columns=pd.MultiIndex.from_product([titles, ERRORS]),
    ).rename(index=label_of, columns=titles)


def damage_table(table: pd.DataFrame, columns: Sequence[Column] = DAMAGE_COLUMNS) -> pd.DataFrame:
    """Return `table_1`'s result as text, a statistic per column: damage first, then the photo."""
    return as_text(table, columns).rename_axis("Attacker")


def kinds_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return `by_kind`'s result as text: selfies beside portraits."""
    kinds = table.index.unique("kind")
    parts = [damage_table(table.loc[kind], KIND_COLUMNS).add_suffix(f", {kind}s") for kind in kinds]
    order = [f"{column.label}, {kind}s" for column in KIND_COLUMNS for kind in kinds]
    return pd.concat(parts, axis=1)[order]


def shown_layout(layout: pd.DataFrame, bold: str = "**{}**") -> pd.DataFrame:
    """Return `paper_layout` as text, the best of each source in bold (its least error)."""
    text = layout.map("{:.4f}".format)
    text.loc[(slice(None), "printed"), :] = layout.map("{:.3f}".format)
    best = layout.groupby(level=1).transform("min").eq(layout)
    return text.where(~best, text.map(bold.format)).where(layout.notna(), "–")


def flat_layout(sizes: pd.DataFrame, bold: str = "**{}**") -> pd.DataFrame:
    """Return `paper_layout` as text, L1 and L2 × 100 of a sample in one cell."""
    text = shown_layout(paper_layout(sizes), bold)
    samples = text.columns.unique(0)
    cells = {s: text[s].agg(" / ".join, axis=1).replace("– / –", "–") for s in samples}
    return pd.DataFrame(cells).reset_index(names=["Attacker", "L1 / L2 × 100"])


def layout_markdown(sizes: pd.DataFrame) -> str:
    """Return `flat_layout` in Markdown."""
    return flat_layout(sizes).to_markdown(index=False, disable_numparse=True)


def layout_latex(sizes: pd.DataFrame) -> str:
    """Return `paper_layout` as a LaTeX table: booktabs, caption, a column group per sample."""
    text = shown_layout(paper_layout(sizes), r"\textbf{{{}}}").replace("–", "--")
    samples, latex = list(text.columns.unique(0)), {"l1": "$L^1$", "l2_x100": "$L^2$"}
    text.columns = pd.MultiIndex.from_tuples([(s, latex[e]) for s, e in text.columns])
    lines = text.to_latex(
        caption=f"{TABLE_CAPTION} $L^2$ is a mean square, $\\times$ 100.",
        label="tab:table-1",
        column_format="ll" + "rr" * len(samples),
        multicolumn_format="c",
        multirow=False,
        position="t",
    ).splitlines()
    groups = [rf"\cmidrule(lr){{{3 + 2 * i}-{4 + 2 * i}}}" for i in range(len(samples))]
    head = next(i for i, line in enumerate(lines) if r"\multicolumn" in line)
    return "\n".join([*lines[: head + 1], " ".join(groups), *lines[head + 1 :]]) + "\n"


def save_tables(
    rows: pd.DataFrame,
    folder: str | Path,
    n: int | None = None,
    *,
    unit: str = "[0, 1]",
    seed: int = 0,
) -> list[Path]:
    """Write the raw rows, and the tables made of them, each beside its place and renamed.

    ``table_1`` is Table I in the paper's layout (Markdown, LaTeX), and every number (CSV);
    ``table_1_damage`` the damage (Markdown, LaTeX); ``table_1_by_size.csv`` the numbers of the
    paper's samples that the rows hold; ``table_1_kinds`` selfies and portraits apart. Parameters
    are as in `by_sample_size`.
    """
    folder = Path(folder)
    table, kinds = table_1(rows, unit=unit, seed=seed), by_kind(rows, unit=unit, seed=seed)
    sizes, text = by_sample_size(rows, n, unit=unit, seed=seed), damage_table(table)
    # LaTeX takes % for a comment, and – is not in its old encodings.
    escaped = text.rename(columns=lambda c: c.replace("%", r"\%")).replace("–", "--")
    caption = DAMAGE_CAPTION.replace("%", r"\%")
    files = {
        "table_1_samples.csv": rows.to_csv(index=False, float_format="%.6g"),
        "table_1.csv": table.to_csv(float_format="%.6g"),
        "table_1.md": f"{TABLE_CAPTION} Errors in {unit}.\n\n{layout_markdown(sizes)}\n",
        "table_1.tex": layout_latex(sizes),
        "table_1_damage.md": f"{DAMAGE_CAPTION} Background L1 in {unit}.\n\n{text.to_markdown()}\n",
        "table_1_damage.tex": escaped.reset_index().to_latex(
            index=False, caption=caption, label="tab:damage", position="t"
        ),
    }
    if list(sizes.index.unique("sample")) != ["all"]:
        files["table_1_by_size.csv"] = sizes.to_csv(float_format="%.6g")
    if kinds is not None:
        files["table_1_kinds.csv"] = kinds.to_csv(float_format="%.6g")
        shown = kinds_table(kinds).to_markdown()
        files["table_1_kinds.md"] = f"{KINDS_CAPTION} L1 in {unit}.\n\n{shown}\n"
    for name, content in files.items():
        write_text(folder / name, content)
    return [folder / name for name in files]

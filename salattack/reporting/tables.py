"""Tables as text: CSV, Markdown and LaTeX."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..experiments.evaluation import samples
from ..experiments.statistics import with_interval
from ..experiments.table_1 import by_sample_size, table_1
from ..presets import label_of
from ..runtime.files import written_whole


def presentable_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Return `by_sample_size`'s result as text, with the paired differences to I-FGSM."""

    def difference(row: pd.Series, measure: str, digits: int) -> str:
        key = f"{measure}_difference"
        if row.name[1] == "i-fgsm" or np.isnan(row.get(key, np.nan)):
            return "–"
        return with_interval(row, key, digits)

    def paper(row: pd.Series) -> str:
        printed = row["paper_l1"], row["paper_l2_x100"]
        return "–" if np.isnan(printed).any() else "{:.3f} / {:.3f}".format(*printed)

    return pd.DataFrame(
        [
            {
                "Sample": row.name[0],
                "Images": int(row["faces"]),
                "Attacker": label_of(row.name[1]),
                "L1": with_interval(row, "l1", 4),
                "L2 × 100": with_interval(row, "l2_x100", 4),
                "paper L1 / L2": paper(row),
                "damage L2": with_interval(row, "damage_l2", 3),
                "L1 − I-FGSM's": difference(row, "l1", 4),
                "L2 × 100 − I-FGSM's": difference(row, "l2_x100", 4),
                "damage − I-FGSM's": difference(row, "damage_l2", 3),
            }
            for _, row in table.iterrows()
        ]
    ).set_index("Sample")


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table_1`'s result as text, for Markdown and LaTeX."""

    def both(row: pd.Series, prefix: str, digits: Mapping[str, int]) -> str:
        values = [row.get(prefix + key, np.nan) for key in digits]
        if np.isnan(values).any():
            return "–"
        return " / ".join(f"{v:.{d}f}" for v, d in zip(values, digits.values(), strict=True))

    ratios = {"l1_ratio": 2, "l2_ratio": 2}
    return pd.DataFrame(
        {
            label_of(str(name)): {
                "L1": with_interval(row, "l1", 4),
                "L2 × 100": with_interval(row, "l2_x100", 4),
                "paper L1 / L2": both(row, "paper_", {"l1": 3, "l2_x100": 3}),
                "to I-FGSM": both(row, "", ratios),
                "paper to I-FGSM": both(row, "paper_", ratios),
                "background L1": with_interval(row, "background_l1", 4),
                "SSIM": with_interval(row, "ssim", 3),
                "damage L2": with_interval(row, "damage_l2", 3),
                "broken %": with_interval(row, "success", 0, 100),
            }
            for name, row in table.iterrows()
        }
    ).T.rename_axis("Attacker")


def save_tables(
    rows: pd.DataFrame,
    folder: str | Path,
    n: int | None = None,
    *,
    unit: str = "[0, 1]",
    seed: int = 0,
) -> list[Path]:
    """Write the raw rows and Table I (CSV, Markdown, LaTeX), each beside its place and renamed.

    Also writes `by_sample_size` of these rows and ``n``, where they hold one of the paper's
    samples.
    """
    folder = Path(folder)
    table = table_1(rows, unit=unit, seed=seed)
    text = presentable(table)
    # LaTeX has no × and – in its old encodings, and % starts a comment.
    tex = text.rename(columns=lambda c: c.replace("×", r"$\times$").replace("%", r"\%"))
    tex = tex.replace("–", "--")
    files = {
        folder / "table_1_samples.csv": rows.to_csv(index=False, float_format="%.6g"),
        folder / "table_1.csv": table.to_csv(float_format="%.6g"),
        folder / "table_1.md": text.to_markdown() + "\n",
        folder / "table_1.tex": tex.to_latex(),
    }
    n = int(rows["place"].max()) + 1 if n is None else n
    if set(samples(n)) != {"all"}:
        sizes = by_sample_size(rows, n, unit=unit, seed=seed)
        files[folder / "table_1_by_size.csv"] = sizes.to_csv(float_format="%.6g")
        files[folder / "table_1_by_size.md"] = presentable_sizes(sizes).to_markdown() + "\n"
    for path, content in files.items():
        with written_whole(path) as beside:
            beside.write_text(content, encoding="utf-8")
    return list(files)

"""Table I from an evaluation, beside the paper's printed values."""

import numpy as np
import pandas as pd

from ..errors import SalattackError, one_of
from ..presets import label_of
from ..runtime.files import RESOURCES
from .evaluation import PRECISIONS, samples
from .statistics import SHIPPED_FACE, mean_over_faces, person_of, share_of_rows, summarised

PRINTED = ("i-fgsm", "spread-spectrum", "eot-blur", "saliency-aware")  # in the paper's order
ERRORS = {"l1": "L1", "l2_x100": "L2 × 100"}  # that are printed
MEASURES = ("l1", "l2_x100", "background_l1", "psnr", "ssim", "damage_l2")
PAIRED = ("l1", "l2_x100", "damage_l2")  # whose difference to I-FGSM is taken person by person
UNITS = {"[0, 1]": 0.5, "[-1, 1]": 1.0}  # name → what one unit of [-1, 1] is in it
PAPER_SIZES = ("tiny", "small", "middle", "large")  # § IV-B


def table_1(
    rows: pd.DataFrame, *, unit: str = "[0, 1]", precision: str = "uint8", seed: int = 0
) -> pd.DataFrame:
    """Summarise `evaluate`'s rows as Table I, with the damage that the paper leaves out.

    Photo errors are in the range ``unit``, "[0, 1]" or "[-1, 1]"; the paper does not say which it
    used. Damage is always in [-1, 1], the unit of its threshold.

    Returns:
        A row per attacker, in order of appearance: ``faces`` and ``people``; the mean over faces of
        each of `MEASURES` with ``_low`` and ``_high``, its 95 % bootstrap interval over people (a
        shipped person has two faces; `person_of`); ``success``, the share of broken fakes, with its
        exact interval over fakes; where I-FGSM is there, ``l1_ratio`` and ``l2_ratio`` to it, and
        the difference of `PAIRED` to it on the same face and edit as ``…_difference``; the printed
        averages as ``paper_…``.

    Raises:
        SalattackError: an unknown unit or precision.
    """
    if unit not in UNITS:
        raise one_of("unit", unit, UNITS)
    if precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    scale, rows = UNITS[unit], rows[rows["precision"] == precision]
    rows = rows.assign(
        psnr=psnr(rows["l2"]),
        l1=rows["l1"] * scale,
        background_l1=rows["background_l1"] * scale,
        l2_x100=100 * rows["l2"] * scale**2,
    )
    means, reference = list(MEASURES), rows[rows["attacker"] == "i-fgsm"]
    if not reference.empty:
        sample = ["face_id", "attribute"]
        theirs = reference.groupby(sample)[list(PAIRED)].mean()
        for measure, values in rows[sample].join(theirs, on=sample)[list(PAIRED)].items():
            means.append(f"{measure}_difference")
            rows[means[-1]] = rows[measure] - values
    measures = dict.fromkeys(means, mean_over_faces) | {"success": share_of_rows}
    result = summarised(rows, ["attacker"], measures, seed)
    people = person_of(rows["face_id"]).groupby(rows["attacker"]).nunique()
    result.insert(1, "people", people)
    paper = printed_averages()
    for ours, ratio in (("l1", "l1_ratio"), ("l2_x100", "l2_ratio")):
        if "i-fgsm" in result.index:
            result[ratio] = result[ours] / result.loc["i-fgsm", ours]
        result[f"paper_{ours}"] = paper[ours]
        result[f"paper_{ratio}"] = paper[ours] / paper.loc["i-fgsm", ours]
    return result


def by_sample_size(
    rows: pd.DataFrame, n: int | None = None, *, unit: str = "[0, 1]", seed: int = 0
) -> pd.DataFrame:
    """Return `table_1` for each of the paper's samples that these rows hold, and for all of them.

    A sample is the first so many of the study's ``n`` places, unreadable faces included; None takes
    the last place that was measured. An attacker is in a sample only if it was run on as many of
    its faces as any other. ``sample`` is the index's first level, and its printed values are
    ``paper_l1`` and ``paper_l2_x100``.
    """
    n = int(rows["place"].max()) + 1 if n is None else n
    printed = printed_table_1().set_index(["sample", "attacker"])
    parts = {}
    for name, size in samples(n).items():
        chosen = rows[rows["place"] < size]
        faces = chosen.groupby("attacker")["place"].nunique()
        chosen = chosen[chosen["attacker"].isin(faces.index[faces == faces.max()])]
        parts[name] = table_1(chosen, unit=unit, seed=seed)
        for measure in ERRORS:
            paper = printed[measure].get(name)
            parts[name][f"paper_{measure}"] = np.nan if paper is None else paper
    return pd.concat(parts, names=["sample"]).drop(columns=["paper_l1_ratio", "paper_l2_ratio"])


def by_kind(rows: pd.DataFrame, *, unit: str = "[0, 1]", seed: int = 0) -> pd.DataFrame | None:
    """Return `table_1` of the shipped selfies and portraits apart, ``kind`` first; else None."""
    groups = rows.groupby(rows["face_id"].str.extract(SHIPPED_FACE)[1], sort=False)
    parts = {kind: table_1(group, unit=unit, seed=seed) for kind, group in groups}
    return pd.concat(parts, names=["kind"]) if len(parts) > 1 else None


def printed_table_1() -> pd.DataFrame:
    """Return Table I as printed: attacker, sample, images, l1 and l2_x100 (units not stated)."""
    return pd.read_csv(RESOURCES / "table_1_printed.csv")


def printed_averages() -> pd.DataFrame:
    """Return Table I's averages over its samples: l1 and l2_x100 by attacker."""
    return printed_table_1().query("sample == 'average'").set_index("attacker")[list(ERRORS)]


def psnr(l2: pd.Series) -> pd.Series:
    """Return the PSNR in dB of mean squares in [-1, 1], infinite for an unchanged photo."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(4 / l2)  # the peak of [-1, 1] is 2


def less_change(rows: pd.DataFrame) -> pd.DataFrame:
    """Count on how many samples the paper's claim holds: less change than each other attacker.

    Columns: on how many samples (a face and an edit) of `evaluate` Saliency-Aware changes the saved
    photo less in L1 and in L2, out of how many; and how many photos an attacker left unchanged.

    Raises:
        SalattackError: the Saliency-Aware attacker is not among the rows.
    """
    saved = rows[rows["precision"] == "uint8"]
    wide = saved.pivot_table(["l1", "l2"], ["face_id", "attribute"], "attacker", sort=False)
    if "saliency-aware" not in wide["l1"]:
        raise SalattackError("this table has no saliency-aware attacker to compare; run it too")
    table = pd.DataFrame()
    for measure in ("l1", "l2"):
        less = wide[measure].gt(wide[measure]["saliency-aware"], axis=0)
        table[f"Saliency-Aware has less {measure.upper()}"] = less.sum()
    table["photos left unchanged"] = (wide["l1"] == 0).sum()
    text = table.astype(str) + f" of {len(wide)}"
    text.iloc[text.index == "saliency-aware", :2] = "–"
    return text.rename(index=label_of).rename_axis("Attacker")

"""Table I from an evaluation, beside the paper's printed values."""

import numpy as np
import pandas as pd

from ..errors import SalattackError, one_of
from ..presets import label_of
from ..runtime.files import RESOURCES
from .evaluation import PRECISIONS, samples
from .statistics import estimate, kind_of, mean, person_of, share

PRINTED = RESOURCES / "table_1_printed.csv"
MEASURES = ("l1", "l2_x100", "background_l1", "psnr", "ssim", "damage_l2")
PAIRED = ("l1", "l2_x100", "damage_l2")  # whose difference to I-FGSM is taken person by person
UNITS = {"[0, 1]": 0.5, "[-1, 1]": 1.0}  # name → what one unit of [-1, 1] is in it
PAPER_SIZES = ("tiny", "small", "middle", "large")  # § IV-B


def table_1(
    rows: pd.DataFrame, *, unit: str = "[0, 1]", precision: str = "uint8", seed: int = 0
) -> pd.DataFrame:
    """Summarise an evaluation as Table I, with the damage that the paper leaves out.

    Args:
        rows: from `evaluate`.
        unit: range in which photo errors are expressed, "[0, 1]" or "[-1, 1]"; the paper does not
            say which it used. Damage is always in [-1, 1], the unit of its threshold.
        precision: "uint8" or "float32".
        seed: of the bootstrap.

    Returns:
        A row per attacker, in order of appearance: ``faces`` and ``people``; the mean of each of
        `MEASURES` with ``_low`` and ``_high``, its 95 % bootstrap interval over people (a shipped
        person has two faces; `person_of`); ``success``, the share of broken fakes, with its exact
        interval over fakes; where I-FGSM is there, ``l1_ratio`` and ``l2_ratio`` to it, and the
        paired difference to it, person by person, of `PAIRED` as ``…_difference``; the printed
        averages as ``paper_…``.

    Raises:
        SalattackError: an unknown unit or precision.
    """
    if unit not in UNITS:
        raise one_of("unit", unit, UNITS)
    if precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    scale = UNITS[unit]
    with np.errstate(divide="ignore"):  # an unchanged photo has an infinite PSNR
        rows = rows[rows["precision"] == precision].assign(
            psnr=lambda r: 10 * np.log10(4 / r["l2"]),  # the peak of [-1, 1] is 2
            l1=lambda r: r["l1"] * scale,
            background_l1=lambda r: r["background_l1"] * scale,
            l2_x100=lambda r: 100 * r["l2"] * scale**2,
        )
    groups = dict(iter(rows.groupby("attacker", sort=False)))
    people = {name: by_person(group, *MEASURES) for name, group in groups.items()}
    table = {}
    for name, group in groups.items():
        columns = dict(people[name].items())
        if "i-fgsm" in people:
            columns |= {f"{m}_difference": columns[m] - people["i-fgsm"][m] for m in PAIRED}
        estimates = {
            column: estimate(mean, values.dropna().to_numpy(), seed=seed)
            for column, values in columns.items()
        } | {"success": share(int(group["success"].sum()), len(group))}
        table[name] = {"faces": group["face_id"].nunique(), "people": len(people[name])} | {
            f"{column}{end}": value
            for column, found in estimates.items()
            for end, value in zip(("", "_low", "_high"), found, strict=True)
        }
    result = pd.DataFrame.from_dict(table, orient="index").rename_axis("attacker")
    result = result.astype({"faces": int, "people": int})
    paper = printed_table_1().query("sample == 'average'").set_index("attacker")
    for ours, ratio in (("l1", "l1_ratio"), ("l2_x100", "l2_ratio")):
        if "i-fgsm" in result.index:
            result[ratio] = result[ours] / result.loc["i-fgsm", ours]
        result[f"paper_{ours}"] = paper[ours]
        result[f"paper_{ratio}"] = paper[ours] / paper.loc["i-fgsm", ours]
    return result


def by_person(rows: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """Return each person's mean measures: over a face's edits first, then over the faces."""
    faces = rows.groupby("face_id")[list(measures)].mean().reset_index()
    return faces.groupby(person_of(faces["face_id"]))[list(measures)].mean()


def by_sample_size(
    rows: pd.DataFrame, n: int | None = None, *, unit: str = "[0, 1]", seed: int = 0
) -> pd.DataFrame:
    """Return `table_1` for each of the paper's samples that these rows hold, and for all of them.

    Args:
        rows: from `evaluate`; a sample is its first so many places, unreadable faces included.
        n: how many places the study has; None takes the last one that was measured.
        unit: see `table_1`.
        seed: see `table_1`.

    Returns:
        The rows of `table_1` for each ``sample``, the index's first level, with that sample's
        printed values as ``paper_l1`` and ``paper_l2_x100``. An attacker is in a sample only if
        it was run on as many of its faces as any other.
    """
    n = int(rows["place"].max()) + 1 if n is None else n
    printed = printed_table_1().set_index(["sample", "attacker"])
    parts = {}
    for name, size in samples(n).items():
        chosen = rows[rows["place"] < size]
        faces = chosen.groupby("attacker")["place"].nunique()
        chosen = chosen[chosen["attacker"].isin(faces.index[faces == faces.max()])]
        parts[name] = table_1(chosen, unit=unit, seed=seed)
        for measure in ("l1", "l2_x100"):
            paper = printed[measure].get(name)
            parts[name][f"paper_{measure}"] = np.nan if paper is None else paper
    return pd.concat(parts, names=["sample"]).drop(columns=["paper_l1_ratio", "paper_l2_ratio"])


def by_kind(rows: pd.DataFrame, *, unit: str = "[0, 1]", seed: int = 0) -> pd.DataFrame | None:
    """Return `table_1` of the shipped selfies and portraits apart, ``kind`` first; else None."""
    groups = rows.groupby(kind_of(rows["face_id"]), sort=False)
    parts = {kind: table_1(group, unit=unit, seed=seed) for kind, group in groups}
    return pd.concat(parts, names=["kind"]) if len(parts) > 1 else None


def printed_table_1() -> pd.DataFrame:
    """Return Table I as printed: attacker, sample, images, l1 and l2_x100 (units not stated)."""
    return pd.read_csv(PRINTED)


def findings(rows: pd.DataFrame) -> pd.DataFrame:
    """Count on how many samples the paper's claim holds: less change than each other attacker.

    Args:
        rows: from `evaluate`, with the Saliency-Aware attacker among them.

    Returns:
        For each other attacker and for ``l1`` and ``l2`` of the saved pictures, on how many
        samples (a face and an edit) Saliency-Aware changes the photo less, out of how many; and
        how many photos an attacker left unchanged.
    """
    saved = rows[rows["precision"] == "uint8"]
    wide = saved.pivot_table(["l1", "l2"], ["face_id", "attribute"], "attacker")
    if "saliency-aware" not in wide["l1"]:
        raise SalattackError("this table has no saliency-aware attacker to compare; run it too")
    ours = {measure: wide[measure]["saliency-aware"] for measure in ("l1", "l2")}
    lines = {
        label_of(str(name)): {
            f"Saliency-Aware has less {measure.upper()}": (
                "–"
                if name == "saliency-aware"
                else f"{(ours[measure] < wide[measure][name]).sum()} of {len(wide)}"
            )
            for measure in ours
        }
        | {"photos left unchanged": f"{(wide['l1'][name] == 0).sum()} of {len(wide)}"}
        for name in rows["attacker"].unique()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("Attacker")

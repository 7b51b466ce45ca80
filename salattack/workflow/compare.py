"""Compare a run's tables and pictures with a reference, such as the committed ``figures/``.

Two processors, and one or two threads, round a convolution differently, which may turn the sign of
a gradient that is nearly zero. Measured on the 20 shipped faces at Table I's strength, with six
attackers (EoT-Blur left out), two threads differ from one as follows:

- Means of the photo's change differ by at most 0.2 %, of the damage by 1.1 %.
- Single faces differ by at most 9 % and 17 %, but the median face by at most 0.7 % and 1.5 %.
- Two of L2-PGD's 20 fakes passed the threshold of "broken" in one run only.
- Figures differ by at most 0.3 steps of 8 bits.

A table of single faces is compared by its median face, at `SINGLE`: another seed, other weights or
one step less change every face. Other tables hold means of as few as four faces, so `MEANS` allows
about what one face can move such a mean.

Not compared: ends of intervals and differences to I-FGSM (both derive from the means compared
here), Markdown, TeX and PDF (made of the same numbers and pictures), verdicts on the claims.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SalattackError
from ..faces.reading import open_photo

# Largest relative difference of the photo's change, and of everything that depends on a fake.
SINGLE = {"photo": 0.02, "fake": 0.06}
MEANS = {"photo": 0.03, "fake": 0.15}
PHOTO = (
    *("faces", "l1", "l2", "l2_x100", "psnr", "ssim", "l1_ratio", "l2_ratio"),
    *("background_l1", "background_l2", "background_psnr", "background_ssim"),
)
# A share of n faces moves by 1 / n when one face crosses the threshold. Two did, so three may.
FLIPS = 3
PIXELS = 1.0  # mean absolute difference in 8-bit steps, of pictures shrunk to `SIDE`
SIDE = 256
FLOOR = 0.1  # smaller values are compared relative to this share of their column's mean
INDEX = (
    *("face_id", "kind", "attacker", "attribute", "precision", "sample", "question", "variant"),
    *("transform", "bound", "strength", "attackers", "arithmetic", "aimed at"),
)
DERIVED = ("_low", "_high", "_difference")
OMITTED = ("Unnamed: 0", "place", "mask_seconds", "linf", "background_linf")  # maxima jump
TEXT = ("claims.csv",)  # verdicts in words


def compare(run: str | Path, reference: str | Path) -> pd.DataFrame:
    """Compare every table and picture (CSV, PNG, JPEG) of ``reference`` with the run's own.

    Returns:
        A row per file: ``output``, ``difference`` (of a table the relative difference that is
        nearest to its tolerance or furthest beyond it, of a picture 8-bit steps), ``tolerance``,
        ``where`` (the column or "pixels", or what is missing) and ``agrees``.

    Raises:
        SalattackError: a file cannot be read, or the reference holds nothing to compare.
    """
    run, reference = Path(run), Path(reference)
    rows = []
    for path in sorted(reference.glob("*.*")):
        compared = _table_gap if path.suffix == ".csv" else _picture_gap
        if path.suffix in (".csv", ".png", ".jpg") and path.name not in TEXT:
            ours, result = run / path.name, (np.nan, np.nan, "missing")
            if ours.is_file():
                result = compared(ours, path)
            rows.append((path.name, *result, bool(result[0] <= result[1])))  # nan never agrees
    if not rows:
        raise SalattackError(f"{reference} holds no tables or pictures; name a reference folder")
    return pd.DataFrame(rows, columns=["output", "difference", "tolerance", "where", "agrees"])


def as_lines(result: pd.DataFrame) -> str:
    """Return `compare`'s result for a terminal: a line per output, then one for all."""
    lines = []
    for row in result.itertuples():
        values = f"{row.difference:.1%} of {row.tolerance:.1%}"
        if row.where == "pixels":
            values = f"{row.difference:.2f} of {row.tolerance:.2f} 8-bit steps"
        said = row.where if np.isnan(row.difference) else f"{values} ({row.where})"
        lines.append(f"{'agrees ' if row.agrees else 'DIFFERS'} {row.output}: {said}")
    wrong = result.loc[~result["agrees"], "output"]
    total = f"{result['agrees'].sum()} of {len(result)} outputs agree with the reference"
    others = f"; these do not: {', '.join(wrong)}" if len(wrong) else ""
    return "\n".join([*lines, f"{total} within rounding{others}"])


def other_settings(run: str | Path, reference: str | Path) -> str | None:
    """Say how the settings of two manifests differ; None if they agree or a manifest is absent.

    Notebooks that only one run has are passed over: `compare` names their missing outputs.
    """
    paths = [Path(folder) / "manifest.json" for folder in (run, reference)]
    if not all(path.is_file() for path in paths):
        return None
    ours, theirs = (_settings(path) for path in paths)
    both = set.intersection(*({key.partition(".")[0] for key in one} for one in (ours, theirs)))
    for key in sorted({*ours, *theirs}):
        if key.partition(".")[0] in both and ours.get(key) != theirs.get(key):
            values = f"{ours.get(key)} here, {theirs.get(key)} in {reference}"
            return f"the runs have different settings ({key}: {values})"
    return None


def _settings(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        notebooks = manifest.get("notebooks", {}).items()
        given = {
            f"{name}.{key}": value
            for name, notebook in notebooks
            for key, value in notebook["parameters"].items()
            # A place, or a parameter at its notebook's default
            if key not in ("output", "ledger") and value is not None
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise SalattackError(f"cannot read {path}: {error}; make the run again") from error
    return given | {"seed": manifest.get("seed")}


def _table_gap(run: Path, reference: Path) -> tuple[float, float, str]:
    try:
        ours, theirs = (pd.read_csv(path) for path in (run, reference))
    except (OSError, ValueError) as error:
        raise SalattackError(f"cannot read {run}: {error}; make the table again") from error
    keys = [name for name in INDEX if name in theirs]
    if lacking := [name for name in theirs if name not in ours]:
        return np.nan, np.nan, f"missing column {lacking[0]}"
    ours, theirs = ours.set_index(keys), theirs.set_index(keys)
    if not (ours.index.is_unique and set(ours.index) == set(theirs.index)):
        return np.nan, np.nan, "other rows"
    ours = ours.loc[theirs.index]
    found = []
    for name, wanted in theirs.select_dtypes("number").items():
        if name in OMITTED or name.startswith("paper_") or name.endswith(DERIVED):
            continue
        value = pd.to_numeric(ours[name], errors="coerce")
        gap = (value - wanted).abs().where(value.isna() == wanted.isna(), np.inf)
        if name == "success":
            if "faces" in theirs:  # elsewhere n is unknown; the damage that it counts is compared
                found.append((gap.max(), FLIPS / theirs["faces"].min(), name))
            continue
        scale = wanted.abs().clip(lower=FLOOR * wanted.abs().mean())
        gap = (gap / scale).where(gap > 0, gap)  # 0 of 0 agrees
        tolerance = MEANS
        if {"face_id", "attacker"} <= set(keys):
            tolerance = SINGLE
            gap = gap.groupby(["attacker", "precision"]).median()
        found.append((gap.max(), tolerance["photo" if name in PHOTO else "fake"], name))
    if not found:
        return np.nan, np.nan, "no numbers"
    return max(found, key=lambda one: one[0] / one[1])


def _picture_gap(run: Path, reference: Path) -> tuple[float, float, str]:
    small = [np.asarray(open_photo(p).resize((SIDE, SIDE)), float) for p in (run, reference)]
    return float(np.abs(small[0] - small[1]).mean()), PIXELS, "pixels"

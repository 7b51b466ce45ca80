"""What a run left: its samples, read back and checked, its strength and its models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import SalattackError
from ..generators import GENERATORS
from ..metrics import SUCCESS
from ..presets import ATTACKERS
from ..runtime.files import sha256
from ..saliency import SALIENCY_MODELS
from .statistics import Estimate, estimate, mean, person_of, ratio_of_means
from .table_1 import PRINTED, psnr

TABLE_1, FIG_5 = "table_1_samples.csv", "fig_5_samples.csv"
SAMPLE_KEYS = ["face_id", "attacker", "attribute", "precision"]
NUMBERS = ["l1", "l2", "linf", "ssim", "damage_l2"]
OUTSIDE = ["background_l1", "background_linf"]  # empty where a photo has no background
*OTHERS, OURS = PRINTED
MAGNITUDE = 0.1  # § IV-A, in [-1, 1]
LEVEL = 2 / 255  # one 8-bit step in [-1, 1]: rounding moves a change by half of it
STRONG = f"picture at magnitude {MAGNITUDE}"
MODELS = {"generator": GENERATORS, "saliency": SALIENCY_MODELS}


class Run(NamedTuple):
    """A run's folder, and its checked samples."""

    folder: Path
    every: pd.DataFrame  # of the paper's attackers, unrounded pictures too
    saved: pd.DataFrame  # those of the pictures rounded to 8 bits
    mine: pd.DataFrame  # Saliency-Aware's
    strong: pd.DataFrame  # Saliency-Aware's at the paper's magnitude; may be empty

    def of(self, key: str, rows: pd.DataFrame | None = None) -> Estimate:
        """Return the mean over people of a measure of Saliency-Aware."""
        return estimate(mean, people(self.mine if rows is None else rows, key)[OURS].to_numpy())

    def ratio(self, key: str, name: str, other: str) -> Estimate:
        """Return one attacker's mean over another's, person by person."""
        both = people(self.saved, key).dropna()
        return estimate(ratio_of_means, *both[[name, other]].to_numpy().T)

    def lacks(self, need: str) -> bool:
        """Return whether an attacker or a table is missing."""
        if need == STRONG:
            return self.strong.empty
        return not (need in set(self.saved["attacker"]) or (self.folder / need).is_file())


def people(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return a measure's mean by person (rows) and attacker (columns)."""
    return rows.pivot_table(key, person_of(rows["face_id"]), "attacker")


def open_run(folder: str | Path) -> Run:
    """Return a run's samples, ready for its claims; errors as `read_samples`."""
    folder = Path(folder)
    every = read_samples(folder).query("attacker in @PRINTED")
    saved = every[every["precision"] == "uint8"]
    mine = saved[saved["attacker"] == OURS]
    found = [mine.iloc[:0], mine]
    if (folder / FIG_5).is_file():
        rows = read_samples(folder, FIG_5)
        found.append(rows.query("attacker == @OURS and precision == 'uint8'"))
    strong = [rows for rows in found if abs(rows["linf"].max() - MAGNITUDE) <= LEVEL]
    return Run(folder, every, saved, mine, (found[:1] + strong)[-1])


def read_samples(folder: str | Path, name: str = TABLE_1) -> pd.DataFrame:
    """Return the rows that `evaluate` gave: the columns above, ``place``, ``success``, ``psnr``.

    ``success`` and ``psnr`` are derived again, so that one number decides what is broken.

    Raises:
        SalattackError: no such table, a missing column, a value that is no number, a sample that
            stands there twice, no saved pictures, or attackers with other samples each.
    """
    path = Path(folder) / name
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(SAMPLE_KEYS, "str"))
    except FileNotFoundError:
        raise SalattackError(
            f"no {name} in {folder}; `salattack reproduce` or `salattack evaluate` writes it"
        ) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise SalattackError(f"cannot read {path}: {error}; make the table again") from error
    if lacking := [name for name in (*SAMPLE_KEYS, *NUMBERS, *OUTSIDE) if name not in rows]:
        raise SalattackError(f"{path} lacks the column {lacking[0]}; make the table again")
    numbers = rows[[*NUMBERS, *OUTSIDE]].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(numbers[NUMBERS]).all(axis=1) | rows[SAMPLE_KEYS].isna().any(axis=1)
    wrong |= (numbers[OUTSIDE].isna() & rows[OUTSIDE].notna()).any(axis=1)
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2  # as an editor counts, after the header
        raise SalattackError(f"{path}, line {line}, is not whole; make the table again")
    if rows.duplicated(SAMPLE_KEYS).any():
        raise SalattackError(f"{path} holds a sample twice; make the table again")
    if "uint8" not in set(rows["precision"]):
        raise SalattackError(f"{path} has no saved pictures (precision uint8); run again")
    sample = ["face_id", "attribute", "precision"]
    samples = [set(map(tuple, group.values)) for _, group in rows.groupby("attacker")[sample]]
    if any(other != samples[0] for other in samples):
        raise SalattackError(f"the attackers of {path} have other samples each; finish the run")
    place = rows["place"] if "place" in rows else pd.factorize(rows["face_id"])[0]
    success = (numbers["damage_l2"] > SUCCESS).astype(float)
    derived = {"place": place, "success": success, "psnr": psnr(numbers["l2"])}
    return rows[SAMPLE_KEYS].join(numbers).assign(**derived)


def strength(rows: pd.DataFrame, parameters: Mapping | None) -> str:
    """Say how strong a run's attacks were: as `recorded`, else as far as its rows show it."""
    if parameters is None:
        return f"strength not recorded, largest change of a pixel {rows['linf'].max():.3f}"
    preset = vars(ATTACKERS["i-fgsm"])  # what a run does not set stays as the presets have it
    text = "bound {bound} and step {step_size} in [-1, 1], {steps} steps"
    return text.format(**preset | dict(parameters))


def recorded(folder: Path) -> Mapping | None:
    """Return a run's parameters; None where no record holds the checksum of its table.

    The record is ``manifest.json`` (of `salattack reproduce`) or ``run.json`` (of `salattack
    evaluate`).

    Raises:
        SalattackError: such a file that is no record of a run.
    """
    for name in ("manifest.json", "run.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["outputs"].get(TABLE_1) == sha256(folder / TABLE_1):
                if name == "manifest.json":
                    return dict(record["notebooks"]["attack_comparison"]["parameters"])
                models = {kind: record.get("settings", {}).get(kind, [None])[0] for kind in MODELS}
                return models | record["parameters"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            kind = path.stem.replace("run", "record of a run")
            raise SalattackError(f"{path} is no {kind}; remove it or run again") from error
    return None  # nothing is recorded, or another table


def premises(folder: str | Path = "figures", parameters: Mapping | None = None) -> str:
    """Return in a line what every verdict takes as given: models, sample, strength, reading.

    ``parameters`` of the run (generator, bound, step_size, steps) are read from its record if None.
    Errors are those of `verify` and `recorded`.
    """
    rows = read_samples(folder)
    known = recorded(Path(folder)) if parameters is None else parameters
    published = "no number comes from the published StarGAN or PFAN"
    used = {kind: name for kind in MODELS if (name := (known or {}).get(kind))}
    if any(not MODELS[kind][name].shipped for kind, name in used.items()):
        published = f"the models are {' and '.join(used.values())}"
    people = person_of(rows["face_id"]).nunique()
    how = strength(rows[rows["attacker"].isin(PRINTED)], known)
    return (
        f"Independent reproduction; {published}. {rows['face_id'].nunique()} faces of {people} "
        f"people; {how}; photo errors in [0, 1] of the saved 8-bit picture, "
        "damage in [-1, 1]. Brackets are 95 % intervals: over people by bootstrap, of shares exact "
        "(Clopper and Pearson)."
    )

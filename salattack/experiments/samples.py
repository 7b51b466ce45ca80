"""The samples of a run, read back from ``table_1_samples.csv`` and checked."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SalattackError
from ..metrics import SUCCESS
from ..presets import ATTACKERS
from ..runtime.files import sha256

TABLE = "table_1_samples.csv"
KEYS = ["face_id", "attacker", "attribute", "precision"]
MEASURES = ["l1", "l2", "linf", "ssim", "damage_l2"]

# What a run leaves beside its table, and where its parameters stand there.
RECORDS = {
    "manifest.json": lambda record: record["notebooks"]["attack_comparison"]["parameters"],
    "run.json": lambda record: record["parameters"],
}
OUTSIDE = ["background_l1", "background_linf"]  # empty where a photo has no background


def read_samples(folder: str | Path) -> pd.DataFrame:
    """Return the rows that `evaluate` gave, with the columns above and ``success``.

    ``success`` is derived from ``damage_l2`` again, so that one number decides what is broken.

    Raises:
        SalattackError: no such table, a missing column, a value that is no number, a sample that
            stands there twice, no saved pictures, or attackers with other samples each.
    """
    path = Path(folder) / TABLE
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(KEYS, "str"))
    except FileNotFoundError:
        raise SalattackError(
            f"no {TABLE} in {folder}; `salattack reproduce` or `salattack evaluate` writes it"
        ) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise SalattackError(f"cannot read {path}: {error}; make the table again") from error
    if lacking := [name for name in (*KEYS, *MEASURES, *OUTSIDE) if name not in rows]:
        raise SalattackError(f"{path} lacks the column {lacking[0]}; make the table again")
    numbers = rows[[*MEASURES, *OUTSIDE]].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(numbers[MEASURES]).all(axis=1) | rows[KEYS].isna().any(axis=1)
    wrong |= (numbers[OUTSIDE].isna() & rows[OUTSIDE].notna()).any(axis=1)
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2  # as an editor counts, after the header
        raise SalattackError(f"{path}, line {line}, is not whole; make the table again")
    if rows.duplicated(KEYS).any():
        raise SalattackError(f"{path} holds a sample twice; make the table again")
    if "uint8" not in set(rows["precision"]):
        raise SalattackError(f"{path} has no saved pictures (precision uint8); run again")
    sample = ["face_id", "attribute", "precision"]
    samples = [set(map(tuple, group.values)) for _, group in rows.groupby("attacker")[sample]]
    if any(other != samples[0] for other in samples):
        raise SalattackError(f"the attackers of {path} have other samples each; finish the run")
    return rows[KEYS].join(numbers).assign(success=(numbers["damage_l2"] > SUCCESS).astype(float))


def strength(folder: str | Path, rows: pd.DataFrame, parameters: Mapping | None = None) -> str:
    """Say how strong a run's attacks were: as recorded, else as far as its rows show it.

    Args:
        folder: of the run. Its ``manifest.json`` (of `salattack reproduce`) or ``run.json`` (of
            `salattack evaluate`) is used if it records the checksum of this table.
        rows: from `read_samples`.
        parameters: of the run, where they are known already.

    Raises:
        SalattackError: such a file that is no record of a run.
    """
    parameters = _recorded(Path(folder)) if parameters is None else parameters
    if parameters is None:
        return f"strength not recorded, largest change of a pixel {rows['linf'].max():.3f}"
    preset = ATTACKERS["i-fgsm"]  # what a run does not set stays as the presets have it
    bound, step, steps = (
        parameters.get(name, getattr(preset, name)) for name in ("bound", "step_size", "steps")
    )
    return f"bound {bound} and step {step} in [-1, 1], {steps} steps"


def _recorded(folder: Path) -> Mapping | None:
    for name, parameters in RECORDS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["outputs"].get(TABLE) == sha256(folder / TABLE):
                return dict(parameters(record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            kind = path.stem.replace("run", "record of a run")
            raise SalattackError(f"{path} is no {kind}; remove it or run again") from error
    return None  # nothing is recorded, or another table

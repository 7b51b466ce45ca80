"""The paper's claims against the table that a run wrote: one verdict each, from numbers alone."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ..generators import ATTRIBUTES
from ..metrics import BACKGROUND, SUCCESS
from ..presets import label_of
from .samples import read_samples, strength
from .statistics import interval, with_interval
from .table_1 import printed_table_1, table_1

REPRODUCED = "reproduced"
ASSUMING = "reproduced under these assumptions"
NOT = "not reproduced"
UNTESTED = "not tested"
FINDING = "finding"  # answers a question that the paper does not ask
VERDICTS = (REPRODUCED, ASSUMING, NOT, UNTESTED, FINDING)

# Table I prints three decimals: the true value is within this of the printed one.
ROUNDING = 0.0005

# Of our mean, beside its interval: faces and generator are not the paper's, and decide how far an
# attack goes inside its bound. It is less than what sets the paper's attackers apart (16 to 25 %).
ERROR_TOLERANCE = 0.15

# Beside the printed rounding: in a ratio faces and generator cancel in part; the printed ratios
# span 0.77 to 1.05.
RATIO_TOLERANCE = 0.10

# Of I-FGSM's change of the background: a tenth of it is called nearly kept.
NEARLY = 0.10

# Share of broken fakes from which "can be easily detected" (Fig. 5) is taken to hold in general.
BROKEN = 0.90
MAGNITUDE = 0.1  # § IV-A, in [-1, 1]; a stronger attack is another experiment
LEVEL = 2 / 255  # one 8-bit step in [-1, 1]: rounding moves a change by half of it
ERRORS = {"l1": "L1", "l2_x100": "L2 × 100"}
Reading = tuple[str, str]
OURS = ("[0, 1]", "uint8")

# How photo errors may be read, unit and precision, and how that is said; the paper states neither.
READINGS = {
    OURS: "in [0, 1] of the saved 8-bit picture",
    ("[-1, 1]", "uint8"): "in [-1, 1]",
    ("[0, 1]", "float32"): "before rounding to 8 bits",
    ("[-1, 1]", "float32"): "in [-1, 1] before rounding to 8 bits",
}
UNITLESS = [reading for reading in READINGS if reading[0] == OURS[0]]  # for ratios and orders


class Claim(NamedTuple):
    """A claim, where the paper makes it, its number and ours, the verdict and its reason."""

    claim: str
    source: str
    printed: str
    measured: str
    verdict: str
    because: str


class Outcome(NamedTuple):
    """What one reading of the table says: whether a claim holds, or for these faces alone."""

    measured: str
    because: str
    holds: bool
    here: bool = False
    short: str = ""  # the number alone, to be told in passing


class Run(NamedTuple):
    """The checked rows of a run, how strong its attacks were, and `table_1` in each reading."""

    rows: pd.DataFrame
    strength: str
    table: Callable[[Reading], pd.DataFrame]

    def without(self, *names: str) -> str:
        """Return why a claim about these attackers cannot be tested; nothing where it can."""
        lacking = [label_of(name) for name in names if name not in set(self.rows["attacker"])]
        return f"the run has no {' and no '.join(lacking)}" if lacking else ""

    def judge(
        self,
        claim: Claim,
        needs: Iterable[str],
        test: Callable[[pd.DataFrame], Outcome],
        readings: Iterable[Reading] = UNITLESS,
    ) -> Claim:
        """Try a claim in our reading, then in the others, then for these faces alone."""
        if reason := self.without(*needs):
            return claim._replace(because=reason)
        ours = test(self.table(OURS))
        measured, because = ours.measured, ours.because
        if ours.holds:
            return claim._replace(measured=measured, verdict=REPRODUCED, because=because)
        present = set(self.rows["precision"])
        for reading in (r for r in readings if r != OURS and r[1] in present):
            other = test(self.table(reading))
            if other.holds:
                return claim._replace(
                    measured=f"{measured}; {READINGS[reading]} {other.measured}",
                    verdict=ASSUMING,
                    because=f"assuming errors {READINGS[reading]}: {other.because}",
                )
            because += f"; nor {READINGS[reading]} {other.short}".rstrip()
        if ours.here:
            faces = self.rows["face_id"].nunique()
            because = f"assuming {_stand_for_all(faces)}: {ours.because}"
        return claim._replace(
            measured=measured, verdict=ASSUMING if ours.here else NOT, because=because
        )


def verify(folder: str | Path = "figures", parameters: Mapping | None = None) -> pd.DataFrame:
    """Judge each of the paper's claims by the samples of a run.

    Args:
        folder: holds ``table_1_samples.csv``: a row per face × attacker × attribute × precision,
            photo errors and damage in [-1, 1].
        parameters: of the run (bound, step_size, steps); None reads the folder's manifest.

    Returns:
        A row per claim: ``claim``, ``source`` in the paper, ``printed`` and ``measured`` as text,
        ``verdict`` (one of `VERDICTS`) and ``because``. What the run lacks is "not tested".

    Raises:
        SalattackError: no such table, or one that is not whole.
    """
    run = _open(folder, parameters)
    claims = [*_errors(run), *_ratios(run), *_order(run), _background(run), *_broken(run)]
    return pd.DataFrame([*claims, _less_damage(run)])


def premises(folder: str | Path = "figures", parameters: Mapping | None = None) -> str:
    """Return in a line what every verdict takes as given: sample, strength, reading.

    Raises:
        SalattackError: see `verify`.
    """
    rows = read_samples(folder)
    sample = f"{rows['face_id'].nunique()} faces; {strength(folder, rows, parameters)}"
    return (
        f"{sample}; photo errors {READINGS[OURS]}, damage in [-1, 1]; "
        "brackets are 95 % intervals over faces."
    )


def _open(folder: str | Path, parameters: Mapping | None) -> Run:
    rows = read_samples(folder)
    given = strength(folder, rows, parameters)
    rows = rows[rows["attacker"].isin(printed_table_1()["attacker"])]

    @cache
    def table(reading: Reading) -> pd.DataFrame:
        return table_1(rows, unit=reading[0], precision=reading[1])

    return Run(rows, given, table)


def _untested(claim: str, source: str, printed: str) -> Claim:
    return Claim(claim, source, printed, "–", UNTESTED, "")


@cache
def _printed() -> pd.DataFrame:
    return printed_table_1().query("sample == 'average'").set_index("attacker")


def _range(row: pd.Series, key: str) -> tuple[float, float]:
    """Return a mean's 95 % interval; the mean itself where one face gives none."""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return (row[key], row[key]) if np.isnan(low) else (low, high)


def _errors(run: Run) -> Iterable[Claim]:
    """Table I: the printed averages of each attacker."""
    for name, line in _printed().iterrows():
        for key, label in ERRORS.items():
            claim = _untested(f"{label} of {label_of(name)}", "Table I", f"{line[key]:.3f}")
            test = partial(_error, name=name, key=key, printed=line[key])
            yield run.judge(claim, [name], test, READINGS)
    claim = _untested("All averages of Table I in one unit", "Table I", "the eight above")
    yield run.judge(claim, _printed().index, _together, READINGS)


def _error(table: pd.DataFrame, name: str, key: str, printed: float) -> Outcome:
    row = table.loc[name]
    slack = ERROR_TOLERANCE * row[key]
    low, high = _range(row, key)
    low, high = low - slack, high + slack
    return Outcome(
        with_interval(row, key, 4),
        f"accepted {low:.4f} to {high:.4f}, our interval ± {100 * ERROR_TOLERANCE:.0f} % of our "
        f"mean; the printed value is {printed / row[key]:.2f} of it",
        low <= printed + ROUNDING and printed - ROUNDING <= high,
        short=f"{row[key]:.4f}",
    )


def _together(table: pd.DataFrame) -> Outcome:
    """Table I has one unit: a value that fits in another than the rest shows nothing."""
    pairs = [(name, key, line[key]) for name, line in _printed().iterrows() for key in ERRORS]
    fitting = sum(_error(table, *pair).holds for pair in pairs)
    text = f"{fitting} of {len(pairs)}"
    return Outcome(text, f"accepted: all {len(pairs)}", fitting == len(pairs), short=text)


def _ratios(run: Run) -> Iterable[Claim]:
    """Table I: each attacker beside I-FGSM."""
    printed = _printed()
    for name in printed.index.drop("i-fgsm"):
        for key, label in ERRORS.items():
            ours, reference = printed.loc[name, key], printed.loc["i-fgsm", key]
            claim = f"{label} of {label_of(name)} to I-FGSM's"
            low = (ours - ROUNDING) / (reference + ROUNDING) - RATIO_TOLERANCE
            high = (ours + ROUNDING) / (reference - ROUNDING) + RATIO_TOLERANCE
            test = partial(_ratio, name=name, key=f"{key[:2]}_ratio", low=low, high=high)
            claim = _untested(claim, "Table I", f"{ours / reference:.2f}")
            yield run.judge(claim, ["i-fgsm", name], test)


def _ratio(table: pd.DataFrame, name: str, key: str, low: float, high: float) -> Outcome:
    because = f"accepted {low:.2f} to {high:.2f}, the printed ratio with its rounding ± "
    ratio = table.loc[name, key]
    holds = low <= ratio <= high
    return Outcome(f"{ratio:.2f}", f"{because}{RATIO_TOLERANCE:.2f}", holds, short=f"{ratio:.2f}")


def _order(run: Run) -> Iterable[Claim]:
    """Table I: who loses more information than whom."""
    printed = _printed()
    sides = (("eot-blur", 1, "above"), ("spread-spectrum", -1, "below"))
    claim = _untested(
        "Saliency-Aware loses the least information of all",
        "Table I, § IV-D",
        "; ".join(f"{label} {printed[key].min():.3f}" for key, label in ERRORS.items()),
    )
    yield run.judge(claim, printed.index, _least)
    for name, side, word in sides:
        numbers = (f"{printed.loc[name, k]:.3f} and {printed.loc['i-fgsm', k]:.3f}" for k in ERRORS)
        claim = _untested(f"{label_of(name)} {word} I-FGSM", "Table I", "; ".join(numbers))
        yield run.judge(claim, ["i-fgsm", name], partial(_beside, name=name, side=side))


def _least(table: pd.DataFrame) -> Outcome:
    ours, others = table.loc["saliency-aware"], table.drop("saliency-aware")
    return Outcome(
        "; ".join(
            f"{label} {with_interval(ours, key, 4)}, next {label_of(others[key].idxmin())} "
            f"{with_interval(others.loc[others[key].idxmin()], key, 4)}"
            for key, label in ERRORS.items()
        ),
        "reproduced if its interval lies below every other's, in L1 and in L2",
        all(ours[f"{key}_high"] < others[f"{key}_low"].min() for key in ERRORS),
        all(ours[key] < others[key].min() for key in ERRORS),
    )


def _beside(table: pd.DataFrame, name: str, side: int) -> Outcome:
    row = table.loc[name]
    keys = {f"{key}_difference": label for key, label in ERRORS.items()}
    return Outcome(
        "; ".join(f"{label} {with_interval(row, key, 4)}" for key, label in keys.items()),
        "reproduced if the difference to I-FGSM, face by face, has the printed sign over all of "
        "its interval, in L1 and in L2",
        all(min(side * row[f"{key}_low"], side * row[f"{key}_high"]) > 0 for key in keys),
        all(side * row[key] > 0 for key in keys),
    )


def _background(run: Run) -> Claim:
    """Eq. 3–5: M keeps the perturbation out of the background."""
    claim = _untested("The background is preserved", "Eq. 3–5, § III-B", "no number")
    if reason := run.without("i-fgsm", "saliency-aware"):
        return claim._replace(because=reason)
    chosen = run.rows.query("attacker == 'saliency-aware' and precision == 'uint8'")
    largest = chosen["background_linf"].dropna()
    if largest.empty:
        return claim._replace(because=f"no picture has saliency below {BACKGROUND}")
    table, kept = run.table(OURS), (largest == 0).sum()
    row, reference = table.loc["saliency-aware"], table.loc["i-fgsm", "background_l1"]
    exactly = kept == len(largest)
    nearly = _range(row, "background_l1")[1] <= NEARLY * reference
    share = (
        "" if reference == 0 else f", {100 * row['background_l1'] / reference:.1f} % of I-FGSM's"
    )
    limit = f"up to {100 * NEARLY:.0f} % of I-FGSM's change"
    because = f"not even nearly kept, which would be {limit}"
    if exactly:
        because = "not one bit of it changes"
    elif nearly:
        because = (
            f"assuming that nearly preserved is preserved, {limit}: a soft M is not zero there"
        )
    return claim._replace(
        measured=f"L1 {with_interval(row, 'background_l1', 4)} where saliency is below "
        f"{BACKGROUND}{share}; exactly zero in {kept} of {len(largest)} pictures",
        verdict=REPRODUCED if exactly else ASSUMING if nearly else NOT,
        because=because,
    )


def _broken(run: Run) -> Iterable[Claim]:
    """Fig. 5: the fakes break, all of them together and attribute by attribute."""
    rows = run.rows[run.rows["precision"] == "uint8"]
    claim = _untested("The fake is visibly broken", "Fig. 5, § IV-D", "no number")
    yield _breaks(run, claim, rows)
    parts = []
    for attribute in ATTRIBUTES:
        claim = claim._replace(claim=f"Effective on {attribute.replace('_', ' ')}")
        parts.append(_breaks(run, claim, rows[rows["attribute"] == attribute]))
    yield from parts
    order = (NOT, UNTESTED, ASSUMING, REPRODUCED)  # one edit that holds out is enough
    verdict = min((part.verdict for part in parts), key=order.index)
    these = [part.claim.removeprefix("Effective on ") for part in parts if part.verdict == verdict]
    shares = rows[rows["attacker"] == "saliency-aware"].groupby("attribute")["success"].mean()
    broken = ", ".join(
        f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in shares.items()
    )
    yield claim._replace(
        claim="Effective on every attribute",
        measured=f"broken: {broken}" if broken else "–",
        verdict=verdict,
        because=f"the worst of the five verdicts above, {verdict}: {', '.join(these)}",
    )


def _breaks(run: Run, claim: Claim, rows: pd.DataFrame) -> Claim:
    """Judge the share of the saliency-aware attack's fakes that are broken, among these rows."""
    if reason := run.without("saliency-aware"):
        return claim._replace(because=reason)
    if rows.empty:
        return claim._replace(because="no picture of this run was attacked on it")
    groups = rows.groupby("attacker")
    table = {name: _by_face(group, "success", "damage_l2") for name, group in groups}
    row, faces = table["saliency-aware"], rows["face_id"].nunique()
    share = row["success"]
    if share in (0, 1):  # all alike leaves the bootstrap no width: Clopper and Pearson's, exact
        exact = binomtest(int(share * faces), faces).proportion_ci()
        row["success_low"], row["success_high"] = exact
    largest = run.rows.loc[run.rows["attacker"] == "saliency-aware", "linf"].max()
    stronger = largest > MAGNITUDE + LEVEL
    side = "beyond" if stronger else "below" if largest < MAGNITUDE - LEVEL else "at"
    assumed = ["that a stronger attack than the paper's counts"] if stronger else []
    if not row["success_low"] >= BROKEN:
        assumed.append(_stand_for_all(faces))
    because = (
        f"asked: damage above {SUCCESS} (Ruiz et al.) in {100 * BROKEN:.0f} % of the fakes; "
        f"{run.strength}, {side} the paper's magnitude of {MAGNITUDE}"
    )
    holds = share >= BROKEN
    if holds and assumed:
        because = f"assuming {' and '.join(assumed)}: {because}"
    broken, damage = with_interval(row, "success", 0, 100), with_interval(row, "damage_l2", 3)
    measured = f"{broken} % broken, damage {damage}"
    if "i-fgsm" in table:
        other = table["i-fgsm"]
        broken, damage = 100 * other["success"], with_interval(other, "damage_l2", 3)
        measured += f"; I-FGSM {broken:.0f} %, damage {damage}"
    verdict = NOT if not holds else ASSUMING if assumed else REPRODUCED
    return claim._replace(measured=measured, verdict=verdict, because=because)


def _by_face(rows: pd.DataFrame, *keys: str) -> pd.Series:
    means = rows.groupby("face_id")[list(keys)].mean()
    ends = {key: interval(means[key].to_numpy(), 0) for key in keys}
    return pd.Series({f"{key}{end}": v for key in keys for end, v in ends[key].items()})


def _stand_for_all(faces: int) -> str:
    return (
        "that this face stands for all" if faces == 1 else f"that these {faces} faces stand for all"
    )


def _less_damage(run: Run) -> Claim:
    """What Table I leaves out: whether less change of the photo is also less damage."""
    claim = _untested(
        "Saliency-Aware does less damage than I-FGSM at the same strength", "not in the paper", "–"
    )
    if reason := run.without("i-fgsm", "saliency-aware"):
        return claim._replace(because=reason)
    largest = run.rows.groupby("attacker")["linf"].max()
    ours, other = largest["saliency-aware"], largest["i-fgsm"]
    if abs(ours - other) > LEVEL:
        reason = (
            f"not the same strength: the largest change of a pixel is {ours:.3f} and {other:.3f}"
        )
        return claim._replace(because=reason)
    table = run.table(OURS)
    row = table.loc["saliency-aware"]
    low, high = row["damage_l2_difference_low"], row["damage_l2_difference_high"]
    answer = "yes" if high < 0 else "no, more" if low > 0 else "not settled by these faces"
    damage, other = (
        with_interval(table.loc[n], "damage_l2", 3) for n in ("saliency-aware", "i-fgsm")
    )
    return claim._replace(
        measured=f"damage {damage} and {other}; difference "
        f"{with_interval(row, 'damage_l2_difference', 3)}",
        verdict=FINDING,
        because=f"{answer}, by the interval of the difference face by face; Table I counts the "
        "change of the photo alone",
    )

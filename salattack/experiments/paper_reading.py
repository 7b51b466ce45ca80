"""Which reading of what the paper leaves open gives Table I: every combination, by distance.

Strength and start are varied by attacking. Units and averages are arithmetic on the rows: they move
all L1 and all L2 by one factor each (``level``), not the attackers' ratios (``shape``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..attacks import Attack
from ..errors import SalattackError, one_of
from ..metrics import BACKGROUND
from ..presets import ATTACKERS, label_of
from .evaluation import PRECISIONS, evaluate_variants
from .statistics import by_person, interval, redrawn
from .study import Study
from .table_1 import ERRORS, PRINTED, UNITS, printed_averages
from .text import Column, as_text, save_table

NEAREST = 20  # readings in the saved table

# Bound and step in [-1, 1] units, and steps: "magnitude 0.1" (§ IV-A) read as nothing new, as the
# bound, as the step, and in [0, 1] units.
ATTACK_STRENGTHS = {
    "bound 0.05, step 0.01": (0.05, 0.01, 10),  # Ruiz et al.'s code
    "bound 0.1, step 0.01": (0.1, 0.01, 10),  # their step: ten of them just reach 0.1
    "bound 0.1, step 0.02": (0.1, 0.02, 10),  # their ratio of step to bound
    "bound 0.1, step 0.1": (0.1, 0.1, 10),  # m of Eq. 8 to 10 is the magnitude itself
    "bound 0.2, step 0.02": (0.2, 0.02, 10),  # 0.1 in [0, 1]: ten steps just reach it
    "bound 0.2, step 0.04": (0.2, 0.04, 10),
}


class AttackReading(NamedTuple):
    """What is open about the attackers besides their strength."""

    ball: Sequence[str] = ()  # who starts from noise in the whole ball; others at the photo
    aware: Mapping[str, object] = {}  # what changes in Saliency-Aware


BLURRED = PRINTED[1:]  # I-FGSM has no random start by name, and the others none by necessity
UNMASKED = {"start_in": "everywhere"}  # Saliency-Aware's noise is not multiplied by M
ATTACK_READINGS = {
    "at the photo": AttackReading(),  # this package's presets
    "at the photo, gradient at I × M": AttackReading(aware={"gradient_at": "masked"}),
    "at the photo, bound τ × M": AttackReading(aware={"bound_by": "saliency"}),
    "at the photo, blur on the iterate": AttackReading(aware={"blur_target": "iterate"}),
    "at the photo, binary map": AttackReading(aware={"region": "binary"}),
    "in the ball": AttackReading(PRINTED),
    "in the ball, noise unmasked": AttackReading(PRINTED, UNMASKED),
    "in the ball, noise unmasked, binary map": AttackReading(
        PRINTED, UNMASKED | {"region": "binary"}
    ),
    "in the ball, noise unmasked, no blur": AttackReading(PRINTED, UNMASKED | {"blurs": ()}),
    "in the ball but for I-FGSM": AttackReading(BLURRED),
    "in the ball but for I-FGSM, noise unmasked": AttackReading(BLURRED, UNMASKED),
}


class Arithmetic(NamedTuple):
    """How two numbers were made of a perturbation: factors on ours, which are in [-1, 1]."""

    l1: float  # on the mean absolute value
    l2: float  # on the mean square, or on its root
    root: bool = False  # L2 is the root of each image's mean square
    masked: bool = False  # only what lies where M ≥ 0.5 counts, in the mean over the image


# L2's kind → factor, whether a root. § IV-C says "2-norm"; × 100 and the numbers say a square.
L2_KINDS = {
    "mean square": (1.0, False),
    "halved": (0.5, False),  # a loss is often half the square
    "summed over channels": (3.0, False),
    "root": (1.0, True),
    "root over channels": (3**0.5, True),  # of the square summed over channels
}

# What is averaged → factor, whether masked. Errors next to as many unchanged images are halved;
# differences of I_face = I × M (Eq. 2) in place of I know the face alone, for every attacker.
AVERAGED = {"all": (1.0, False), "half unchanged": (0.5, False), "of I × M": (1.0, True)}


def _arithmetic() -> dict[str, Arithmetic]:
    """Return every different arithmetic under its plainest name."""
    found: dict[Arithmetic, str] = {}
    for (average, (share, masked)), (kind, (factor, root)), one, two in product(
        AVERAGED.items(), L2_KINDS.items(), UNITS, UNITS
    ):
        name = one if one == two else f"L1 {one}, L2 {two}"
        name += f", L2 {kind}" * (kind != "mean square") + f", {average}" * (average != "all")
        l2 = share * factor * UNITS[two] ** (1 if root else 2)
        made = Arithmetic(share * UNITS[one], l2, root, masked)
        found[made] = min(found.get(made, name), name, key=lambda text: text.count(","))
    return {name: made for made, name in found.items()}


ARITHMETIC = _arithmetic()


class Reading(NamedTuple):
    """One answer to all that is open about Table I, by name."""

    strength: str
    attackers: str
    arithmetic: str
    precision: str


PAPER = Reading(
    "bound 0.05, step 0.01", "in the ball, noise unmasked", "[-1, 1], half unchanged", "uint8"
)
"""The nearest reading, which nothing defaults to: distance 0.076 [0.062, 0.096] on eight faces of
StarGAN's test split of CelebA ("shuffled", seed 0, "bfloat16"). Bound 0.1, step 0.02 with errors in
[0, 1] is tied. Nothing printed says why half should be unchanged."""


def attacks_of(strength: str, reading: str) -> dict[str, Attack]:
    """Return Table I's four attackers as a known strength and attack reading have them, by name."""
    if strength not in ATTACK_STRENGTHS:
        raise one_of("strength", strength, ATTACK_STRENGTHS)
    if reading not in ATTACK_READINGS:
        raise one_of("attack reading", reading, ATTACK_READINGS)
    how, chosen = ATTACK_STRENGTHS[strength], ATTACK_READINGS[reading]
    attacks = {name: ATTACKERS[name].with_strength(*how) for name in PRINTED}
    for name in chosen.ball:
        attacks[name] = replace(attacks[name], start=how[0])
    return attacks | {"saliency-aware": replace(attacks["saliency-aware"], **chosen.aware)}


def measure(
    study: Study,
    strengths: Iterable[str] | None = None,
    readings: Iterable[str] | None = None,
    *,
    of: Sequence[str] = PRINTED,
    seed: int = 0,
    **options: object,
) -> pd.DataFrame:
    """Attack with each of `ATTACK_STRENGTHS` and `ATTACK_READINGS`, or with those that are named.

    EoT-Blur costs three times what all others do. Returns the rows of `evaluate_variants` by
    ``strength``, ``attackers`` (the reading) and ``attacker``, with each photo's ``salient`` share.

    Raises:
        SalattackError: an unknown or no strength, reading or attacker, or as `evaluate`.
    """
    chosen = ATTACK_STRENGTHS if strengths is None else strengths
    pairs = list(product(chosen, ATTACK_READINGS if readings is None else readings))
    if not pairs or not of:
        raise SalattackError("nothing to compare: give a strength, a reading and an attacker")
    if unknown := [name for name in of if name not in PRINTED]:
        raise one_of("attacker of Table I", unknown[0], PRINTED)
    variants = {
        (*pair, name): replace(attacks_of(*pair)[name], seed=seed) for pair in pairs for name in of
    }
    study, columns = study.readable(), ("strength", "attackers", "attacker")
    rows = evaluate_variants(study, variants, columns, tuple(PRECISIONS), **options)
    salient = {
        ids[0]: (study.saliency_map(photos) >= BACKGROUND).float().mean().item()
        for photos, _, ids in study.batches(1)
    }
    return rows.assign(salient=rows["face_id"].map(salient))


def printed(of: Sequence[str] = PRINTED) -> np.ndarray:
    """Return Table I's averages of N attackers: (N, 2), L1 and L2 × 100."""
    return printed_averages().loc[list(of)].to_numpy()


def rounding(of: Sequence[str] = PRINTED) -> float:
    """Return the distance that the printed averages' three digits alone may make."""
    return float(np.sqrt(np.mean(np.log1p(0.0005 / printed(of)) ** 2)))


def rank(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Rank every reading by its distance to Table I.

    The distance is the root mean square of log(ours / printed) over the averages of those
    attackers that were measured, all eight for all four: 0.1 is about ten per cent. People are
    drawn for all readings alike (paired).

    Returns:
        A row per `Reading`, the nearest first: its names; ``distance`` with ``_low`` and ``_high``
        (95 %); its two parts, distance² = level² + shape²; ``tied``, whether the nearest reading
        leads by no more than `rounding` at the low end of the difference's interval; and ours,
        ``{attacker} l1`` and ``{attacker} l2_x100``.

    Raises:
        SalattackError: a face that not every attacker of every reading has.
    """
    of = [name for name in PRINTED if name in set(rows["attacker"])]
    paper, lines, distances = printed(of), [], []
    for (strength, reading, precision), (sums, faces) in _by_person(rows, of).items():
        people = redrawn(len(sums), seed, 999)
        means = sums[people].mean(1) / faces[people].mean(1)[:, None, None, None]
        for name, (l1, l2, root, masked) in ARITHMETIC.items():
            part = means[:, :, int(masked)]
            ours = np.stack([part[..., 0] * l1, part[..., 1 + root] * l2 * 100], -1)
            with np.errstate(divide="ignore", invalid="ignore"):  # unchanged photos: infinitely far
                residual = np.log(ours / paper)
            distance = _root(residual, (1, 2))  # of the sample itself, then of draws
            level = residual[0].mean(0)
            distances.append(distance)
            lines.append(
                Reading(strength, reading, name, precision)._asdict()
                | interval(distance).columns("distance")
                | {"level": _root(level), "shape": _root(residual[0] - level)}
                | dict(zip(_columns(of), ours[0].flat, strict=True))
            )
    behind = np.stack(distances)
    behind = behind - behind[behind[:, 0].argmin()]
    table = pd.DataFrame(lines)
    table.insert(9, "tied", np.percentile(behind, 2.5, axis=1) <= rounding(of))
    return table.sort_values("distance", kind="stable", ignore_index=True)


def _root(values: np.ndarray, axis: tuple[int, ...] | None = None) -> np.ndarray:
    return np.sqrt((values**2).mean(axis))


def _columns(of: Sequence[str]) -> list[str]:
    return [f"{name} {measure}" for name in of for measure in ERRORS]


def _by_person(
    rows: pd.DataFrame, of: list[str]
) -> dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]:
    """Return sums over a person's faces, (people, attackers, 2, 3), and their number, by reading.

    2 × 3: of the image and of its salient part, mean L1, mean square and its root, in [-1, 1].
    """
    measures = ["l1", "l2", "root", "masked l1", "masked l2", "masked root"]
    rows = rows.assign(root=np.sqrt(rows["l2"]))
    for norm in ("l1", "l2"):
        background = (1 - rows["salient"]) * rows[f"background_{norm}"].fillna(0)
        rows[f"masked {norm}"] = (rows[norm] - background).clip(lower=0)
    rows["masked root"] = np.sqrt(rows["masked l2"])
    faces, result = rows["face_id"].nunique(), {}
    for key, group in rows.groupby(["strength", "attackers", "precision"], sort=False):
        tables = [by_person(group[group["attacker"] == name], measures) for name in of]
        if any(table["faces"].sum() != faces for table in tables):
            problem = f"not every attacker of {key[0]!r}, {key[1]!r} has every face of these rows"
            raise SalattackError(f"{problem}; measure the same faces with all")
        sums = np.stack([table[measures].to_numpy() for table in tables], 1)
        result[key] = sums.reshape(len(sums), len(of), 2, 3), tables[0]["faces"].to_numpy()
    return result


def nearest(table: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """Return each strength's and attack reading's nearest arithmetic, the first few of them."""
    return table.drop_duplicates(["strength", "attackers"]).head(count)


def concentration(rows: pd.DataFrame) -> pd.DataFrame:
    """Return L2 / L1², ours and printed; a unit that both share does not change it.

    It is 1 where every pixel changes as much, and 1 / p where a share p of them does. If half of
    what is averaged is unchanged, it doubles. Rows: readings, and "Table I"; columns: attackers.
    """
    of = [name for name in PRINTED if name in set(rows["attacker"])]
    saved = rows[rows["precision"] == "uint8"]
    means = saved.groupby(["strength", "attackers", "attacker"], sort=False)[["l1", "l2"]].mean()
    ours = (means["l2"] / means["l1"] ** 2).unstack()[of]
    paper = printed(of)
    ours.loc[("Table I", "as printed"), :] = paper[:, 1] / 100 / paper[:, 0] ** 2
    return ours.rename(columns=label_of)


def findings(rows: pd.DataFrame) -> pd.DataFrame:
    """Say which statements hold, for rows that I-FGSM and Saliency-Aware are among."""
    table, spread = rank(rows), concentration(rows)[label_of("i-fgsm")]
    everywhere = table[~table["arithmetic"].str.endswith("of I × M")]
    unmasked = ["start_in" in ATTACK_READINGS[name].aware for name in everywhere["attackers"]]
    distance = everywhere["distance"].groupby(unmasked).min()
    unchanged = table["arithmetic"][0].endswith(("half unchanged", "of I × M"))
    statements = {
        "no one unit or strength gives Table I's L2 / L1²": spread[:-1].max() < spread.iloc[-1],
        "about half of what is averaged is unchanged": unchanged,
    }
    if len(distance) == 2:  # both were measured
        name = "over the whole image, unmasked noise comes nearer"
        statements[name] = distance[True] < distance[False]
    return pd.DataFrame({"holds": statements}).map(bool).rename_axis("statement")


def save_readings(folder: str | Path, table: pd.DataFrame) -> None:
    """Write `rank`'s table as CSV, and its nearest readings as Markdown."""
    title = "Distance of each reading to Table I [95 %]; L1 and L2 as that reading has them."
    save_table(folder, "paper_reading", table, presentable(nearest(table, NEAREST)), title)


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `rank`'s table as text, each with its place; the printed values come first."""
    of = [name for name in PRINTED if f"{name} l1" in table]
    numbers = [Column(n, n, 3) for n in ("distance", "level", "shape")]
    labels = [f"{label_of(name)} {measure}" for name in of for measure in ERRORS.values()]
    numbers += [Column(*pair, 4) for pair in zip(labels, _columns(of), strict=True)]
    paper = dict(zip(_columns(of), printed(of).flat, strict=True))
    table = table.assign(tied=table["tied"].map({True: "yes", False: "no"}))
    first = pd.DataFrame([{"strength": "Table I, as printed"} | paper])
    both = pd.concat([first, table], ignore_index=True)
    text = both[[*Reading._fields, "tied"]].fillna("–").join(as_text(both, numbers))
    return text.set_axis(["–", *(str(i + 1) for i in table.index)]).rename_axis("Place")

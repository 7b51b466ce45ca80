"""Which reading of what the paper leaves open gives Table I: every combination, by distance.

A reading has three parts. How strong the attackers are and how they start has to be attacked and
measured; in which units and by which averages the errors were printed is arithmetic on the rows.
That arithmetic can only move all L1 and all L2 by a common factor each (the ``level``); the ratios
between the attackers (the ``shape``) are evidence about the attackers alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..attacks import Attack
from ..errors import SalattackError, one_of
from ..metrics import BACKGROUND
from ..presets import ATTACKERS, label_of
from ..runtime.files import written_whole
from .evaluation import evaluate
from .ledger import Ledger
from .study import Study
from .table_1 import UNITS, printed_table_1

PRINTED = ("i-fgsm", "spread-spectrum", "eot-blur", "saliency-aware")  # Table I's order
MEASURES = ("l1", "l2_x100")
RESAMPLES = 999


class Strength(NamedTuple):
    """Bound and step in [-1, 1] units, and the number of steps."""

    bound: float
    step_size: float
    steps: int = 10


# "Magnitude 0.1" (§ IV-A) read as nothing new, as the bound, as the step, and in [0, 1] units.
STRENGTHS = {
    "bound 0.05, step 0.01": Strength(0.05, 0.01),  # Ruiz et al.'s code
    "bound 0.1, step 0.01": Strength(0.1, 0.01),  # their step: ten of them just reach 0.1
    "bound 0.1, step 0.02": Strength(0.1, 0.02),  # their ratio of step to bound
    "bound 0.1, step 0.1": Strength(0.1, 0.1),  # m of Eq. 8 to 10 is the magnitude itself
    "bound 0.2, step 0.02": Strength(0.2, 0.02),  # 0.1 in [0, 1]: ten steps just reach it
    "bound 0.2, step 0.04": Strength(0.2, 0.04),
}


class AttackReading(NamedTuple):
    """What is open about the attackers but for their strength.

    Attributes:
        ball: who starts from uniform noise in the whole ball, as PGD does; the others start at
            the photo, I-FGSM ±0.001 beside it, where it can move at all.
        unmasked: Saliency-Aware's noise is not multiplied by M.
        aware: what else changes in Saliency-Aware.
    """

    ball: Sequence[str] = ()
    unmasked: bool = False
    aware: Mapping[str, object] = {}


BLURRED = PRINTED[1:]  # I-FGSM has no random start by name, and the others none by necessity
ATTACK_READINGS = {
    "at the photo": AttackReading(),  # this package's presets
    "at the photo, gradient at I × M": AttackReading(aware={"gradient_at": "masked"}),
    "at the photo, bound τ × M": AttackReading(aware={"bound_by": "saliency"}),
    "at the photo, blur on the iterate": AttackReading(aware={"blur_target": "iterate"}),
    "at the photo, binary map": AttackReading(aware={"region": "binary"}),
    "in the ball": AttackReading(PRINTED),
    "in the ball, noise unmasked": AttackReading(PRINTED, True),
    "in the ball, noise unmasked, binary map": AttackReading(PRINTED, True, {"region": "binary"}),
    "in the ball, noise unmasked, no blur": AttackReading(PRINTED, True, {"blurs": ()}),
    "in the ball but for I-FGSM": AttackReading(BLURRED),
    "in the ball but for I-FGSM, noise unmasked": AttackReading(BLURRED, True),
}


class Arithmetic(NamedTuple):
    """How two numbers were made of a perturbation: factors on ours, which are in [-1, 1].

    Attributes:
        l1: factor on the mean absolute value.
        l2: factor on the mean square, or on its root.
        root: L2 is the root of each image's mean square.
        masked: the perturbation counts where M ≥ 0.5 alone, the mean is still over the image.
    """

    l1: float
    l2: float
    root: bool = False
    masked: bool = False


# L2's kind → factor, whether a root. § IV-C says "2-norm"; × 100 and the numbers say a square.
KINDS = {
    "mean square": (1.0, False),
    "halved": (0.5, False),  # a loss is often half the square
    "summed over channels": (3.0, False),
    "root": (1.0, True),
    "root over channels": (3**0.5, True),  # of the square summed over channels
}

# What is averaged → factor, whether masked. Errors next to as many unchanged images are halved;
# differences of I_face = I × M (Eq. 2) in place of I know the face alone, for every attacker.
AVERAGES = {"all": (1.0, False), "half unchanged": (0.5, False), "of I × M": (1.0, True)}


def _arithmetic() -> Iterator[tuple[str, Arithmetic]]:
    for average, kind in product(AVERAGES, KINDS):
        for one, two in sorted(product(UNITS, UNITS), key=lambda pair: pair[0] != pair[1]):
            units = one if one == two else f"L1 {one}, L2 {two}"
            (factor, root), (share, masked) = KINDS[kind], AVERAGES[average]
            name = ", ".join(
                [units] + [f"L2 {kind}"] * (kind != "mean square") + [average] * (average != "all")
            )
            l2 = share * factor * UNITS[two] ** (1 if root else 2)
            yield name, Arithmetic(share * UNITS[one], l2, root, masked)


ARITHMETIC = dict(_arithmetic())


class Reading(NamedTuple):
    """One answer to all that is open about Table I, by name."""

    strength: str
    attackers: str
    arithmetic: str
    precision: str


PAPER = Reading(
    "bound 0.05, step 0.01", "in the ball, noise unmasked", "[-1, 1], half unchanged", "uint8"
)
"""The nearest reading; nothing in this package defaults to it.

The run: `notebooks/paper_reading.ipynb` with faces of CelebA's test set (StarGAN's), split
"shuffled", seed 0, compute "bfloat16", the shipped generator and saliency model. On eight faces and
four attackers its distance is 0.076 [0.062, 0.096], most of it Spread-Spectrum's (12 and 17 % above
print); the others are within 7 %. With the same attackers and a masked start it is 0.179: printed
Saliency-Aware changes too much for a clean background.

What the run does not tell: bound 0.1, step 0.02 with errors in [0, 1] is as good (0.088 and 0.082
without EoT-Blur; 0.082 and 0.089 with it, on four faces); I-FGSM may start at the photo; errors of
I × M at bound 0.1, step 0.01 are not excluded (0.10). Nothing printed says why half should be
unchanged; L1 in [0, 1] beside half the mean square in [-1, 1] is the same arithmetic. That 8 bits
come nearer than float is a level of 5 to 10 %, which another generator may move as far.
"""


def attackers(reading: Reading = PAPER) -> dict[str, Attack]:
    """Return Table I's four attackers as a reading has them, by name.

    Raises:
        SalattackError: an unknown strength or attack reading.
    """
    return _attackers(reading.strength, reading.attackers)


def _attackers(strength: str, reading: str) -> dict[str, Attack]:
    for kind, name, known in (
        ("strength", strength, STRENGTHS),
        ("attack reading", reading, ATTACK_READINGS),
    ):
        if name not in known:
            raise one_of(kind, name, known)
    how, chosen = STRENGTHS[strength], ATTACK_READINGS[reading]
    attacks = {}
    for name in PRINTED:
        attack = ATTACKERS[name].with_strength(*how)
        attacks[name] = replace(attack, start=how.bound) if name in chosen.ball else attack
    aware = replace(attacks["saliency-aware"], **chosen.aware)
    if chosen.unmasked:
        aware = replace(aware, start_in="everywhere")
    return attacks | {"saliency-aware": aware}


def _key(name: str, attack: Attack) -> str:
    """Return a name that says what the attack is: a ledger then serves any choice of readings."""
    preset = ATTACKERS[name]
    changes = {f.name: getattr(attack, f.name) for f in fields(attack)}
    texts = [
        f"{key} {'none' if value == () else value}"
        for key, value in changes.items()
        if value != getattr(preset, key, None)
    ]
    return ", ".join([label_of(name), *texts])


def measure(
    study: Study,
    strengths: Iterable[str] | None = None,
    readings: Iterable[str] | None = None,
    *,
    of: Sequence[str] = PRINTED,
    targets: str = "rotate",
    batch_size: int = 10,
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack with every chosen strength and reading; an attacker that they share runs once.

    Args:
        study: faces and models.
        strengths: of `STRENGTHS`; all when None.
        readings: of `ATTACK_READINGS`; all when None.
        of: the attackers, some of `PRINTED`: EoT-Blur costs three times what all others do.
        targets: see `salattack.experiments.evaluation.aims`.
        batch_size: faces at a time.
        seed: of the random starts.
        ledger: see `evaluate`.
        progress: show a bar.

    Returns:
        The rows of `evaluate`, each under its ``strength``, ``attackers`` and ``attacker``, with
        the ``salient`` share of its photo.

    Raises:
        SalattackError: an unknown or no strength, reading or attacker, or as `evaluate`.
    """
    pairs = list(
        product(
            STRENGTHS if strengths is None else strengths,
            ATTACK_READINGS if readings is None else readings,
        )
    )
    if not pairs or not of:
        raise SalattackError("nothing to compare: give a strength, a reading and an attacker")
    for name in of:
        if name not in PRINTED:
            raise one_of("attacker of Table I", name, PRINTED)
    wanted = {
        pair: {name: replace(_attackers(*pair)[name], seed=seed) for name in of} for pair in pairs
    }
    unique = {_key(name, attack): attack for a in wanted.values() for name, attack in a.items()}
    study = study.readable()
    rows = evaluate(
        study, unique, targets=targets, batch_size=batch_size, ledger=ledger, progress=progress
    )
    rows["salient"] = rows["place"].map({i: _salient(study, i) for i in rows["place"].unique()})
    parts = dict(iter(rows.groupby("attacker")))
    return pd.concat(
        [
            parts[_key(name, attack)].assign(attacker=name, strength=strength, attackers=reading)
            for (strength, reading), attacks in wanted.items()
            for name, attack in attacks.items()
        ],
        ignore_index=True,
    )


def _salient(study: Study, place: int) -> float:
    photo = study.faces[place].image[None].to(study.device)
    return (study.saliency_map(photo) >= BACKGROUND).float().mean().item()


def printed(of: Sequence[str] = PRINTED) -> np.ndarray:
    """Return Table I's averages of (N) attackers: (N, 2), L1 and L2 × 100."""
    table = printed_table_1().query("sample == 'average'").set_index("attacker")
    return table.loc[list(of), list(MEASURES)].to_numpy()


def rounding(of: Sequence[str] = PRINTED) -> float:
    """Return the distance that the printed averages' three digits alone may make."""
    return float(np.sqrt(np.mean(np.log1p(0.0005 / printed(of)) ** 2)))


def rank(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Rank every reading by its distance to Table I.

    The distance is the root mean square of log(ours / printed) over the averages of those
    attackers that were measured, all eight for all four: 0.1 is ten per cent, and a factor of
    two counts the same everywhere.

    Args:
        rows: from `measure`.
        seed: of the bootstrap over faces, which are drawn for all readings alike (paired).

    Returns:
        A row per reading, the nearest first: ``strength``, ``attackers``, ``arithmetic``,
        ``precision`` and ``same_as`` (other arithmetic with the same factors); ``distance`` with
        ``_low`` and ``_high`` (95 %); its two parts, distance² = level² + shape², ``level`` (one
        factor on all L1 and one on all L2) and ``shape`` (the ratios between attackers);
        ``as_good``, whether the nearest reading is not clearly nearer: it leads by no more than
        `rounding` at the low end of the difference's interval; and ours, ``{attacker} l1`` and
        ``{attacker} l2_x100``.

    Raises:
        SalattackError: a face that not every attacker of every reading has.
    """
    of = _measured(rows)
    faces = _by_face(rows, of)
    n = len(next(iter(faces.values())))
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    draws = np.concatenate([np.arange(n)[None], draws])  # the first is the sample itself
    paper, lines, distances = printed(of), [], []
    for (strength, reading, precision), values in faces.items():
        means = values[draws].mean(1)  # (draws, attackers, 2, 3)
        for arithmetic, same in _distinct().items():
            ours = np.stack(
                [
                    means[..., int(arithmetic.masked), 0] * arithmetic.l1,
                    means[..., int(arithmetic.masked), 1 + arithmetic.root] * arithmetic.l2 * 100,
                ],
                -1,
            )
            with np.errstate(divide="ignore", invalid="ignore"):  # unchanged photos: infinitely far
                residual = np.log(ours / paper)
            distance = np.sqrt((residual**2).mean((1, 2)))
            level = residual[0].mean(0)
            distances.append(distance)
            lines.append(
                {
                    "strength": strength,
                    "attackers": reading,
                    "arithmetic": same[0],
                    "precision": precision,
                    "distance": distance[0],
                    "distance_low": np.percentile(distance[1:], 2.5) if n > 1 else np.nan,
                    "distance_high": np.percentile(distance[1:], 97.5) if n > 1 else np.nan,
                    "level": np.sqrt((level**2).mean()),
                    "shape": np.sqrt(((residual[0] - level) ** 2).mean()),
                    "same_as": "; ".join(same[1:]),
                }
                | {
                    f"{name} {measure}": ours[0, i, j]
                    for i, name in enumerate(of)
                    for j, measure in enumerate(MEASURES)
                }
            )
    behind = np.stack(distances)
    behind = behind - behind[behind[:, 0].argmin()]
    lead = np.percentile(behind, 2.5, axis=1) if n > 1 else behind[:, 0]
    table = pd.DataFrame(lines)
    table.insert(9, "as_good", lead <= rounding(of))
    return table.sort_values("distance", kind="stable", ignore_index=True)


def _distinct() -> dict[Arithmetic, list[str]]:
    """Return the arithmetic that differs, each with its names, the plainest first."""
    same: dict[Arithmetic, list[str]] = {}
    for name, arithmetic in ARITHMETIC.items():
        same.setdefault(arithmetic, []).append(name)
    return {key: sorted(names, key=lambda name: name.count(",")) for key, names in same.items()}


def _measured(rows: pd.DataFrame) -> list[str]:
    return [name for name in PRINTED if name in set(rows["attacker"])]


def _by_face(rows: pd.DataFrame, of: list[str]) -> dict[tuple[str, str, str], np.ndarray]:
    """Return (faces, attackers, 2, 3) arrays for each reading, in [-1, 1].

    Of all of the image and of its salient part: mean L1, mean square, and the latter's root.
    """
    rows = rows.reset_index(drop=True)
    values = pd.DataFrame(index=rows.index)
    for norm in ("l1", "l2"):
        background = (1 - rows["salient"]) * rows[f"background_{norm}"].fillna(0)
        values[f"all {norm}"] = rows[norm]
        values[f"masked {norm}"] = (rows[norm] - background).clip(lower=0)
    for part in ("all", "masked"):
        values[f"{part} root"] = np.sqrt(values[f"{part} l2"])
    measures = [f"{part} {m}" for part in ("all", "masked") for m in ("l1", "l2", "root")]
    rows = rows[["strength", "attackers", "precision", "face_id", "attacker"]].join(values)
    ids = sorted(rows["face_id"].unique())
    full = pd.MultiIndex.from_product([of, measures])
    result = {}
    for key, group in rows.groupby(["strength", "attackers", "precision"], sort=False):
        wide = group.pivot_table(measures, "face_id", "attacker").reindex(ids).swaplevel(axis=1)
        result[key] = wide.reindex(columns=full).to_numpy().reshape(len(ids), len(of), 2, 3)
        if np.isnan(result[key]).any():
            raise SalattackError(
                f"not every attacker of {key[0]!r}, {key[1]!r} has every face of these rows; "
                "measure the same faces with all"
            )
    return result


def best(table: pd.DataFrame) -> Reading:
    """Return the nearest reading of `rank`'s table."""
    return Reading(*table.sort_values("distance", kind="stable").iloc[0][list(Reading._fields)])


def nearest(table: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """Return each strength's and attack reading's nearest arithmetic, the first few of them."""
    return table.drop_duplicates(["strength", "attackers"]).head(count)


def look_up(table: pd.DataFrame, reading: Reading = PAPER) -> pd.DataFrame:
    """Return a reading's row of `rank`'s table, or none where it was not measured."""
    return table[(table[list(Reading._fields)] == reading).all(axis=1)]


def concentration(rows: pd.DataFrame) -> pd.DataFrame:
    """Return L2 / L1², ours and printed: no unit that both share moves it.

    It is 1 where every pixel changes as much, and 1 / p where a share p of them does. Half of
    what is averaged being unchanged doubles it.

    Returns:
        A row per ``strength`` and ``attackers``, and one "Table I"; a column per attacker. Ours
        are of the 8-bit pictures' means; printed are of the printed averages.
    """
    of = _measured(rows)
    saved = rows[rows["precision"] == "uint8"]
    means = saved.groupby(["strength", "attackers", "attacker"], sort=False)[["l1", "l2"]].mean()
    ours = (means["l2"] / means["l1"] ** 2).unstack()[of]
    paper = printed(of)
    ours.loc[("Table I", "as printed"), :] = paper[:, 1] / 100 / paper[:, 0] ** 2
    return ours.rename(columns=label_of)


def findings(rows: pd.DataFrame) -> pd.DataFrame:
    """Say what of the comparison holds, where it does not hang on a few per cent.

    Args:
        rows: from `measure`, with I-FGSM and Saliency-Aware among the attackers.

    Returns:
        A row per statement, with whether it ``holds``: that I-FGSM's L2 / L1² is below the
        printed one in every reading; that the nearest reading averages over as much that is
        unchanged; and, where both were measured, that Saliency-Aware comes nearer when its start
        is not masked, errors of I × M left aside.
    """
    table, spread = rank(rows), concentration(rows)[label_of("i-fgsm")]
    everywhere = table[~table["arithmetic"].str.endswith("of I × M")]
    unmasked = [ATTACK_READINGS[name].unmasked for name in everywhere["attackers"]]
    distance = everywhere["distance"].groupby(unmasked).min()
    statements = {
        "no one unit or strength gives Table I's L2 / L1²": spread[:-1].max() < spread.iloc[-1],
        "about half of what is averaged is unchanged": best(table).arithmetic.endswith(
            ("half unchanged", "of I × M")
        ),
    }
    if len(distance) == 2:
        nearer = distance[True] < distance[False]
        statements |= {"over the whole image, unmasked noise comes nearer": nearer}
    return pd.DataFrame({"holds": statements}).map(bool).rename_axis("statement")


def save(table: pd.DataFrame, folder: str | Path, count: int = 20) -> list[Path]:
    """Write `rank`'s table as CSV, and its ``count`` nearest readings as Markdown."""
    files = {
        "paper_reading.csv": table.to_csv(index=False, float_format="%.6g"),
        "paper_reading.md": presentable(nearest(table, count)).to_markdown() + "\n",
    }
    for name, text in files.items():
        with written_whole(Path(folder) / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return [Path(folder) / name for name in files]


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `rank`'s table as text, each with its place; the printed values come first."""
    of = [name for name in PRINTED if f"{name} l1" in table]

    def pairs(values: Iterable[Sequence[float]]) -> dict[str, str]:
        return {label_of(n): "{:.4f} / {:.4f}".format(*v) for n, v in zip(of, values, strict=True)}

    lines = [
        {
            "Place": "–",
            "Strength": "Table I, as printed",
            "Attackers start": "–",
            "Errors in": "–",
            "Stored as": "–",
            "distance": "–",
            "within": f"(rounding {rounding(of):.3f})",
            "level": "–",
            "shape": "–",
            "as good": "–",
        }
        | pairs(printed(of))
    ]
    lines += [
        {
            "Place": str(place + 1),
            "Strength": row["strength"],
            "Attackers start": row["attackers"],
            "Errors in": row["arithmetic"],
            "Stored as": row["precision"],
            "distance": f"{row['distance']:.3f}",
            "within": f"[{row['distance_low']:.3f}, {row['distance_high']:.3f}]",
            "level": f"{row['level']:.3f}",
            "shape": f"{row['shape']:.3f}",
            "as good": "yes" if row["as_good"] else "no",
        }
        | pairs(row[[f"{name} {measure}" for measure in MEASURES]] for name in of)
        for place, row in table.iterrows()
    ]
    return pd.DataFrame(lines).set_index("Place")

"""The paper's claims, each with its section, against the tables that a run wrote."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..generators import ATTRIBUTES
from ..metrics import BACKGROUND, SUCCESS
from ..presets import label_of
from .evaluation import samples
from .samples import FIG_5, LEVEL, MAGNITUDE, OTHERS, OURS, STRONG, Run, open_run, people
from .statistics import Estimate, columns_of, estimate, mean, share_of_rows
from .table_1 import ERRORS, PAPER_SIZES, PRINTED, printed_averages, table_1

REPRODUCED = "reproduced"
ASSUMING = "reproduced under these assumptions"
NOT = "not reproduced"
UNTESTED = "not tested"
VERDICTS = {  # the order of a page, and its headings
    REPRODUCED: "What holds",
    ASSUMING: "What holds under assumptions",
    NOT: "What does not hold",
    UNTESTED: "What could not be tested",
}
READINGS = {  # of the errors; the paper states neither range nor rounding
    ("[0, 1]", "uint8"): "[0, 1] of the saved picture",
    ("[-1, 1]", "uint8"): "[-1, 1] of the saved picture",
    ("[0, 1]", "float32"): "[0, 1] of the unrounded picture",
}
AT_EQUAL_DAMAGE, MASKS = "trade_off_at_equal_damage.csv", "mask_quality.csv"
PUBLISHED_TABLE = "published/published.csv"
MASKED = "PFAN, soft (paper)"  # of the ablation
AVERAGES = printed_averages()
ROUNDING = 0.0005  # of Table I's three printed decimals

# Of our mean, beside its interval: faces and generator are not the paper's, and decide how far an
# attack goes inside its bound. It is less than what sets the paper's attackers apart (16 to 25 %).
ERROR_TOLERANCE = 0.15
RATIO_TOLERANCE = 0.10  # beside the rounding; the printed ratios span 0.77 to 1.05
NEARLY = 0.10  # of I-FGSM's change of the background, which is called nearly kept
EQUAL = 0.90  # of another attack's damage, which is called equivalent
RELIABLE = 0.90  # share of successes from which something is called reliable
PSNR, SSIM = 40, 0.98  # from which a change is called imperceptible: ours, the paper gives none


class Judgement(NamedTuple):
    """What a run says of a claim: its numbers, the verdict, and the reason in sentences."""

    measured: str
    verdict: str
    because: str


class Claim(NamedTuple):
    """A claim, its section, the attackers and tables that its test needs, the test, the print."""

    text: str
    section: str
    needs: Sequence[str]
    test: Callable[[Run], Judgement]
    printed: str = "–"

    def judge(self, run: Run) -> Judgement:
        """Return the outcome, or what the run lacks."""
        lacking = " and no ".join(label_of(need) for need in self.needs if run.lacks(need))
        return _untested(f"The run has no {lacking}.") if lacking else self.test(run)


def _judged(measured: str, because: str, clear: bool, here: bool, may: bool = False) -> Judgement:
    """Judge by whether a claim holds over its interval, for our mean, and at its best end."""
    if here and not clear:
        because += " The interval reaches beyond that: this assumes more faces like these."
    elif may and not here:
        because += " These few faces do not rule it out."
    return Judgement(measured, REPRODUCED if clear else ASSUMING if here else NOT, because)


_untested = partial(Judgement, "–", UNTESTED)


def _above(limit: float, *found: Estimate) -> tuple[bool, ...]:
    """Return whether all low ends, all values, and all high ends reach a limit."""
    return tuple(all(e[end] >= limit for e in found) for end in (1, 0, 2))


def _averages(run: Run) -> Judgement:
    fits: dict[str, list[str]] = {}
    for (unit, precision), reading in READINGS.items():
        if precision not in set(run.every["precision"]):
            continue
        table = table_1(run.every, unit=unit, precision=precision).loc[list(PRINTED)]
        fits[reading] = []
        for key, label in zip(ERRORS, ("L1", "L2"), strict=True):
            low, high = (table[f"{key}_{end}"].fillna(table[key]) for end in ("low", "high"))
            wider = ROUNDING + ERROR_TOLERANCE * table[key]
            fitting = table.index[table[f"paper_{key}"].between(low - wider, high + wider)]
            fits[reading] += [f"{label} of {label_of(name)}" for name in fitting]
    best = max(fits, key=lambda reading: len(fits[reading]))
    whole, ours = len(fits[best]) == 8, best == READINGS["[0, 1]", "uint8"]
    because = f"Fitting: {', '.join(fits[best]) or 'none'}. An average fits if the printed value "
    because += f"lies in our interval, widened by {100 * ERROR_TOLERANCE:.0f} % of our mean."
    because += f" This assumes errors in {best}." if whole and not ours else ""
    verdict = NOT if not whole else REPRODUCED if ours else ASSUMING
    return Judgement(f"{len(fits[best])} of 8 fit, with errors in {best}", verdict, because)


def _ratio(run: Run, name: str) -> Judgement:
    texts, fits = [], []
    for key, column in zip(("l1", "l2"), ERRORS, strict=True):
        found = run.ratio(key, name, "i-fgsm")
        mine, other = AVERAGES.loc[[name, "i-fgsm"], column]
        low = (mine - ROUNDING) / (other + ROUNDING) - RATIO_TOLERANCE
        fits.append(low <= found.value <= (mine + ROUNDING) / (other - ROUNDING) + RATIO_TOLERANCE)
        texts.append(found.text(2))
    because = ("Neither ratio fits.", "One of the two ratios fits.", "Both ratios fit.")[sum(fits)]
    because += f" A ratio fits within {RATIO_TOLERANCE:.1f} of the printed one and its rounding."
    return _judged(" / ".join(texts), because, all(fits), all(fits))


def _least(run: Run) -> Judgement:
    both = [people(run.saved, key) for key in ("l1", "l2")]
    gaps = [estimate(mean, (p[name] - p[OURS]).to_numpy()) for p in both for name in OTHERS]
    measured = f"L1 {run.of('l1').text(4, 0.5)}, L2 × 100 {run.of('l2').text(4, 25)}"
    because = "Each other attack must change the photo more, in L1 and in L2, person by person."
    return _judged(measured, because, *_above(1e-12, *gaps))


def _always(run: Run) -> Judgement:
    n = int(run.saved["place"].max()) + 1
    held = [size for name, size in samples(n).items() if name in PAPER_SIZES]
    if not held:
        return _untested(f"The paper's smallest sample has 100 faces, and the run has {n}.")
    parts = [run.saved[run.saved["place"] < size].groupby("attacker") for size in held]
    least = [bool((part[["l1", "l2"]].mean().idxmin() == OURS).all()) for part in parts]
    measured = f"least L1 and L2 in {sum(least)} of the {len(held)} samples measured"
    because = "The claim asks for the least change in each of the paper's four samples."
    if all(least) and len(held) < 4:
        return Judgement(measured, ASSUMING, f"{because} This assumes the other samples alike.")
    return Judgement(measured, REPRODUCED if all(least) else NOT, because)


def _background(run: Run) -> Judgement:
    largest = run.mine["background_linf"].dropna()
    if largest.empty:
        return _untested(f"No picture has saliency below {BACKGROUND}.")
    kept, part = int((largest == 0).sum()), run.ratio("background_l1", OURS, "i-fgsm")
    measured = f"L1 {run.of('background_l1').text(4, 0.5)}, {part.text(1, 100)} % of I-FGSM's; "
    measured += f"exactly zero in {kept} of {len(largest)} pictures"
    if kept == len(largest):
        return Judgement(measured, REPRODUCED, "No background pixel changes in any picture.")
    nearly = np.nanmax(part) <= NEARLY
    limit = f"{100 * NEARLY:.0f} % of I-FGSM's change"
    because = "M is soft, so that the background changes in proportion to M. "
    because += f"At most {limit} counts as none." if nearly else f"It exceeds {limit}."
    return Judgement(measured, ASSUMING if nearly else NOT, because)


def _visible(run: Run, rows: pd.DataFrame) -> str:
    quality = f"PSNR {run.of('psnr', rows).text(1)} dB, SSIM {run.of('ssim', rows).text(3)}"
    return f"{quality}, largest change {rows['linf'].max() * 127.5:.0f} of 255"


def _imperceptible(run: Run) -> Judgement:
    psnr, ssim = (run.of(key, run.strong) for key in ("psnr", "ssim"))
    because = f"The measure is ours: PSNR of at least {PSNR} dB and SSIM of at least {SSIM}."
    pairs = zip(_above(PSNR, psnr), _above(SSIM, ssim), strict=True)
    return _judged(_beside(run, _visible), because, *map(all, pairs))


def _breaks(run: Run, rows: pd.DataFrame) -> str:
    damage, broken = run.of("damage_l2", rows), share_of_rows(rows, "success")
    return f"damage {damage.text(3)}, {broken.text(0, 100)} % broken"


def _beside(run: Run, text: Callable[[Run, pd.DataFrame], str]) -> str:
    weaker = "" if run.strong is run.mine else f"; at Table I's strength {text(run, run.mine)}"
    return text(run, run.strong) + weaker


def _broken(run: Run) -> Judgement:
    because = f"The mean damage must exceed {SUCCESS}; above it Ruiz et al. call a fake broken."
    found = run.of("damage_l2", run.strong)
    return _judged(_beside(run, _breaks), because, *_above(SUCCESS, found))


def _each_edit(run: Run) -> Judgement:
    rows = {name: run.strong[run.strong["attribute"] == name] for name in ATTRIBUTES}
    if lacking := [name for name in ATTRIBUTES if rows[name].empty]:
        return _untested(f"The run has no picture attacked on {lacking[0]}.")
    found = {name: run.of("damage_l2", rows[name]) for name in ATTRIBUTES}
    measured = "; ".join(f"{name} {e.text(3)}" for name, e in found.items()).replace("_", " ")
    because = f"The mean damage of each edit must exceed {SUCCESS}."
    return _judged(f"damage: {measured}", because, *_above(SUCCESS, *found.values()))


def _reliable(run: Run) -> Judgement:
    because = f"An attack that breaks {100 * RELIABLE:.0f} % of the fakes is called reliable here."
    found = share_of_rows(run.strong, "success")
    return _judged(_beside(run, _breaks), because, *_above(RELIABLE, found))


def _equivalent(run: Run) -> Judgement:
    largest = run.saved.groupby("attacker")["linf"].max()
    if np.ptp(largest) > LEVEL:
        return _untested("The attacks do not have one strength.")
    found = {name: run.ratio("damage_l2", OURS, name) for name in OTHERS}
    parts = ", ".join(f"{e.text(2)} of {label_of(name)}'s" for name, e in found.items())
    because = f"It must do {100 * EQUAL:.0f} % of each other attack's damage, at one strength."
    measured = f"damage {run.of('damage_l2').text(3)}: {parts}"
    return _judged(measured, because, *_above(EQUAL, *found.values()))


def _at_equal_damage(run: Run) -> Judgement:
    table = pd.read_csv(run.folder / AT_EQUAL_DAMAGE).set_index("attacker")
    if OURS not in table.index:
        return _untested("The run's trade-off has no Saliency-Aware.")
    value, low, high = found = Estimate(*table.loc[OURS, columns_of("ratio")])
    because = "To do I-FGSM's damage it must change the photo no more than I-FGSM does."
    return _judged(f"{found.text(2)} times I-FGSM's L2", because, high <= 1, value <= 1, low <= 1)


def _universal(run: Run) -> Judgement:
    if run.lacks(PUBLISHED_TABLE):
        because = "The shipped generators, two students of one teacher, cannot test any model."
        return _untested(f"{because} `salattack assets fetch published` gets five others.")
    table = pd.read_csv(run.folder / PUBLISHED_TABLE).query("bound == @MAGNITUDE")
    mine = table[table["attacker"] == OURS].set_index("generator")
    if mine.empty:
        return _untested(f"{PUBLISHED_TABLE} has no Saliency-Aware at magnitude {MAGNITUDE}.")
    found = {name: Estimate(*row) for name, row in mine[columns_of("damage_l2")].iterrows()}
    broken = (table["damage_l2"] > SUCCESS).groupby(table["attacker"]).sum()
    measured = "damage " + "; ".join(f"{name} {e.text(3)}" for name, e in found.items())
    measured += f": {broken[OURS]} of {len(found)} broken; by I-FGSM {broken.get('i-fgsm', '–')}"
    because = f"At magnitude {MAGNITUDE}, aimed at each published generator itself, the mean damage"
    return _judged(measured, f"{because} must exceed {SUCCESS}.", *_above(SUCCESS, *found.values()))


def _real_time(run: Run) -> Judgement:
    seconds = pd.read_csv(run.folder / FIG_5).get("mask_seconds", pd.Series(dtype=float)).mean()
    if np.isnan(seconds):
        return _untested("The run did not time its masks.")
    measured = f"{1000 * seconds:.0f} ms per mask, on this run's own processor"
    if seconds <= 1 / 25:
        return Judgement(measured, REPRODUCED, "A video frame of 1/25 s leaves 40 ms for its mask.")
    because = "Slower than a video frame (40 ms) here, but the paper used a GPU."
    return Judgement(measured, UNTESTED, because)


def _face_found(run: Run) -> Judgement:
    table = pd.read_csv(run.folder / MASKS)
    right = (table["inside"] > 0.5) & (table["corners"] < 0.5)
    found = share_of_rows(table.assign(right=right), "right")
    because = "Mean saliency must be above 0.5 in the face and below 0.5 in the top corners."
    return _judged(f"{found.text(0, 100)} % right", because, *_above(RELIABLE, found))


def _needless(run: Run) -> Judgement:
    table = pd.read_csv(run.folder / "ablation.csv").query("question == 'mask'")
    damage = table.set_index("variant")["damage_l2"]
    if not {MASKED, "none"} <= set(damage.index):
        return _untested("The run's ablation has no masks.")
    because = f"The masked attack must keep {100 * EQUAL:.0f} % of its damage without a mask."
    measured = f"damage {damage[MASKED]:.3f} with the mask, {damage['none']:.3f} without it"
    return _judged(measured, because, *[damage[MASKED] >= EQUAL * damage["none"]] * 2)


FIG = OURS, STRONG
CLAIMS = (
    Claim("The averages of Table I", "Table I", PRINTED, _averages, "four attackers, L1 and L2"),
    *(
        Claim(
            f"{label_of(name)}'s L1 and L2 relative to I-FGSM's",
            "Table I",
            ("i-fgsm", name),
            partial(_ratio, name=name),
            " / ".join(f"{ratio:.2f}" for ratio in AVERAGES.loc[name] / AVERAGES.loc["i-fgsm"]),
        )
        for name in (*OTHERS[1:], OURS)
    ),
    Claim("Saliency-Aware changes the photo least", "Table I, § IV-D", PRINTED, _least),
    Claim("Always less change, on many settings", "§ IV-D", PRINTED, _always, "4 samples"),
    Claim("The background is not influenced", "§ III-B, Eq. 3–5", ("i-fgsm", OURS), _background),
    Claim("The change is human-imperceptible", "§ III-A, § III-C, Eq. 6", FIG, _imperceptible),
    Claim("The fakes are visibly broken", "Fig. 5, § IV-D", FIG, _broken),
    Claim("Effective on each of the five edits", "Fig. 5", FIG, _each_edit),
    Claim("Obvious artifacts, a reliable defence", "§ IV-D", FIG, _reliable),
    Claim("Equivalent attack performance", "§ I, contribution 3", PRINTED, _equivalent),
    Claim("Effective at minimal information loss", "§ III-A", (AT_EQUAL_DAMAGE,), _at_equal_damage),
    Claim("The background need not be perturbed", "§ I", ("ablation.csv",), _needless),
    Claim("Universally applicable, plug and play", "§ I, contribution 3", (), _universal),
    Claim("The saliency map finds the face", "§ II-D, § III-B", (MASKS,), _face_found),
    Claim("The mask is computed in real time", "§ III-B", (FIG_5,), _real_time),
)


def verify(folder: str | Path = "figures") -> pd.DataFrame:
    """Judge each of the paper's claims by the tables of a run.

    The folder holds ``table_1_samples.csv``; ``fig_5_samples.csv``, the same at the paper's
    magnitude, and the other notebooks' tables are used where they are there.

    Returns:
        A row per claim, grouped by verdict: ``claim``, ``source`` in the paper, ``printed`` and
        ``measured`` as text, ``verdict`` (of `VERDICTS`) and ``because``.

    Raises:
        SalattackError: no such table, or one that is not whole.
    """
    run = open_run(folder)
    lines = [(claim.text, claim.section, claim.printed, *claim.judge(run)) for claim in CLAIMS]
    lines.sort(key=lambda line: list(VERDICTS).index(line[4]))
    return pd.DataFrame(lines, columns=["claim", "source", "printed", *Judgement._fields])

"""The ablation studies that the paper announces (§ I) and does not print.

Every variant differs from the paper's attacker in one choice.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ..blur import BLUR_FAMILY
from ..errors import one_of
from ..presets import PLATEAU, attacker
from .evaluation import evaluate_variants
from .statistics import mean_over_faces, share_of_rows, summarised
from .study import Study

# Question → variant → what it changes in the paper's attacker, at its bound of 0.05.
ABLATIONS = {
    "mask": {
        "PFAN, soft (paper)": {},
        "none": {"region": "everywhere"},
        "PFAN, binary": {"region": "binary"},
        "PFAN, complement": {"region": "complement"},
        "an ellipse": {"region": "ellipse"},
        "random, same area": {"region": "random"},
        "what g edits": {"region": "edited"},
        "PFAN × what g edits": {"region": "salient-edited"},
    },
    "blur": {
        "σ 1 in the loss (paper)": {},
        "none": {"blurs": (), "start": PLATEAU},
        "σ 1 on the iterate": {"blur_target": "iterate", "start": PLATEAU},
        "cycle of nine": {"blurs": BLUR_FAMILY},
        "mean of nine": {"blurs": BLUR_FAMILY, "blur_schedule": "mean"},
    },
    "gradient": {"at I (paper)": {}, "at I × M": {"gradient_at": "masked"}},
    "bound": {"τ (paper)": {}, "τ × M": {"bound_by": "saliency"}},
    "start": {
        "at the photo (paper)": {},
        "±0.001": {"start": PLATEAU},
        "in the ball": {"start": 0.05},
    },
    "loss": {"MSE (paper)": {}, "L1": {"loss": "l1"}, "features": {"loss": "features"}},
    "step": {
        "sign (paper)": {},
        "sign, momentum 1": {"momentum": 1.0},
        "gradient": {"direction": "gradient"},
        "gradient, momentum 1": {"direction": "gradient", "momentum": 1.0},
        "gradient, in a ball of τ/4": {"direction": "gradient", "radius": 0.0125},
    },
}


def ablate(
    study: Study,
    questions: Sequence[str] | None = None,
    *,
    steps: Sequence[int] = (1, 5, 10, 20, 50),
    bounds: Sequence[float] = (0.01, 0.02, 0.05, 0.1),
    strength: tuple[float, float, int] = (0.05, 0.01, 10),
    **options: object,
) -> pd.DataFrame:
    """Run the variants of `ABLATIONS`, and the paper's attacker at other steps and bounds.

    ``questions`` are of `ABLATIONS`, "steps" and "bounds"; all when None. At each of the
    ``bounds`` the step is a fifth of it; ``strength`` is bound, step and steps of all else. Returns
    the rows of `evaluate_variants`, whose options and errors it has, by ``question`` and
    ``variant``. The loss on features is left out where the saliency model has none.
    """
    attacks = {
        (question, label): attacker("saliency-aware", **changes).with_strength(*strength)
        for question, choices in ABLATIONS.items()
        for label, changes in choices.items()
    }
    if not hasattr(study.saliency, "feature_maps"):
        del attacks["loss", "features"]
    paper = attacker("saliency-aware").with_strength(*strength)
    attacks |= {("steps", f"{n}"): replace(paper, steps=n) for n in steps}
    attacks |= {("bounds", f"{b:g}"): paper.with_strength(b, 0.2 * b, strength[2]) for b in bounds}
    known = (*ABLATIONS, "steps", "bounds")
    chosen = known if questions is None else questions
    if unknown := [question for question in chosen if question not in known]:
        raise one_of("question", unknown[0], known)
    attacks = {key: attack for q in chosen for key, attack in attacks.items() if key[0] == q}
    return evaluate_variants(study, attacks, ("question", "variant"), **options)


def summarise(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row per question and variant: the change of the photo and the damage.

    Photo errors in [0, 1], damage in [-1, 1], means over faces with ``_low`` and ``_high`` (95 %).
    The interval of ``success`` is exact, over fakes. ``damage_per_l2`` is damage over L2, relative
    to the question's first variant, the paper's.
    """
    halved = rows[["l1", "background_l1"]] / 2
    rows = rows.assign(**halved, l2_x100=25 * rows["l2"])
    measures = ("l1", "l2_x100", "background_l1", "ssim", "damage_l2")
    estimates = dict.fromkeys(measures, mean_over_faces) | {"success": share_of_rows}
    table = summarised(rows, ["question", "variant"], estimates, seed).drop(columns="faces")
    per_l2 = table["damage_l2"] / table["l2_x100"]
    first = per_l2.groupby(level="question", sort=False).transform("first")
    return table.assign(damage_per_l2=per_l2 / first)

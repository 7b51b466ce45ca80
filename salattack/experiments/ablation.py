"""The ablation studies that the paper announces (§ I) and does not print.

Every variant differs from the paper's attacker in one choice, the rest being alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from ..attacks import Attack
from ..blur import BLUR_FAMILY
from ..errors import one_of
from ..images import as_saved
from ..metrics import fake_damage
from ..presets import attacker
from ..runtime.files import written_whole
from ..runtime.progress import progress_bar
from .evaluation import evaluate
from .ledger import Ledger
from .statistics import interval, with_interval
from .study import Study

PLATEAU = {"start": 0.001}  # a way off the plateau for what has neither blur nor start
PAPER: dict[str, object] = {}

# Question → variant → what it changes in the paper's attacker, at its bound of 0.05.
ABLATIONS: dict[str, dict[str, dict[str, object]]] = {
    "mask": {
        "PFAN, soft (paper)": PAPER,
        "none": {"region": "everywhere"},
        "PFAN, binary": {"region": "binary"},
        "PFAN, complement": {"region": "complement"},
        "an ellipse": {"region": "ellipse"},
        "random, same area": {"region": "random"},
        "what g edits": {"region": "edited"},
        "PFAN × what g edits": {"region": "salient-edited"},
    },
    "blur": {
        "σ 1 in the loss (paper)": PAPER,
        "none": {"blurs": (), **PLATEAU},
        "σ 1 on the iterate": {"blur_target": "iterate", **PLATEAU},
        "cycle of nine": {"blurs": BLUR_FAMILY},
        "mean of nine": {"blurs": BLUR_FAMILY, "blur_schedule": "mean"},
    },
    "gradient": {"at I (paper)": PAPER, "at I × M": {"gradient_at": "masked"}},
    "bound": {"τ (paper)": PAPER, "τ × M": {"bound_by": "saliency"}},
    "start": {
        "at the photo (paper)": PAPER,
        "±0.001": {"start": 0.001},
        "in the ball": {"start": 0.05},
    },
    "loss": {"MSE (paper)": PAPER, "L1": {"loss": "l1"}, "features": {"loss": "features"}},
    "step": {
        "sign (paper)": PAPER,
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
    targets: str = "rotate",
    batch_size: int = 10,
    ledger: Ledger | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the variants of `ABLATIONS`, and the paper's attacker at other steps and bounds.

    Args:
        study: faces and models.
        questions: of `ABLATIONS`, "steps" and "bounds"; all when None.
        steps: numbers of steps to compare, at the same bound and step.
        bounds: bounds to compare, the step being a fifth of each.
        strength: bound, step_size and steps of all the others.
        targets: see `salattack.experiments.evaluation.aims`.
        batch_size: faces at a time.
        ledger: see `evaluate`.
        progress: show a bar.

    Returns:
        The rows of `evaluate` for what is saved, each under its ``question`` and ``variant``; a
        variant that several questions share is computed once. The loss on features is left out
        where the saliency model has none.

    Raises:
        SalattackError: an unknown question, or as `evaluate`.
    """
    bound, step_size, count = strength
    preset = attacker("saliency-aware")
    paper = preset.with_strength(bound, step_size, count)
    variants = {
        question: {
            label: replace(preset, **changes).with_strength(bound, step_size, count)
            for label, changes in choices.items()
        }
        for question, choices in ABLATIONS.items()
    }
    if not hasattr(study.saliency, "feature_maps"):
        variants["loss"] = {
            label: attack for label, attack in variants["loss"].items() if attack.loss != "features"
        }
    variants["steps"] = {f"{n}": replace(paper, steps=n) for n in steps}
    variants["bounds"] = {f"{b:g}": paper.with_strength(b, 0.2 * b, count) for b in bounds}
    chosen = list(variants) if questions is None else questions
    for question in chosen:
        if question not in variants:
            raise one_of("question", question, variants)
    study = study.readable()
    names: dict[Attack, str] = {}
    for question in chosen:
        for label, attack in variants[question].items():
            names.setdefault(attack, f"{question}: {label}")
    attacks = {name: attack for attack, name in names.items()}
    rows = evaluate(
        study, attacks, targets=targets, batch_size=batch_size, ledger=ledger, progress=progress
    )
    rows = rows[rows["precision"] == "uint8"]
    return pd.concat(
        [
            rows[rows["attacker"] == names[attack]].assign(question=question, variant=label)
            for question in chosen
            for label, attack in variants[question].items()
        ],
        ignore_index=True,
    )


def summary(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row per question and variant: the change of the photo and the damage.

    Photo errors in [0, 1], damage in [-1, 1], ``_low`` and ``_high`` the 95 % interval over faces;
    ``damage_per_l2`` is damage over L2, both in [-1, 1], as a share of the question's first
    variant, the paper's.
    """
    rows = rows.assign(
        l1=rows["l1"] / 2, l2_x100=25 * rows["l2"], background_l1=rows["background_l1"] / 2
    )
    table = {}
    for key, group in rows.groupby(["question", "variant"], sort=False):
        measures = ["l1", "l2_x100", "background_l1", "ssim", "damage_l2", "success"]
        faces = group.groupby("face_id")[measures].mean()
        table[key] = {
            f"{measure}{end}": value
            for measure in measures
            for end, value in interval(faces[measure].dropna().to_numpy(), seed).items()
        } | {"damage_per_l2": faces["damage_l2"].mean() / faces["l2_x100"].mean()}
    result = pd.DataFrame.from_dict(table, orient="index")
    result.index = pd.MultiIndex.from_tuples(result.index, names=["question", "variant"])
    first = result.groupby(level="question", sort=False)["damage_per_l2"].transform("first")
    return result.assign(damage_per_l2=result["damage_per_l2"] / first)


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return `summary`'s result as text, question by question."""
    text = {
        "L1": ("l1", 4),
        "L2 × 100": ("l2_x100", 4),
        "background L1": ("background_l1", 4),
        "damage L2": ("damage_l2", 3),
    }
    columns = {
        label: [with_interval(row, key, digits) for _, row in table.iterrows()]
        for label, (key, digits) in text.items()
    }
    columns["broken %"] = (100 * table["success"]).round().astype(int).to_numpy()
    columns["damage per L2"] = table["damage_per_l2"].round(2).to_numpy()
    return pd.DataFrame(columns, index=table.index)


def save(table: pd.DataFrame, folder: str | Path) -> None:
    """Write `summary`'s result as ``ablation.csv`` and ``ablation.md``, whole or not at all."""
    with written_whole(Path(folder) / "ablation.csv") as beside:
        table.to_csv(beside, float_format="%.6g")
    with written_whole(Path(folder) / "ablation.md") as beside:
        text = presentable(table).reset_index().to_markdown(index=False)
        beside.write_text(text + "\n", encoding="utf-8")


def transfer(
    study: Study, attack: Attack, *, batch_size: int = 10, progress: bool = True
) -> pd.DataFrame:
    """Return how much a photo that was disrupted against one edit breaks the others.

    Returns:
        Mean ``damage_l2`` in [-1, 1] of the saved photos: a row for each edit aimed at, and for
        all of them, jointly and one an iteration in turn (see `Attack.edits`); a column for
        each edit that is then asked for.

    Raises:
        SalattackError: no face can be read.
    """
    study = study.readable()
    names = study.edits.names
    damage = {aim: [] for aim in (*names, "joint", "in turn")}
    work = len(study.faces) * len(damage) * attack.gradients
    with progress_bar(work, hidden=not progress) as bar:
        for photos, labels, _ in study.batches(batch_size):
            saliency_map = study.saliency_map(photos)
            edits = study.targets(labels, ["joint"] * len(photos))
            clean = study.generate(photos, edits).unflatten(1, (-1, 3))
            for aim, parts in damage.items():
                bar.set_description(f"against {aim}")
                joint = aim not in names
                target = edits if joint else study.targets(labels, [aim] * len(photos))
                chosen = replace(attack, edits="cycle" if aim == "in turn" else "joint")
                moved = study.disrupt(photos, target, chosen, saliency_map, bar.update)
                broken = study.generate(as_saved(moved), edits).unflatten(1, (-1, 3))
                each = fake_damage(clean.flatten(0, 1), broken.flatten(0, 1))["damage_l2"]
                parts.append(each.view(len(photos), -1).cpu())
    table = {aim: torch.cat(parts).mean(0).tolist() for aim, parts in damage.items()}
    columns = pd.Index(names, name="edit asked for")
    matrix = pd.DataFrame.from_dict(table, orient="index", columns=columns)
    return matrix.rename_axis("edit aimed at")

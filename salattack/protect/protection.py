"""Protecting a photo: the disruption of each face, computed on the aligned crop, in the photo.

A generator sees a face shrunk to its own resolution (s×s, 128 for the shipped one), so that the
perturbation is a grid of s×s values, spread over the photo's pixels. What g sees of it is computed
through that way there and back, through a slightly different alignment at every step (nobody
aligns exactly as we do), and for a JPEG through the compression of the file that is written.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ..errors import SalattackError
from ..faces.alignment import Box
from ..faces.reading import read_mask
from ..images import to_tensor
from ..metrics import fake_damage
from ..runtime.files import written_whole
from .detection import FoundFace, find_faces
from .disruption import BAND, Protector, _protect_face
from .photo_file import Photo, format_of, read_photo, write_photo
from .placement import Place

VIEW = 1024  # px: long side of what a person looks at, for SSIM
PATCHES = 32  # along each side of a face's part, for smooth changes of colour


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
        source: JPEG, PNG or WebP, see `salattack.protect.photo_file`.
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

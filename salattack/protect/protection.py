"""Protecting a photo: the disruption of each face is computed on its crop and put into the photo.

A generator sees a face shrunk to its own resolution (s×s, 128 for the shipped one). So the
perturbation is a grid of s×s values, spread over the photo's pixels. The attack optimises through
this path and back, through a slightly different alignment at every step (other programs align
differently), and for a JPEG through the compression of the file that is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ..errors import SalattackError
from ..faces.alignment import Box
from ..faces.reading import read_mask
from ..images import to_tensor
from ..metrics import fake_damage
from ..runtime.files import written_whole
from .detection import find_faces
from .disruption import BAND, Protector, protect_face
from .photo_file import format_of, read_photo, write_photo
from .placement import Place

VIEW = 1024  # px: long side of what a person looks at, for SSIM
BLOCKS = 16  # along each side of what g sees, for the tint
FIGURES = ("box", "psnr", "ssim", "tint", "l1", "linf", "damage", "broken")  # in the record
Seen = tuple[Place, Tensor, Tensor]  # a face: its place, what g sees there, and M there


@dataclass(frozen=True)
class FaceMeasure:
    """How one face of the written file differs from the photo."""

    place: Place  # where g's grid lies; its face is None for the whole frame
    mask: Tensor  # M, (1, 1, s, s) in [0, 1]
    before: Tensor  # what g sees of the photo, (1, 3, s, s) in [-1, 1]
    after: Tensor  # what g sees of the written file
    fakes: tuple[Tensor, Tensor]  # g's K edits of before and of after, (K, 3, s, s)
    box: Box  # the part of the upright photo that may have changed
    psnr: float  # of that part in dB
    ssim: float  # of that part, shrunk to `VIEW` pixels if it is larger
    tint: float  # largest mean change of a block in 8-bit steps; SSIM overlooks it, people do not
    l1: float  # mean absolute change of that part in 8-bit steps
    linf: int  # greatest absolute change in 8-bit steps
    damage: dict[str, float]  # for each edit, the mean squared change of the fake in [-1, 1]
    broken: int  # number of edits whose damage exceeds `salattack.metrics.SUCCESS`


@dataclass(frozen=True)
class Protected:
    """What `protect_photo` did."""

    source: Path  # the photo
    target: Path  # the protected file
    lossless: bool  # every pixel outside the masks kept its bits
    identical: float  # share of the photo's pixels that kept their bits
    faces: tuple[FaceMeasure, ...]
    notes: tuple[str, ...]  # what was not kept, and why

    def record(self) -> dict:
        """Return the figures as plain values, for a line of JSON."""
        faces = [
            {"face": face.place.face} | {name: getattr(face, name) for name in FIGURES}
            for face in self.faces
        ]
        whole = {"lossless": self.lossless, "identical": self.identical}
        return whole | {"faces": faces, "notes": list(self.notes)}


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
    """Write a photo whose faces are protected one after the other; the original is only read.

    Args:
        source: a photo, see `salattack.protect.photo_file`.
        target: JPEG, PNG or WebP; a PNG or WebP keeps the bits of every other pixel.
        protector: the models and the strength.
        mask: a grey picture of the photo's size that replaces the saliency: the photo may change
            fully where it is white, and not at all where it is black.
        whole_frame: protect the largest centre square instead of faces.
        overwrite: replace an existing target.
        on_step: called with the face's number from 1, the faces and the attack's steps so far.

    Raises:
        SalattackError: a photo that cannot be read or shows no face, a mask that cannot be read,
            has another size or leaves nothing to change, a target that is the source, exists, or
            cannot be written.
    """
    source, target = Path(source), Path(target)
    form = format_of(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise SalattackError(f"{target} is the photo itself; choose another path")
    if target.exists() and not overwrite:
        raise SalattackError(f"{target} exists; choose another path or pass --overwrite")
    photo = read_photo(source)
    region = None
    if mask is not None:
        region = read_mask(Path(mask)).convert("RGB")
        if region.size != photo.pixels.size:
            sizes = "is {}×{} px, the photo {}×{} px".format(*region.size, *photo.pixels.size)
            raise SalattackError(f"{mask} {sizes}; give a mask of the photo's size")
    photo.options(form)  # raises now if the format cannot hold the photo
    seen = _seen(source, photo.pixels, protector, whole_frame, region)
    if region is not None and not any(where.any() for _, _, where in seen):
        raise SalattackError(f"{mask} is black on every face; paint white what may change")
    with written_whole(target) as beside:
        beside.touch()  # raises now if the path cannot be written to
        for number, (place, _, where) in enumerate(seen, 1):
            if where.any():
                step = on_step and partial(on_step, number, len(seen))
                protect_face(photo, place, where, protector, form, step, region)
        write_photo(photo, beside, form)
        del photo  # frees the memory that `measure` needs
        done = measure(source, beside, protector, seen)
    return replace(done, target=target)


def measure(
    source: Path,
    target: Path,
    protector: Protector,
    seen: Sequence[Seen] = (),
    *,
    whole_frame: bool = False,
) -> Protected:
    """Compare a protected file to its photo, both read from disk.

    ``seen`` are the photo's faces if they are known; else they are looked for as `protect_photo`
    does. A file that cannot be read raises a SalattackError.
    """
    photo = read_photo(source)
    before, after = photo.pixels, read_photo(target).pixels
    width, height = before.size
    changed, rows = 0, max(1, BAND // width)
    for top in range(0, height, rows):  # in bands, which bounds the memory
        band = (0, top, width, min(top + rows, height))
        difference = ImageChops.difference(before.crop(band), after.crop(band))
        changed += int(np.asarray(difference).any(2).sum())
    faces = []
    for place, crop, mask in seen or _seen(source, before, protector, whole_frame):
        box, crop_after, steps = place.box(before.size), place.crop(after), np.arange(256)
        parts = before.crop(box), after.crop(box)
        counts = np.array(ImageChops.difference(*parts).histogram()).reshape(3, 256).sum(0)
        square = counts @ steps**2 / counts.sum()
        fakes = protector.fakes(crop), protector.fakes(crop_after)
        damage = fake_damage(*fakes)
        face = FaceMeasure(
            place=place,
            mask=mask,
            before=crop,
            after=crop_after,
            fakes=fakes,
            box=box,
            psnr=float(20 * np.log10(255) - 10 * np.log10(max(square, 1e-9))),
            tint=_tint(crop, crop_after),
            ssim=_ssim(*parts),
            l1=float(counts @ steps / counts.sum()),
            linf=int(counts.nonzero()[0].max()),
            damage=dict(zip(protector.edits.names, damage["damage_l2"].tolist(), strict=True)),
            broken=int(damage["success"].sum()),
        )
        faces.append(face)
    identical, form = 1 - changed / (width * height), format_of(target)
    notes = tuple(photo.notes_for(form))
    return Protected(source, target, form != "JPEG", identical, tuple(faces), notes)


def _seen(
    source: Path,
    pixels: Image.Image,
    protector: Protector,
    whole_frame: bool,
    region: Image.Image | None = None,
) -> list[Seen]:
    size = protector.image_size
    places = [Place.of_frame(pixels.size, size)] if whole_frame else []
    places = places or [Place.of_face(face, size) for face in find_faces(pixels)]
    if not places:
        raise SalattackError(
            f"no face found in {source}; --whole-frame protects the largest centre square instead"
        )
    crops = [place.crop(pixels) for place in places]
    given = [region and (place.crop(region).mean(1, keepdim=True) + 1) / 2 for place in places]
    return list(zip(places, crops, map(protector.mask, crops, given), strict=True))


def _tint(before: Tensor, after: Tensor) -> float:
    """Return the largest mean change of a block of (1, 3, s, s) images in 8-bit steps."""
    return 127.5 * F.adaptive_avg_pool2d(after - before, BLOCKS).abs().max().item()


def _ssim(before: Image.Image, after: Image.Image) -> float:
    """Return the SSIM of two parts, which are shrunk in place to at most `VIEW` pixels."""
    for image in (before, after):
        image.thumbnail((VIEW, VIEW), reducing_gap=2)
    pair = (to_tensor(image)[None] for image in (after, before))
    return structural_similarity_index_measure(*pair, data_range=(-1.0, 1.0)).item()

"""Faces as tensors: photos read with care, cut as CelebA cuts them, with their five labels.

Images are float32 in [-1, 1], shape (3, H, W); uint8 only at the edges. Points are (x, y) in
pixels with (0, 0) at the outer corner of the first pixel; 'left' is the image's left.
"""

import hashlib
import io
import math
import os
import random
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import openpeople as openpeople_package
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as transforms

from .errors import SalattackError, one_of
from .generators.stargan import ATTRIBUTES

CELEBA_SIZE = (178, 218)  # width, height of CelebA's aligned pictures
CELEBA_EYES = (69.0, 111.0), (108.0, 111.0)
CROP = 178  # side of StarGAN's centre crop
FADE = 5.0  # px of the aligned picture in which a repeated edge fades to 1 / e
KINDS = ("selfie", "portrait", "expression")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_LABELS = {"Black_Hair": 0, "Blond_Hair": 0, "Brown_Hair": 1, "Male": 0, "Young": 1}

MANIFEST = Path(__file__).parent / "data" / "openpeople.csv"
PEOPLE = Path(openpeople_package.__file__).parent / "data" / "curated"
BOX = ["cell_left", "cell_top", "cell_right", "cell_bottom"]
POINTS = ["left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y", "chin_x", "chin_y"]

Point = tuple[float, float]
Box = tuple[int, int, int, int]


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as a (3, H, W) float32 tensor in [-1, 1]."""
    return from_uint8(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def from_uint8(pixels: Tensor) -> Tensor:
    """Return 8-bit pixels, any shape, as float32 in [-1, 1]."""
    return pixels.contiguous().float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1], any shape, as uint8 in 0..255: rounded, and clipped if outside."""
    return ((images.detach() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Return a (3, H, W) tensor in [-1, 1] as an RGB picture."""
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())


@lru_cache(maxsize=2)
def _opened_zip(path: Path, changed: int, process: int) -> ZipFile:
    return ZipFile(path)


def open_zip(path: Path) -> ZipFile:
    """Return an open zip, the same one again in a process: an index may be long.

    Each process opens its own, since a handle that outlives a fork shares its position.
    """
    return _opened_zip(path, path.stat().st_mtime_ns, os.getpid())


def _zip_of(path: Path) -> Path | None:
    return next((p for p in path.parents if p.suffix == ".zip" and p.is_file()), None)


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file, or of a zip's member: ``photos.zip/folder/name.jpg``.

    Raises:
        OSError: the file or member does not exist or cannot be read; zips raise other types too.
    """
    path = Path(path)
    if (archive := _zip_of(path)) is None:
        return path.read_bytes()
    try:
        return open_zip(archive).read(path.relative_to(archive).as_posix())
    except KeyError:
        raise FileNotFoundError(path) from None


def open_photo(path: str | Path) -> Image.Image:
    """Read a still picture completely and return it upright, as 8-bit RGB.

    The picture is a file, or a zip's member as in `read_bytes`. Grey, palette and CMYK
    pictures are converted, 16-bit grey is scaled to 8 bits, transparency is composited on white,
    and the orientation in the EXIF data is applied.

    Raises:
        SalattackError: the file is missing, damaged, no picture, too large or animated.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(path)) if _zip_of(Path(path)) else path) as image:
            # A phone's MPO is a JPEG with a depth or gain map behind it, not an animation.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames == 1:
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise SalattackError(f"{path} does not exist; check the path") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        message = f"{path} has more than {limit} pixels; shrink the picture"
        raise SalattackError(message) from None
    except Exception as error:  # decoders raise many types on damaged files
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        message = f"{path} is not a readable picture ({reason}); replace or remove the file"
        raise SalattackError(message) from error
    raise SalattackError(f"{path} is animated ({frames} frames); save one frame as a still picture")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16 bits instead of scaling
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("more than 16 bits per pixel")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def similarity(left_eye: Point, right_eye: Point) -> tuple[complex, complex]:
    """Return (a, b) with source = a * aligned + b, points as complex numbers x + iy."""
    source_left, source_right = complex(*left_eye), complex(*right_eye)
    left, right = (complex(*eye) for eye in CELEBA_EYES)
    if source_left == source_right:
        raise SalattackError(f"both eyes are at {left_eye}; give two different points")
    a = (source_right - source_left) / (right - left)
    return a, source_left - a * left


def align(image: Image.Image, left_eye: Point, right_eye: Point, box: Box) -> Image.Image:
    """Turn, scale and shift a face to CelebA's geometry.

    What lies outside the box is never seen: the box's edge fades into its background there.

    Args:
        image: RGB, any size.
        left_eye: centre of the eye on the image's left, in pixels of ``image``.
        right_eye: the other eye.
        box: left, top, right, bottom of the part of ``image`` that belongs to this face.

    Returns:
        178×218 RGB with the eyes at (69, 111) and (108, 111).

    Raises:
        SalattackError: the eyes coincide or lie outside the box.
    """
    a, b = similarity(left_eye, right_eye)
    for x, y in (left_eye, right_eye):
        if not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
            raise SalattackError(f"the eye at ({x}, {y}) is outside the box {tuple(box)}")
    width, height = CELEBA_SIZE
    corners = a * np.array([0, width, height * 1j, width + height * 1j]) + b
    # The part of the source that the crop reads, with room for the bicubic kernel.
    low_x, high_x = math.floor(corners.real.min()) - 3, math.ceil(corners.real.max()) + 3
    low_y, high_y = math.floor(corners.imag.min()) - 3, math.ceil(corners.imag.max()) + 3
    inner = max(low_x, box[0]), max(low_y, box[1]), min(high_x, box[2]), min(high_y, box[3])
    margins = (inner[1] - low_y, high_y - inner[3]), (inner[0] - low_x, high_x - inner[2]), (0, 0)
    part = Image.fromarray(_extend(np.asarray(image.crop(inner)), margins, FADE * abs(a)))
    # Shrinking in one step would alias: average m×m pixels, draw at twice the size, average 2×2.
    m = max(1, math.floor(abs(a)))
    a, b = a / (2 * m), (b - complex(low_x, low_y)) / m
    affine = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
    size, bicubic = (2 * width, 2 * height), Image.Resampling.BICUBIC
    return part.reduce(m).transform(size, Image.Transform.AFFINE, affine, bicubic).reduce(2)


def _extend(pixels: np.ndarray, margins: Sequence[tuple[int, int]], fade: float) -> np.ndarray:
    """Pad (H, W, 3) with its edge, which fades into the background: repeated hair makes towers."""
    if not np.any(margins):
        return pixels
    beyond = []
    for n, (before, after) in zip(pixels.shape, margins[:2], strict=False):
        i = np.arange(before + n + after)
        beyond.append(np.maximum(0, np.maximum(before - i, i - before - n + 1)))
    share = np.exp(-np.hypot(beyond[0][:, None], beyond[1]) / fade)[..., None]
    sides = pixels[: len(pixels) // 2, [0, -1]]  # beside the head, not below it
    background = np.median(sides, axis=(0, 1))
    extended = share * np.pad(pixels, margins, mode="edge") + (1 - share) * background
    return extended.round().astype(np.uint8)


def preprocess(image: Image.Image, image_size: int = 128, crop: int = CROP) -> Tensor:
    """Cut and scale an aligned picture as StarGAN does: centre crop of 178, then bilinear.

    Args:
        image: RGB, at least ``crop`` pixels on both sides; CelebA's are 178×218.
        image_size: side of the result in pixels.
        crop: side of the centre crop in pixels.

    Returns:
        (3, image_size, image_size) float32 in [-1, 1].
    """
    square = transforms.center_crop(image, [crop, crop])
    return to_tensor(transforms.resize(square, [image_size, image_size]))


class Face(NamedTuple):
    """One face.

    Attributes:
        image: (3, s, s) float32 in [-1, 1].
        labels: (5,) float32, 0 or 1, in the order of `salattack.generators.stargan.ATTRIBUTES`.
        face_id: its name in the set.
    """

    image: Tensor
    labels: Tensor
    face_id: str


class Faces(Dataset[Face]):
    """A set of faces, read from disk one at a time as they are asked for.

    Reading a face raises `SalattackError` when its picture is missing, damaged or too small.

    Args:
        table: a row for each face: face_id, source, the five attributes and what ``read`` needs.
        read: (row, image_size) to the (3, s, s) image.
        image_size: side s of the images in pixels.
        next_ones: rows of the faces that follow these in a larger set; see `readable`.

    Attributes:
        ids: the N faces' names, in order.
        labels: (N, 5) float32 labels, 0 or 1, in the order of `ATTRIBUTES`.
        sources: the N files that the faces are read from, as `read_bytes` takes them.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        read: Callable[[pd.Series, int], Tensor],
        image_size: int,
        next_ones: pd.DataFrame | None = None,
    ) -> None:
        if image_size < 1:
            raise SalattackError(f"image_size is {image_size}; give at least 1")
        self.table, self.read, self.image_size = table, read, image_size
        self.next_ones = table.iloc[:0] if next_ones is None else next_ones
        self.ids: list[str] = table["face_id"].tolist()
        self.sources: list[str] = table["source"].tolist()
        self.labels = torch.tensor(table[list(ATTRIBUTES)].to_numpy("float32"))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Face:
        image = self.read(self.table.iloc[index], self.image_size)
        return Face(image, self.labels[index], self.ids[index])

    def subset(self, n: int | slice) -> "Faces":
        """Return the first ``n`` faces (all, if there are fewer), or those of a slice.

        Raises:
            SalattackError: ``n`` is less than 1.
        """
        if isinstance(n, slice):
            return Faces(self.table.iloc[n], self.read, self.image_size)
        if n < 1:
            raise SalattackError(f"{n} images were asked for; ask for at least 1")
        after = pd.concat([self.table.iloc[n:], self.next_ones])
        return Faces(self.table.iloc[:n], self.read, self.image_size, after)

    def readable(self) -> "Faces":
        """Return as many faces that can be read; the set's next ones replace those that cannot.

        Every face is read once for that, so it suits small sets. There are fewer faces where the
        larger set has no more.

        Raises:
            SalattackError: no face can be read.

        Warns:
            UserWarning: names each file that is left out.
        """
        table, kept, reason = pd.concat([self.table, self.next_ones]), [], ""
        for i in range(len(table)):
            if len(kept) == len(self):
                break
            try:
                self.read(table.iloc[i], self.image_size)
                kept.append(i)
            except SalattackError as error:
                reason = str(error)
                warnings.warn(f"left out: {reason}", stacklevel=2)
        if not kept:
            raise SalattackError(f"none of the faces can be read; the last: {reason}")
        return Faces(table.iloc[kept], self.read, self.image_size, table.iloc[kept[-1] + 1 :])

    def checksum(self, index: int) -> str:
        """Return the sha256 of the bytes of a face's source, in hexadecimal.

        Raises:
            SalattackError: the source is missing or damaged.
        """
        source = self.sources[index]
        try:
            return hashlib.sha256(read_bytes(source)).hexdigest()
        except Exception as error:  # zips raise many types on damaged members
            message = f"{source} cannot be read ({error}); replace or remove the file"
            raise SalattackError(message) from error

    def landmarks(self, index: int) -> Tensor:
        """Return left eye, right eye and chin in the image that ``self[index]`` gives.

        Returns:
            (3, 2) float32, (x, y) in pixels.

        Raises:
            SalattackError: the set has no landmarks; only openpeople does.
        """
        if not set(POINTS) <= set(self.table):
            raise SalattackError("these faces have no landmarks; use the openpeople faces")
        points = self.table.iloc[index][POINTS].to_numpy("float64").reshape(3, 2)
        a, b = similarity(tuple(points[0]), tuple(points[1]))
        aligned = (points @ (1, 1j) - b) / a
        top = (CELEBA_SIZE[1] - CROP) / 2
        crop = np.stack([aligned.real, aligned.imag - top], 1) * self.image_size / CROP
        return torch.tensor(crop, dtype=torch.float32)

    def face_ellipse(self, index: int) -> Tensor:
        """Return where the face's skin is, roughly: an ellipse from above the brows to the chin.

        Its long axis lies on the line from the middle of the eyes to the chin, a distance d: it
        ends at the chin and 0.4 d above the eyes. Its short half axis is 0.95 of the distance
        between the eyes. On a face turned to the side it takes in some background.

        Returns:
            (H, W) bool, true inside.

        Raises:
            SalattackError: the set has no landmarks; only openpeople does.
        """
        left, right, chin = self.landmarks(index)
        down = chin - (left + right) / 2
        centre, half_long = chin - 0.7 * down, 0.7 * down.norm()
        axis, half_short = down / down.norm(), 0.95 * (right - left).norm()
        y, x = torch.meshgrid(*[torch.arange(self.image_size) + 0.5] * 2, indexing="ij")
        dx, dy = x - centre[0], y - centre[1]
        along, across = dx * axis[0] + dy * axis[1], dx * axis[1] - dy * axis[0]
        return (along / half_long) ** 2 + (across / half_short) ** 2 <= 1


def openpeople(kind: str | Sequence[str] | None = None, image_size: int = 128) -> Faces:
    """Return the 180 faces of ten synthetic adults in the `openpeople` package.

    They are ordered by kind: 10 selfies, 10 portraits, 16 expressions of 10. Each ten holds every
    person once, so that the first n are balanced over the people. Selfies have real backgrounds;
    the expressions are framed tighter than CelebA, so that up to a third of the image, mostly
    above the hair, is filled with their background.

    Args:
        kind: of `KINDS`, one or several; all when None.
        image_size: side of the images in pixels.

    Raises:
        SalattackError: an unknown kind.
    """
    kinds = KINDS if kind is None else (kind,) if isinstance(kind, str) else tuple(kind)
    for name in kinds:
        if name not in KINDS:
            raise one_of("kind of face", name, KINDS)
    table = pd.read_csv(MANIFEST)
    table["source"] = [os.fspath(PEOPLE / source) for source in table["source"]]
    return Faces(table[table["kind"].isin(kinds)], _read_openpeople, image_size)


def _read_openpeople(row: pd.Series, image_size: int) -> Tensor:
    left_x, left_y, right_x, right_y = row[POINTS[:4]]
    photo = open_photo(row["source"])
    face = align(photo, (left_x, left_y), (right_x, right_y), tuple(row[BOX]))
    return preprocess(face, image_size)


def folder(
    path: str | Path, image_size: int = 128, split: str | None = None, seed: int = 0
) -> Faces:
    """Return the photos of a folder: the largest centre square of each, resized.

    The labels come from ``attributes.csv`` in the folder: a column ``file`` and one column of 0
    and 1 for each attribute. Without it every face gets `DEFAULT_LABELS` and a warning says so.

    Args:
        path: a folder with JPEG, PNG, WebP, BMP or TIFF photos of faces.
        image_size: side of the images in pixels; no photo's shorter side may be less.
        split: None sorts by name; "shuffled" mixes, so that the first n are a random sample, and
            part of every larger one.
        seed: of the order of "shuffled".

    Raises:
        SalattackError: no folder, no photos, an unknown split, or a wrong or incomplete
            ``attributes.csv``.
    """
    path = Path(path)
    if split not in (None, "shuffled"):
        raise one_of("split of a plain folder", split, ("shuffled",))
    if not path.is_dir():
        raise SalattackError(f"{path} is not a folder; give a folder with photos")
    photos = sorted(p for p in path.glob("[!.]*") if p.suffix.lower() in SUFFIXES)
    if not photos:
        raise SalattackError(f"{path} holds no photos; known are {', '.join(SUFFIXES)}")
    if split == "shuffled":
        random.Random(seed).shuffle(photos)
    names = [photo.name for photo in photos]
    if (path / "attributes.csv").exists():
        labels = _read_attributes(path / "attributes.csv", names)
    else:
        given = ", ".join(f"{name}={value}" for name, value in DEFAULT_LABELS.items())
        warnings.warn(f"{path} has no attributes.csv: every face gets {given}", stacklevel=2)
        labels = pd.DataFrame(DEFAULT_LABELS, index=range(len(names)))
    table = labels.assign(face_id=names, source=[os.fspath(photo) for photo in photos])
    return Faces(table, _read_folder, image_size)


def _read_attributes(path: Path, names: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"file": str}).set_index("file")
        labels = table[list(ATTRIBUTES)].reindex(names)
    except (KeyError, ValueError, OSError) as error:
        columns = ", ".join(("file", *ATTRIBUTES))
        message = f"{path} needs the columns {columns} and one row for each photo"
        raise SalattackError(f"{message} ({error}); mend it") from error
    wrong = labels.index[~labels.isin([0, 1]).all(axis=1)]
    if len(wrong):
        raise SalattackError(f"{path} has no row of 0 and 1 for {wrong[0]}; add or correct it")
    return labels


def require_sides(photo: Image.Image, least: int, path: str | Path) -> None:
    """Refuse a picture with a side of less than ``least`` pixels.

    Raises:
        SalattackError: naming ``path`` and both sizes.
    """
    if min(photo.size) < least:
        size = f"{photo.width}×{photo.height}"
        message = f"{path} is {size} pixels; both sides need at least {least}: use a larger photo"
        raise SalattackError(message)


def _read_folder(row: pd.Series, image_size: int) -> Tensor:
    photo = open_photo(row["source"])
    require_sides(photo, image_size, row["source"])
    return preprocess(photo, image_size, min(photo.size))


def load_faces(
    source: str | Path = "openpeople",
    *,
    kind: str | Sequence[str] | None = None,
    n_images: int | None = None,
    image_size: int = 128,
    split: str | None = None,
    seed: int = 0,
) -> Faces:
    """Return a set of faces by name or path.

    Args:
        source: "openpeople", a folder in CelebA's layout (it has ``list_attr_celeba.txt``, or the
            pictures' folder or zip), or a plain folder of photos.
        kind: of `KINDS`, for openpeople only.
        n_images: take the first so many, or all there are if fewer; all when None.
        image_size: side of the images in pixels.
        split: of CelebA, see `salattack.celeba.celeba` ("stargan" when None); of a plain folder,
            None (by name) or "shuffled".
        seed: of the shuffled orders: the first n faces are part of the first n + 1.

    Raises:
        SalattackError: as `openpeople`, `celeba` and `folder`; ``n_images`` less than 1.
    """
    from .celeba import celeba, is_celeba  # it needs this module

    if source == "openpeople":
        if split is not None:
            message = f"only CelebA and plain folders have splits; leave out the split {split!r}"
            raise SalattackError(message)
        faces = openpeople(kind, image_size)
    elif kind is not None:
        raise SalattackError(f"only openpeople has kinds of faces; leave out the kind {kind!r}")
    elif is_celeba(source):
        faces = celeba(source, image_size, "stargan" if split is None else split, seed)
    else:
        faces = folder(source, image_size, split, seed)
    return faces if n_images is None else faces.subset(n_images)

"""CelebA's geometry: a face turned, scaled, shifted and cropped as CelebA and StarGAN do."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as transforms

from ..errors import SalattackError
from ..images import to_tensor

CELEBA_SIZE = (178, 218)  # width, height of CelebA's aligned pictures
CELEBA_EYES = (69.0, 111.0), (108.0, 111.0)
CROP = 178  # side of StarGAN's centre crop
FADE = 5.0  # px of the aligned picture in which a repeated edge fades to 1 / e
Point = tuple[float, float]
Box = tuple[int, int, int, int]


def similarity(left_eye: Point, right_eye: Point) -> tuple[complex, complex]:
    """Return (a, b) with source = a * aligned + b, points as complex numbers x + iy."""
    source_left, source_right = complex(*left_eye), complex(*right_eye)
    left, right = (complex(*eye) for eye in CELEBA_EYES)
    if source_left == source_right:
        raise SalattackError(f"both eyes are at {left_eye}; give two different points")
    a = (source_right - source_left) / (right - left)
    return a, source_left - a * left


def align(image: Image.Image, left_eye: Point, right_eye: Point, box: Box) -> Image.Image:
    """Turn, scale and shift a face to CelebA's geometry: 178×218 RGB, eyes at `CELEBA_EYES`.

    What lies outside the box is never seen: the box's edge fades into its background there.

    Args:
        image: RGB, any size.
        left_eye: centre of the eye on the image's left, in pixels of ``image``.
        right_eye: the other eye; one at the same place or outside the box is a SalattackError.
        box: left, top, right, bottom of the part of ``image`` that belongs to this face.
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
    """Cut and scale an aligned RGB picture as StarGAN does: centre crop, then bilinear.

    The result is (3, image_size, image_size) float32 in [-1, 1].
    """
    square = transforms.center_crop(image, [crop, crop])
    return to_tensor(transforms.resize(square, [image_size, image_size]))


def require_sides(photo: Image.Image, least: int, path: str | Path) -> None:
    """Refuse a picture with a side of less than ``least`` pixels."""
    if min(photo.size) < least:
        small = f"{path} is {photo.width}×{photo.height} pixels"
        raise SalattackError(f"{small}; both sides need at least {least}: use a larger photo")

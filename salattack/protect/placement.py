"""Where a generator's grid lies in a photo of any size, and the crop that it sees there."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..faces.alignment import CELEBA_SIZE, CROP, Box, Point, align, preprocess, similarity
from .detection import FoundFace

FINEST = 4  # × the grid: finer photos shrink to the crop alike
FINE = 8  # photo pixels per aligned one above which a photo is averaged before it is aligned


@dataclass(frozen=True)
class Place:
    """Where the generator's grid lies in an upright photo: photo = a · grid + b, complex numbers.

    Attributes:
        a: scale and turn, in photo pixels per pixel of the grid.
        b: where the grid's corner lies.
        size: the grid's side s in pixels.
        face: whose place it is; None for the largest centre square.
    """

    a: complex
    b: complex
    size: int
    face: FoundFace | None = None

    @classmethod
    def of_face(cls, face: FoundFace, size: int) -> "Place":
        """Return the place that `align` and `preprocess` give a face."""
        a, b = similarity(face.left_eye, face.right_eye)
        top = (CELEBA_SIZE[1] - CROP) / 2
        return cls(a * CROP / size, b + a * 1j * top, size, face)

    @classmethod
    def of_frame(cls, photo_size: tuple[int, int], size: int) -> "Place":
        """Return the place of the largest centre square, as a folder of photos is cut."""
        side = min(photo_size)
        corner = complex((photo_size[0] - side) // 2, (photo_size[1] - side) // 2)
        return cls(complex(side / size), corner, size)

    def box(self, photo_size: tuple[int, int]) -> Box:
        """Return the photo's pixels that the grid can reach: left, top, right, bottom."""
        corners = self.a * np.array([0, 1, 1j, 1 + 1j]) * self.size + self.b
        width, height = photo_size
        return (
            max(0, math.floor(corners.real.min())),
            max(0, math.floor(corners.imag.min())),
            min(width, math.ceil(corners.real.max())),
            min(height, math.ceil(corners.imag.max())),
        )

    def crop(self, image: Image.Image, origin: Point = (0, 0)) -> Tensor:
        """Return what a generator is given of an upright photo, or of a part of it at ``origin``.

        Returns:
            (1, 3, s, s) float32 in [-1, 1].
        """
        corner = complex(*origin)
        if self.face is None:
            left, top = (round(v) for v in ((self.b - corner).real, (self.b - corner).imag))
            side = round(self.a.real * self.size)
            return preprocess(image.crop((left, top, left + side, top + side)), self.size, side)[
                None
            ]
        eyes = [complex(*eye) - corner for eye in (self.face.left_eye, self.face.right_eye)]
        m = max(1, math.floor(abs(self.a) * self.size / CROP / FINE))
        if m > 1:
            image, eyes = image.reduce(m), [eye / m for eye in eyes]
        left, right = ((eye.real, eye.imag) for eye in eyes)
        return preprocess(align(image, left, right, (0, 0, *image.size)), self.size)[None]

    def shown(self) -> Tensor:
        """Return the matrix (s, s) by which rows and columns of the grid come back from the photo.

        Spread over the photo's pixels and shrunk as `align` and `preprocess` shrink: a low-pass.
        """
        n = min(round(abs(self.a) * self.size), FINEST * self.size)
        sizes = (n, self.size) if self.face is None else (n, CROP, self.size)
        rows = torch.eye(self.size)[None, None]
        for side in sizes:
            rows = F.interpolate(rows, (self.size, side), mode="bilinear", antialias=True)
        return rows[0, 0].T

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

FINEST = 4  # × the grid: photos finer than this give the same crop
FINE = 8  # photo pixels per aligned pixel, above which a photo is averaged before it is aligned


@dataclass(frozen=True)
class Place:
    """Where the generator's grid lies in an upright photo: photo = a · grid + b, complex."""

    a: complex  # scale and rotation, in photo pixels per pixel of the grid
    b: complex  # the grid's corner
    size: int  # the grid's side s in pixels
    face: FoundFace | None = None  # the face that was placed; None for the largest centre square

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
        left, top = max(0, math.floor(corners.real.min())), max(0, math.floor(corners.imag.min()))
        ends = math.ceil(corners.real.max()), math.ceil(corners.imag.max())
        return (left, top, *map(min, photo_size, ends))

    def crop(self, image: Image.Image, origin: Point = (0, 0)) -> Tensor:
        """Return what a generator is given of an upright photo, or of a part of it at ``origin``.

        Returns:
            (1, 3, s, s) float32 in [-1, 1].
        """
        corner = complex(*origin)
        if self.face is None:
            start, side = self.b - corner, round(self.a.real * self.size)
            left, top = round(start.real), round(start.imag)
            square = image.crop((left, top, left + side, top + side))
            return preprocess(square, self.size, side)[None]
        eyes = [complex(*eye) - corner for eye in (self.face.left_eye, self.face.right_eye)]
        m = max(1, math.floor(abs(self.a) * self.size / CROP / FINE))
        if m > 1:
            image, eyes = image.reduce(m), [eye / m for eye in eyes]
        left_eye, right_eye = ((eye.real, eye.imag) for eye in eyes)
        return preprocess(align(image, left_eye, right_eye, (0, 0, *image.size)), self.size)[None]

    def shown(self) -> Tensor:
        """Return a low-pass matrix (s, s): what the crop shows of a perturbation's rows or columns.

        They are spread over the photo's pixels and shrunk as `align` and `preprocess` shrink.
        """
        n = min(round(abs(self.a) * self.size), FINEST * self.size)
        sizes = (n, self.size) if self.face is None else (n, CROP, self.size)
        rows = torch.eye(self.size)[None, None]
        for side in sizes:
            rows = F.interpolate(rows, (self.size, side), mode="bilinear", antialias=True)
        return rows[0, 0].T

"""The shipped faces: ten synthetic adults of the `openpeople` package."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openpeople as openpeople_package
import pandas as pd
import torch
from torch import Tensor

from ..errors import one_of
from ..runtime.files import RESOURCES
from .alignment import CELEBA_SIZE, CROP, align, preprocess, similarity
from .reading import open_photo
from .sets import Faces

FACE_KINDS = ("selfie", "portrait", "expression")
MANIFEST = RESOURCES / "openpeople.csv"
PEOPLE = Path(openpeople_package.__file__).parent / "data" / "curated"
BOX = ["cell_left", "cell_top", "cell_right", "cell_bottom"]
LANDMARKS = ["left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y", "chin_x", "chin_y"]


class OpenPeople(Faces):
    """The shipped faces, with landmarks."""

    def landmarks(self, index: int) -> Tensor:
        """Return left eye, right eye and chin of ``self[index].image``: (3, 2) pixels."""
        points = self.table.iloc[index][LANDMARKS].to_numpy("float64").reshape(3, 2)
        a, b = similarity(tuple(points[0]), tuple(points[1]))
        aligned = (points @ (1, 1j) - b) / a
        top = (CELEBA_SIZE[1] - CROP) / 2
        crop = np.stack([aligned.real, aligned.imag - top], 1) * self.image_size / CROP
        return torch.tensor(crop, dtype=torch.float32)

    def face_ellipse(self, index: int) -> Tensor:
        """Return where the face's skin is, roughly: an ellipse, (H, W) bool, true inside.

        Its long axis lies on the line from the middle of the eyes to the chin, a distance d: it
        ends at the chin and 0.4 d above the eyes. Its short half axis is 0.95 of the distance
        between the eyes. On a face turned to the side it takes in some background.
        """
        left, right, chin = self.landmarks(index)
        down = chin - (left + right) / 2
        centre, half_long = chin - 0.7 * down, 0.7 * down.norm()
        axis, half_short = down / down.norm(), 0.95 * (right - left).norm()
        y, x = torch.meshgrid(*[torch.arange(self.image_size) + 0.5] * 2, indexing="ij")
        dx, dy = x - centre[0], y - centre[1]
        along, across = dx * axis[0] + dy * axis[1], dx * axis[1] - dy * axis[0]
        return (along / half_long) ** 2 + (across / half_short) ** 2 <= 1


def openpeople(kind: str | Sequence[str] | None = None, image_size: int = 128) -> OpenPeople:
    """Return the 180 faces of ten synthetic adults in the `openpeople` package.

    They are ordered by ``kind``, of `FACE_KINDS`: 10 selfies, 10 portraits, 16 expressions of 10.
    Each ten holds every person once, so that the first n are balanced over the people. Selfies have
    real backgrounds. The expressions are framed tighter than CelebA: up to a third of the image,
    mostly above the hair, is filled with their background.
    """
    kinds = FACE_KINDS if kind is None else (kind,) if isinstance(kind, str) else tuple(kind)
    for name in kinds:
        if name not in FACE_KINDS:
            raise one_of("kind of face", name, FACE_KINDS)
    table = pd.read_csv(MANIFEST)
    table["source"] = [os.fspath(PEOPLE / source) for source in table["source"]]
    return OpenPeople(table[table["kind"].isin(kinds)], _read_openpeople, image_size)


def _read_openpeople(row: pd.Series, image_size: int) -> Tensor:
    left_x, left_y, right_x, right_y = row[LANDMARKS[:4]]
    photo = open_photo(row["source"])
    face = align(photo, (left_x, left_y), (right_x, right_y), tuple(row[BOX]))
    return preprocess(face, image_size)

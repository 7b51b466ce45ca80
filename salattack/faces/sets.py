"""A set of faces, read from disk one at a time."""

import hashlib
import os
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..edits import ATTRIBUTES
from ..errors import SalattackError, one_of
from .alignment import preprocess, require_sides
from .reading import open_photo, read_bytes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_LABELS = {"Black_Hair": 0, "Blond_Hair": 0, "Brown_Hair": 1, "Male": 0, "Young": 1}


class Face(NamedTuple):
    """One face."""

    image: Tensor  # (3, s, s) float32 in [-1, 1]
    labels: Tensor  # (5,) float32, 0 or 1, in the order of `salattack.edits.ATTRIBUTES`
    face_id: str  # its name in the set


class Faces(Dataset[Face]):
    """A set of faces; a missing, damaged or small picture raises `SalattackError` when it is read.

    Args:
        table: a row for each face: face_id, source, the five attributes and what ``read`` needs.
        read: (row, image_size) to the (3, s, s) image.
        image_size: side s of the images in pixels.
        n: how many rows are the set; the others follow it in a larger one, see `readable`.

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
        n: int | None = None,
    ) -> None:
        if image_size < 1:
            raise SalattackError(f"image_size is {image_size}; give at least 1")
        self.every, self.table = table, table.iloc[:n]
        self.read, self.image_size = read, image_size
        self.ids: list[str] = self.table["face_id"].tolist()
        self.sources: list[str] = self.table["source"].tolist()
        self.labels = torch.tensor(self.table[list(ATTRIBUTES)].to_numpy("float32"))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Face:
        image = self.read(self.table.iloc[index], self.image_size)
        return Face(image, self.labels[index], self.ids[index])

    def _of(self, rows: pd.DataFrame, n: int | None = None) -> Self:
        return type(self)(rows, self.read, self.image_size, n)

    def subset(self, n: int | slice) -> Self:
        """Return the first ``n`` faces (all, if there are fewer), or those of a slice."""
        if isinstance(n, slice):
            return self._of(self.table.iloc[n])
        if n < 1:
            raise SalattackError(f"{n} images were asked for; ask for at least 1")
        return self._of(self.every, min(n, len(self)))

    def led_by(self, ids: Sequence[str]) -> Self:
        """Return all faces, those named first; ids that the set does not have are passed over."""
        rank = {face_id: place for place, face_id in enumerate(ids)}
        order = sorted(range(len(self)), key=lambda i: rank.get(self.ids[i], len(rank)))
        return self._of(self.every.iloc[[*order, *range(len(self), len(self.every))]], len(self))

    def readable(self) -> Self:
        """Return as many faces that can be read; the set's next ones replace those that cannot.

        Every face is read once for that. There are fewer where the larger set has no more; none
        is a SalattackError. A warning names each file that is left out.
        """
        kept, i, reason = [], 0, ""
        while len(kept) < len(self) and i < len(self.every):
            try:
                self.read(self.every.iloc[i], self.image_size)
                kept.append(i)
            except SalattackError as error:
                reason = str(error)
                warnings.warn(f"left out: {reason}", stacklevel=2)
            i += 1
        if not kept:
            raise SalattackError(f"none of the faces can be read; the last: {reason}")
        return self._of(self.every.iloc[[*kept, *range(i, len(self.every))]], len(kept))

    def checksum(self, index: int) -> str:
        """Return the sha256 of the bytes of a face's source, in hexadecimal."""
        source = self.sources[index]
        try:
            return hashlib.sha256(read_bytes(source)).hexdigest()
        except Exception as error:  # zips raise many types on damaged members
            advice = "replace or remove the file"
            raise SalattackError(f"{source} cannot be read ({error}); {advice}") from error


def folder(
    path: str | Path, image_size: int = 128, split: str | None = None, seed: int = 0
) -> Faces:
    """Return the photos of a folder: the largest centre square of each, resized.

    The labels come from ``attributes.csv`` in the folder: a column ``file`` and one column of 0
    and 1 for each attribute. Without it every face gets `DEFAULT_LABELS` and a warning says so.

    Photos are named as `SUFFIXES`; no shorter side may be less than ``image_size``. The ``split``
    None sorts by name; "shuffled" makes the first n a random sample, drawn by ``seed``. No photos,
    another split and a wrong ``attributes.csv`` are a SalattackError.
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
        labels = read_labels(path / "attributes.csv", ["file"], names)
    else:
        given = ", ".join(f"{name}={value}" for name, value in DEFAULT_LABELS.items())
        warnings.warn(f"{path} has no attributes.csv: every face gets {given}", stacklevel=2)
        labels = pd.DataFrame(DEFAULT_LABELS, index=range(len(names)))
    table = labels.assign(face_id=names, source=[os.fspath(photo) for photo in photos])
    return Faces(table, _read_photo, image_size)


def read_labels(
    path: Path, index: list[str], rows: Sequence, *, exactly: bool = False
) -> pd.DataFrame:
    """Return labels, 0 or 1 in the columns `ATTRIBUTES`, of the ``rows`` of a CSV file, in order.

    ``index`` are its columns that name a row; ``exactly`` refuses a file with other rows besides.
    An unreadable file, a missing column or row and another label are a SalattackError.
    """
    try:
        table = pd.read_csv(path, dtype={"file": str}).set_index(index)[list(ATTRIBUTES)]
        labels = table.reindex(rows)
    except (KeyError, ValueError, OSError) as error:
        columns = ", ".join((*index, *ATTRIBUTES))
        needs = f"{path} needs the columns {columns} and one row for each picture"
        raise SalattackError(f"{needs} ({error}); mend it") from error
    wrong = labels[~labels.isin([0, 1]).all(axis=1)]
    other = table.drop(labels.index) if exactly and wrong.empty else table[:0]
    for odd, problem in ((wrong, "has no row of 0 and 1"), (other, "has a row, but no picture")):
        if not odd.empty:
            name = " ".join(map(str, odd.reset_index().iloc[0, : odd.index.nlevels]))
            raise SalattackError(f"{path} {problem} for {name}; add or correct it")
    return labels


def _read_photo(row: pd.Series, image_size: int) -> Tensor:
    photo = open_photo(row["source"])
    require_sides(photo, image_size, row["source"])
    return preprocess(photo, image_size, min(photo.size))

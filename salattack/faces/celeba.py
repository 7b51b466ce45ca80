"""CelebA in its original layout, its pictures in a folder or still in their zip.

Liu et al., ICCV 2015; for non-commercial research. 202,599 aligned pictures of 178×218 pixels.
"""

import os
import random
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd
from torch import Tensor

from ..edits import ATTRIBUTES
from ..errors import SalattackError, one_of
from .alignment import CELEBA_SIZE, CROP, preprocess, require_sides
from .reading import open_photo, open_zip
from .sets import Faces

PARTITIONS = ("train", "valid", "test")  # 0, 1, 2 in list_eval_partition.txt
SPLITS = ("stargan", *PARTITIONS, "all")
LAYOUT = {  # what may lie in the root instead of CelebA's own folders
    "Anno": ["list_attr_celeba.txt"],
    "Eval": ["list_eval_partition.txt"],
    "Img": ["img_align_celeba", "img_align_celeba.zip"],
}
N_ROWS = 202_599
STARGAN_SEED, STARGAN_TEST = 1234, 1999  # the authors' loop ends one before 2,000


def is_celeba(root: str | Path) -> bool:
    """Return whether a folder holds CelebA's attribute list or its pictures."""
    return bool(_find(root, "Anno") or _find(root, "Img"))


def celeba(root: str | Path, image_size: int = 128, split: str = "stargan", seed: int = 0) -> Faces:
    """Return a split of CelebA, shuffled: its first n faces are part of its first n + 1.

    "stargan" is how StarGAN's authors chose the test faces that their published generator has not
    seen: the first 1,999 rows of the list shuffled after ``random.seed(1234)``. It needs CelebA's
    complete list in its original order; a list of another length is warned about. "all" is the
    whole list; "train", "valid" and "test" are those of ``list_eval_partition.txt``. ``seed`` is
    that of the other splits' order.

    The folder ``root`` holds the files of `LAYOUT`, or has them in CelebA's folders. Pictures of
    CelebA's proportions in another size, from half size up, are cut accordingly. An unknown split,
    a missing part of the layout and an inconsistent list are a SalattackError.
    """
    if split not in SPLITS:
        raise one_of("split of CelebA", split, SPLITS)
    listing = _need(root, "Anno", "put CelebA's attribute list there")
    images = _need(root, "Img", "put CelebA's aligned set there")
    if not images.is_dir():
        try:
            open_zip(images)
        except (OSError, BadZipFile) as error:
            raise _again(f"{images} is not a readable zip ({error})") from error
        images /= LAYOUT["Img"][0]
    rows = _read_list(listing)
    if split == "stargan" and len(rows) != N_ROWS:
        seen = "the published generator may have seen the faces of split 'stargan'"
        warnings.warn(f"{listing} has {len(rows)} rows and not {N_ROWS}: {seen}", stacklevel=2)
    official = split in PARTITIONS
    names = _official(root, split, rows, listing) if official else list(rows.index)
    random.Random(STARGAN_SEED if split == "stargan" else seed).shuffle(names)
    names = names[:STARGAN_TEST] if split == "stargan" else names
    sources = [f"{images}{os.sep}{name}" for name in names]
    table = rows.loc[names].assign(face_id=names, source=sources)
    faces = Faces(table, _read_celeba, image_size)
    _warn_of_enlarging(faces)
    return faces


def _find(root: str | Path, subfolder: str) -> Path | None:
    places = [Path(root) / inner / name for name in LAYOUT[subfolder] for inner in ("", subfolder)]
    return next(filter(Path.exists, places), None)


def _need(root: str | Path, subfolder: str, advice: str) -> Path:
    if found := _find(root, subfolder):
        return found
    names = " or ".join(LAYOUT[subfolder])
    lacking = f"{Path(root) / names} does not exist, nor in {subfolder}/"
    raise SalattackError(f"{lacking}; {advice}")


def _again(problem: str) -> SalattackError:
    return SalattackError(f"{problem}; download it again")


def _csv(path: Path, **how: object) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=r"\s+", encoding="utf-8-sig", **how)
    except (OSError, ValueError) as error:
        raise _again(f"{path} is not readable ({' '.join(str(error).split())})") from error


def _checked(path: Path, table: pd.DataFrame, allowed: Sequence[int]) -> pd.DataFrame:
    """Return a table with one row for each name, and no value but those."""
    wrong = table.index.duplicated() | ~table.isin(allowed).all(axis=1)
    if wrong.any():
        raise _again(f"{path} is damaged in a row of {table.index[wrong][0]}")
    return table


def _read_list(path: Path) -> pd.DataFrame:
    """Return the labels, 0 or 1 in the columns `ATTRIBUTES`, by name in the list's order."""
    count = str(_csv(path, nrows=1, header=None).iat[0, 0])
    table = _csv(path, skiprows=1)
    if not count.isdecimal() or not set(ATTRIBUTES) <= set(table):
        lacking = f"{path} does not begin with a count and the attributes' names"
        raise SalattackError(f"{lacking}; use CelebA's own file")
    labels = _checked(path, table, (1, -1))[list(ATTRIBUTES)]
    if len(labels) != int(count):
        raise _again(f"{path} announces {count} rows in line 1 and holds {len(labels)}")
    return (labels == 1).astype(int)


def _official(root: str | Path, split: str, rows: pd.DataFrame, listing: Path) -> list[str]:
    """Return the names of an official split, in the order of the attribute list."""
    path = _need(root, "Eval", f"split {split!r} needs it: put CelebA's partition there")
    table = _csv(path, header=None, names=["name", "part"], index_col="name")
    parts = _checked(path, table, range(3))["part"]
    if len(strays := rows.index.symmetric_difference(parts.index)):
        has, lacks = (listing, path) if strays[0] in rows.index else (path, listing)
        stray = f"{strays[0]} is in {has} and not in {lacks} ({len(strays)} such names)"
        raise SalattackError(f"{stray}; take both from one copy of CelebA")
    names = rows.index[parts[rows.index] == PARTITIONS.index(split)]
    if names.empty:
        raise SalattackError(f"{path} has no face of split {split!r}; choose another split")
    return list(names)


def _crop(width: int, height: int) -> int:
    """Return the side of StarGAN's centre crop for a picture of that size."""
    alike = abs(height - width * CELEBA_SIZE[1] / CELEBA_SIZE[0]) <= 1
    return width if alike and 2 * width >= CROP else CROP


def _read_celeba(row: pd.Series, image_size: int) -> Tensor:
    photo = open_photo(row["source"])
    crop = _crop(*photo.size)
    require_sides(photo, crop, row["source"])
    return preprocess(photo, image_size, crop)


def _warn_of_enlarging(faces: Faces) -> None:
    """Look at the first readable picture of the first ten: a set has one size."""
    for source in faces.sources[:10]:
        with suppress(SalattackError):  # reading this face will say so
            size = open_photo(source).size
            if (crop := _crop(*size)) < min(CROP, faces.image_size):
                what = f"from {crop} to {faces.image_size} pixels: they are soft"
                problem = f"pictures of {size[0]}×{size[1]} like {source} are enlarged, {what}"
                warnings.warn(problem, stacklevel=3)
            return

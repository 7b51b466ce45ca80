"""Grids of faces beside the published generator's edits of them: what StarGAN is distilled from.

A folder holds grids (``1.jpg`` …), rows of six 128×128 tiles: a CelebA crop, then the published
generator's edits in the order of `ATTRIBUTES`; ``labels.csv`` holds each row's labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ..errors import SalattackError
from ..generators import ATTRIBUTES, edit_labels

TILE = 128
COLUMNS = 1 + len(ATTRIBUTES)
HELD_OUT = 10  # grids, the last ones by number: never trained on


@dataclass(frozen=True, kw_only=True)
class Grids:
    """N faces with their recorded edits."""

    tiles: Tensor  # (N, 6, 3, 128, 128) uint8: the crop, then its five edits
    labels: Tensor  # (N, 5) the crop's labels, 0 or 1, float
    grid: Tensor  # (N,) the number of the grid that a face comes from

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Grids":
        return Grids(tiles=self.tiles[index], labels=self.labels[index], grid=self.grid[index])

    def to(self, device: torch.device) -> "Grids":
        """Return the faces on another device."""
        return Grids(tiles=self.tiles.to(device), labels=self.labels.to(device), grid=self.grid)

    def split(self, held_out: int = HELD_OUT) -> tuple["Grids", "Grids"]:
        """Return the faces to train on and those of the last ``held_out`` grids."""
        numbers = self.grid.unique()
        if not 0 < held_out < len(numbers):
            message = f"cannot hold out {held_out} of {len(numbers)} grids; hold out at least one"
            raise SalattackError(f"{message} and leave one to train on")
        kept = self.grid >= numbers[-held_out]
        return self[~kept], self[kept]

    def targets(self) -> Tensor:
        """Return the (N, 5, 5) target labels of the five edits."""
        return torch.stack([edit_labels(self.labels, name) for name in ATTRIBUTES], dim=1)


def load_grids(data: Path) -> Grids:
    """Read every grid of a folder: ``<number>.jpg``, and ``labels.csv`` with a line per row.

    The columns of labels.csv are ``grid``, ``row`` and the five attributes (0 or 1). Files that
    are missing, do not fit each other or cannot be decoded are named by a SalattackError.
    """
    try:
        table = pd.read_csv(Path(data) / "labels.csv")
    except FileNotFoundError as error:
        raise SalattackError(f"no labels.csv in {data}; it must be next to the grids") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise SalattackError(f"labels.csv cannot be read ({error}); restore the file") from error
    if missing := [c for c in ("grid", "row", *ATTRIBUTES) if c not in table]:
        raise SalattackError(f"labels.csv lacks the column {missing[0]}; restore the file")
    if not table[list(ATTRIBUTES)].isin([0, 1]).all(axis=None):
        raise SalattackError("labels.csv holds a label that is not 0 or 1; restore the file")
    files = {int(f.stem): f for f in Path(data).glob("*.jpg") if f.stem.isdecimal()}
    if not files:
        raise SalattackError(f"no grids (1.jpg, 2.jpg, …) in {data}; check the path")
    if odd := sorted(set(table["grid"]) ^ set(files)):
        known = "a grid" if odd[0] in files else "labels"
        raise SalattackError(f"{odd[0]}.jpg: only {known} found, not its counterpart")
    tiles, labels, numbers, bad = [], [], [], []
    for number, file in sorted(files.items()):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError):
            bad.append(file.name)
            continue
        rows = table[table["grid"] == number].sort_values("row")
        if list(rows["row"]) != list(range(len(rows))):
            raise SalattackError(f"{file.name}: labels.csv misses or repeats a row of it")
        if pixels.shape[:2] != (len(rows) * TILE, COLUMNS * TILE):
            raise SalattackError(
                f"{file.name} is {pixels.shape[1]}×{pixels.shape[0]} px, but {len(rows)} labelled "
                f"rows need {COLUMNS * TILE}×{len(rows) * TILE}"
            )
        grid = torch.from_numpy(pixels.copy()).view(len(rows), TILE, COLUMNS, TILE, 3)
        tiles.append(grid.permute(0, 2, 4, 1, 3))
        labels.append(torch.tensor(rows[list(ATTRIBUTES)].to_numpy(), dtype=torch.float32))
        numbers += [number] * len(rows)
    if bad:
        message = f"{len(bad)} of {len(files)} grids cannot be decoded"
        raise SalattackError(f"{message}: {', '.join(bad)}; restore them")
    return Grids(tiles=torch.cat(tiles), labels=torch.cat(labels), grid=torch.tensor(numbers))

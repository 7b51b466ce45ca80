"""Grids of faces beside the published generator's edits of them: what StarGAN is distilled from.

A folder holds grids (``1.jpg`` …), rows of six 128×128 tiles: a CelebA crop, then the published
generator's edits in the order of `ATTRIBUTES`; ``labels.csv`` holds each row's labels.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ..edits import ATTRIBUTES, edit_labels
from ..errors import SalattackError
from ..faces.reading import decoded
from ..faces.sets import read_labels

TILE = 128
TILES = 1 + len(ATTRIBUTES)
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
    """Read a folder's grids and ``labels.csv``: ``grid``, ``row``, the five attributes (0 or 1).

    A file that is missing, cannot be decoded or does not fit the others is a SalattackError.
    """
    data, tiles, rows = Path(data), [], []
    for number, file in sorted((int(f.stem), f) for f in data.glob("*.jpg") if f.stem.isdecimal()):
        with decoded(file, "grid") as image:
            pixels = pil_to_tensor(image.convert("RGB"))
        count = pixels.shape[1] // TILE
        if pixels.shape != (3, count * TILE, TILES * TILE):
            raise SalattackError(f"{file} is no grid: its rows need {TILES} tiles of {TILE}×{TILE}")
        tiles.append(pixels.view(3, count, TILE, TILES, TILE).permute(1, 3, 0, 2, 4))
        rows += [(number, row) for row in range(count)]
    if not rows:
        raise SalattackError(f"no grids (1.jpg, 2.jpg, …) in {data}; check the path")
    labels = read_labels(data / "labels.csv", ["grid", "row"], rows, exactly=True)
    return Grids(
        tiles=torch.cat(tiles),
        labels=torch.tensor(labels.to_numpy("float32")),
        grid=torch.tensor([number for number, _ in rows]),
    )

"""Tensors → the paper's figures. Nothing is computed here but pictures.

Images are (3, H, W) tensors in [-1, 1]; maps are (1, H, W) tensors in [0, 1].
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..generators import ATTRIBUTES
from ..images import to_uint8

if TYPE_CHECKING:
    pass
from .style import FONT

COLUMNS = {"Male": "Gender", "Young": "Age"}  # what Fig. 2 and 5 call these edits


def _show(axes: Axes, picture: Tensor) -> None:
    picture = picture.detach().cpu()
    if picture.shape[0] == 1:
        axes.imshow(picture[0], cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
    else:
        axes.imshow(to_uint8(picture).permute(1, 2, 0).numpy(), interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def picture_grid(
    rows: Sequence[Sequence[Tensor]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    *,
    width: float = 7.0,
    group: int = 0,
) -> Figure:
    """Draw pictures in a grid.

    Args:
        rows: pictures, row by row; rows of equal length.
        row_labels: at the left of each row, or none.
        column_labels: above each column, or none.
        width: of the figure in inches; 7 is a page of two columns.
        group: leave a wider gap after every so many rows; 0 for never.
    """
    count, columns = len(rows), len(rows[0])
    left = 0.72 if row_labels else 0.02
    top = 0.2 if column_labels else 0.02
    cell = (width - left - 0.02) / columns
    gap = cell * 0.12
    gaps = (count - 1) // group if group else 0
    height = top + count * cell + gaps * gap + 0.02
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(width, height))
        for r, row in enumerate(rows):
            y = height - top - (r + 1) * cell - (r // group if group else 0) * gap
            for c, picture in enumerate(row):
                box = (left + c * cell, y, cell * 0.97, cell * 0.97)
                axes = figure.add_axes(
                    (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
                )
                _show(axes, picture)
                if r == 0 and column_labels:
                    axes.set_title(column_labels[c], pad=3)
                if c == 0 and row_labels:
                    axes.set_ylabel(row_labels[r], rotation=0, ha="right", va="center", labelpad=4)
    return figure


def edit_label(name: str) -> str:
    """Return how the figures call an edit: hair colours by name, what is flipped as a whole."""
    return COLUMNS.get(name, name.replace("_", " ").capitalize())


def teaser(
    photos: Tensor, saliency_map: Tensor, perturbed: Tensor, fakes: Tensor, broken: Tensor
) -> Figure:
    """The README's picture: a row per face, from the photo to the fake of the disrupted photo.

    Args:
        photos: I_org, (N, 3, H, W).
        saliency_map: M, (N, 1, H, W).
        perturbed: I_ptb, (N, 3, H, W).
        fakes: g(I_org), (N, 3, H, W).
        broken: g(I_ptb), (N, 3, H, W).
    """
    titles = ("Photo", "Saliency map", "Disrupted photo", "Fake of photo", "Fake of disrupted")
    rows = zip(photos, saliency_map, perturbed, fakes, broken, strict=True)
    return picture_grid([list(row) for row in rows], column_labels=titles)


def attribute_editing(photos: Tensor, fakes: Tensor, names: Sequence[str] = ATTRIBUTES) -> Figure:
    """Fig. 2: what g makes of clean photos.

    Args:
        photos: (N, 3, H, W).
        fakes: (N, K, 3, H, W), a fake for each edit.
        names: of the K edits.
    """
    rows = [[photo, *row] for photo, row in zip(photos, fakes, strict=True)]
    return picture_grid(rows, column_labels=("Input", *map(edit_label, names)))


def saliency_maps(
    photos: Tensor, saliency_map: Tensor, perturbed: Tensor, broken: Tensor
) -> Figure:
    """Fig. 3: rows of faces, saliency maps, disrupted faces, and what g makes of them.

    Args:
        photos: (N, 3, H, W), as are ``perturbed`` and ``broken``.
        saliency_map: (N, 1, H, W).
        perturbed: I_ptb.
        broken: g(I_ptb).
    """
    labels = ("Face", "Saliency\nmap", "Disrupted\nface", "Its fake")
    return picture_grid([list(photos), list(saliency_map), list(perturbed), list(broken)], labels)


def attribute_visualization(
    photos: Tensor,
    fakes: Tensor,
    perturbed: Tensor,
    broken: Tensor,
    names: Sequence[str] = ATTRIBUTES,
) -> Figure:
    """Fig. 5: for each face, the edits of the clean photo above those of the disrupted one.

    Args:
        photos: (N, 3, H, W).
        fakes: (N, K, 3, H, W), g of the clean photos.
        perturbed: (N, 3, H, W).
        broken: (N, K, 3, H, W), g of the disrupted photos.
        names: of the K edits.
    """
    rows, labels = [], []
    for photo, clean, disrupted, damaged in zip(photos, fakes, perturbed, broken, strict=True):
        rows += [[photo, *clean], [disrupted, *damaged]]
        labels += ["Original", "Disrupted"]
    return picture_grid(rows, labels, ("Input", *map(edit_label, names)), group=2)


def mask_sheet(photos: Tensor, saliency_map: Tensor, columns: int = 12) -> Figure:
    """A contact sheet: each photo above its map, in the order given, ``columns`` to a row.

    Args:
        photos: (N, 3, H, W).
        saliency_map: (N, 1, H, W).
        columns: faces in a row; the last row may be filled up with white.
    """
    blank = [torch.ones_like(photos[0])] * (-len(photos) % columns)
    faces, maps = [*photos, *blank], [*saliency_map, *blank]
    rows = []
    for start in range(0, len(faces), columns):
        rows += [faces[start : start + columns], maps[start : start + columns]]
    return picture_grid(rows, group=2)


def framework(
    photo: Tensor,
    fake: Tensor,
    saliency_map: Tensor,
    perturbed: Tensor,
    broken: Tensor,
    edit: str,
    amplification: float = 10.0,
) -> Figure:
    """Fig. 1 and 4: (a) photo → g → fake; (b) masked disruption → g → a fake that moved away.

    Args:
        photo: I_org, (3, H, W), as are ``fake`` = g(I_org), ``perturbed`` and ``broken``.
        fake: the edit of the clean photo.
        saliency_map: M, (1, H, W).
        perturbed: I_ptb.
        broken: the edit of the disrupted photo.
        edit: what g was asked for, e.g. "blond hair".
        amplification: by which the perturbation is shown.
    """
    # Adding the perturbation to mid-grey shows both its signs.
    noise = (amplification * (perturbed - photo)).clamp(-1, 1)
    size, width, height = 1.08, 7.0, 2.95
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    model = {"boxstyle": "round,pad=0.45", "fc": "#dbe6f4", "ec": "black", "lw": 0.8}

    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(width, height))
        sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        sheet.axis("off")

        def place(picture: Tensor, x: float, y: float, label: str) -> None:
            _show(figure.add_axes((x / width, y / height, size / width, size / height)), picture)
            sheet.text(x + size / 2, y - 0.05, label, ha="center", va="top", fontsize=7)

        def flow(x: float, to: float, y: float) -> None:
            sheet.annotate("", (to, y), (x, y), arrowprops=arrow)

        upper, lower = 1.72, 0.3
        columns = [0.3, 1.66, 3.02, 4.38, 5.88]
        error = (broken - fake).square().mean().item()
        place(photo, columns[0], upper, "$I_{org}$: the photo")
        place(fake, columns[4], upper, f"$g(I_{{org}})$: {edit}")
        place(photo, columns[0], lower, "$I_{org}$: the photo")
        place(saliency_map, columns[1], lower, "$M=f_{sa}(I_{org})$ (Eq. 1)")
        place(noise, columns[2], lower, rf"$\epsilon_{{ptb}}$ (Eq. 10), ×{amplification:g}")
        place(perturbed, columns[3], lower, "$I_{ptb}$: disrupted")
        place(broken, columns[4], lower, f"$g(I_{{ptb}})$: MSE {error:.2f} to (a)")
        for y, start in ((upper, columns[0]), (lower, columns[3])):
            centre, right = y + size / 2, columns[4] - 0.04
            x = (start + size + right) / 2
            flow(start + size + 0.04, right, centre)
            sheet.text(x, centre, "$g$", bbox=model, ha="center", va="center", fontsize=10)
        for start, end in pairwise(columns[:4]):
            flow(start + size + 0.04, end - 0.04, lower + size / 2)
        for tag, y in (("(a)", upper), ("(b)", lower)):
            sheet.text(0.06, y + size / 2, tag, va="center", fontsize=9)
    return figure

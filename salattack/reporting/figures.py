"""Tensors → the paper's figures. Nothing is computed here but pictures.

Of N faces, ``photos`` are I_org, ``perturbed`` I_ptb, ``fakes`` g(I_org) and ``broken`` g(I_ptb):
(N, 3, H, W) tensors in [-1, 1], with K edits (N, K, 3, H, W). ``saliency_map`` is M, (N, 1, H, W)
in [0, 1]. Errors are mean squares of g(I_ptb) - g(I_org).
"""

from collections.abc import Sequence
from functools import partial

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..edits import ATTRIBUTES
from ..images import to_uint8
from ..metrics import SUCCESS
from .style import FONT, WIDTH

EDIT_LABELS = {"Male": "Gender", "Young": "Age"}  # what Fig. 2 and 5 call these edits
FRAME = "#D55E00"  # frames a fake whose error exceeds the threshold
AMPLIFICATION = 5


def _show(axes: Axes, picture: Tensor) -> None:
    picture = picture.detach().cpu()
    if picture.shape[0] == 1:
        axes.imshow(picture[0], cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
    else:
        axes.imshow(to_uint8(picture).permute(1, 2, 0).numpy(), interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _score(axes: Axes, error: float | str) -> None:
    """Write an error, or a note, into a picture's corner; frame a picture that counts as broken."""
    note = isinstance(error, str)
    broken = not note and error > SUCCESS
    box = {"boxstyle": "square,pad=0.15", "fc": FRAME if broken else "0.25", "ec": "none"}
    place = {"ha": "right", "va": "bottom", "transform": axes.transAxes}
    text = error if note else f"{error:.3f}"
    axes.text(0.96, 0.04, text, color="white", fontsize=7, bbox=box, **place)
    if broken:
        frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=FRAME, lw=2.4)
        axes.add_patch(frame)


@matplotlib.rc_context(FONT)
def picture_grid(
    rows: Sequence[Sequence[Tensor]],
    labels: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    errors: Sequence[Sequence[float | str | None]] = (),
    width: float = WIDTH,
    group: int = 0,
) -> Figure:
    """Draw pictures in a grid.

    Args:
        rows: pictures (3, H, W) or maps (1, H, W), row by row; rows of equal length.
        labels: at the left of each row, or none.
        columns: above each column, or none.
        errors: for each row, an error or a note in the corner of each picture, or None; a picture
            with an error above `SUCCESS` is framed.
        width: of the figure in inches.
        group: leave a wider gap after every so many rows; 0 for never.
    """
    left = 0.78 if labels else 0.02
    top = 0.02 + (0.04 + 0.14 * (1 + max(c.count("\n") for c in columns)) if columns else 0)
    cell = (width - left - 0.02) / len(rows[0])
    gaps = [cell * 0.12 * (r // group if group else 0) for r in range(len(rows))]  # above each row
    height = top + len(rows) * cell + gaps[-1] + 0.02
    figure = Figure(figsize=(width, height))
    for r, row in enumerate(rows):
        y = height - top - (r + 1) * cell - gaps[r]
        for c, picture in enumerate(row):
            x, side = left + c * cell, cell * 0.97
            axes = figure.add_axes((x / width, y / height, side / width, side / height))
            _show(axes, picture)
            if errors and errors[r] and errors[r][c] is not None:
                _score(axes, errors[r][c])
            if r == 0 and columns:
                axes.set_title(columns[c], pad=3)
            if c == 0 and labels:
                axes.set_ylabel(labels[r], rotation=0, ha="right", va="center", labelpad=4)
    return figure


def same_size(pictures: Sequence[Tensor], side: int = 256) -> list[Tensor]:
    """Return (3, H, W) pictures at one size, so that a grid of them is sharp and small."""
    to = partial(F.interpolate, size=(side, side), mode="bicubic", antialias=True)
    return [to(picture[None])[0].clamp(-1, 1) for picture in pictures]


def edit_label(name: str) -> str:
    """Return how the figures call an edit: hair colours by name, what is flipped as a whole."""
    return EDIT_LABELS.get(name, name.replace("_", " ").capitalize())


def teaser(
    photos: Tensor, saliency_map: Tensor, perturbed: Tensor, fakes: Tensor, broken: Tensor
) -> Figure:
    """The README's picture: a row per face, from the photo to the fake of the disrupted photo."""
    titles = ("Photo", "Saliency map", "Disrupted photo", "Fake of photo", "Fake of disrupted")
    rows = zip(photos, saliency_map, perturbed, fakes, broken, strict=True)
    errors = [[None, None, None, None, error] for error in _errors(fakes, broken)]
    return picture_grid([list(row) for row in rows], columns=titles, errors=errors)


def attribute_editing(photos: Tensor, fakes: Tensor, names: Sequence[str] = ATTRIBUTES) -> Figure:
    """Fig. 2: what g makes of clean photos, a fake for each of the K edits."""
    rows = [[photo, *row] for photo, row in zip(photos, fakes, strict=True)]
    return picture_grid(rows, columns=("Input", *map(edit_label, names)))


def _errors(fakes: Tensor, broken: Tensor) -> list:
    return (broken - fakes).square().flatten(-3).mean(-1).tolist()


def saliency_maps(
    photos: Tensor, fakes: Tensor, saliency_map: Tensor, perturbed: Tensor, broken: Tensor
) -> Figure:
    """Fig. 3: faces, saliency maps, disrupted faces, and what g makes before and after."""
    rows = {
        "Input": photos,
        "Saliency\nmap": saliency_map,
        "Disrupted\ninput": perturbed,
        "Generated\nfrom the\ninput": fakes,
        "Generated\nfrom the\ndisrupted\ninput": broken,
    }
    errors = [[], [], [], [], _errors(fakes, broken)]
    return picture_grid([list(row) for row in rows.values()], tuple(rows), errors=errors)


def attribute_visualization(
    photos: Tensor,
    fakes: Tensor,
    perturbed: Tensor,
    broken: Tensor,
    names: Sequence[str] = ATTRIBUTES,
) -> Figure:
    """Fig. 5: for each face, the K edits of the photo above those of the disrupted photo."""
    rows, errors = [], []
    for face in zip(photos, fakes, perturbed, broken, _errors(fakes, broken), strict=True):
        photo, clean, disrupted, damaged, error = face
        rows += [[photo, *clean], [disrupted, *damaged]]
        errors += [[], [None, *error]]
    labels = ("Original", "Disrupted") * len(photos)
    return picture_grid(rows, labels, ("Input", *map(edit_label, names)), errors=errors, group=2)


def mask_sheet(photos: Tensor, saliency_map: Tensor, columns: int = 8) -> Figure:
    """A contact sheet: each photo above its map, ``columns`` to a row, filled up with white."""
    blank = [torch.ones_like(photos[0])] * (-len(photos) % columns)
    faces, maps = [*photos, *blank], [*saliency_map, *blank]
    rows = []
    for start in range(0, len(faces), columns):
        rows += [faces[start : start + columns], maps[start : start + columns]]
    return picture_grid(rows, group=2)


@matplotlib.rc_context(FONT)
def framework(
    photo: Tensor, fake: Tensor, saliency_map: Tensor, perturbed: Tensor, broken: Tensor, edit: str
) -> Figure:
    """Fig. 1 and 4: (a) photo → g → fake; (b) f_sa, ε and the loop that Algorithm 1 runs.

    Tensors are of one face, without N. ``edit`` is what g was asked for, e.g. "blond hair". The
    perturbation is shown times `AMPLIFICATION` on mid-grey.
    """
    noise = (AMPLIFICATION * (perturbed - photo)).clamp(-1, 1)
    size, width, height = 0.92, WIDTH, 3.46
    top, bottom = 2.48, 0.66  # of the two rows' pictures
    photo_x, map_x, noise_x, disrupted_x, fake_x = 0.28, 1.8, 3.04, 4.3, 5.86
    f_sa, times, plus, g = 1.5, 2.88, 4.13, 5.54
    upper, lower = top + size / 2, bottom + size / 2
    figure = Figure(figsize=(width, height))
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    sheet.axis("off")

    def place(picture: Tensor, x: float, y: float, label: str) -> None:
        _show(figure.add_axes((x / width, y / height, size / width, size / height)), picture)
        sheet.text(x + size / 2, y - 0.04, label, ha="center", va="top", fontsize=8)

    def flow(*points: tuple[float, float], style: str = "-") -> None:
        (*_, before, end) = points
        sheet.plot(*zip(*points[:-1], strict=True), color="black", lw=0.9, ls=style)
        arrow = {"arrowstyle": "-|>", "color": "black", "lw": 0.9, "ls": style}
        sheet.annotate("", end, before, arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0})

    def model(name: str, x: float, y: float, fill: str = "#dbe6f4", shape: str = "round") -> None:
        box = {"boxstyle": f"{shape},pad=0.35", "fc": fill, "ec": "black", "lw": 0.8}
        sheet.text(x, y, name, bbox=box, ha="center", va="center", fontsize=10)

    place(photo, disrupted_x, top, "$I_{org}$")
    place(fake, fake_x, top, f"$g(I_{{org}}, c)$: {edit}")
    place(photo, photo_x, bottom, "$I_{org}$")
    place(saliency_map, map_x, bottom, "$M$ (Eq. 1)")
    place(noise, noise_x, bottom, rf"$M\times\epsilon$, shown ×{AMPLIFICATION}")
    place(perturbed, disrupted_x, bottom, "$I_{ptb}$ (Eq. 4)")
    place(broken, fake_x, bottom, "$g(I_{ptb}, c)$")
    for y in (upper, lower):
        flow((disrupted_x + size, y), (fake_x, y))
        model("$g$", g, y)
    flow((photo_x + size, lower), (map_x, lower))
    model("$f_{sa}$", f_sa, lower)
    flow((map_x + size, lower), (noise_x, lower))
    flow((noise_x + size, lower), (disrupted_x, lower))
    start, over = photo_x + size / 2, bottom + size + 0.16  # above M and ε to the sum
    flow((start, bottom + size), (start, over), (plus, over), (plus, lower))
    for name, x in ((r"$\times$", times), ("$+$", plus)):
        model(name, x, lower, "white", "circle")
    flow((times, lower + 0.38), (times, lower + 0.16))
    sheet.text(times, lower + 0.4, r"$\epsilon$", ha="center", va="bottom", fontsize=10)
    middle = (top + bottom + size) / 2 - 0.06
    centre = fake_x + size / 2
    flow((centre, top - 0.2), (centre, middle + 0.13))
    flow((centre, bottom + size), (centre, middle - 0.13))
    error = (broken - fake).square().mean().item()
    model(f"$L$ = {error:.3f}", centre, middle, "#fdeed8")
    under, right, back = 0.24, width - 0.08, noise_x + size / 2
    corners = (right, middle), (right, under), (back, under)
    flow((centre, middle), *corners, (back, bottom - 0.2), style="--")
    note = r"$\epsilon \leftarrow \epsilon + m\,\mathrm{sign}(\nabla L)$, kept in $\pm\tau$"
    sheet.text((back + right) / 2, under - 0.04, note, ha="center", va="top", fontsize=8)
    sheet.text(photo_x, top + size, "(a) The forger's edit of a photo", va="top")
    words = (
        "(b) The defence: the perturbation $\\epsilon$ grows\n"
        "where the saliency map $M$ is high, until the\n"
        "edit moves away from (a): $L$ is their MSE,\n"
        "and above 0.05 the edit counts as broken"
    )
    sheet.text(photo_x, top + size - 0.3, words, va="top", linespacing=1.3)
    return figure

"""Fonts, colours and resolution, and how a figure is shown and saved."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..runtime.files import written_whole

if TYPE_CHECKING:
    from IPython.display import Image as Preview

DPI = 300  # of charts
PHOTO_DPI = 150  # of photographs, most of which have 128 pixels and are printed an inch wide
SCREEN_DPI = 150
WIDTH = 7.0  # inches: a page of two columns

# STIX has Times' letters and the mathematics that fits them.
FONT = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,  # the grid, where a chart has one
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
# Okabe and Ito's colours, each with a marker and a line, so that grey prints tell them apart. An
# attacker has the same one in all charts.
STYLES = {
    "i-fgsm": ("#000000", "o", "-"),
    "pgd": ("#0072B2", "s", "--"),
    "spread-spectrum": ("#D55E00", "^", "-."),
    "saliency-aware": ("#009E73", "D", "-"),
    "l2-pgd": ("#CC79A7", "v", "--"),
    "eot-blur": ("#E69F00", "P", "-."),
    "anti-forgery": ("#56B4E9", "X", "-"),
    "universal": ("#7F7F7F", "<", "--"),
    "nullifying": ("#E69F00", ">", ":"),
    "minimum-norm": ("#0072B2", "*", "-"),
    "minimum-norm-everywhere": ("#56B4E9", "*", ":"),
}


def preview(figure: Figure) -> "Preview":
    """Return the figure as a picture for a notebook: JPEG or 256-colour PNG, the smaller one."""
    from IPython.display import Image as Preview

    picture = _rasterised(figure, SCREEN_DPI)
    files = {kind: _coded(picture, kind) for kind in ("jpeg", "png")}
    kind = min(files, key=lambda kind: len(files[kind]))
    return Preview(files[kind], format=kind)


def save(figure: Figure, path: str | Path, *, vector: bool = False) -> Path:
    """Write a figure for print, beside its place and then renamed; return the path.

    The format follows the suffix: ``.png`` for charts (300 dpi, 256 colours), ``.jpg`` for
    photographs (150 dpi), or ``.pdf``; folders are made. No date goes into the file, so that the
    same figure gives the same bytes. ``vector`` writes it as PDF beside it too.
    """
    path = Path(path)
    if vector:
        save(figure, path.with_suffix(".pdf"))
    dpi = PHOTO_DPI if any(_photographs(figure)) else DPI
    with written_whole(path) as beside:
        if path.suffix == ".pdf":
            with _small_photographs(figure):
                figure.savefig(beside, dpi=dpi, metadata={"CreationDate": None})
        else:
            kind = "png" if path.suffix == ".png" else "jpeg"
            beside.write_bytes(_coded(_rasterised(figure, dpi), kind))
    return path


def _rasterised(figure: Figure, dpi: int) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _coded(picture: Image.Image, kind: str) -> bytes:
    """Return a file: ``"jpeg"`` for photographs, or ``"png"`` of 256 colours for charts."""
    buffer = io.BytesIO()
    if kind == "png":
        picture.quantize(256).save(buffer, "PNG", optimize=True, dpi=picture.info["dpi"])
    else:
        picture.save(buffer, "JPEG", quality=90, subsampling=0, dpi=picture.info["dpi"])
    return buffer.getvalue()


def _photographs(figure: Figure) -> Iterator:
    return (image for axes in figure.axes for image in axes.images if image.get_array().ndim == 3)


@contextmanager
def _small_photographs(figure: Figure) -> Iterator[None]:
    """Give each photograph its own 256 colours and its own pixels, which PDF stores in a third."""
    before = [
        (image, image.get_array(), image.get_interpolation()) for image in _photographs(figure)
    ]
    for image, pixels, _ in before:
        image.set_data(np.asarray(Image.fromarray(pixels).quantize(256).convert("RGB")))
        image.set_interpolation("none")
    try:
        yield
    finally:
        for image, pixels, interpolation in before:
            image.set_data(pixels)
            image.set_interpolation(interpolation)

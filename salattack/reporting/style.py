"""Fonts, resolution, and how a figure is shown and saved."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ..runtime.files import written_whole

if TYPE_CHECKING:
    from IPython.display import Image


DPI = 300  # print
SCREEN_DPI = 110
FONT = {"font.family": "serif", "font.serif": ["DejaVu Serif"], "font.size": 8}


def preview(figure: Figure) -> "Image":
    """Return the figure as a picture for a notebook, at screen resolution."""
    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=SCREEN_DPI)
    return Image(buffer.getvalue())


def save(figure: Figure, path: str | Path, *, vector: bool = False) -> Path:
    """Write a figure at print quality, beside its place and then renamed; return the path.

    The format follows the suffix (PNG, PDF, ...); folders are made. No date goes into the file,
    so that the same figure gives the same bytes. ``vector`` writes it as PDF beside it too.
    """
    path = Path(path)
    if vector:
        save(figure, path.with_suffix(".pdf"))
    options = {
        ".pdf": {"metadata": {"CreationDate": None}},
        ".png": {"pil_kwargs": {"optimize": True}},
    }.get(path.suffix, {})
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI, **options)
    return path

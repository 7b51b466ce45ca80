"""Pictures and masks read from files or from a zip's members, with one set of messages."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import SalattackError


@lru_cache(maxsize=2)
def _opened_zip(path: Path, *_: int) -> ZipFile:
    return ZipFile(path)


def open_zip(path: Path) -> ZipFile:
    """Return an open zip, the same one again while it is unchanged: an index may be long.

    Each process opens its own, since a handle that outlives a fork shares its position.
    """
    return _opened_zip(path, path.stat().st_mtime_ns, os.getpid())


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file, or of a zip's member: ``photos.zip/folder/name.jpg``.

    One that does not exist or cannot be read is an OSError; zips raise other types too.
    """
    path = Path(path)
    archive = next((p for p in path.parents if p.suffix == ".zip" and p.is_file()), None)
    if archive is None:
        return path.read_bytes()
    try:
        return open_zip(archive).read(path.relative_to(archive).as_posix())
    except KeyError:
        raise FileNotFoundError(path) from None


@contextmanager
def decoded(
    path: str | Path, what: str = "picture", file: BinaryIO | None = None, *, still: bool = True
) -> Iterator[Image.Image]:
    """Open a picture; what goes wrong here or in the block becomes one SalattackError.

    Args:
        path: a file, or a zip's member as in `read_bytes`.
        what: the word for it in messages.
        file: the opened picture, where ``path`` is only its name.
        still: refuse animated pictures.
    """
    try:
        with Image.open(file or io.BytesIO(read_bytes(path))) as image:
            # A phone's MPO is a JPEG with a depth or gain map behind it, not an animation.
            if still and image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise SalattackError(f"{path} is animated; save one frame as a still picture")
            yield image
    except SalattackError:
        raise
    except FileNotFoundError:
        raise SalattackError(f"{path} does not exist; check the path") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise SalattackError(f"{path} has more than {limit} megapixels; shrink it") from None
    except Exception as error:  # decoders raise many types on damaged files
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        message = f"{path} is not a readable {what} ({reason}); replace or remove the file"
        raise SalattackError(message) from error


def open_photo(path: str | Path) -> Image.Image:
    """Read a picture completely and return it upright, as 8-bit RGB on white; see `decoded`."""
    with decoded(path) as image:
        return to_rgb(ImageOps.exif_transpose(image), "white")


def read_mask(path: str | Path) -> Image.Image:
    """Return a mask, upright and grey: black is 0, white is 1, transparent is 0; see `decoded`."""
    with decoded(path, "mask") as image:
        return to_rgb(ImageOps.exif_transpose(image), "black").convert("L")


def to_rgb(image: Image.Image, behind: str) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB on a background colour; 16-bit grey is scaled."""
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16 bits instead of scaling
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("more than 16 bits per pixel")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, behind), image).convert("RGB")
    return image.convert("RGB")

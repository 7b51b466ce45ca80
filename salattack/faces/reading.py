"""Pictures and masks read from files or from a zip's members, with one set of messages."""

import io
import os
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import SalattackError


def read_mask(path: Path) -> Image.Image:
    """Return a mask's picture, upright and grey: black 0, white 1.

    Raises:
        SalattackError: no picture there that can be read.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("L")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise SalattackError(f"{path} cannot be read as a mask; give a grey picture") from error


@lru_cache(maxsize=2)
def _opened_zip(path: Path, changed: int, process: int) -> ZipFile:
    return ZipFile(path)


def open_zip(path: Path) -> ZipFile:
    """Return an open zip, the same one again in a process: an index may be long.

    Each process opens its own, since a handle that outlives a fork shares its position.
    """
    return _opened_zip(path, path.stat().st_mtime_ns, os.getpid())


def _zip_of(path: Path) -> Path | None:
    return next((p for p in path.parents if p.suffix == ".zip" and p.is_file()), None)


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file, or of a zip's member: ``photos.zip/folder/name.jpg``.

    Raises:
        OSError: the file or member does not exist or cannot be read; zips raise other types too.
    """
    path = Path(path)
    if (archive := _zip_of(path)) is None:
        return path.read_bytes()
    try:
        return open_zip(archive).read(path.relative_to(archive).as_posix())
    except KeyError:
        raise FileNotFoundError(path) from None


def open_photo(path: str | Path) -> Image.Image:
    """Read a still picture completely and return it upright, as 8-bit RGB.

    The picture is a file, or a zip's member as in `read_bytes`. Grey, palette and CMYK
    pictures are converted, 16-bit grey is scaled to 8 bits, transparency is composited on white,
    and the orientation in the EXIF data is applied.

    Raises:
        SalattackError: the file is missing, damaged, no picture, too large or animated.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(path)) if _zip_of(Path(path)) else path) as image:
            # A phone's MPO is a JPEG with a depth or gain map behind it, not an animation.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames == 1:
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise SalattackError(f"{path} does not exist; check the path") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        message = f"{path} has more than {limit} pixels; shrink the picture"
        raise SalattackError(message) from None
    except Exception as error:  # decoders raise many types on damaged files
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        message = f"{path} is not a readable picture ({reason}); replace or remove the file"
        raise SalattackError(message) from error
    raise SalattackError(f"{path} is animated ({frames} frames); save one frame as a still picture")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16 bits instead of scaling
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("more than 16 bits per pixel")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

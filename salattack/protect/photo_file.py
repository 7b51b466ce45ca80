"""Photos read and written: pixels, transparency, colour profile, and metadata without pictures.

JPEG, PNG and WebP are read and written; HEIC, AVIF, GIF, BMP and TIFF are read and written as one
of those. Grey, palette, CMYK and 16-bit pixels become 8-bit RGB, and a note says so. Pixels are
held upright. A file keeps its stored orientation and the EXIF data that describes it.

A thumbnail, depth map or preview inside a file shows the unprotected face. So metadata is kept by
an allow-list: EXIF fields, XMP packets, comments and text of at most `LONGEST` bytes a value, IPTC
text of at most `LONGEST_IPTC` bytes a value (JPEG to JPEG), and the ICC profile. Everything else
is dropped, and the photo's notes name it.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

from ..errors import SalattackError
from ..faces.alignment import Box
from ..faces.reading import decoded, to_rgb
from .metadata import LONGEST, ORIENTATION, jpeg_settings, plain_exif, png_chunks

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
HEIC = (".heic", ".heif")
READ = (*FORMATS, *HEIC, ".avif", ".gif", ".bmp", ".tif", ".tiff")  # files that are photos
LOSSLESS = ".gif", ".bmp", ".tif", ".tiff"
NEW_JPEG = {"quality": 95, "subsampling": "4:4:4"}  # where the input was no JPEG
LOSSLESS_WEBP = {"lossless": True, "exact": True, "quality": 50}  # quality is effort here
BLOCK = 16  # px: JPEG's largest unit with the samplings that Pillow writes
PNG_KEPT = b"gAMA cHRM sRGB cICP mDCV cLLI sBIT bKGD tIME tEXt zTXt iTXt".split()
PNG_ANEW = {b"iCCP", b"eXIf", b"pHYs", b"tRNS"}  # which Pillow writes from what is kept
XMP_IN_PNG = b"XML:com.adobe.xmp"
_T = Image.Transpose

# EXIF orientations 2 to 8: how stored pixels are turned upright, and what turns them back.
_UPRIGHT = (
    *(_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.FLIP_TOP_BOTTOM),
    *(_T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90),
)
_BACK = {6: 8, 8: 6}


@dataclass
class Photo:
    """A photo in memory: one 8-bit copy of its pixels, and what else its file held."""

    pixels: Image.Image  # upright RGB
    alpha: Image.Image | None  # upright L
    format: str  # Pillow's name
    orientation: int  # EXIF orientation of the file, 1 to 8
    kept: dict[str, Any]  # Pillow's options that write the metadata in any format
    own: dict[str, Any]  # options for the photo's own format, where they replace those of kept
    notes: list[str]  # what is not kept, one sentence each

    def stored(self, image: Image.Image) -> Image.Image:
        """Turn an upright picture as the file holds it."""
        return _turned(image, _BACK.get(self.orientation, self.orientation))

    def in_blocks(self, box: Box) -> Box:
        """Grow an upright box to whole JPEG blocks of the stored picture, with one to spare.

        A part cut along blocks is compressed as it is inside the whole photo. The spare block is
        for the decoder's chroma filter, which looks across edges.
        """
        marked = Image.new("1", self.pixels.size)
        marked.paste(1, box)
        marked = self.stored(marked)
        left, top, right, bottom = marked.getbbox()
        left, top = ((v // BLOCK - 1) * BLOCK for v in (left, top))
        right, bottom = ((-(-v // BLOCK) + 1) * BLOCK for v in (right, bottom))
        marked.paste(1, (left, top, right, bottom))
        return _turned(marked, self.orientation).getbbox()

    def options(self, target_format: str) -> dict[str, Any]:
        """Return Pillow's options that save all that a format can keep; see `write_photo`."""
        if target_format == "JPEG" and self.alpha is not None:
            raise SalattackError("a JPEG cannot keep transparency; write a .png or .webp")
        options = {"format": target_format, **self.kept}
        if target_format != "PNG":
            new = {"JPEG": NEW_JPEG, "WEBP": LOSSLESS_WEBP}[target_format]
            return options | (self.own if target_format == self.format else new)
        info = PngImagePlugin.PngInfo()
        for chunk in self.own.get("chunks", ()):
            info.add(*chunk)
        if "xmp" in options:
            info.add_itxt(XMP_IN_PNG.decode(), options["xmp"].decode("utf-8", "replace"))
        return options | {"pnginfo": info}

    def notes_for(self, target_format: str) -> list[str]:
        """Return the notes of a file written in a format: what it does not keep, and why."""
        only_jpeg = {"extra": "IPTC texts", "comment": "the comment"}
        lost = [name for key, name in only_jpeg.items() if self.own.get(key)]
        if not lost or target_format == self.format:
            return self.notes
        return [*self.notes, f"not kept, because only a JPEG holds them: {', '.join(lost)}"]

    def through_jpeg(self, part: Image.Image) -> Image.Image:
        """Return an upright RGB part as it comes back from a JPEG written with `options`."""
        options = self.options("JPEG")
        keys = {"qtables", "subsampling", "quality"} & options.keys()
        part = as_jpeg(self.stored(part), **{key: options[key] for key in keys})
        return _turned(part, self.orientation)


def as_jpeg(image: Image.Image, **options: object) -> Image.Image:
    """Return an RGB picture as it comes back from a JPEG."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", **options)
    return Image.open(buffer).convert("RGB")


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation - 2])


def format_of(path: Path) -> str:
    """Return the format of a file to write; a SalattackError lists the suffixes of `FORMATS`."""
    if (suffix := path.suffix.lower()) not in FORMATS:
        known = ", ".join(FORMATS)
        raise SalattackError(f"{path} cannot be written; name it with one of {known}")
    return FORMATS[suffix]


def name_written(name: str, suffix: str | None = None) -> str:
    """Return the name of a photo's protected file: ``IMG_1.heic`` becomes ``IMG_1.heic.jpg``.

    Without a ``suffix`` it is the photo's own. One that cannot be written is replaced by .png after
    a lossless format, else by .jpg.
    """
    own = Path(name).suffix.lower()
    if suffix is None:
        suffix = own if own in FORMATS else ".png" if own in LOSSLESS else ".jpg"
    return name if FORMATS.get(own) == FORMATS[suffix] else name + suffix


def read_photo(path: Path) -> Photo:
    """Read a photo completely; of several pictures in a file the first one.

    A SalattackError is raised as by `decoded`, and for HEIC without pillow-heif.
    """
    try:
        import pillow_heif
    except ImportError as error:
        if path.suffix.lower() in HEIC:
            message = f"{path} needs pillow-heif; install it by pip install 'salattack[heic]'"
            raise SalattackError(message) from error
    else:  # also for HEIC files with another name
        pillow_heif.register_heif_opener()
    with decoded(path, still=False) as image:
        return _read(image, path)


def _read(image: Image.Image, path: Path) -> Photo:
    info, kind = image.info, "JPEG" if image.format == "MPO" else image.format
    notes = []
    if image.format != "MPO" and (several := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"only the first of its {several} pictures is kept")
    image.load()  # the whole file: a truncated one raises here
    chunks = list(png_chunks(path)) if kind == "PNG" else []
    bits = chunks[0][1][8] if chunks else info.get("bit_depth", 16 if image.mode[0] in "IF" else 8)
    named = {"L": "grey", "LA": "grey", "P": "palette", "PA": "palette", "1": "black and white"}
    was = "16-bit" if bits > 8 else named.get(image.mode, image.mode)
    if converted := bits > 8 or image.mode not in ("RGB", "RGBA"):
        notes.append(f"converted from {was} to 8-bit RGB")
    orientation = image.getexif().get(ORIENTATION, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    kept = {key: info[key] for key in ("icc_profile", "dpi") if info.get(key)}
    exif, dropped = plain_exif((info.get("exif") or b"").removeprefix(b"Exif\0\0"), orientation)
    if exif:
        kept["exif"] = b"Exif\0\0" + exif
    if xmp := info.get("xmp") or info.get(XMP_IN_PNG.decode()):
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        # Values lie between markup; base64 may be broken into lines.
        if max(len(b"".join(part.split())) for part in re.split(rb"[<>\"']", xmp)) <= LONGEST:
            kept["xmp"] = xmp
        else:
            dropped.append("XMP data")
    own: dict[str, Any] = {}
    if kind == "JPEG":
        own, more = jpeg_settings(image, path)
        dropped += more
    elif kind == "WEBP":
        own = LOSSLESS_WEBP
        if path.stat().st_size > 8 + int.from_bytes(path.read_bytes()[4:8], "little"):
            dropped.append("data after the picture")
    elif kind == "PNG":
        own["chunks"], other = [], PNG_ANEW | ({b"sBIT", b"bKGD"} if converted else set())
        for name, data in chunks:
            if name in other or data.startswith(XMP_IN_PNG + b"\0"):
                continue  # made of `kept` and the pixels, or about other pixels
            if name in PNG_KEPT and len(data) <= LONGEST:
                own["chunks"].append((name, data))
            elif name[:1].islower():
                dropped.append(f"the PNG chunk {name.decode('latin-1')}")
            elif not name:
                dropped.append("data after the picture")
    inside = {"thumbnails": "thumbnails", "depth_images": "a depth map", "aux": "further pictures"}
    dropped += [what for key, what in inside.items() if info.get(key)]  # of a HEIC
    if dropped:
        names = ", ".join(dict.fromkeys(dropped))
        notes.append(f"not kept, because it may hold a picture of the unprotected face: {names}")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    pixels = _pixels(image, kept)
    pixels.info = {}  # Pillow would write some of it
    pixels, alpha = (part and _turned(part, orientation) for part in (pixels, alpha))
    return Photo(pixels, alpha, kind, orientation, kept, own, notes)


def _pixels(image: Image.Image, kept: dict[str, Any]) -> Image.Image:
    """Return 8-bit RGB; a profile of other pixels is applied and taken out of ``kept``."""
    if image.mode in ("RGB", "RGBA", "P", "PA"):
        return image.convert("RGBA").convert("RGB") if image.mode != "RGB" else image.copy()
    profile = kept.pop("icc_profile", None)
    if profile and image.mode in ("L", "CMYK"):
        with suppress(ImageCms.PyCMSError, OSError):
            read, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, read, srgb, outputMode="RGB")
    return image.convert("RGB") if image.has_transparency_data else to_rgb(image, "white")


def write_photo(photo: Photo, path: Path, target_format: str) -> None:
    """Write a photo's pixels, its alpha, and the metadata that it kept.

    A format that cannot hold its transparency or metadata raises a SalattackError.
    """
    options = photo.options(target_format)
    image = photo.stored(photo.pixels)
    if photo.alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(photo.stored(photo.alpha))
    try:
        image.save(path, **options)
    except ValueError as error:
        message = f"{path.name} cannot be written as {target_format} ({error})"
        raise SalattackError(f"{message}; choose another format") from error

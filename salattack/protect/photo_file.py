"""Photos read and written: pixels, transparency, colour profile, and metadata without pictures.

What is supported: JPEG, PNG and WebP; RGB with 8 bits a channel, in PNG and WebP with alpha. Pixels
are held upright; a file keeps its stored orientation and the EXIF data that tells it.

A thumbnail or preview inside a file shows the face as it was. So metadata is kept by an allow-list:
EXIF fields, XMP packets, comments and text of at most `LONGEST` bytes a value, and the ICC profile.
Everything else is dropped, and the photo's notes name it.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin

from ..errors import SalattackError
from ..faces.alignment import Box

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
NEW_JPEG = {"quality": 95, "subsampling": "4:4:4"}  # where the input was no JPEG
LOSSLESS_WEBP = {"lossless": True, "exact": True, "quality": 50}  # quality is effort here
BLOCK = 16  # px: JPEG's largest unit with the samplings that Pillow writes
ORIENTATION = 0x0112  # EXIF tag
XMP_IN_PNG = "XML:com.adobe.xmp"
LONGEST = 256  # bytes of one value of metadata: too few for a picture of a face
PNG_KEPT = b"gAMA cHRM sRGB cICP mDCV cLLI sBIT bKGD tIME tEXt zTXt iTXt".split()
JPEG_KNOWN = {  # segments that are read and written by what they mean
    "APP1": (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    "APP2": (b"ICC_PROFILE\0",),
    "APP14": (b"Adobe",),
}
JPEG_DROPPED = {
    "APP0": "the JFIF thumbnail",
    "APP1": "further XMP data",
    "APP2": "the index of further pictures",
    "APP13": "Photoshop and IPTC data",
    "COM": "a long comment",
}
EXIF_PARTS = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "interoperability"}  # tags of sub-directories

# Tags that place pictures by offset (strips, tiles, thumbnails, further directories), maker notes.
EXIF_DROPPED = {0x0111, 0x0117, 0x0144, 0x0145, 0x014A, 0x0201, 0x0202, 0x927C}
EXIF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_T = Image.Transpose

# EXIF orientation: from the stored pixels to upright ones, back, and where a point goes back to.
_TURNS = {
    1: (None, None, lambda x, y, w, h: (x, y)),
    2: (_T.FLIP_LEFT_RIGHT, _T.FLIP_LEFT_RIGHT, lambda x, y, w, h: (w - x, y)),
    3: (_T.ROTATE_180, _T.ROTATE_180, lambda x, y, w, h: (w - x, h - y)),
    4: (_T.FLIP_TOP_BOTTOM, _T.FLIP_TOP_BOTTOM, lambda x, y, w, h: (x, h - y)),
    5: (_T.TRANSPOSE, _T.TRANSPOSE, lambda x, y, w, h: (y, x)),
    6: (_T.ROTATE_270, _T.ROTATE_90, lambda x, y, w, h: (y, w - x)),
    7: (_T.TRANSVERSE, _T.TRANSVERSE, lambda x, y, w, h: (h - y, w - x)),
    8: (_T.ROTATE_90, _T.ROTATE_270, lambda x, y, w, h: (h - y, x)),
}


@dataclass
class Photo:
    """A photo in memory: one 8-bit copy of its pixels, and what else its file held.

    Attributes:
        pixels: upright RGB.
        alpha: upright L, or None.
        format: "JPEG", "PNG" or "WEBP".
        orientation: EXIF orientation of the file, 1 to 8.
        kept: Pillow's save options that write the metadata again, in any format.
        own: those for the photo's own format, which there go before ``kept``.
        notes: what is not kept, one sentence each.
    """

    pixels: Image.Image
    alpha: Image.Image | None
    format: str
    orientation: int
    kept: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def stored_size(self) -> tuple[int, int]:
        """Return width and height of the pixels as the file holds them."""
        width, height = self.pixels.size
        return (height, width) if self.orientation > 4 else (width, height)

    def stored(self, image: Image.Image) -> Image.Image:
        """Turn an upright picture as the file holds it."""
        turn = _TURNS[self.orientation][1]
        return image if turn is None else image.transpose(turn)

    def upright(self, image: Image.Image) -> Image.Image:
        """Turn a picture as the file holds it upright."""
        turn = _TURNS[self.orientation][0]
        return image if turn is None else image.transpose(turn)

    def in_blocks(self, box: Box) -> Box:
        """Grow an upright box to whole JPEG blocks of the stored picture, with one to spare.

        A part cut out along blocks comes through compression as it does inside the whole photo;
        the spare block is for the decoder's chroma filter, which looks across edges.
        """
        stored = self.stored_size()
        left, top, right, bottom = _corners(box, self.pixels.size, self.orientation)
        left, top = ((v // BLOCK - 1) * BLOCK for v in (left, top))
        right, bottom = ((-(-v // BLOCK) + 1) * BLOCK for v in (right, bottom))
        grown = max(left, 0), max(top, 0), min(right, stored[0]), min(bottom, stored[1])
        back = {6: 8, 8: 6}.get(self.orientation, self.orientation)
        return _corners(grown, stored, back)

    def options(self, target_format: str) -> dict[str, Any]:
        """Return Pillow's options to save in a format with all that can be kept.

        Raises:
            SalattackError: transparency cannot be kept in a JPEG.
        """
        if target_format == "JPEG" and self.alpha is not None:
            raise SalattackError("a JPEG cannot keep transparency; write a .png or .webp")
        options: dict[str, Any] = {"format": target_format, **self.kept}
        if target_format == self.format:
            return options | self.own
        if target_format == "PNG" and "xmp" in options:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt(XMP_IN_PNG, options["xmp"].decode("utf-8", "replace"))
        return options | {"JPEG": NEW_JPEG, "PNG": {}, "WEBP": LOSSLESS_WEBP}[target_format]

    def through_jpeg(self, part: Image.Image) -> Image.Image:
        """Return an upright RGB part as it comes back from a JPEG written with `options`."""
        own = self.own if self.format == "JPEG" else NEW_JPEG
        keys = {"qtables", "subsampling", "quality"} & set(own)
        buffer = BytesIO()
        self.stored(part).save(buffer, "JPEG", **{key: own[key] for key in keys})
        return self.upright(Image.open(buffer).convert("RGB"))


def _corners(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Return where a box of an upright picture of that size lies in the stored one."""
    move = _TURNS[orientation][2]
    xs, ys = zip(*(move(x, y, *size) for x, y in (box[:2], box[2:])), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def format_of(path: Path) -> str:
    """Return the format that a file's suffix tells.

    Raises:
        SalattackError: none that is supported.
    """
    if path.suffix.lower() not in FORMATS:
        raise SalattackError(f"{path} is not named as a photo; known are {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def read_photo(path: Path) -> Photo:
    """Read a photo completely.

    Raises:
        SalattackError: no such file, damaged or truncated, no picture, too large, animated, or
            with pixels that could not be written back as they are.
    """
    try:
        with Image.open(path) as image:
            kind = "JPEG" if image.format == "MPO" else image.format
            if kind not in FORMATS.values():
                reason = f"is {kind}; save it as JPEG, PNG or WebP"
            elif image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                reason = "is animated; save one frame as a still picture"
            elif kind == "PNG" and next(_png_chunks(path))[1][8] > 8:
                reason = "has 16 bits a channel; save it with 8"
            elif image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
                reason = f"has pixels of the kind {image.mode}; save it as 8-bit RGB"
            else:
                return _read(image, kind, path)
    except FileNotFoundError:
        raise SalattackError(f"{path} does not exist; check the path") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise SalattackError(f"{path} has more than {limit} megapixels; shrink it") from None
    except Exception as error:  # decoders raise many types on damaged files
        message = f"{path} is not a readable picture ({error}); replace the file"
        raise SalattackError(message) from error
    raise SalattackError(f"{path} {reason}")


def _read(image: Image.Image, kind: str, path: Path) -> Photo:
    image.load()  # the whole file: a truncated one raises here
    info = image.info
    orientation = image.getexif().get(ORIENTATION, 1)
    orientation = orientation if orientation in _TURNS else 1
    kept = {key: info[key] for key in ("icc_profile", "dpi") if info.get(key)}
    exif, dropped = _plain_exif(info.get("exif", b"").removeprefix(b"Exif\0\0"), orientation)
    if exif:
        kept["exif"] = b"Exif\0\0" + exif
    if xmp := info.get("xmp") or info.get(XMP_IN_PNG):
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        # Values lie between markup; base64 may be broken into lines.
        if max(len(b"".join(part.split())) for part in re.split(rb"[<>\"']", xmp)) <= LONGEST:
            kept["xmp"] = xmp
        else:
            dropped.append("XMP data")
    own: dict[str, Any] = {}
    if kind == "JPEG":
        own, more = _jpeg_settings(image, path)
        dropped += more
    elif kind == "WEBP":
        own = LOSSLESS_WEBP
        if path.stat().st_size > 8 + int.from_bytes(path.read_bytes()[4:8], "little"):
            dropped.append("data after the picture")
    else:
        own["pnginfo"] = PngImagePlugin.PngInfo()
        for name, data in _png_chunks(path):
            if name in (b"iCCP", b"eXIf", b"pHYs") or data.startswith(XMP_IN_PNG.encode() + b"\0"):
                continue  # the writer makes them from `kept`, as it makes those of the coding
            if name in PNG_KEPT and len(data) <= LONGEST:
                own["pnginfo"].add(name, data)
            elif name[:1].islower():
                dropped.append(f"the PNG chunk {name.decode('latin-1')}")
            elif not name:
                dropped.append("data after the picture")
        if "xmp" in kept:
            own["pnginfo"].add_itxt(XMP_IN_PNG, kept["xmp"].decode("utf-8", "replace"))
    notes = []
    if dropped:
        names = ", ".join(dict.fromkeys(dropped))
        notes.append(f"not kept, because it may hold a picture of the unprotected face: {names}")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    pixels = image.convert("RGB") if image.mode == "RGBA" else image.copy()
    pixels.info = {}  # nothing of it is written unasked
    turn = _TURNS[orientation][0]
    if turn is not None:  # a flip is 0
        pixels, alpha = pixels.transpose(turn), alpha and alpha.transpose(turn)
    return Photo(pixels, alpha, kind, orientation, kept, own, notes)


def _plain_exif(tiff: bytes, orientation: int) -> tuple[bytes, list[str]]:
    """Return EXIF data that holds no picture, and what was left out.

    Fields of the first directory, and of the Exif, GPS and interoperability directories below it,
    are copied as they are. The orientation is always among them unless it is 1: it may have
    come from XMP.
    """
    order = ">" if tiff[:2] == b"MM" else "<"
    dropped: list[str] = []

    def read(at: int) -> tuple[dict[int, tuple[int, int, bytes | dict]], int]:
        fields: dict[int, tuple[int, int, bytes | dict]] = {}
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for n in range(count):
            place = at + 2 + 12 * n
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, place)
            (value,) = struct.unpack_from(order + "I", tiff, place + 8)
            size = EXIF_SIZES.get(kind, LONGEST + 1) * values
            if tag in EXIF_PARTS:
                fields[tag] = kind, values, read(value)[0]
            elif tag in EXIF_DROPPED or size > LONGEST:
                name = "the EXIF maker note" if tag == 0x927C else f"the EXIF field 0x{tag:04X}"
                dropped.append(name)
            else:
                value = place + 8 if size <= 4 else value
                if value + size > len(tiff):
                    raise struct.error("a value lies outside the data")
                fields[tag] = kind, values, tiff[value : value + size]
        (following,) = struct.unpack_from(order + "I", tiff, at + 2 + 12 * count)
        return fields, following

    fields: dict[int, tuple[int, int, bytes | dict]] = {}
    if tiff:
        try:
            fields, thumbnail = read(struct.unpack_from(order + "I", tiff, 4)[0])
            if thumbnail:
                dropped.insert(0, "the EXIF thumbnail")
        except (struct.error, RecursionError):
            dropped = ["EXIF data, which is damaged"]
    if orientation != 1:
        fields[ORIENTATION] = 3, 1, struct.pack(order + "H", orientation)

    def write(fields: dict, at: int) -> bytes:
        entries, beyond = b"", b""
        end = at + 2 + 12 * len(fields) + 4
        for tag, (kind, values, data) in sorted(fields.items()):
            if isinstance(data, dict):
                kind, values, start = 4, 1, end + len(beyond)
                beyond += write(data, start)
                data = struct.pack(order + "I", start)
            elif len(data) > 4:
                start = end + len(beyond)
                beyond += data + bytes(len(data) % 2)
                data = struct.pack(order + "I", start)
            entries += struct.pack(order + "HHI", tag, kind, values) + data.ljust(4, b"\0")
        return struct.pack(order + "H", len(fields)) + entries + bytes(4) + beyond

    if not fields:
        return b"", dropped
    header = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    return header + write(fields, 8), dropped


def _jpeg_settings(image: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what writes a JPEG as this one is coded, and the segments that are not kept."""
    sampling = JpegImagePlugin.get_sampling(image)
    comment = image.info.get("comment", b"")
    dropped = []
    for name, data in image.applist:
        if name in ("COM", "APP0"):  # JFIF without a thumbnail has 14 bytes
            known = len(data) <= (LONGEST if name == "COM" else 14)
        else:
            known = data.startswith(JPEG_KNOWN.get(name, ()))
        if not known:
            dropped.append(JPEG_DROPPED.get(name, f"the JPEG segment {name}"))
    if _jpeg_ends_at(path.read_bytes()) < path.stat().st_size:
        dropped.append("data after the picture (further pictures, a video)")
    settings = {
        "qtables": image.quantization,
        "subsampling": sampling if sampling >= 0 else 0,
        "progressive": bool(image.info.get("progressive")),
        "optimize": True,
    }
    if 0 < len(comment) <= LONGEST:
        settings["comment"] = comment
    return settings, dropped


def _jpeg_ends_at(data: bytes) -> int:
    """Return the length of the first picture of a JPEG file, its end marker included."""
    at = 2
    marker = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
    while (found := marker.search(data, at)) and found[1] != b"\xd9":
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return found.end() if found else len(data)


def _png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield a PNG's chunks but the pixels, and (b"", b"") where more follows its end."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                file.seek(length + 4, 1)
            else:
                yield name, file.read(length)
                file.seek(4, 1)
            if name == b"IEND":
                break
        if file.read(1):
            yield b"", b""


def write_photo(photo: Photo, path: Path, target_format: str) -> None:
    """Write a photo's pixels, its alpha, and the metadata that it kept.

    Raises:
        SalattackError: transparency, or metadata that the format cannot hold.
        OSError: the place cannot be written to.
    """
    options = photo.options(target_format)
    image = photo.stored(photo.pixels)
    if photo.alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(photo.stored(photo.alpha))
    try:
        image.save(path, **options)
    except ValueError as error:
        message = f"{path.name} cannot be written as {target_format} ({error}); choose another"
        raise SalattackError(message) from error

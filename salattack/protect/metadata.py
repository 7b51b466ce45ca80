"""Metadata of photo files without pictures: EXIF, IPTC, JPEG segments and PNG chunks."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import JpegImagePlugin

ORIENTATION = 0x0112  # EXIF tag
LONGEST = 256  # bytes of one value of metadata: too few for a picture of a face
LONGEST_IPTC = 2000  # the format's limit for a caption
IPTC = 0x0404  # number of the Photoshop resource
JPEG_KNOWN = {  # segments whose content is read and written anew
    "APP1": (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    "APP2": (b"ICC_PROFILE\0",),
    "APP14": (b"Adobe",),
}
PHOTOSHOP = b"Photoshop 3.0\0"
JPEG_DROPPED = {
    "APP0": "the JFIF thumbnail",
    "APP1": "further XMP data",
    "APP2": "the index of further pictures",
    "APP13": "Photoshop data",
    "COM": "a long comment",
}
EXIF_PARTS = 0x8769, 0x8825, 0xA005  # the Exif, GPS and interoperability directories

# Offsets of pictures (strips, tiles, thumbnails, further directories), and the maker note.
EXIF_DROPPED = {0x0111, 0x0117, 0x0144, 0x0145, 0x014A, 0x0201, 0x0202, 0x927C}
EXIF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def plain_exif(tiff: bytes, orientation: int) -> tuple[bytes, list[str]]:
    """Return EXIF data that holds no picture, and what was left out.

    Fields of the first directory and of `EXIF_PARTS` below it are copied unchanged. The orientation
    is added unless it is 1, because it may come from XMP.
    """
    order = ">" if tiff[:2] == b"MM" else "<"
    dropped: list[str] = []

    def number(at: int, size: str = "I") -> int:
        return struct.unpack_from(order + size, tiff, at)[0]

    def read(at: int) -> tuple[dict, int]:
        fields: dict[int, tuple[int, int, bytes | dict]] = {}
        end = at + 2 + 12 * number(at, "H")
        for place in range(at + 2, end, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHII", tiff, place)
            size = EXIF_SIZES.get(kind, LONGEST + 1) * values
            if tag in EXIF_PARTS:
                fields[tag] = 4, 1, read(value)[0]
            elif tag in EXIF_DROPPED or size > LONGEST:
                dropped.append(
                    "the EXIF maker note" if tag == 0x927C else f"the EXIF field 0x{tag:04X}"
                )
            else:
                value = place + 8 if size <= 4 else value
                if value + size > len(tiff):
                    raise struct.error("a value lies outside the data")
                fields[tag] = kind, values, tiff[value : value + size]
        return fields, number(end)

    def write(fields: dict, at: int) -> bytes:
        entries, beyond = b"", b""
        end = at + 2 + 12 * len(fields) + 4
        for tag, (kind, values, data) in sorted(fields.items()):
            start = end + len(beyond)
            if isinstance(data, dict):
                beyond += write(data, start)
            elif len(data) > 4:
                beyond += data + bytes(len(data) % 2)
            if len(beyond) > start - end:
                data = struct.pack(order + "I", start)
            entries += struct.pack(order + "HHI", tag, kind, values) + data.ljust(4, b"\0")
        return struct.pack(order + "H", len(fields)) + entries + bytes(4) + beyond

    fields: dict = {}
    if tiff:
        try:
            fields, thumbnail = read(number(4))
            if thumbnail:
                dropped.insert(0, "the EXIF thumbnail")
        except (struct.error, RecursionError):
            dropped = ["EXIF data, which is damaged"]
    if orientation != 1:
        fields[ORIENTATION] = 3, 1, struct.pack(order + "H", orientation)
    if not fields:
        return b"", dropped
    header = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    return header + write(fields, 8), dropped


def _plain_iptc(data: bytes) -> bytes:
    """Return a JPEG segment with the values of IPTC data that hold no picture, or nothing.

    Texts may have `LONGEST_IPTC` bytes, other values (the texts' encoding) `LONGEST`.
    """
    kept = b""
    while len(data) >= 5 and data[0] == 0x1C:
        end = 5 + int.from_bytes(data[3:5], "big")
        text = not re.search(rb"[\x00-\x08\x0e-\x1f]", data[5:end])
        if end <= min(len(data), 5 + (LONGEST_IPTC if text else LONGEST)):
            kept += data[:end]
        data = data[end:]
    if not kept:
        return b""
    resource = struct.pack(">4sHHI", b"8BIM", IPTC, 0, len(kept)) + kept + bytes(len(kept) % 2)
    return b"\xff\xed" + struct.pack(">H", 2 + len(PHOTOSHOP + resource)) + PHOTOSHOP + resource


def jpeg_settings(image: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the options that code a JPEG as this one is, and the segments that are not kept."""
    sampling = JpegImagePlugin.get_sampling(image)
    comment = image.info.get("comment", b"")
    iptc = _plain_iptc(image.info.get("photoshop", {}).get(IPTC, b""))
    dropped = []
    for name, data in image.applist:
        # JFIF without a thumbnail has 14 bytes.
        plain = {"COM": len(data) <= LONGEST, "APP0": len(data) <= 14, "APP13": data == iptc[4:]}
        if not plain.get(name, data.startswith(JPEG_KNOWN.get(name, ()))):
            dropped.append(JPEG_DROPPED.get(name, f"the JPEG segment {name}"))
    if _jpeg_ends_at(path.read_bytes()) < path.stat().st_size:
        dropped.append("data after the picture (further pictures, a video)")
    settings = {
        "qtables": image.quantization,
        "subsampling": max(sampling, 0),
        "progressive": bool(image.info.get("progressive")),
        "optimize": True,
        "extra": iptc,
    }
    return settings | ({"comment": comment} if 0 < len(comment) <= LONGEST else {}), dropped


def _jpeg_ends_at(data: bytes) -> int:
    """Return the length of the first picture of a JPEG file, its end marker included."""
    at = 2
    marker = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
    while (found := marker.search(data, at)) and found[1] != b"\xd9":
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return found.end() if found else len(data)


def png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield a PNG's chunks except the pixels, then (b"", b"") if data follows the end."""
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

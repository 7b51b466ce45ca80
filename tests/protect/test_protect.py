import contextlib
import re
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from typer.testing import CliRunner

from salattack.cli.main import app
from salattack.errors import SalattackError
from salattack.faces import load_faces
from salattack.faces.alignment import preprocess
from salattack.faces.reading import open_photo
from salattack.presets import attacker
from salattack.protect import detection as detector
from salattack.protect import disruption
from salattack.protect.batch import pairs_of
from salattack.protect.detection import find_faces
from salattack.protect.disruption import _spread, _View, load_protector
from salattack.protect.metadata import ORIENTATION
from salattack.protect.page import body, in_words
from salattack.protect.photo_file import format_of, name_written, read_photo, write_photo
from salattack.protect.placement import Place
from salattack.protect.protection import _tint, measure, protect_photo

SELFIE = load_faces("openpeople").sources[0]


@pytest.fixture(scope="module")
def small():
    """A shipped selfie, its face and shoulders, 480 px wide."""
    return open_photo(SELFIE).crop((250, 200, 1450, 1500)).resize((480, 520))


def exif(orientation=1):
    data = Image.Exif()
    data[ORIENTATION] = orientation
    data[0x010F] = "A camera"
    return data.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_upright_and_written_as_stored(tmp_path, small, orientation):
    path = tmp_path / "photo.png"
    small.resize((48, 52)).save(path, exif=exif(orientation))
    photo = read_photo(path)
    with Image.open(path) as image:
        assert np.array_equal(photo.pixels, ImageOps.exif_transpose(image))
        write_photo(photo, tmp_path / "again.png", "PNG")
        with Image.open(tmp_path / "again.png") as again:
            assert np.array_equal(image, again) and again.info["exif"] == image.info["exif"]
    # A box around one pixel, followed through the stored picture and back.
    marked = Image.new("RGB", photo.pixels.size)
    marked.putpixel((11, 5), (255, 0, 0))
    left, top, right, bottom = photo.in_blocks((11, 5, 12, 6))
    assert left <= 11 < right and top <= 5 < bottom
    photo.pixels = Image.new("RGB", (480, 520))  # far from every edge
    grown = photo.in_blocks((100, 200, 150, 260))
    x, y = photo.stored(_dot(photo.pixels.size, grown[:2])).getbbox()[:2]
    u, v = photo.stored(_dot(photo.pixels.size, (grown[2] - 1, grown[3] - 1))).getbbox()[:2]
    assert min(x, u) % 16 == min(y, v) % 16 == 0
    assert (max(x, u) + 1) % 16 == (max(y, v) + 1) % 16 == 0


def _dot(size, at):
    image = Image.new("L", size)
    image.putpixel(at, 255)
    return image


def test_a_jpeg_keeps_its_tables_sampling_and_plain_metadata(tmp_path, small):
    path = tmp_path / "photo.jpg"
    small.save(
        path,
        quality=83,
        subsampling="4:2:0",
        progressive=True,
        exif=exif(6),
        icc_profile=b"profile" * 20000,
        xmp=b"<x/>",
        comment=b"hello",
        dpi=(300, 300),
    )
    write_photo(read_photo(path), tmp_path / "again.jpg", "JPEG")
    assert not read_photo(path).notes
    with Image.open(path) as a, Image.open(tmp_path / "again.jpg") as b:
        a.load(), b.load()
        assert a.quantization == b.quantization and a.layer == b.layer
        assert sorted(a.applist) == sorted(b.applist)
        for key in ("exif", "icc_profile", "xmp", "comment", "dpi", "progressive"):
            assert a.info[key] == b.info[key], key


def test_a_part_comes_through_jpeg_as_in_the_whole_photo(tmp_path, small):
    path = tmp_path / "photo.jpg"
    small.save(path, quality=75, subsampling="4:2:0", exif=exif(6))
    photo = read_photo(path)
    box = photo.in_blocks((120, 100, 250, 260))
    write_photo(photo, tmp_path / "again.jpg", "JPEG")
    whole = read_photo(tmp_path / "again.jpg").pixels.crop((120, 100, 250, 260))
    part = photo.through_jpeg(photo.pixels.crop(box))
    part = part.crop((120 - box[0], 100 - box[1], 250 - box[0], 260 - box[1]))
    assert np.array_equal(whole, part)


def test_a_png_keeps_its_pixels_alpha_and_plain_chunks(tmp_path, small):
    rgba = small.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(small.size))
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", b"\x00\x00\xb1\x8f")
    info.add_text("Author", "someone")
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>é</x:xmpmeta>")
    path = tmp_path / "photo.png"
    rgba.save(path, pnginfo=info, exif=exif(3), icc_profile=b"profile", dpi=(72, 72))
    photo = read_photo(path)
    write_photo(photo, tmp_path / "again.png", "PNG")
    write_photo(photo, tmp_path / "again.webp", "WEBP")
    with Image.open(path) as a, Image.open(tmp_path / "again.png") as b:
        a.load(), b.load()
        assert np.array_equal(a, b) and a.info == b.info
        assert a.info["gamma"] and a.text == b.text
    with Image.open(tmp_path / "again.webp") as c:
        assert np.array_equal(rgba, c)
        assert dict(c.getexif()) == dict(a.getexif()) and c.info["icc_profile"] == b"profile"
        assert "é".encode() in c.info["xmp"]
    with pytest.raises(SalattackError, match=r"cannot keep transparency; write a \.png"):
        write_photo(photo, tmp_path / "again.jpg", "JPEG")


def test_a_jpeg_written_as_png_is_lossless_and_keeps_what_it_can(tmp_path, small):
    path = tmp_path / "photo.jpg"
    small.save(path, exif=exif(8), icc_profile=b"profile", xmp=b"<x>\xc3\xa9</x>", dpi=(300, 300))
    write_photo(read_photo(path), tmp_path / "again.png", "PNG")
    with Image.open(path) as a, Image.open(tmp_path / "again.png") as b:
        assert np.array_equal(a, b) and b.info["exif"] == a.info["exif"]
        assert b.info["icc_profile"] == b"profile" and "<x>é</x>" in str(b.text)
    write_photo(read_photo(tmp_path / "again.png"), tmp_path / "third.webp", "WEBP")
    write_photo(read_photo(tmp_path / "third.webp"), tmp_path / "fourth.jpg", "JPEG")
    with Image.open(path) as a, Image.open(tmp_path / "fourth.jpg") as b:
        assert dict(b.getexif()) == dict(a.getexif()) and b.info["xmp"] == a.info["xmp"]
        assert b.info["icc_profile"] == b"profile" and b.layer[0][1:3] == (1, 1)


def test_a_jpeg_keeps_iptc_text_and_no_long_or_binary_value(tmp_path, small):
    def value(record, name, data):
        return struct.pack(">BBBH", 0x1C, record, name, len(data)) + data

    caption = "Été à la plage. ".encode() * 100
    kept = value(1, 90, b"\x1b%G") + value(2, 120, caption) + value(2, 116, b"(c) someone")
    dropped = value(2, 202, _jpeg_of(small, (40, 40))) + value(2, 120, b"long" * 600)
    for iptc, noted in ((kept, False), (kept + dropped, True)):
        resource = b"8BIM\4\4\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
        segment = _segment(0xED, b"Photoshop 3.0\0" + resource)
        small.save(tmp_path / "a.jpg", extra=segment)
        photo = read_photo(tmp_path / "a.jpg")
        write_photo(photo, tmp_path / "b.jpg", "JPEG")
        with Image.open(tmp_path / "b.jpg") as image:
            assert image.info["photoshop"] == {0x0404: kept}
        assert bool(photo.notes) == noted and (not noted or "Photoshop" in photo.notes[0])
        assert photo.notes_for("JPEG") == photo.notes
        assert "only a JPEG holds them: IPTC texts" in photo.notes_for("PNG")[-1]


# Pictures of the face that a file holds beside its pixels


def _jpeg_of(image, size, quality=75):
    buffer = BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _previews(small):
    """Return one picture of the face for each place that a file may hide one in, all different."""
    places = "thumbnail note comment exif photoshop xmp extended depth mpf jumbf jfxx tail chunk"
    names = places.split()
    return {name: _jpeg_of(small, (96 + 4 * n, 104)) for n, name in enumerate(names)}


def _tiff(order, fields, thumbnail):
    """Return EXIF data with a directory of fields, and a second one with the thumbnail."""
    code = ">" if order == b"MM" else "<"
    first = 8 + 2 + 12 * len(fields) + 4
    second, entries, beyond = first, b"", b""
    for tag, kind, data in fields:
        count = len(data) // {2: 1, 7: 1, 3: 2, 5: 8}[kind]
        if len(data) > 4:
            where = struct.pack(code + "I", first + len(beyond))
            beyond, data = beyond + data, where
        entries += struct.pack(code + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    second += len(beyond)
    start = second + 2 + 24 + 4
    linked = struct.pack(
        code + "HHHIIHHIII", 2, 0x0201, 4, 1, start, 0x0202, 4, 1, len(thumbnail), 0
    )
    head = order + struct.pack(code + "HIH", 42, 8, len(fields))
    return head + entries + struct.pack(code + "I", second) + beyond + linked + thumbnail


def _exif_with(previews, order):
    return b"Exif\0\0" + _tiff(
        order,
        [
            (0x010F, 2, b"A camera\0"),
            (ORIENTATION, 3, struct.pack((">" if order == b"MM" else "<") + "H", 6)),
            (0x927C, 7, previews["note"]),
            (0x9286, 7, b"ASCII\0\0\0" + b64encode(previews["comment"])),
            (0xC7A7, 7, previews["exif"]),
        ],
        previews["thumbnail"],
    )


def _xmp_with(previews):
    text = b64encode(previews["xmp"]).decode()
    lines = "&#xA;".join(text[n : n + 72] for n in range(0, len(text), 72))
    depth = b64encode(previews["depth"]).decode()
    return (
        f'<x:xmpmeta><rdf:Description GDepth:Data="{depth}"><xmp:Thumbnails><xmpGImg:image>'
        f"{lines}</xmpGImg:image></xmp:Thumbnails></rdf:Description></x:xmpmeta>"
    ).encode()


def _segment(code, data):
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


def _jpeg_with_previews(path, small, order):
    previews = _previews(small)
    resource = previews["photoshop"]
    blocks = b"".join(
        b"8BIM" + struct.pack(">HHI", code, 0, 28 + len(resource)) + bytes(28) + resource
        for code in (0x0409, 0x040C)
    )
    extended = b64encode(previews["extended"])
    header = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 9999, 0)
    segments = (
        _segment(0xE0, b"JFXX\0\x10" + previews["jfxx"])
        + _segment(0xED, b"Photoshop 3.0\0" + blocks)
        + _segment(0xE1, header + extended)
        + _segment(0xE2, b"FPXR\0" + previews["mpf"])
        + _segment(0xEB, b"JP\0\1" + previews["jumbf"])
        + _segment(0xFE, b64encode(previews["chunk"]))
    )
    exif = _exif_with(previews, order)
    small.save(path, exif=exif, xmp=_xmp_with(previews), extra=segments, icc_profile=b"profile")
    path.write_bytes(path.read_bytes() + previews["tail"])
    return previews


def _png_with_previews(path, small, order):
    previews = _previews(small)
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type APP1", previews["photoshop"].hex())
    info.add_text("Comment", b64encode(previews["chunk"]).decode(), zip=True)
    info.add_itxt("XML:com.adobe.xmp", _xmp_with(previews).decode())
    info.add(b"caBX", previews["jumbf"])
    small.save(path, pnginfo=info, exif=_exif_with(previews, order))
    path.write_bytes(path.read_bytes() + previews["tail"])
    return previews


def _webp_with_previews(path, small, order):
    previews = _previews(small)
    small.save(path, lossless=True, exif=_exif_with(previews, order), xmp=_xmp_with(previews))
    data = path.read_bytes()
    chunk = b"PREV" + struct.pack("<I", len(previews["chunk"])) + previews["chunk"]
    chunk += bytes(len(chunk) % 2)
    size = struct.pack("<I", len(data) - 8 + len(chunk))
    path.write_bytes(data[:4] + size + data[8:] + chunk + previews["tail"])
    return previews


def _readable(data):
    """Return the bytes of a file together with what its compressed chunks hold."""
    for at in [m.start() for m in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data)]:
        with contextlib.suppress(zlib.error):
            data += zlib.decompressobj().decompress(data[at:])
    return data


def _held(previews, data):
    # 60 bytes of each form, behind the tables that all JPEGs share, and inside one line of base64.
    forms = (
        lambda picture: picture[756:816],
        lambda picture: b64encode(picture)[1008:1068],
        lambda picture: picture.hex().encode()[1512:1572],
    )
    return {
        name
        for name, picture in previews.items()
        if len(picture) > 900 and any(form(picture) in data for form in forms)
    }


MAKERS = {".jpg": _jpeg_with_previews, ".png": _png_with_previews, ".webp": _webp_with_previews}


@pytest.mark.parametrize("target", MAKERS)
@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("source", MAKERS)
def test_no_embedded_picture_is_written_again(tmp_path, small, source, order, target):
    path, out = tmp_path / f"photo{source}", tmp_path / f"out{target}"
    previews = MAKERS[source](path, small.resize((240, 260)), order)
    expected = {".jpg": 13, ".png": 10, ".webp": 8}[source]
    assert len(_held(previews, _readable(path.read_bytes()))) == expected
    photo = read_photo(path)
    photo.pixels = Image.new("RGB", photo.pixels.size)  # nothing of the face may be left
    write_photo(photo, out, format_of(out))
    written = _readable(out.read_bytes())
    assert not _held(previews, written)
    pictures = written.count(b"\xff\xd8\xff")  # a JPEG's beginning
    assert pictures == (target == ".jpg")
    with Image.open(out) as image:
        assert image.getexif()[ORIENTATION] == 6 and image.getexif()[0x010F] == "A camera"
        assert image.getexif().get_ifd(1) == {} and image.size == (240, 260)
    (note,) = photo.notes
    for word in ("unprotected face", "EXIF thumbnail", "maker note", "XMP", "after the picture"):
        assert word in note
    assert source != ".jpg" or "Photoshop" in note


def test_a_protected_file_holds_no_earlier_picture_and_says_so(tmp_path, small, protector):
    one = replace(protector, attack=replace(protector.attack, steps=1))
    previews = _jpeg_with_previews(tmp_path / "a.jpg", small.rotate(90, expand=True), b"II")
    done = protect_photo(tmp_path / "a.jpg", tmp_path / "b.jpg", one)
    assert not _held(previews, done.target.read_bytes())
    assert "EXIF thumbnail" in done.notes[0] and done.record()["notes"] == list(done.notes)


def test_damaged_or_missing_exif_keeps_the_photo_upright(tmp_path, small):
    little = small.resize((48, 52))
    fields = [(ORIENTATION, 3, struct.pack("<H", 6)), (0x010E, 2, b"caption, long\0")]
    whole = _tiff(b"II", fields, b"")
    little.save(tmp_path / "cut.png", exif=b"Exif\0\0" + whole[:40])
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    little.save(tmp_path / "xmp.jpg", xmp=xmp + b" " * 2000, quality=100)
    long = xmp.replace(b"<rdf", b"<a>" + b"A" * 900 + b"</a><rdf")
    little.save(tmp_path / "long.jpg", xmp=long, quality=100)
    for name in ("cut.png", "xmp.jpg", "long.jpg"):
        photo = read_photo(tmp_path / name)
        write_photo(photo, tmp_path / f"again-{name}", photo.format)
        again = read_photo(tmp_path / f"again-{name}")
        assert photo.orientation == again.orientation == 6 and again.pixels.size == (52, 48)
        assert ("xmp" in photo.kept) == (name == "xmp.jpg")
        assert name != "cut.png" or "EXIF data, which is damaged" in photo.notes[0]


def _half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "truncated.jpg": (lambda p, im: (im.save(p), _half(p)), "is not a readable picture .*replace"),
    "empty.webp": (lambda p, im: p.write_bytes(b""), "is not a readable picture"),
    "film.gif": (lambda p, im: p.write_bytes(b"GIF89a"), "is not a readable picture"),
    "empty.heic": (lambda p, im: p.write_bytes(b""), "is not a readable picture"),
    "nowhere.png": (lambda p, im: None, "does not exist; check the path"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused(tmp_path, small, name):
    make, message = BAD[name]
    make(tmp_path / name, small.resize((96, 104)))
    with pytest.raises(SalattackError, match=f"{name} .*{message}"):
        read_photo(tmp_path / name)


def _several(path, image):
    image.save(path, save_all=True, append_images=[ImageOps.mirror(image)])


def _bits(path, image):
    Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257).save(path)


def _heic(path, image, **options):
    pytest.importorskip(
        "pillow_heif", reason="pip install 'salattack[heic]'"
    ).register_heif_opener()
    image.save(path, quality=95, **options)


# What phones, scanners and drawing programs write, its name when written, and the note.
ODD = {
    "grey.png": (lambda p, im: im.convert("L").save(p), "grey.png", "from grey to 8-bit RGB"),
    "grey.jpg": (lambda p, im: im.convert("L").save(p, quality=95), "grey.jpg", "from grey to"),
    "cmyk.jpg": (lambda p, im: im.convert("CMYK").save(p, quality=95), "cmyk.jpg", "from CMYK to"),
    "palette.png": (lambda p, im: im.quantize(256).save(p), "palette.png", "from palette to"),
    "sixteen.png": (_bits, "sixteen.png", "from 16-bit to 8-bit RGB"),
    "moving.gif": (_several, "moving.gif.png", "only the first of its 2 pictures is kept"),
    "moving.png": (_several, "moving.png", "only the first of its 2 pictures is kept"),
    "phone.HEIC": (_heic, "phone.HEIC.jpg", None),
    "phone.avif": (lambda p, im: im.save(p, quality=95), "phone.avif.jpg", None),
    "scan.tif": (lambda p, im: im.save(p), "scan.tif.png", None),
    "paint.bmp": (lambda p, im: im.save(p), "paint.bmp.png", None),
    "really.png": (lambda p, im: im.save(p, "BMP"), "really.png", None),
    "exported.jpg": (lambda p, im: _heic(p, im, format="HEIF"), "exported.jpg", None),
}


@pytest.mark.parametrize("name", ODD)
def test_what_people_have_is_read_and_written_as_rgb(tmp_path, small, name):
    make, written, note = ODD[name]
    little = small.resize((96, 104))
    make(tmp_path / name, little)
    photo = read_photo(tmp_path / name)
    assert name_written(name) == written
    assert photo.notes[:1] == [] if note is None else note in photo.notes[0]
    write_photo(photo, tmp_path / f"out-{written}", format_of(Path(written)))
    with Image.open(tmp_path / f"out-{written}") as out:
        assert out.mode == "RGB" and out.size == (96, 104)
        grey = [np.array(image.convert("L"), int) for image in (out, little)]
    assert np.abs(np.subtract(*grey)).mean() < 4  # compressed or quantised at most


def test_transparency_of_every_kind_is_kept(tmp_path, small):
    little = small.resize((96, 104))
    little.putpixel((3, 4), (1, 2, 3))
    little.save(tmp_path / "key.png", transparency=(1, 2, 3))
    little.convert("LA").save(tmp_path / "grey.png")
    little.quantize(16).save(tmp_path / "palette.png", transparency=0)
    for name in ("key.png", "grey.png", "palette.png"):
        photo = read_photo(tmp_path / name)
        write_photo(photo, tmp_path / f"out-{name}", "PNG")
        with Image.open(tmp_path / name) as a, Image.open(tmp_path / f"out-{name}") as b:
            assert b.mode == "RGBA" and np.array_equal(a.convert("RGBA"), b)


def test_a_profile_of_other_pixels_is_applied_and_not_kept(tmp_path, small):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode, kept in (("RGB", True), ("P", True), ("L", False)):
        small.resize((48, 52)).convert(mode).save(tmp_path / "a.png", icc_profile=profile)
        assert ("icc_profile" in read_photo(tmp_path / "a.png").kept) == kept


def test_a_heic_brings_no_picture_beside_its_own(tmp_path, small):
    little, previews = small.resize((240, 260)), _previews(small)
    data = _exif_with(previews, b"MM")
    options = {"exif": data, "xmp": _xmp_with(previews), "thumbnails": [64]}
    _heic(tmp_path / "a.heic", little, **options)
    assert len(_held(previews, (tmp_path / "a.heic").read_bytes())) > 4
    photo = read_photo(tmp_path / "a.heic")
    photo.pixels = Image.new("RGB", photo.pixels.size)
    for word in ("unprotected face", "EXIF thumbnail", "maker note", "XMP data", "thumbnails"):
        assert word in photo.notes[-1]
    for target in ("b.jpg", "b.png", "b.webp"):
        write_photo(photo, tmp_path / target, format_of(Path(target)))
        written = _readable((tmp_path / target).read_bytes())
        assert not _held(previews, written) and b"hvc1" not in written
        with Image.open(tmp_path / target) as out:
            assert out.getexif()[0x010F] == "A camera" and out.getexif().get_ifd(1) == {}
            assert np.array(out).max() < 3


def test_heic_without_its_reader_and_large_pictures_are_said(tmp_path, small, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(SalattackError, match=r"pip install 'salattack\[heic\]'"):
            read_photo(tmp_path / "a.heic")
    small.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(SalattackError, match="more than 0 megapixels; shrink it"):
        read_photo(tmp_path / "large.png")


# The detector


def _true_eyes(index):
    row = load_faces("openpeople").table.iloc[index]
    return complex(row.left_eye_x, row.left_eye_y), complex(row.right_eye_x, row.right_eye_y)


def _eye_errors(faces, left, right):
    """Return how far the nearest face's eyes are from the true ones, relative to their distance."""
    pairs = [[complex(*face.left_eye), complex(*face.right_eye)] for face in faces]
    found = min(pairs, key=lambda pair: abs(sum(pair) - left - right))
    return np.abs(np.subtract(found, (left, right))) / abs(right - left)


@pytest.mark.slow
def test_every_shipped_photo_gives_its_one_face_with_its_eyes():
    errors = []
    for index in range(20):
        photo = open_photo(load_faces("openpeople").sources[index])
        height = photo.height
        photo.thumbnail((800, 800))
        (face,) = faces = find_faces(photo)
        eyes = [eye * photo.height / height for eye in _true_eyes(index)]
        errors.append(_eye_errors(faces, *eyes))
        assert face.box[0] < face.left_eye[0] < face.right_eye[0] < face.box[2]
    assert np.max(errors) < 0.2 and np.mean(errors) < 0.06


def test_the_sixteen_faces_of_a_sheet_are_found_the_largest_first():
    table = load_faces("openpeople", kind="expression").table
    rows = table[table.source == table.source.iloc[0]]
    photo = open_photo(rows.source.iloc[0])
    faces = find_faces(photo)
    assert len(faces) == len(rows) == 16
    widths = [face.box[2] - face.box[0] for face in faces]
    assert widths == sorted(widths, reverse=True)
    eyes = rows[["left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y"]].to_numpy()
    errors = [_eye_errors(faces, complex(*eye[:2]), complex(*eye[2:])) for eye in eyes]
    assert np.max(errors) < 0.35 and np.mean(errors) < 0.07


@pytest.mark.parametrize("turn", [-30, 20])
def test_a_tilted_face_is_found_upright(small, turn):
    (straight,) = find_faces(small)
    (tilted,) = find_faces(small.rotate(turn, Image.Resampling.BICUBIC))
    back = np.exp(-1j * np.radians(turn))
    centre = complex(*small.size) / 2
    for eye, turned in zip(straight[:2], tilted[:2], strict=True):
        assert abs((complex(*eye) - centre) * back + centre - complex(*turned)) < 16  # of 93


@pytest.mark.parametrize("size", [(40, 44), (4800, 5200)])
def test_a_tiny_and_a_huge_picture_give_the_face(small, size):
    (face,) = find_faces(small)
    (other,) = find_faces(small.resize(size))
    for eye, scaled in zip(face[:2], other[:2], strict=True):
        assert abs(complex(*eye) - complex(*scaled) * 480 / size[0]) < 12


def test_a_small_face_in_a_large_picture_is_found(small):
    wide = Image.new("RGB", (4000, 3000), (120, 140, 110))
    wide.paste(small.resize((192, 208)), (2900, 400))
    (face,) = find_faces(wide)
    assert 2900 < face.left_eye[0] < face.right_eye[0] < 3092 and 400 < face.left_eye[1] < 608


@pytest.mark.slow
def test_no_face_is_found_where_there_is_none():
    """Shipped selfies and postures without their heads, and textures."""
    pictures = [Image.effect_noise((640, 480), 80).convert("RGB"), Image.linear_gradient("L")]
    pictures += [Image.effect_mandelbrot((640, 480), (-3, -2.5, 2, 2.5), 100)]
    for source in load_faces("openpeople", kind="selfie").sources:
        for name in ("amateur_selfie.jpg", "amateur_posture.jpg", "studio_posture.jpg"):
            photo = open_photo(Path(source).with_name(name))
            photo.thumbnail((1200, 1200))
            for face in find_faces(photo):
                left, top, right, bottom = face.box
                width, height = right - left, bottom - top
                head = (
                    left - width // 2,
                    top - height // 2,
                    right + width // 2,
                    bottom + height // 4,
                )
                photo.paste((128, 128, 128), head)
            pictures.append(photo)
    assert [find_faces(picture.convert("RGB")) for picture in pictures] == [[]] * 33


def test_no_face_is_no_face_and_no_opencv_is_said(small, monkeypatch):
    assert find_faces(Image.new("RGB", (300, 200), "green")) == []
    assert find_faces(Image.new("RGB", (1, 1))) == []
    detector._network.cache_clear()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "cv2", None)
        with pytest.raises(SalattackError, match=r"pip install 'salattack\[protect\]'"):
            find_faces(small)


def test_other_weights_than_the_shipped_are_refused(small, tmp_path, monkeypatch):
    detector._network.cache_clear()
    (tmp_path / detector.WEIGHTS).write_bytes(b"damaged")
    monkeypatch.setattr(detector, "SHIPPED_WEIGHTS", tmp_path)
    with pytest.raises(SalattackError, match=r"yunet.onnx is missing or damaged; reinstall"):
        find_faces(small)


# The geometry


def test_the_grid_lies_where_the_crop_is_cut(small):
    (face,) = find_faces(small)
    place = Place.of_face(face, 128)
    # A bright square on some pixels of the grid appears there in the crop.
    delta = torch.zeros(3, 128, 128)
    delta[:, 40:48, 70:78] = 0.6
    dark = Image.new("RGB", small.size, (90, 90, 90))
    bright = _spread(dark, (0, 0), place, delta, torch.ones(1, 128, 128))
    crop = place.crop(bright)[0].mean(0) - place.crop(dark)[0].mean(0)
    rows, columns = torch.arange(128)[:, None] + 0.5, torch.arange(128) + 0.5
    y, x = ((crop * axis).sum() / crop.sum() for axis in (rows, columns))
    assert y.item() == pytest.approx(44, abs=0.2) and x.item() == pytest.approx(74, abs=0.2)
    # The linear way there and back is what the crop shows.
    shown = place.shown()
    assert (shown @ delta @ shown.T)[0].sub(crop).abs().max() < 0.06


def test_a_part_of_a_photo_gives_the_crop_of_the_whole(small):
    (face,) = find_faces(small)
    for place in (Place.of_face(face, 128), Place.of_frame(small.size, 128)):
        box = place.box(small.size)
        part = place.crop(small.crop(box), box[:2])
        inner = (part - place.crop(small))[..., 2:-2, 2:-2]  # edges were looked across
        assert inner.abs().max() < 0.02
    assert torch.equal(place.crop(small)[0], preprocess(small, 128, 480))  # as a folder is cut


# Protecting


@pytest.fixture(scope="module")
def protector():
    full = load_protector("normal", device="cpu")
    return replace(full, attack=replace(full.attack, steps=3, step_size=0.03))


@pytest.fixture(scope="module")
def protected(tmp_path_factory, small, protector):
    folder = tmp_path_factory.mktemp("protected")
    small.transpose(Image.Transpose.ROTATE_90).save(folder / "фото 1.png", exif=exif(6))
    before = (folder / "фото 1.png").read_bytes()
    steps = []
    done = protect_photo(
        folder / "фото 1.png",
        folder / "out" / "фото 1.png",
        protector,
        on_step=lambda *step: steps.append(step),
    )
    assert steps == [(1, 1, n) for n in (1, 2, 3)]
    assert (folder / "фото 1.png").read_bytes() == before
    return done


def test_only_salient_pixels_of_the_face_change(protected, protector):
    before, after = (read_photo(p).pixels for p in (protected.source, protected.target))
    (face,) = protected.faces
    place = face.place
    changed = np.abs(np.array(before, int) - np.array(after, int))
    limit = 127.5 * protector.attack.bound + 0.5
    assert 0 < changed.max() <= limit
    # Where the mask is nought, seen through the same sampling, every bit is kept.
    mask = face.mask[0]
    white = Image.new("RGB", before.size)
    seen = _spread(white, (0, 0), place, mask.expand(3, -1, -1) * 2 * (mask > 0), mask)
    untouched = np.array(seen).max(2) == 0
    assert untouched.mean() > 0.3 and not changed[untouched].any()
    left, top, right, bottom = place.box(before.size)
    changed[top:bottom, left:right] = 0
    assert not changed.any()


def test_a_mask_of_ones_own_says_where(tmp_path, small, protector):
    small.save(tmp_path / "a.png")
    half = Image.new("L", small.size)
    half.paste(255, (0, 0, small.width // 2, small.height))
    half.save(tmp_path / "half.png")
    ask = {"mask": tmp_path / "half.png"}
    done = protect_photo(tmp_path / "a.png", tmp_path / "b.png", protector, **ask)
    before, after = (np.array(read_photo(p).pixels, int) for p in (done.source, done.target))
    left, right = np.split(np.abs(before - after), [small.width // 2], axis=1)
    assert left.any(2).mean() > 0.2 and not right.any()
    for wrong, said in (
        (Image.new("L", small.size), "is black on"),
        (half.crop((0, 0, 9, 9)), "9×9"),
    ):
        wrong.save(ask["mask"])
        with pytest.raises(SalattackError, match=said):
            protect_photo(tmp_path / "a.png", tmp_path / "c.png", protector, **ask)
        assert not (tmp_path / "c.png").exists()


def test_the_figures_are_of_the_file_on_disk(protected, protector):
    (face,) = protected.faces
    before, after = (read_photo(p).pixels for p in (protected.source, protected.target))
    changed = np.abs(np.array(before, int) - np.array(after, int))
    assert protected.lossless
    assert protected.identical == pytest.approx(1 - changed.any(2).mean(), abs=1e-9)
    left, top, right, bottom = face.box
    assert face.l1 == pytest.approx(changed[top:bottom, left:right].mean())
    assert face.linf == changed.max()
    crops = [face.place.crop(image) for image in (before, after)]
    assert torch.equal(crops[0], face.before) and torch.equal(crops[1], face.after)
    assert torch.equal(face.mask, protector.mask(crops[0]))
    a, b = map(protector.fakes, crops)
    assert torch.equal(a, face.fakes[0]) and torch.equal(b, face.fakes[1])
    damage = (a - b).square().mean((1, 2, 3))
    assert list(face.damage.values()) == pytest.approx(damage.tolist(), rel=1e-4)
    assert min(face.damage.values()) > 1e-4 and 0.8 < face.ssim < 1


def test_a_generator_of_one_edit_is_protected_against(tmp_path, small):
    full = load_protector("normal", generator="cyclegan-blond128-w32", device="cpu")
    quick = replace(full, attack=replace(full.attack, steps=2, step_size=0.05))
    small.save(tmp_path / "a.png")
    done = protect_photo(tmp_path / "a.png", tmp_path / "b.png", quick)
    (face,) = done.faces
    assert list(face.damage) == ["Blond_Hair"] and face.damage["Blond_Hair"] > 1e-3
    text = body(done, quick)
    assert "of 1 edits visibly broken" in text and "of 1</td>" in text and "of 5" not in text


def test_a_smooth_tint_is_seen_that_ssim_overlooks(small):
    grey = torch.zeros(1, 3, 128, 128)
    tinted = grey.clone()
    tinted[:, 2] += 16 / 127.5
    assert _tint(grey, tinted) == pytest.approx(16) and _tint(grey, grey) == 0
    dots = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    assert _tint(grey, dots * 16 / 127.5) < 8


def test_the_protection_survives_the_way_through_the_photo(protected, protector):
    """More damage than noise of the same size does: it was aimed, and it arrived."""
    (face,) = protected.faces
    before = read_photo(protected.source).pixels
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    mask = face.mask[0]
    noise = noise * mask
    noise = noise * ((face.after - face.before).norm() / noise.norm())
    noisy = _spread(before, (0, 0), face.place, noise, mask)
    a, b = (protector.fakes(face.place.crop(image)) for image in (before, noisy))
    assert np.mean(list(face.damage.values())) > 3 * (a - b).square().mean().item()


def _least(done):
    return min(done.faces[0].damage.values())


@pytest.mark.slow
def test_the_search_breaks_every_edit_where_a_fixed_strength_leaves_some(tmp_path, small):
    """At a damage that a few steps reach; neither goes through a JPEG."""
    small.save(tmp_path / "a.png")
    full, until = load_protector("normal", device="cpu"), 0.01
    fixed = attacker("saliency-aware", blurs=(), start=0.001, bound=0.1, step_size=0.025, steps=4)
    searched, other = (
        protect_photo(tmp_path / "a.png", tmp_path / name, replace(full, attack=attack))
        for name, attack in (
            ("b.png", replace(full.attack, until=until, steps=12)),
            ("c.png", fixed),
        )
    )
    assert _least(searched) > until > _least(other)
    assert searched.faces[0].ssim > other.faces[0].ssim


def test_a_photo_is_protected_to_the_same_bytes_each_time(tmp_path, small, protector):
    small.save(tmp_path / "a.jpg")
    for name in ("b.jpg", "c.jpg"):
        protect_photo(tmp_path / "a.jpg", tmp_path / name, protector)
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "c.jpg").read_bytes()


def test_a_limit_of_the_change_is_kept_and_what_does_not_break_is_named(tmp_path, small, protector):
    small.save(tmp_path / "a.png")
    attack = replace(disruption.attack_of("normal", max_change=2), steps=3)
    limited = replace(protector, attack=attack)
    done = protect_photo(tmp_path / "a.png", tmp_path / "b.png", limited)
    (face,) = done.faces
    assert 0 < face.linf <= 2 and face.broken == 0
    assert "0 of 5 edits visibly broken, not Black Hair, Blond Hair" in in_words(done)
    with pytest.raises(SalattackError, match="at least 1, got 0"):
        disruption.attack_of("normal", max_change=0)


@pytest.mark.parametrize("error", [-1, 9, float("nan")])
def test_an_alignment_error_is_in_px(error):
    with pytest.raises(SalattackError, match="in px, from 0 to 8, got"):
        load_protector(alignment_error=error, device="cpu")


@pytest.mark.parametrize("error", [0.0, 0.5, 2.0])
def test_an_alignment_error_is_the_distance_by_which_a_crop_moves(error):
    random, same = torch.Generator().manual_seed(5), torch.eye(2, 3)[None]
    same = torch.nn.functional.affine_grid(same, [1, 3, 128, 128], align_corners=False)
    moved = [disruption.other_alignment(128, random, error) - same for _ in range(400)]
    px = torch.stack(moved).mul(64).square().sum(-1).mean().sqrt().item()
    assert px == pytest.approx(error, rel=0.1, abs=1e-4)


def test_a_protector_takes_the_alignments_that_it_is_asked_for(tmp_path, small, protector):
    small.save(tmp_path / "a.png")
    written = set()
    for name, error in {"b.png": 0.0, "c.png": 2.0}.items():
        other = replace(protector, alignment_error=error)
        protect_photo(tmp_path / "a.png", tmp_path / name, other)
        written.add((tmp_path / name).read_bytes())
    assert len(written) == 2


@pytest.mark.slow
def test_a_jpeg_is_optimised_through_its_own_compression(tmp_path, small, protector):
    path, out = tmp_path / "photo.jpg", tmp_path / "out.jpg"
    stored = small.transpose(Image.Transpose.ROTATE_270)
    stored.save(path, quality=60, subsampling="4:2:0", exif=exif(8), icc_profile=b"profile")
    done = protect_photo(path, out, protector)
    with Image.open(path) as a, Image.open(out) as b:
        assert a.quantization == b.quantization and a.layer == b.layer
        assert a.info["exif"] == b.info["exif"] and a.info["icc_profile"] == b.info["icc_profile"]
    # The same photo and steps, blind to the compression, and compressed alike afterwards.
    protect_photo(path, tmp_path / "blind.png", protector)
    blind, photo = read_photo(tmp_path / "blind.png"), read_photo(path)
    photo.pixels = blind.pixels
    write_photo(photo, tmp_path / "blind.jpg", "JPEG")
    other = measure(path, tmp_path / "blind.jpg", protector)
    damage_per_change = [_least(one) / (1 - one.faces[0].ssim) for one in (done, other)]
    assert not done.lossless and damage_per_change[0] > 1.1 * damage_per_change[1]


def test_compression_alone_is_no_change_to_the_attack(tmp_path, small, protector):
    small.save(tmp_path / "photo.jpg", quality=60)
    photo = read_photo(tmp_path / "photo.jpg")
    place = Place.of_face(find_faces(photo.pixels)[0], 128)
    box = photo.in_blocks(place.box(photo.pixels.size))
    part = photo.pixels.crop(box)
    x0, white = place.crop(photo.pixels), torch.ones(1, 128, 128)

    def written(delta):
        return place.crop(
            photo.through_jpeg(_spread(part, box[:2], place, delta[0].detach(), white)), box[:2]
        )

    view = _View(x0, place, protector, written)
    x = x0.clone().requires_grad_()
    # At the face's own alignment, and where gradients are taken.
    changes = [view(seen * 1, protector.face_targets()) for seen in (x0, x)]
    assert max(change.abs().max().item() for change in changes) < 1 / 255  # the sum rounds
    with torch.no_grad():
        assert view(x0 + 0.1, protector.face_targets()).square().mean() > 1e-3


def test_of_several_alignments_the_least_damaged_one_counts(small, protector):
    x0 = Place.of_face(find_faces(small)[0], 128).crop(small)
    place = SimpleNamespace(shown=lambda: torch.eye(128))
    view = _View(x0, place, protector, lambda delta: x0 + delta)
    x = (x0 + 0.05 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    with torch.no_grad():
        change = view(x, protector.face_targets()).unflatten(1, (-1, 3))[0]

    def aligned(image, grid):
        if grid is None:
            return image
        return F.grid_sample(image, grid, padding_mode="border", align_corners=False)

    damages = []
    for grid in view.checks:
        before, after = (protector.fakes(aligned(image, grid)) for image in (x0, x))
        damages.append((after - before).square().flatten(1).mean(1))
    damages = torch.stack(damages)
    assert len(damages) == 3 and (damages.amax(0) > damages.amin(0)).all()
    torch.testing.assert_close(change.square().flatten(1).mean(1), damages.amin(0))


def test_a_transparent_webp_keeps_its_alpha(tmp_path, small, protector):
    rgba = small.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(small.size))
    rgba.save(tmp_path / "photo.webp", lossless=True, exact=True)
    one = replace(protector, attack=replace(protector.attack, steps=1))
    protect_photo(tmp_path / "photo.webp", tmp_path / "out.webp", one)
    with Image.open(tmp_path / "out.webp") as out:
        assert np.array_equal(out.getchannel("A"), rgba.getchannel("A"))
        assert not np.array_equal(out, rgba)


def test_the_whole_frame_is_protected_when_asked(tmp_path, small, protector):
    small.crop((0, 40, 480, 500)).save(tmp_path / "in.png")
    one = replace(protector, attack=replace(protector.attack, steps=1))
    done = protect_photo(tmp_path / "in.png", tmp_path / "out.png", one, whole_frame=True)
    assert done.faces[0].place.face is None and done.faces[0].box == (10, 0, 470, 460)
    assert done.identical < 1


def test_the_original_and_what_exists_are_never_harmed(tmp_path, small, protector):
    path = tmp_path / "photo.png"
    small.save(path)
    before = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "hard.png").hardlink_to(path)
    for target in (path, tmp_path / "link.png", tmp_path / "hard.png"):
        with pytest.raises(SalattackError, match="is the photo itself; choose another path"):
            protect_photo(path, target, protector, overwrite=True)
    (tmp_path / "there.png").write_text("mine")
    with pytest.raises(
        SalattackError, match=r"there.png exists; choose another path or pass --overwrite"
    ):
        protect_photo(path, tmp_path / "there.png", protector)
    with pytest.raises(SalattackError, match=r"cannot write .*choose another path"):
        protect_photo(path, tmp_path / "there.png" / "out.png", protector)
    with pytest.raises(SalattackError, match=r"cannot be written; name it with one of \.jpg"):
        protect_photo(path, tmp_path / "out.gif", protector)
    assert path.read_bytes() == before and (tmp_path / "there.png").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


# The report


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.tags, self.words = [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.words += data


def test_the_report_stands_alone_and_says_what_was_measured(protected, protector):
    page = _Page()
    page.feed(body(protected, protector, page=True))
    (face,) = protected.faces
    words = " ".join(page.words.split())
    assert "script" not in page.tags and "link" not in page.tags
    kinds = [uri.partition(";base64,")[0] for uri in page.images]
    assert kinds == ["data:image/jpeg"] * (2 + 4 + 10)
    assert f"SSIM {face.ssim:.2f}, tint {face.tint:.0f} of 255" in words
    assert f"{face.broken} of 5 edits visibly broken" in words
    assert "stargan-celeba128-w32" in words and "saved as JPEG, quality 40" in words
    assert "фото 1.png" in words and "Every pixel outside the mask did" in words
    for name, damage in face.damage.items():
        assert f"{name.replace('_', ' ')}: damage {damage:.3f}" in words


# The command


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(disruption, "STEPS", 1)


def command(*arguments):
    return CliRunner().invoke(app, ["protect", *map(str, arguments), "--device", "cpu"])


@pytest.mark.slow
def test_a_folder_is_protected_restarted_and_its_bad_photos_named(tmp_path, small, quick):
    photos, out = tmp_path / "mes photos", tmp_path / "out"
    (photos / "夏").mkdir(parents=True)
    small.save(photos / "夏" / "二 人.jpg")
    small.save(photos / "a.png")
    (photos / "bad.jpg").write_bytes((photos / "夏" / "二 人.jpg").read_bytes()[:9000])
    Image.new("RGB", (64, 64)).save(photos / "none.webp")
    (photos / "notes.txt").write_text("no photo")
    (photos / ".DS_Store").write_text("")
    first = command(photos, "-o", out, "--report")
    assert first.exit_code == 3
    assert "2 of 4 photos are not protected" in first.output
    assert "bad.jpg is not a readable picture" in first.output
    assert "2 files are not taken" in first.output and "DS_Store: hidden" in first.output
    assert "notes.txt: not named as a photo" in first.output
    assert "none.webp; --whole-frame protects the largest centre square" in first.output
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "a.png",
        "a.png.html",
        "salattack-protect.jsonl",
        "夏/二 人.jpg",
        "夏/二 人.jpg.html",
    ]
    stamp = (out / "a.png").stat().st_mtime_ns
    again = command(photos, "-o", out)
    assert again.exit_code == 3 and "2 photos were done before" in again.output
    assert (out / "a.png").stat().st_mtime_ns == stamp
    # Another setting does ours again; a file that is not ours any more is left alone.
    (out / "夏" / "二 人.jpg").write_text("edited by hand")
    other = command(photos, "-o", out, "--alignment-error", "1")
    assert other.exit_code == 3 and "二 人.jpg exists" in other.output
    assert (out / "a.png").stat().st_mtime_ns != stamp
    assert (out / "夏" / "二 人.jpg").read_text() == "edited by hand"


def test_results_inside_a_folder_or_above_it_are_told_from_its_photos(tmp_path, monkeypatch):
    (tmp_path / "in" / "out").mkdir(parents=True)
    for name in ("in/a.png", "in/out/a.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert pairs_of([Path("in")], Path("in/out")) == (
        [(Path("in/a.png"), Path("in/out/a.png"))],
        [],
    )
    assert len(pairs_of([Path("in")], Path("other"))[0]) == 2
    assert len(pairs_of([Path("in/out")], Path())[0]) == 1


def test_a_folder_tells_which_files_it_leaves_and_what_it_writes(tmp_path):
    for name in ("a.HEIC", "b.gif", "c.jpeg", "film.mov", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for suffix, names in (
        (None, ["a.HEIC.jpg", "b.gif.png", "c.jpeg"]),
        (".jpg", ["a.HEIC.jpg", "b.gif.jpg", "c.jpeg"]),
        (".png", ["a.HEIC.png", "b.gif.png", "c.jpeg.png"]),
    ):
        pairs, left = pairs_of([tmp_path], tmp_path / "out", suffix)
        assert [target.name for _, target in pairs] == names
        reasons = [line.removeprefix(f"{tmp_path}/") for line in left]
        assert (
            reasons[0] == ".hidden.png: hidden"
            and reasons[2] == "gone.png: a link to nothing, or no file"
        )
        assert reasons[1].startswith("film.mov: not named as a photo") and len(left) == 3


def test_an_interrupted_photo_is_done_again(tmp_path, small, quick):
    small.save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert command(tmp_path / "a.png", "-o", out).exit_code == 0
    record = out / "salattack-protect.jsonl"
    begun, done = record.read_text().splitlines()
    record.write_text(begun + "\n" + done[:50])  # cut as it was written
    assert command(tmp_path / "a.png", "-o", out).exit_code == 0
    record.write_text("")  # never ours
    assert command(tmp_path / "a.png", "-o", out).exit_code == 3


@pytest.mark.slow
def test_a_report_asked_for_later_is_written_without_protecting_again(tmp_path, small, quick):
    small.save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert command(tmp_path / "a.png", "-o", out).exit_code == 0
    stamp, page = (out / "a.png").stat().st_mtime_ns, out / "a.png.html"
    again = command(tmp_path / "a.png", "-o", out, "--report")
    assert again.exit_code == 0 and "a.png.html: the photo before and after" in again.output
    assert (out / "a.png").stat().st_mtime_ns == stamp and "skipped" not in again.output
    late = page.read_text()
    assert "skipped" in command(tmp_path / "a.png", "-o", out, "--report").output
    assert page.read_text() == late
    # It is the page that the first run would have written; --overwrite protects again.
    assert command(tmp_path / "a.png", "-o", out, "--report", "--overwrite").exit_code == 0
    assert page.read_text() == late and (out / "a.png").stat().st_mtime_ns != stamp


def test_a_run_leaves_what_another_is_writing(tmp_path, small, quick):
    small.save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        live = out / f".{other.pid}.a.png"
        unlike = out / f".{other.pid}.b.png"  # named like ours, but not of our targets
        live.touch()
        unlike.touch()
        assert command(tmp_path / "a.png", "-o", out).exit_code == 0
        assert live.exists()
        other.communicate(b"\n")
    assert command(tmp_path / "a.png", "-o", out).exit_code == 0  # that process is gone
    assert not live.exists() and unlike.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-o", "a.png", "--overwrite"], "a.png is the photo itself"),
        (["a.png", "b/a.png", "-o", "out"], "would both become out/a.png"),
        (["a.png", "b", "-o", "b"], "b is one of the inputs; choose another output folder"),
        (["b/a.png", "-o", "b"], "is one of the photos; choose another output folder"),
        (["a.png", "b", "-o", "a.png"], "a.png is a file; give a folder"),
        (["empty", "-o", "out"], "no photos in empty"),
        (["gone.png", "-o", "out.png"], "gone.png does not exist; check the path"),
        (["a.png", "-o", "out.heic"], "out.heic cannot be written; name it with one of .jpg"),
        (["b", "-o", "out", "--workers", "2"], "--workers goes with --engine ray"),
        (["a.png", "-o", "b.png", "--engine", "ray"], "--engine ray is for several photos"),
        (["b", "-o", "out", "--mask", "a.png"], "--mask is for one photo"),
        (["a.png", "-o", "b.png", "--mask", "gone.png"], "gone.png does not exist; check the path"),
        (["a.png", "-o", "b.png", "--generator", "gan"], "unknown generator 'gan'"),
    ],
)
def test_mistakes_are_said(tmp_path, small, quick, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "b/a.png"):
        small.resize((48, 52)).save(name)
    done = command(*arguments)
    assert isinstance(done.exception, SalattackError) and message in str(done.exception)


def test_a_photo_of_a_folder_that_fails_is_named(tmp_path, small, quick):
    rgba = small.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(small.size))
    (tmp_path / "in").mkdir()
    rgba.save(tmp_path / "in" / "ghost.png")
    done = command(tmp_path / "in", "-o", tmp_path / "out", "--format", "jpg")
    assert done.exit_code == 3 and "ghost.png: a JPEG cannot keep transparency" in done.output

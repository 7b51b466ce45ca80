"""Faces: geometry, manifest, the shipped set, folders, and every bad input."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from salattack.edits import ATTRIBUTES, HAIR
from salattack.errors import SalattackError
from salattack.faces import load_faces, shipped
from salattack.faces.alignment import align, preprocess
from salattack.faces.reading import decoded, open_photo, read_mask
from salattack.faces.sets import Face, folder
from salattack.faces.shipped import openpeople
from salattack.images import to_pil, to_tensor, to_uint8

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def manifest():
    return pd.read_csv(shipped.MANIFEST)


def save(path, size=(200, 150), colour=RED, **options):
    Image.new("RGB", size, colour).save(path, **options)
    return path


def centroid(image, channel):
    """Return (x, y) of what is bright in one channel only, in continuous pixels."""
    pixels = np.asarray(image).astype(float)
    weight = np.clip(pixels[..., channel] - pixels[..., 2], 0, None)
    y, x = np.mgrid[: image.height, : image.width] + 0.5
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


# --- conversion ---------------------------------------------------------------------------


def test_uint8_round_trip_is_exact():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(Image.fromarray(every))
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(to_uint8(tensor).permute(1, 2, 0).numpy(), every)
    assert np.array_equal(np.asarray(to_pil(tensor)), every)


def test_to_uint8_rounds_and_clips():
    levels = torch.tensor([-2.0, 0.4, 0.6, 254.6, 300.0]) / 127.5 - 1
    assert to_uint8(levels).tolist() == [0, 0, 1, 255, 255]


def test_to_uint8_takes_a_batch_with_gradient():
    assert to_uint8(torch.zeros(2, 3, 4, 4, requires_grad=True)).shape == (2, 3, 4, 4)


# --- geometry -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [((700, 900), (1100, 900)), ((700, 1000), (1000, 800)), ((600, 600), (630, 610))],
    ids=["shrunk", "rotated", "enlarged"],
)
def test_align_puts_the_eyes_where_celeba_has_them(left, right):
    image = Image.new("RGB", (1600, 1800), "black")
    radius = abs(complex(*right) - complex(*left)) / 12
    for (x, y), colour in ((left, "red"), (right, "lime")):
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    aligned = align(image, left, right, (0, 0, 1600, 1800))
    assert aligned.size == (178, 218)
    assert centroid(aligned, 0) == pytest.approx((69, 111), abs=0.6)
    assert centroid(aligned, 1) == pytest.approx((108, 111), abs=0.6)


def test_align_does_not_alias():
    stripes = np.zeros((1500, 1500, 3), np.uint8)
    stripes[:, ::2] = 255
    aligned = align(Image.fromarray(stripes), (600, 750), (900, 750), (0, 0, 1500, 1500))
    assert np.ptp(np.asarray(aligned).astype(int)) <= 40  # sampling without averaging gives 255


def test_align_fades_the_edge_into_the_background_and_hides_the_neighbour():
    image = Image.new("RGB", (400, 300), "blue")
    image.paste((0, 200, 0), (100, 100, 300, 200))
    image.paste((200, 0, 0), (160, 100, 240, 150))  # a head at the cell's upper edge
    pixels = np.asarray(align(image, (161, 150), (239, 150), (100, 100, 300, 200))).astype(int)
    assert pixels[..., 2].max() == 0
    column = pixels[:86, 88]  # aligned row 86 is the cell's edge
    assert column[-1, 0] > 150 and column[0, 0] < 5  # red at the edge, background at the top
    assert (np.diff(column[:, 0]) >= -1).all()  # but for rounding
    assert (abs(pixels[0] - (0, 200, 0)) <= 2).all()


@pytest.mark.parametrize(
    ("right", "message"), [((10, 10), "both eyes are at"), ((60, 10), "outside the box")]
)
def test_align_refuses_impossible_eyes(right, message):
    with pytest.raises(SalattackError, match=message):
        align(Image.new("RGB", (99, 99)), (10, 10), right, (0, 0, 50, 50))


def test_preprocess_is_stargans():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = image.crop((0, 20, 178, 198)).resize((128, 128), Image.Resampling.BILINEAR)
    result = preprocess(image)
    assert result.shape == (3, 128, 128)
    assert torch.equal(result, to_tensor(expected))


# --- openpeople ---------------------------------------------------------------------------


def test_manifest_is_complete_and_balanced(manifest):
    assert len(manifest) == manifest["face_id"].nunique() == 180
    assert manifest["kind"].value_counts().to_dict() == {
        "expression": 160,
        "selfie": 10,
        "portrait": 10,
    }
    for start in range(0, 180, 10):
        assert manifest["person"][start : start + 10].nunique() == 10
    assert list(manifest["kind"].unique()) == list(shipped.FACE_KINDS)
    assert manifest["face_id"].iloc[[0, 19, 20, 179]].tolist() == [
        "P001-selfie",
        "P010-portrait",
        "P001-expression-01",
        "P010-expression-16",
    ]


def test_manifest_labels_are_possible(manifest):
    assert manifest[list(ATTRIBUTES)].isin([0, 1]).all(axis=None)
    assert (manifest[list(HAIR)].sum(axis=1) <= 1).all()
    assert 0 < manifest["Male"].mean() < 1


def test_manifest_points_are_inside_their_boxes(manifest):
    for side in ("left_eye", "right_eye", "chin"):
        assert manifest[f"{side}_x"].between(manifest["cell_left"], manifest["cell_right"]).all()
        assert manifest[f"{side}_y"].between(manifest["cell_top"], manifest["cell_bottom"]).all()
    assert (manifest["left_eye_x"] < manifest["right_eye_x"]).all()
    assert (manifest["chin_y"] > manifest[["left_eye_y", "right_eye_y"]].max(axis=1)).all()


def test_manifest_boxes_are_apart_and_inside_their_sources(manifest):
    for source, rows in manifest.groupby("source"):
        with Image.open(shipped.PEOPLE / source) as image:
            assert (rows["cell_right"] <= image.width).all()
            assert (rows["cell_bottom"] <= image.height).all()
        assert (rows[["cell_left", "cell_top"]] >= 0).all(axis=None)
        boxes = rows[shipped.BOX].to_numpy()
        for i, (left, top, right, bottom) in enumerate(boxes):
            for l2, t2, r2, b2 in boxes[:i]:
                assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top


def test_openpeople_gives_faces_in_range():
    people = openpeople()
    assert len(people) == len(people.ids) == len(people.labels) == 180
    face = people[20]
    assert isinstance(face, Face)
    assert face.image.shape == (3, 128, 128)
    assert face.image.dtype == face.labels.dtype == torch.float32
    assert -1 <= face.image.min() < -0.5
    assert 0.2 < face.image.max() <= 1
    assert face.labels.tolist() == people.labels[20].tolist() == [1, 0, 0, 0, 1]
    assert face.face_id == "P001-expression-01"


def test_openpeople_reads_the_same_again():
    first, again = openpeople("portrait")[3], openpeople("portrait")[3]
    assert torch.equal(first.image, again.image)


def test_openpeople_kinds_and_subsets():
    assert openpeople("portrait").ids[0] == "P001-portrait"
    both = openpeople(["portrait", "selfie"])
    assert len(both) == 20
    assert both.subset(3).ids == ["P001-selfie", "P002-selfie", "P003-selfie"]
    assert both.subset(slice(10, None, 5)).ids == ["P001-portrait", "P006-portrait"]
    assert len(load_faces(kind="selfie", n_images=500)) == 10
    with pytest.raises(SalattackError, match=r"unknown kind of face 'profile'; known: selfie, por"):
        openpeople("profile")


@pytest.mark.parametrize("size", [128, 64])
def test_landmarks_and_ellipse(size):
    people = openpeople("portrait", image_size=size)
    left, right, chin = people.landmarks(0)
    scale = size / 178
    assert left.tolist() == pytest.approx([69 * scale, 91 * scale], abs=1e-3)
    assert right.tolist() == pytest.approx([108 * scale, 91 * scale], abs=1e-3)
    inside = people.face_ellipse(0)
    assert inside.shape == (size, size)
    assert inside.dtype == torch.bool
    assert 0.1 < inside.float().mean() < 0.35
    rows = inside.any(dim=1).nonzero()
    assert rows.max().item() + 1 == pytest.approx(chin[1].item(), abs=1.5)
    for x, y in (left, right):
        assert inside[int(y), int(x)]
    assert not inside[0].any()


def test_data_loader_batches():
    batch = next(iter(DataLoader(openpeople("selfie", image_size=64), batch_size=2)))
    assert batch.image.shape == (2, 3, 64, 64)
    assert batch.labels.shape == (2, 5)
    assert list(batch.face_id) == ["P001-selfie", "P002-selfie"]


def test_entry_point_refuses_impossible_requests(tmp_path):
    with pytest.raises(SalattackError, match="0 images were asked for"):
        load_faces(n_images=0)
    with pytest.raises(SalattackError, match="image_size is 0; give at least 1"):
        load_faces(image_size=0)
    with pytest.raises(SalattackError, match="only openpeople has kinds"):
        load_faces(tmp_path, kind="selfie")
    with pytest.raises(SalattackError, match="is not a folder"):
        load_faces(tmp_path / "nowhere")
    with pytest.raises(SalattackError, match="only CelebA and plain folders have splits; leave"):
        load_faces(split="test")
    with pytest.raises(SalattackError, match="split of a plain folder 'test'; known: shuffled"):
        load_faces(tmp_path, split="test")


# --- open_photo ---------------------------------------------------------------------------


def pixel(path, at=(0, 0)):
    image = open_photo(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


def test_grey_palette_and_one_bit_are_converted(tmp_path):
    Image.new("L", (9, 9), 77).save(tmp_path / "grey.png")
    Image.new("1", (9, 9), 1).save(tmp_path / "bit.png")
    Image.new("RGB", (9, 9), (10, 200, 30)).quantize(4).save(tmp_path / "palette.png")
    assert pixel(tmp_path / "grey.png") == (77, 77, 77)
    assert pixel(tmp_path / "bit.png") == (255, 255, 255)
    assert pixel(tmp_path / "palette.png") == (10, 200, 30)


def test_transparency_is_composited_on_white(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    rgba.save(tmp_path / "rgba.png")
    assert pixel(tmp_path / "rgba.png") == (255, 255, 255)
    assert pixel(tmp_path / "rgba.png", (1, 0)) == (127, 127, 127)
    assert read_mask(tmp_path / "rgba.png").getpixel((0, 0)) == 0  # nothing was drawn there
    Image.new("LA", (9, 9), (0, 51)).save(tmp_path / "la.png")
    assert pixel(tmp_path / "la.png") == (204, 204, 204)
    palette = Image.new("RGB", (9, 9), RED).quantize(2)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    assert pixel(tmp_path / "palette.png") == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 257 * 100, 257 * 100 + 129, 65535]], np.uint16)).save(path)
    assert [pixel(path, (x, 0))[0] for x in range(4)] == [0, 100, 101, 255]
    assert [read_mask(path).getpixel((x, 0)) for x in range(4)] == [0, 100, 101, 255]


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = pixel(tmp_path / "a.jpg")
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize(("orientation", "red_at"), [(3, (39, 19)), (6, (19, 0)), (8, (0, 39))])
def test_exif_orientation_is_applied(tmp_path, orientation, red_at):
    image = Image.new("RGB", (40, 20), "blue")
    image.paste(RED, (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    opened = open_photo(tmp_path / "a.png")
    assert opened.size == ((40, 20) if orientation == 3 else (20, 40))
    assert opened.getpixel(red_at) == RED


def test_missing_file():
    for read in (open_photo, read_mask):
        with pytest.raises(SalattackError, match=r"nowhere.jpg does not exist; check the path"):
            read("nowhere.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SalattackError, match=rf"cut.{suffix} is not a readable picture"):
        open_photo(path)


def test_no_picture_at_all(tmp_path):
    (tmp_path / "a.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    for path in (tmp_path / "a.jpg", tmp_path / "empty.jpg", tmp_path):
        with pytest.raises(SalattackError, match=r"not a readable picture .*; replace or remove"):
            open_photo(path)
    with (
        pytest.raises(SalattackError, match=r"1\.png is not a readable mask \(no known format\)"),
        decoded("1.png", "mask", io.BytesIO(b"member of a tar")),
    ):
        pass


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unbounded_pixels_are_refused(tmp_path, mode):
    Image.new(mode, (9, 9), 70000).save(tmp_path / "a.tif")
    with pytest.raises(SalattackError, match="is not a readable picture"):
        open_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
def test_animation_is_refused(tmp_path, suffix):
    path = tmp_path / f"moving.{suffix}"
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(SalattackError, match="is animated; save one frame"):
        open_photo(path)


def test_a_phones_multi_picture_jpeg_is_no_animation(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.jpg")[0] > 250


def test_decompression_bomb(tmp_path):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    with pytest.raises(SalattackError, match=r"bomb.png has more than 178 megapixels; shrink"):
        open_photo(path)


# --- folder -------------------------------------------------------------------------------


def test_folder_is_sorted_and_cut_to_the_centre_square(tmp_path):
    save(tmp_path / "b.PNG")
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste(RED, (100, 0, 200, 100))
    wide.save(tmp_path / "a.webp", lossless=True)
    save(tmp_path / "c.bmp")
    save(tmp_path / ".hidden.jpg")
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.warns(UserWarning, match=r"no attributes.csv: every face gets .*Brown_Hair=1") as w:
        photos = load_faces(tmp_path, image_size=64)
    assert photos.ids == ["a.webp", "b.PNG", "c.bmp"]
    assert torch.equal(
        photos[0].image, torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 64, 64)
    )
    assert photos[1].labels.tolist() == [0, 0, 1, 0, 1]
    assert len(w) == 1


def test_folder_takes_labels_from_its_table(tmp_path, recwarn):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "attributes.csv").write_text(
        "Young,file,Male,Blond_Hair,Black_Hair,Brown_Hair\n0,b.png,1,1,0,0\n1,a.png,0,0,1,0\n"
    )
    assert folder(tmp_path).labels.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]
    assert not recwarn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,Male\na.png,1\n", "needs the columns file, Black_Hair"),
        ("", "needs the columns"),
        ("file,{all}\na.png,0,0,0,0,0\na.png,0,0,0,0,0\n", "one row for each picture"),
        ("file,{all}\nb.png,0,0,0,0,0\n", "no row of 0 and 1 for a.png"),
        ("file,{all}\na.png,0,0,0,-1,0\n", "no row of 0 and 1 for a.png"),
        ("file,{all}\na.png,0,0,0,yes,0\n", "no row of 0 and 1 for a.png"),
    ],
    ids=["column", "empty", "twice", "unlisted", "minus", "word"],
)
def test_folder_refuses_a_wrong_table(tmp_path, text, message):
    save(tmp_path / "a.png")
    (tmp_path / "attributes.csv").write_text(text.format(all=",".join(ATTRIBUTES)))
    with pytest.raises(SalattackError, match=message):
        folder(tmp_path)


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_folder_shuffled_gives_nested_random_samples(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i:02}.png", (20, 20), (i, 0, 0))
    by_name = load_faces(tmp_path, image_size=8)
    assert by_name.ids == sorted(by_name.ids)
    every = load_faces(tmp_path, image_size=8, split="shuffled")
    assert every.ids != by_name.ids
    assert sorted(every.ids) == by_name.ids
    for n in (1, 5, 29, 100):
        sample = load_faces(tmp_path, image_size=8, split="shuffled", n_images=n)
        assert sample.ids == every.ids[:n]
    assert load_faces(tmp_path, image_size=8, split="shuffled", seed=1).ids != every.ids
    assert to_uint8(every[3].image)[0, 0, 0].item() == int(every.ids[3][:2])


def test_shuffled_photos_keep_their_labels(tmp_path):
    lines = ["file," + ",".join(ATTRIBUTES)]
    for i in range(8):
        save(tmp_path / f"{i}.png", (20, 20))
        lines.append(f"{i}.png,0,0,0,{i % 2},{i // 4}")
    (tmp_path / "attributes.csv").write_text("\n".join(lines))
    photos = load_faces(tmp_path, image_size=8, split="shuffled")
    for name, labels in zip(photos.ids, photos.labels.tolist(), strict=True):
        assert labels == [0, 0, 0, int(name[0]) % 2, int(name[0]) // 4]


def test_checksum_is_that_of_the_file(tmp_path):
    (tmp_path / "attributes.csv").write_text(f"file,{','.join(ATTRIBUTES)}\na.png,0,0,0,0,0\n")
    path = save(tmp_path / "a.png")
    photos = load_faces(tmp_path)
    assert photos.checksum(0) == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    with pytest.raises(SalattackError, match=r"a.png cannot be read .*; replace or remove"):
        photos.checksum(0)


def test_folder_without_photos(tmp_path):
    with pytest.raises(SalattackError, match=r"holds no photos; known are \.jpg"):
        folder(tmp_path)


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_folder_refuses_a_small_photo_by_name(tmp_path):
    save(tmp_path / "small.png", (400, 127))
    with pytest.raises(SalattackError, match=r"small.png is 400×127 .* at least 128: use a larger"):
        folder(tmp_path)[0]

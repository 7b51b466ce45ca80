"""CelebA: its layout as folder and zip, its splits, and every bad input."""

import hashlib
import pickle
import random
import warnings
import zipfile

import pytest
import torch
from torch.utils.data import DataLoader

from salattack.edits import ATTRIBUTES
from salattack.errors import SalattackError
from salattack.faces import load_faces
from salattack.faces.alignment import align, preprocess
from salattack.faces.celeba import celeba
from salattack.faces.reading import open_photo
from salattack.faces.shipped import BOX, LANDMARKS, openpeople

# As in CelebA, ours are not the first columns and not in our order.
COLUMNS = ["Smiling", "Young", "Male", "Brown_Hair", "Blond_Hair", "Black_Hair", "Bald"]
N = 12
NAMES = [f"{i:06}.jpg" for i in range(1, N + 1)]
PART = [0] * 6 + [1] * 2 + [2] * 4

pytestmark = pytest.mark.filterwarnings("ignore:.*published generator may have seen")


@pytest.fixture(scope="module")
def pictures():
    """Twelve real faces of 178×218 pixels."""
    people = openpeople(["selfie", "portrait"])
    rows = [people.table.iloc[i] for i in range(N)]
    return [
        align(
            open_photo(row["source"]),
            (row[LANDMARKS[0]], row[LANDMARKS[1]]),
            (row[LANDMARKS[2]], row[LANDMARKS[3]]),
            tuple(row[BOX]),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def labels():
    return openpeople(["selfie", "portrait"]).labels[:N]


@pytest.fixture(scope="module")
def jpegs(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    for name, picture in zip(NAMES, pictures, strict=True):
        picture.save(folder / name, quality=95)
    return {name: (folder / name).read_bytes() for name in NAMES}


def attribute_lines(labels, columns=COLUMNS):
    lines = [str(len(labels)), " ".join(columns)]
    for name, row in zip(NAMES, labels.tolist(), strict=False):
        given = dict(zip(ATTRIBUTES, row, strict=True))
        lines.append(f"{name} " + " ".join(f"{2 * int(given.get(c, 0)) - 1:2}" for c in columns))
    return lines


def write_lists(root, labels, parts=PART):
    (root / "list_attr_celeba.txt").write_text("\n".join([*attribute_lines(labels), ""]))
    lines = [f"{name} {part}" for name, part in zip(NAMES, parts, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join([*lines, ""]))
    return root


def write_folder(root, jpegs):
    (root / "img_align_celeba").mkdir(parents=True)
    for name, data in jpegs.items():
        (root / "img_align_celeba" / name).write_bytes(data)


def write_zip(root, jpegs):
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for name, data in jpegs.items():
            archive.writestr(f"img_align_celeba/{name}", data)


@pytest.fixture
def root(tmp_path, jpegs, labels):
    write_folder(tmp_path, jpegs)
    return write_lists(tmp_path, labels)


@pytest.fixture
def zipped(tmp_path, jpegs, labels):
    place = tmp_path / "zipped"
    write_zip(place, jpegs)
    return write_lists(place, labels)


# --- pictures and labels ------------------------------------------------------------------


def test_faces_are_the_centre_crop_with_their_labels(root, labels):
    faces = load_faces(root, image_size=64, split="all")
    assert sorted(faces.ids) == NAMES
    for face, name in zip(faces, faces.ids, strict=True):
        picture = open_photo(root / "img_align_celeba" / name)
        assert face.face_id == name
        assert torch.equal(face.image, preprocess(picture, 64))
        assert torch.equal(face.labels, labels[NAMES.index(name)])


def test_zip_and_folder_give_the_same_and_nothing_is_unpacked(root, zipped, jpegs):
    plain, inside = celeba(root, split="all"), celeba(zipped, split="all")
    assert plain.ids == inside.ids
    for index, name in enumerate(plain.ids):
        assert torch.equal(plain[index].image, inside[index].image)
        digest = hashlib.sha256(jpegs[name]).hexdigest()
        assert plain.checksum(index) == inside.checksum(index) == digest
    assert inside.sources[0].endswith(f"img_align_celeba.zip/img_align_celeba/{inside.ids[0]}")
    held = sorted(path.name for path in zipped.iterdir())
    assert held == ["img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"]


def test_worker_processes_read_the_zip(zipped):
    faces = celeba(zipped, 32, "all")
    alone = torch.stack([face.image for face in faces])  # the parent has opened the zip
    loader = DataLoader(faces, batch_size=2, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert torch.equal(torch.cat([batch.image for batch in batches]), alone)
    assert [name for batch in batches for name in batch.face_id] == faces.ids
    sent = pickle.loads(pickle.dumps(faces))  # as to a worker that is spawned
    assert torch.equal(sent[0].image, alone[0])


def test_a_zip_that_was_replaced_is_opened_anew(zipped, jpegs):
    faces = celeba(zipped, split="all")
    first, other = faces.ids[:2]
    before = faces[0].image
    write_zip(zipped, jpegs | {first: jpegs[other]})
    assert not torch.equal(faces[0].image, before)
    assert torch.equal(faces[0].image, faces[1].image)


def test_the_parts_may_lie_in_celebas_own_folders(tmp_path, jpegs, labels):
    write_zip(tmp_path / "Img", jpegs)
    (tmp_path / "Anno").mkdir()
    (tmp_path / "Eval").mkdir()
    write_lists(tmp_path, labels)
    (tmp_path / "list_attr_celeba.txt").rename(tmp_path / "Anno" / "list_attr_celeba.txt")
    (tmp_path / "list_eval_partition.txt").rename(tmp_path / "Eval" / "list_eval_partition.txt")
    faces = load_faces(tmp_path, split="test")
    assert sorted(faces.ids) == NAMES[8:]
    assert torch.equal(faces[0].image, celeba(tmp_path, split="test")[0].image)


@pytest.mark.parametrize("size", [(89, 109), (89, 108), (356, 436)])
def test_other_sizes_are_cut_to_the_same_part(root, pictures, size):
    for name, picture in zip(NAMES, pictures, strict=True):
        picture.resize(size).save(root / "img_align_celeba" / name, quality=95)
    faces = celeba(root, 64, "all")
    whole = preprocess(pictures[NAMES.index(faces.ids[0])], 64)
    assert (faces[0].image - whole).abs().mean() < 0.06
    shifted = torch.roll(whole, 2, dims=1)  # a crop at another height would differ like this
    assert (faces[0].image - whole).abs().mean() < 0.5 * (shifted - whole).abs().mean()


def test_enlarged_pictures_are_told_once_a_set(root, pictures):
    for name, picture in zip(NAMES, pictures, strict=True):
        picture.resize((89, 109)).save(root / "img_align_celeba" / name)
    with pytest.warns(UserWarning, match=r"pictures of 89×109 .* enlarged, from 89 to 128") as told:
        faces = celeba(root, split="all")
        for index in range(len(faces)):
            faces[index]
        faces.subset(3)[0]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        celeba(root, 64, "all")  # no pixel is made up


def test_first_picture_missing_does_not_hide_that_they_are_enlarged(root, pictures):
    for name, picture in zip(NAMES, pictures, strict=True):
        picture.resize((89, 109)).save(root / "img_align_celeba" / name)
    (root / "img_align_celeba" / celeba(root, 64, "all").ids[0]).unlink()
    with pytest.warns(UserWarning, match="89×109"):
        celeba(root, split="all")


# --- splits -------------------------------------------------------------------------------


def test_official_partition(root):
    expected = {"train": NAMES[:6], "valid": NAMES[6:8], "test": NAMES[8:], "all": NAMES}
    for split, names in expected.items():
        assert sorted(celeba(root, split=split).ids) == names


@pytest.mark.parametrize("split", ["stargan", "train", "all"])
def test_samples_are_nested_and_seeded(root, split):
    every = load_faces(root, split=split).ids
    for n in range(1, len(every) + 3):
        assert load_faces(root, split=split, n_images=n).ids == every[:n]
    assert every != sorted(every)
    other = load_faces(root, split=split, seed=1).ids
    assert (other == every) == (split == "stargan")


def test_stargans_split_is_the_authors_rule_and_leaves_the_callers_random_alone(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    names = [f"{i:06}.jpg" for i in range(1, 202_600)]
    head = ["202599", " ".join(ATTRIBUTES)]
    rows = [f"{name} -1 -1  1 {1 if i % 2 else -1:2}  1" for i, name in enumerate(names)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([*head, *rows]) + "\n")
    state = random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = load_faces(tmp_path)
    assert random.getstate() == state
    male = {name: i % 2 for i, name in enumerate(names)}
    random.seed(1234)
    random.shuffle(names)
    random.setstate(state)
    assert faces.ids == names[:1999]
    assert faces.labels.tolist() == [[0, 0, 1, male[name], 1] for name in faces.ids]


def test_stargans_split_of_another_list_is_told(root):
    names = list(NAMES)
    random.Random(1234).shuffle(names)
    with pytest.warns(UserWarning, match="has 12 rows and not 202599: the published generator"):
        assert load_faces(root).ids == names


def test_unknown_split(root):
    with pytest.raises(SalattackError, match=r"split of CelebA 'shuffled'; known: stargan, train"):
        load_faces(root, split="shuffled")
    with pytest.raises(SalattackError, match="unknown split of CelebA ''"):
        load_faces(root, split="")
    with pytest.raises(SalattackError, match="only openpeople has kinds"):
        load_faces(root, kind="selfie")


# --- the attribute list -------------------------------------------------------------------


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[::-1], sorted(COLUMNS)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("gap", [" ", "\t", "   "])
def test_columns_by_name_with_any_line_end_and_gap(root, labels, columns, end, gap):
    lines = [gap.join(line.split()) for line in attribute_lines(labels, columns)]
    data = end.join([*lines, "", " ", ""]).encode("utf-8-sig")
    (root / "list_attr_celeba.txt").write_bytes(data)
    faces = celeba(root, split="all")
    for name, row in zip(faces.ids, faces.labels, strict=True):
        assert torch.equal(row, labels[NAMES.index(name)])


def spoiled(line, number, lines):
    return [line if i == number - 1 else other for i, other in enumerate(lines)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ls: spoiled("13", 1, ls), "announces 13 rows in line 1 and holds 12"),
        (lambda ls: ls[:-2], "announces 12 rows in line 1 and holds 10"),
        (lambda ls: ls[:4] + ls[5:], "announces 12 rows in line 1 and holds 11"),
        (lambda ls: spoiled("", 5, ls), "announces 12 rows in line 1 and holds 11"),
        (lambda ls: spoiled("000002.jpg 1 1", 4, ls), "damaged in a row of 000002.jpg"),
        (lambda ls: spoiled(ls[3] + " 1", 4, ls), "not readable .*in line 4"),
        (lambda ls: spoiled(ls[3].replace("1", "2"), 4, ls), "damaged in a row of 000002.jpg"),
        (lambda ls: spoiled(ls[3], 5, ls), "damaged in a row of 000002.jpg"),
        (lambda ls: spoiled("Young Male", 2, ls), "does not begin with a count and the attr"),
        (lambda ls: ls[1:], "does not begin with a count"),
        (lambda ls: [], "is not readable"),
    ],
    ids=[
        "count",
        "last-rows",
        "inner-row",
        "blank",
        "short-row",
        "long-row",
        "value",
        "twice",
        "names",
        "no-count",
        "empty",
    ],
)
def test_a_wrong_attribute_list_is_refused(root, labels, spoil, message):
    path = root / "list_attr_celeba.txt"
    path.write_text("\n".join(spoil(attribute_lines(labels))) + "\n")
    with pytest.raises(SalattackError, match=rf"list_attr_celeba.txt .*{message}.*; (down|use)"):
        celeba(root)


def test_a_list_that_is_no_text(root):
    (root / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SalattackError, match=r"list_attr_celeba.txt is not readable .*; download"):
        celeba(root)


# --- the partition ------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [" ", "\t", "  "])
def test_a_partition_with_windows_lines(root, gap):
    lines = [f"{name}{gap}{part}" for name, part in zip(NAMES, PART, strict=True)]
    (root / "list_eval_partition.txt").write_bytes("\r\n".join([*lines, "", ""]).encode())
    assert sorted(celeba(root, split="valid").ids) == NAMES[6:8]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ls: ls[:-2], r"000011.jpg is in .*attr_celeba.txt and not in .*partition.txt \(2"),
        (lambda ls: [*ls, "000000.jpg 0"], r"000000.jpg is in .*partition.txt and not in .*attr"),
        (lambda ls: spoiled("000003.jpg 3", 3, ls), "partition.txt is damaged in a row of 000003"),
        (lambda ls: spoiled("000003.jpg", 3, ls), "partition.txt is damaged in a row of 000003"),
        (lambda ls: spoiled("000002.jpg 0", 3, ls), "partition.txt is damaged in a row of 000002"),
        (lambda ls: [], r"000001.jpg is in .*attr_celeba.txt and not in .*\(12 such names"),
        (lambda ls: [line[:-1] + "0" for line in ls], "has no face of split 'test'; choose"),
    ],
    ids=["missing", "stray", "value", "short", "twice", "empty", "none"],
)
def test_a_wrong_partition_is_refused_where_it_is_needed(root, spoil, message):
    path = root / "list_eval_partition.txt"
    path.write_text("\n".join(spoil(path.read_text().splitlines())) + "\n")
    with pytest.raises(SalattackError, match=message):
        celeba(root, split="test")
    assert len(celeba(root, split="all")) == N


def test_no_partition(root):
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(
        SalattackError, match=r"list_eval_partition.txt does not exist, nor in Eval/; split 'test'"
    ):
        celeba(root, split="test")
    assert len(celeba(root)) == N


# --- missing and broken pictures ----------------------------------------------------------


def test_without_its_parts(tmp_path, jpegs):
    with pytest.raises(SalattackError, match=r"list_attr_celeba.txt does not exist, nor in Anno/"):
        celeba(tmp_path)
    (tmp_path / "list_attr_celeba.txt").touch()
    with pytest.raises(
        SalattackError, match=r"img_align_celeba.zip does not exist, nor in Img/; put"
    ):
        load_faces(tmp_path)
    (tmp_path / "list_attr_celeba.txt").unlink()
    write_zip(tmp_path, jpegs)
    with pytest.raises(SalattackError, match=r"list_attr_celeba.txt does not exist"):
        load_faces(tmp_path)


def test_missing_broken_and_small_pictures_fail_one_by_one(root, pictures):
    place = root / "img_align_celeba"
    (place / NAMES[0]).unlink()
    (place / NAMES[1]).write_bytes((place / NAMES[1]).read_bytes()[:3000])
    (place / NAMES[2]).write_text("no picture")
    pictures[3].crop((0, 0, 178, 170)).save(place / NAMES[3])
    pictures[4].resize((45, 55)).save(place / NAMES[4])
    faces = celeba(root, split="all")
    messages = (
        "does not exist",
        "is not a readable picture",
        r"is not a readable picture \(no known format\)",
        "is 178×170 pixels; .* at least 178",
        "is 45×55 pixels; .* at least 178",
    )
    for name, message in zip(NAMES, messages, strict=False):
        with pytest.raises(SalattackError, match=f"{name} {message}"):
            faces[faces.ids.index(name)]
    for name in NAMES[5:]:
        assert faces[faces.ids.index(name)].image.isfinite().all()


def test_missing_and_broken_members_fail_one_by_one(zipped, jpegs):
    data = dict(jpegs)
    del data[NAMES[0]]
    data[NAMES[1]] = data[NAMES[1]][:3000]
    data[NAMES[2]] = b"no picture"
    write_zip(zipped, data)
    archive = zipped / "img_align_celeba.zip"
    raw = bytearray(archive.read_bytes())
    raw[raw.index(data[NAMES[3]]) + 2000] ^= 0xFF  # its checksum no longer fits
    archive.write_bytes(raw)
    faces = celeba(zipped, split="all")
    messages = (
        "does not exist",
        "is not a readable picture",
        r"is not a readable picture \(no known format\)",
        "is not a readable picture .*CRC",
    )
    for name, message in zip(NAMES, messages, strict=False):
        with pytest.raises(SalattackError, match=f"img_align_celeba/{name} {message}"):
            faces[faces.ids.index(name)]
    for name in (NAMES[0], NAMES[3]):
        with pytest.raises(SalattackError, match=f"{name} cannot be read"):
            faces.checksum(faces.ids.index(name))
    for name in NAMES[4:]:
        expected = preprocess(open_photo(archive / "img_align_celeba" / name))
        assert torch.equal(faces[faces.ids.index(name)].image, expected)


def test_a_zip_cut_short(zipped):
    archive = zipped / "img_align_celeba.zip"
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(SalattackError, match=r"celeba.zip is not a readable zip .*; download it"):
        celeba(zipped)

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import torch
from published import HOSODA, SMALL
from torch import nn
from typer.testing import CliRunner

from salattack import assets, transfer
from salattack.assets import ASSETS, Asset
from salattack.cli import app
from salattack.errors import SalattackError
from salattack.files import written_whole
from salattack.generators import GENERATORS, StarGAN, load_generator
from salattack.saliency import SALIENCY_MODELS, load_saliency
from salattack.saliency.pfan import PFAN

CONTENT = b"202599\n" + bytes(range(256)) * 1000
PAGE = b"<!DOCTYPE html><html><head><title>Quota\n exceeded</title></head></html>"


class Handler(BaseHTTPRequestHandler):
    """Serves the server's content by the next way of its plan, "whole" when that is used up."""

    def do_GET(self):
        server = self.server
        way = server.plan.pop(0) if server.plan else "whole"
        server.log.append((way, self.headers["Range"], self.headers["If-Range"]))
        content, tag = server.content, hashlib.md5(server.content).hexdigest()
        if way.isdecimal():
            return self.send_error(int(way))
        if way == "redirect":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            return self.end_headers()
        if way in ("page", "posing page"):
            content = PAGE
        start = 0
        known = self.headers["If-Range"] in (None, tag)
        if self.headers["Range"] and known and way not in ("no ranges", "page"):
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            first = start - 1 if way == "wrong range" else start
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
        length = len(content) - start
        length += {"too long": 100, "too short": -100}.get(way, 0)
        if way != "no length":
            self.send_header("Content-Length", str(length))
        if way != "no tag":
            self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/html" if way == "page" else "application/x")
        if way != "page":  # by this gdown knows a file
            self.send_header("Content-Disposition", 'attachment; filename="thing.txt"')
        self.end_headers()
        content = content[start:]
        if way == "cut":
            content = content[: len(content) // 2]
        if way == "stalled":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(0.8)
            return None
        pieces = 20 if way == "slow" else 1
        size = -(-len(content) // pieces)
        for piece in range(pieces):
            self.wfile.write(content[piece * size : (piece + 1) * size])
            time.sleep(0.02 * (way == "slow"))
        return None

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the client may be gone
            super().handle()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.plan, server.log, server.content = [], [], CONTENT
        server.address = f"http://127.0.0.1:{server.server_port}/file"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "WAIT", 0)
    monkeypatch.setattr(transfer, "TIMEOUT", (2, 0.4))
    return tmp_path / "cache"


@pytest.fixture
def thing(server, monkeypatch):
    """Make the only asset one at the server; returns a function that says what it is like."""

    def make(**change):
        facts = {
            "name": "thing",
            "file": "things/thing.txt",
            "address": server.address,
            "size": len(CONTENT),
            "checksum": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
            "licence": "MIT",
            "source": "https://things.example",
        }
        asset = Asset(**facts | change)
        monkeypatch.setattr(assets, "ASSETS", {"thing": asset})
        return asset

    make()
    return make


def left_over(cache):
    """Names of files in the cache that are neither an asset, nor its record, nor a lock."""
    names = [p.name for p in cache.rglob("*") if p.is_file()]
    return sorted(n for n in names if n.startswith(".") and not n.endswith(".lock"))


def zipped(path, *members):
    """Write a zip; members are (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_the_registry_is_complete():
    assert {"stargan-celeba-128", "stargan-celeba-256", "pfan-duts"} <= set(ASSETS)
    assert {"celeba-images", "celeba-attributes", "celeba-partition"} <= set(ASSETS)
    networks = SALIENCY_MODELS | GENERATORS
    del networks["mask"]  # a picture of one's own
    for name in ("onnx", HOSODA, *SMALL):
        del networks[name]  # files that users bring
    for model in networks.values():
        assert model.shipped == (model.asset is None)
        assert model.shipped or ASSETS[model.asset].path.name == model.file
    for name, asset in ASSETS.items():
        assert name == asset.name and asset.licence and asset.source.startswith("https://")
        if asset.checksum:
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", asset.checksum)
    assert len({asset.file for asset in ASSETS.values()}) == len(ASSETS)
    folders = {ASSETS[f"celeba-{part}"].path.parent for part in ("images", "attributes")}
    assert len(folders) == 1  # as faces reads it


def test_a_file_is_fetched_once(server, thing, cache):
    place = assets.fetch("thing")
    assert place == cache / "things" / "thing.txt" and place.read_bytes() == CONTENT
    assert assets.path("thing") == place and assets.verify() == {"thing": None}
    record = json.loads(place.with_name("thing.txt.json").read_text())
    assert record["from"] == server.address and record["bytes"] == len(CONTENT)
    assets.fetch("thing")
    assert len(server.log) == 1 and left_over(cache) == []


@pytest.mark.parametrize(
    ("plan", "resumed"),
    [
        ("redirect", 0),
        ("slow", 0),
        ("no length", 0),
        ("503", 0),
        ("429", 0),
        ("cut", 1),
        ("cut,cut,cut", 3),
        ("stalled", 1),
        ("cut,503", 2),
        ("cut,wrong range", 1),
    ],
)
def test_a_bad_line_is_endured(server, thing, cache, plan, resumed):
    server.plan = plan.split(",")
    assert assets.fetch("thing").read_bytes() == CONTENT
    asked = [entry for _, entry, _ in server.log if entry]
    assert len(asked) == resumed and left_over(cache) == []


def test_a_server_without_ranges_starts_again(server, thing):
    server.plan = ["cut", "no ranges"]
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert [way for way, _, _ in server.log] == ["cut", "no ranges"]


def test_a_transfer_goes_on_in_the_next_run_and_the_bar_with_it(server, thing, cache, monkeypatch):
    server.plan = ["cut"] + ["503"] * (transfer.TRIES - 1)
    with pytest.raises(SalattackError, match=r"5 tries .*503.* try again .*assets add thing FILE"):
        assets.fetch("thing")
    have = (cache / "things" / ".thing.txt.part").stat().st_size
    assert 0 < have < len(CONTENT) and not (cache / "things" / "thing.txt").exists()
    bars, plain = [], transfer.tqdm

    def bar(**options):
        bars.append(plain(**options | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(transfer, "tqdm", bar)
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert server.log[-1][1] == f"bytes={have}-" and server.log[-1][2]
    assert bars[0].initial == have and bars[0].n == bars[0].total == len(CONTENT)
    assert bars[0].desc.startswith("thing.txt")


def test_halves_of_two_versions_are_not_joined(server, thing, cache):
    thing(checksum=None, size=None)
    old, server.content = CONTENT, CONTENT[::-1]
    server.plan = ["cut"] + ["503"] * (transfer.TRIES - 1)
    with pytest.raises(SalattackError):
        assets.fetch("thing")
    server.content = old
    assert assets.fetch("thing").read_bytes() == old


def test_a_part_that_was_whole_is_not_fetched_again(server, thing, cache):
    part = cache / "things" / ".thing.txt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert server.log == [("whole", f"bytes={len(CONTENT)}-", None)]
    (cache / "things" / "thing.txt").unlink()
    part.write_bytes(CONTENT + b"more than there is")
    assert assets.fetch("thing").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (["404"], "answers 404"),
        (["410"], "answers 410"),
        (["page"], "gives a web page .“Quota exceeded”. instead of the file"),
        (["too long"] * 9, f"gives {len(CONTENT) + 100} bytes instead of {len(CONTENT)}"),
        (["too short"], f"gives {len(CONTENT) - 100} bytes instead of {len(CONTENT)}"),
        (["redirect"] * 200, "5 tries"),
        (["stalled"] * 9, "5 tries"),
    ],
)
def test_what_is_no_file_is_told_with_the_way_out(server, thing, cache, plan, message):
    server.plan = plan
    with pytest.raises(SalattackError, match=message) as error:
        assets.fetch("thing")
    assert "get thing.txt by hand (see https://things.example)" in str(error.value)
    assert "`salattack assets add thing FILE`" in str(error.value)
    assert not (cache / "things" / "thing.txt").exists()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (["too long"] * 9, "5 tries"),
        (["too short"], "sha256 [0-9a-f]{64}, expected"),
        (["posing page"], "is a web page .“Quota exceeded”., not thing.txt"),
    ],
)
def test_a_wrong_file_of_unknown_size_is_refused(server, thing, cache, plan, message):
    thing(size=None)
    server.plan = plan
    with pytest.raises(SalattackError, match=message):
        assets.fetch("thing")
    assert not (cache / "things" / "thing.txt").exists()


def test_nobody_at_the_address(server, thing):
    thing(address="http://127.0.0.1:9/file")
    with pytest.raises(SalattackError, match=r"not read to its end in 5 tries \(.*refused\)"):
        assets.fetch("thing")


def test_a_page_leaves_the_part_alone(server, thing, cache):
    part = cache / "things" / ".thing.txt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:5000])
    server.plan = ["page"]
    with pytest.raises(SalattackError, match="web page"):
        assets.fetch("thing")
    assert part.read_bytes() == CONTENT[:5000]


def test_a_wrong_checksum_is_refused_and_replaces_nothing(server, thing, cache):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(SalattackError) as error:
        assets.fetch("thing")
    for content in (CONTENT, server.content):
        assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert left_over(cache) == []
    place = cache / "things" / "thing.txt"
    place.write_bytes(b"old and damaged")
    with pytest.raises(SalattackError, match="not the published"):
        assets.fetch("thing")
    assert place.read_bytes() == b"old and damaged"
    server.content = CONTENT
    assert assets.fetch("thing").read_bytes() == CONTENT


def test_an_md5_does_where_no_sha256_is_known(server, thing):
    thing(checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assets.fetch("thing").write_bytes(b"damaged")
    with pytest.raises(SalattackError, match=r"is damaged: md5 .*; 7 bytes, expected"):
        assets.path("thing")


def test_two_processes_fetch_once(server, thing, cache):
    server.plan = ["slow"]
    code = (
        "import sys; from salattack import assets; "
        "a = assets.Asset(name='thing', file='things/thing.txt', address=sys.argv[1], "
        "licence='MIT', source='', checksum=sys.argv[2]); "
        "assets.ASSETS = {'thing': a}; print('ready', flush=True); sys.stdin.readline(); "
        "print(assets.fetch('thing'))"
    )
    command = [sys.executable, "-c", code, server.address, assets.ASSETS["thing"].checksum]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in both]
    place = cache / "things" / "thing.txt"
    assert [out for out, _ in said] == [f"{place}\n"] * 2, said
    assert [way for way, _, _ in server.log] == ["slow"] and place.read_bytes() == CONTENT
    assert sum("waiting for another process" in err for _, err in said) == 1


class FullDisk(io.FileIO):
    """A file on a disk with room for 100,000 bytes of it."""

    def write(self, data):
        room = 100_000 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


@pytest.fixture
def full_disk(monkeypatch):
    """Let files whose name holds a word be written to a full disk."""
    plain = Path.open

    def switch(word):
        def open_it(path, mode="r", *rest, **options):
            if word in path.name and mode in ("wb", "ab"):
                return io.BufferedWriter(FullDisk(path, mode))
            return plain(path, mode, *rest, **options)

        monkeypatch.setattr(Path, "open", open_it if word else plain)

    return switch


def test_a_disk_that_gets_full_keeps_the_part(server, thing, cache, full_disk):
    full_disk(".part")
    with pytest.raises(SalattackError, match=r"things is full: 0.3 MB are needed") as error:
        assets.fetch("thing")
    assert "SALATTACK_CACHE" in str(error.value) and "assets add" not in str(error.value)
    assert (cache / "things" / ".thing.txt.part").read_bytes() == CONTENT[:100_000]
    full_disk(None)
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert server.log[-1][1] == "bytes=100000-"


def test_a_disk_that_gets_full_while_unpacking_keeps_the_zip(
    server, thing, cache, tmp_path, full_disk
):
    thing(member="thing.txt", size=None)
    server.content = zipped(tmp_path / "z.zip", ("a/thing.txt", CONTENT)).read_bytes()
    full_disk(f".{os.getpid()}.thing.txt")
    with pytest.raises(SalattackError, match=r"is full: 0\.3 MB are needed"):
        assets.fetch("thing")
    assert left_over(cache) == [".thing.txt.part", ".thing.txt.part.tag"]
    full_disk(None)
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert [way for way, _, _ in server.log] == ["whole", "whole"] and left_over(cache) == []


def test_a_disk_without_room_is_told_before(server, thing, cache, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SalattackError, match=r"0.3 MB are needed, 0.0 MB are free"):
        assets.fetch("thing")
    (tmp_path / "thing").write_bytes(CONTENT)
    with pytest.raises(SalattackError, match="is full"):
        assets.add("thing", tmp_path / "thing")
    assert left_over(cache) == []


def test_a_cache_that_cannot_be_is_told(server, thing, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SalattackError, match=r"cannot write to .*cache: .*; set SALATTACK_CACHE"):
        assets.fetch("thing")


def test_the_wanted_file_is_taken_out_of_a_zip(server, thing, cache, tmp_path):
    thing(member="thing.txt")
    extra = ("models/notes.txt", "x"), ("models/thing.txt/", "")
    source = zipped(tmp_path / "z.zip", ("models/thing.txt", CONTENT), *extra)
    server.content = source.read_bytes()
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert sorted(p.name for p in (cache / "things").iterdir()) == ["thing.txt", "thing.txt.json"]
    server.content = b"PK\3\4 but nothing more"
    (cache / "things" / "thing.txt").unlink()
    with pytest.raises(SalattackError, match="is a damaged zip"):
        assets.fetch("thing")
    server.content = b"no zip at all"
    with pytest.raises(SalattackError, match=r"is not a \.zip file: it begins with b'no zip a'"):
        assets.fetch("thing")


def test_a_zip_without_the_file_or_with_damage_is_refused(thing, cache, tmp_path):
    thing(member="thing.txt")
    for members, count in (([("other", "x")], 0), ([("a/thing.txt", "x"), ("thing.txt", "y")], 2)):
        with pytest.raises(SalattackError, match=rf"holds {count} files named thing\.txt"):
            assets.add("thing", zipped(tmp_path / "z.zip", *members))
    source = zipped(tmp_path / "z.zip", ("thing.txt", CONTENT))
    content = bytearray(source.read_bytes())
    content[200] ^= 255
    source.write_bytes(content)
    with pytest.raises(SalattackError, match=r"thing\.txt is damaged"):
        assets.add("thing", source)
    assert left_over(cache) == [] and not (cache / "things" / "thing.txt").exists()


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../thing.txt", "leaves its folder"),
        ("a/../../thing.txt", "leaves its folder"),
        ("/elsewhere/thing.txt", "leaves its folder"),
        ("..\\thing.txt", "leaves its folder"),
        ("\\\\host\\thing.txt", "leaves its folder"),
        ("C:\\thing.txt", "leaves its folder"),
        ("c:thing.txt", "leaves its folder"),
        (link("thing"), "is a link"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_zip_with_unsafe_paths_is_refused(server, thing, cache, tmp_path, name, why, whole):
    source = zipped(tmp_path / "z.zip", ("thing.txt", CONTENT), (name, b"evil"))
    server.content = source.read_bytes()
    if whole:  # the zip itself is the asset
        thing(file="things/z.zip", checksum=None, size=None)
    else:
        thing(member="thing.txt")
    for bring in (lambda: assets.fetch("thing"), lambda: assets.add("thing", source)):
        with pytest.raises(SalattackError, match=f"is refused: .* {why}"):
            bring()
    assert not assets.ASSETS["thing"].path.exists() and source.exists()


def test_a_file_by_hand_is_verified_and_filed(thing, cache, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"another")
    with pytest.raises(SalattackError, match=r"not the published thing.txt: .*expected"):
        assets.add("thing", mine)
    mine.write_bytes(PAGE)
    with pytest.raises(SalattackError, match="mine is a web page"):
        assets.add("thing", mine)
    mine.write_bytes(CONTENT)
    place = assets.add("thing", mine)
    assert place.read_bytes() == mine.read_bytes() == CONTENT
    mine.write_bytes(b"another")
    with pytest.raises(SalattackError, match="not the published"):
        assets.add("thing", mine)
    assert place.read_bytes() == CONTENT and left_over(cache) == []
    thing(member="thing.txt")
    place.unlink()
    assert assets.add("thing", zipped(tmp_path / "z.zip", ("a/thing.txt", CONTENT))) == place
    assert assets.add("thing", place).read_bytes() == CONTENT
    with pytest.raises(SalattackError, match=r"nowhere is not a file; give the path of thing.txt"):
        assets.add("thing", tmp_path / "nowhere")


def test_an_unreadable_file_by_hand_is_told(thing, tmp_path, monkeypatch):
    (tmp_path / "mine").write_bytes(CONTENT)

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SalattackError, match="mine cannot be read"):
        assets.add("thing", tmp_path / "mine")


def test_an_unknown_checksum_is_recorded_and_finds_later_damage(server, thing, cache, tmp_path):
    thing(checksum=None, size=None)
    place = assets.fetch("thing")
    assert assets.verify() == {"thing": None}
    (tmp_path / "mine").write_bytes(b"another")
    with pytest.raises(SalattackError, match="is there and whole, and this file is another"):
        assets.add("thing", tmp_path / "mine")
    assert place.read_bytes() == CONTENT
    place.write_bytes(CONTENT[:-1])
    assert "is damaged: sha256" in assets.verify()["thing"]
    place.write_bytes(CONTENT)
    place.with_name("thing.txt.json").write_text("{")
    assert "came unchecked; run `salattack assets add thing" in assets.verify()["thing"]
    assets.add("thing", place)
    assert assets.verify() == {"thing": None}


def test_an_inferred_checksum_that_fails_is_a_warning(server, thing, tmp_path, monkeypatch):
    first = thing(inferred=True, checksum=f"sha256:{'0' * 64}")
    found = hashlib.sha256(CONTENT).hexdigest()
    sibling = Asset(
        name="sibling", file="b", address="", inferred=True, checksum=f"sha256:{found}",
        licence="MIT", source="",
    )  # fmt: skip
    monkeypatch.setitem(assets.ASSETS, "sibling", sibling)
    with pytest.warns(UserWarning, match=f"{found}, expected 000.*known as sibling"):
        place = assets.fetch("thing")
    assert assets.path("thing") == place
    (tmp_path / "mine").write_bytes(b"a third")
    with pytest.raises(SalattackError, match="is there and whole"):
        assets.add("thing", tmp_path / "mine")
    thing(inferred=True, checksum=f"sha256:{hashlib.sha256(b'a third').hexdigest()}")
    assert assets.add("thing", tmp_path / "mine").read_bytes() == b"a third"  # the known one may
    assert first.path == place


@pytest.fixture
def drive(server, thing, monkeypatch):
    """Let the local server stand in for Google Drive."""
    plain = requests.Session.request

    def request(session, method, url, **options):
        local = url.replace("https://drive.google.com", f"http://127.0.0.1:{server.server_port}")
        return plain(session, method, local, **options)

    monkeypatch.setattr(requests.Session, "request", request)
    return thing(address="https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM")


def test_a_file_comes_from_drive(server, drive, cache):
    assert assets.fetch("thing").read_bytes() == CONTENT and left_over(cache) == []


def test_a_transfer_from_drive_goes_on_in_the_next_run(server, drive, cache, monkeypatch):
    monkeypatch.setattr(transfer, "TRIES", 1)
    server.plan, server.content = ["cut"], CONTENT * 6  # gdown writes half a megabyte at a time
    sums = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    monkeypatch.setitem(assets.ASSETS, "thing", replace(drive, checksum=sums, size=None))
    with pytest.raises(SalattackError, match=r"does not give .*Connection broken"):
        assets.fetch("thing")
    assert assets.fetch("thing").read_bytes() == server.content and left_over(cache) == []
    assert int(server.log[-1][1].removeprefix("bytes=").removesuffix("-")) > 0


def test_drives_quota_page_and_a_moved_file_are_told(server, drive, cache):
    for way, message in (("page", "Cannot retrieve the public link"), ("404", "")):
        server.plan = [way] * 9
        with pytest.raises(SalattackError, match=rf"does not give .*{message}") as e:
            assets.fetch("thing")
        assert "`salattack assets add thing FILE`" in str(e.value) and "\n" not in str(e.value)
    assert left_over(cache) == []


def test_drive_on_a_full_disk(server, drive, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SalattackError, match=r"is full: 0\.3 MB are needed"):
        assets.fetch("thing")
    assert server.log == []


def test_the_commands(server, thing, cache, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["assets", *arguments])

    assert "–" in run("list").stdout and "There is nothing in" in run("verify").stdout
    missing = run("path", "thing").exception
    assert isinstance(missing, SalattackError)
    assert "is not in the cache; `salattack assets fetch thing`" in str(missing)
    fetched = run("fetch", "thing")
    assert fetched.stdout.strip() == run("path", "thing").stdout.strip()
    assert "MIT" in fetched.stderr and Path(fetched.stdout.strip()).read_bytes() == CONTENT
    row = next(line for line in run("list").stdout.splitlines() if line.startswith("thing"))
    assert all(word in row for word in ("0.3 MB", "present", "MIT", server.address))
    assert (run("verify").exit_code, run("verify").stdout) == (0, "thing: whole\n")
    Path(fetched.stdout.strip()).write_bytes(b"x")
    damaged = run("verify")
    assert damaged.exit_code == 1 and "is damaged: sha256" in damaged.stdout
    (tmp_path / "mine").write_bytes(CONTENT)
    assert run("add", "thing", str(tmp_path / "mine")).exit_code == 0
    assert run("verify").exit_code == 0
    thing(inferred=True, checksum=f"sha256:{'0' * 64}")
    assert "expected 000" in run("add", "thing", str(tmp_path / "mine")).stderr
    assert "unknown asset 'other'; known: thing" in str(run("fetch", "other").exception)


def checkpoint(path, network, **extra):
    """Write a checkpoint as StarGAN's authors did, with running statistics."""
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.randn(module.num_features)
            state[f"{name}.running_var"] = torch.rand(module.num_features)
    torch.save(state | extra, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.filterwarnings("ignore:stargan-celeba-128 is not the file")
def test_a_generator_loads_from_the_cache_and_is_converted_once(cache, tmp_path, photos, target):
    first, second = StarGAN(conv_dim=8), StarGAN(conv_dim=8)
    photos, target = photos[:1, :, ::2, ::2], target[:1]
    source = checkpoint(tmp_path / "200000-G.ckpt", first)
    archive = zipped(tmp_path / "z.zip", ("models/200000-G.ckpt", source.read_bytes()))
    with pytest.raises(
        SalattackError, match=r"run `salattack assets fetch stargan-celeba-128`, or"
    ):
        load_generator("stargan-celeba-128", device="cpu")
    place = assets.add("stargan-celeba-128", archive)
    copy = place.with_name("stargan-celeba-128.safetensors")

    def load():
        with pytest.warns(UserWarning, match="200000-G.ckpt is not the published"):
            return load_generator("stargan-celeba-128", device="cpu")

    torch.testing.assert_close(load()(photos, target), first(photos, target), atol=1e-5, rtol=0)
    made = copy.stat().st_mtime_ns
    torch.testing.assert_close(load()(photos, target), first(photos, target), atol=1e-5, rtol=0)
    assert copy.stat().st_mtime_ns == made
    copy.write_bytes(copy.read_bytes()[:-10])
    torch.testing.assert_close(load()(photos, target), first(photos, target), atol=1e-5, rtol=0)

    place.unlink()
    assets.add("stargan-celeba-128", checkpoint(tmp_path / "new.ckpt", second))
    torch.testing.assert_close(load()(photos, target), second(photos, target), atol=1e-5, rtol=0)
    place.write_bytes(place.read_bytes()[:-10])
    with pytest.raises(SalattackError, match="is damaged"):
        load_generator("stargan-celeba-128", device="cpu")


@pytest.mark.filterwarnings("ignore:stargan-celeba-128 is not the file")
def test_a_cached_file_that_does_not_fit_is_named_and_not_converted(tmp_path):
    source = checkpoint(tmp_path / "g.ckpt", StarGAN(conv_dim=8), head=torch.zeros(1))
    place = assets.add("stargan-celeba-128", source)
    with pytest.raises(SalattackError, match=r"200000-G\.ckpt does not fit StarGAN: head: not in"):
        load_generator("stargan-celeba-128", device="cpu")
    assert not place.with_name("stargan-celeba-128.safetensors").exists()


def test_pfan_loads_from_the_cache(tmp_path):
    state = PFAN().state_dict()
    torch.save({"model": state, "epoch": 204}, tmp_path / "pfan.pth")
    with written_whole(tmp_path / "text.pth") as beside:
        beside.write_text("no weights")
    with pytest.raises(SalattackError, match=r"is not a \.pth file: it begins with b'no weigh'"):
        assets.add("pfan-duts", tmp_path / "text.pth")
    place = assets.add("pfan-duts", tmp_path / "pfan.pth")
    for _ in range(2):  # converted, then from the copy
        loaded = load_saliency("pfan-duts", device="cpu").net.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in loaded.keys() | state.keys())
        assert place.with_name("pfan-duts.safetensors").is_file()

import contextlib
import hashlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import pytest
import torch
from published import HOSODA, SMALL
from torch import nn
from typer.testing import CliRunner

from salattack.cli.main import app
from salattack.errors import SalattackError
from salattack.generators import GENERATORS, StarGAN, load_generator
from salattack.runtime import assets
from salattack.runtime.assets import ASSETS, Asset
from salattack.saliency import SALIENCY_MODELS, load_saliency
from salattack.saliency.pfan import PFAN

CONTENT = b"202599\n" + bytes(range(256)) * 6000  # gdown writes half a megabyte at a time
PAGE = b"<!DOCTYPE html><html><head><title>Quota\n exceeded</title></head></html>"
FOLDER = {"a.npy": b"first", "b.npy": b"second", "c.npy": b"third"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the server's contents by the next way of its plan, "whole" when that is used up."""

    def do_GET(self):
        server = self.server
        way = server.plan.pop(0) if server.plan else "whole"
        asked = self.headers["Range"] if way != "no ranges" else None
        server.log.append((self.path, asked))
        content = PAGE if way == "page" else server.contents.get(self.path)
        if content is None or way.isdecimal():
            return self.send_error(404 if content is None else int(way))
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", sha256(content))
        self.end_headers()
        content = content[start:]
        time.sleep(0.5 * (way == "slow"))
        self.wfile.write(content[: len(content) // 2] if way == "cut" else content)
        return None

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the client may be gone
            super().handle()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.plan, server.log, server.contents = [], [], {"/thing.txt": CONTENT}
        server.contents |= {f"/folder/{file}": content for file, content in FOLDER.items()}
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(random, "uniform", lambda *_: 0)  # gdown's wait before it tries again
    return tmp_path / "cache"


@pytest.fixture
def thing(server, monkeypatch):
    """Make the only asset one at the server; returns a function that changes it."""

    def make(**change):
        facts = {
            "name": "thing",
            "file": "things/thing.txt",
            "address": f"{server.address}/thing.txt",
            "size": len(CONTENT),
            "checksum": f"sha256:{sha256(CONTENT)}",
            "licence": "MIT",
            "source": "https://things.example",
        }
        monkeypatch.setattr(assets, "ASSETS", {"thing": Asset(**facts | change)})
        return assets.ASSETS["thing"]

    make()
    return make


@pytest.fixture
def folder(server, thing):
    """Make the only asset a folder of three files."""
    files = {file: sha256(content) for file, content in FOLDER.items()}
    listing = "".join(f"{found}  {file}\n" for file, found in files.items()).encode()
    checksum = f"sha256:{sha256(listing)}"
    address = f"{server.address}/folder/"
    return thing(file="things/folder", address=address, files=files, checksum=checksum)


def cached(cache):
    """Files in the cache other than locks, as paths below it."""
    files = (p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")
    return sorted(str(p.relative_to(cache)) for p in files)


def zipped(path, *members):
    """Write a zip; members are (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_the_table_is_complete():
    networks = {**SALIENCY_MODELS, **GENERATORS}
    del networks["mask"]  # a picture of one's own
    for name in ("onnx", HOSODA, *SMALL):
        del networks[name]  # files that users bring
    for model in networks.values():
        assert model.shipped == (model.asset is None)
        assert model.shipped or ASSETS[model.asset].path.name == model.file
    for name, asset in ASSETS.items():
        assert name == asset.name and asset.licence and asset.source.startswith("https://")
        assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", asset.checksum)
        assert bool(asset.files) == asset.address.endswith("/")
        listing = "".join(f"{found}  {file}\n" for file, found in asset.files.items())
        assert not asset.files or asset.checksum == f"sha256:{sha256(listing.encode())}"
    assert len({asset.file for asset in ASSETS.values()}) == len(ASSETS)
    published = [asset for asset in ASSETS.values() if asset.group == "published"]
    assert len(published) == 5 and all(asset.certain and asset.size for asset in published)
    assert [len(asset.files) for asset in published if asset.files] == [94, 94]
    celeba = [asset.path.parent for asset in ASSETS.values() if asset.group == "celeba"]
    assert len(celeba) == 3 and len(set(celeba)) == 1  # as faces reads it


def test_a_file_is_fetched_once(server, thing, cache):
    place = assets.fetch("thing")
    assert place == cache / "things" / "thing.txt" and place.read_bytes() == CONTENT
    assert assets.checked("thing") == (place, sha256(CONTENT)) and assets.problems() == {
        "thing": None
    }
    assert assets.fetch("thing") == place
    assert len(server.log) == 1 and cached(cache) == ["things/thing.txt"]


def test_a_truncated_transfer_goes_on_where_it_stopped(server, thing):
    server.plan = ["cut", "cut"]
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert [asked is None for _, asked in server.log] == [True, False, False]


def test_a_transfer_that_keeps_breaking_is_resumed_by_the_next_call(server, thing, cache):
    server.plan = ["cut"] * 5
    with pytest.raises(
        SalattackError, match=r"not downloaded \(Download is incomplete.*run the"
    ) as e:
        assets.fetch("thing")
    assert "`salattack assets add thing FILE`" in str(e.value) and "\n" not in str(e.value)
    assert not (cache / "things").exists()
    have = sum(path.stat().st_size for path in cache.rglob("*.part") if path.is_file())
    assert 0 < have < len(CONTENT)
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert server.log[-1][1] == f"bytes={have}-" and cached(cache) == ["things/thing.txt"]


def test_halves_of_two_versions_are_not_joined(server, thing):
    thing(checksum="")
    server.contents["/thing.txt"] = CONTENT[::-1]
    server.plan = ["cut"] * 5
    with pytest.raises(SalattackError, match="incomplete"):
        assets.fetch("thing")
    server.contents["/thing.txt"] = CONTENT
    assert assets.fetch("thing").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_starts_again_in_the_next_call(server, thing, cache):
    server.plan = ["cut", "no ranges"]
    with pytest.raises(SalattackError, match="did not honor the requested byte range"):
        assets.fetch("thing")
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert cached(cache) == ["things/thing.txt"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (["404"], "404 Client Error"),
        (["503"], "503 Server Error"),
        (["page"], "a web page .“Quota exceeded”. came instead of thing.txt"),
    ],
)
def test_what_is_no_file_is_refused_with_a_way_out(server, thing, cache, plan, message):
    server.plan = plan
    with pytest.raises(SalattackError, match=message) as error:
        assets.fetch("thing")
    assert "by hand from https://things.example and run `salattack assets" in str(error.value)
    assert "\n" not in str(error.value) and cached(cache) == []


def test_a_refusal_of_google_drive_is_one_line(thing, monkeypatch):
    def refuse(*_, **__):
        raise gdown.exceptions.FileURLRetrievalError("Failed:\n\n\tmany\n\taccesses.\n\nSee")

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(SalattackError, match=r"not downloaded \(Failed: many accesses\); run"):
        assets.fetch("thing")


def test_a_wrong_checksum_is_refused_and_replaces_nothing(server, thing, cache):
    server.contents["/thing.txt"] = wrong = CONTENT[:-1] + b"!"
    place = cache / "things" / "thing.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"old and damaged")
    with pytest.raises(SalattackError, match="is not the published thing: ") as error:
        assets.fetch("thing")
    assert sha256(wrong) in str(error.value) and sha256(CONTENT) in str(error.value)
    assert place.read_bytes() == b"old and damaged" and cached(cache) == ["things/thing.txt"]
    server.contents["/thing.txt"] = CONTENT
    assert assets.fetch("thing").read_bytes() == CONTENT


def test_an_md5_does_where_no_sha256_is_known(thing):
    thing(checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assets.fetch("thing").write_bytes(b"damaged")
    with pytest.raises(SalattackError, match=r"is damaged: .* md5 .*; run `salattack assets fetch"):
        assets.checked("thing")


def test_a_first_checksum_is_recorded_and_finds_later_damage(thing, cache):
    thing(checksum="")
    place = assets.fetch("thing")
    assert assets.checked("thing") == (place, sha256(CONTENT))
    place.write_bytes(CONTENT[:-1])
    assert f"expected {sha256(CONTENT)}" in assets.problems()["thing"]
    place.write_bytes(CONTENT)
    place.with_name("thing.txt.sha256").unlink()
    assert assets.problems() == {"thing": "was never verified"}
    assets.add("thing", place)
    assert assets.problems() == {"thing": None}


def test_two_processes_fetch_once(server, thing, cache):
    server.plan = ["slow"]
    code = (
        "import sys; from salattack.runtime import assets; "
        "assets.ASSETS = {'thing': assets.Asset(name='thing', file='thing', address=sys.argv[1], "
        "licence='', source='', checksum=sys.argv[2])}; "
        "print('ready', flush=True); sys.stdin.readline(); print(assets.fetch('thing'))"
    )
    command = [sys.executable, "-c", code, thing().address, thing().checksum]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said == [f"{cache / 'thing'}\n"] * 2
    assert len(server.log) == 1 and cached(cache) == ["thing"]


def test_a_full_disk_is_told_and_the_next_call_resumes(server, thing, cache, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(SalattackError, match=r"cache is full \(0.0 MB free\); free") as error:
            assets.fetch("thing")
    assert "SALATTACK_CACHE" in str(error.value) and not (cache / "things").exists()
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert server.log[-1][1] and cached(cache) == ["things/thing.txt"]


def test_a_cache_that_cannot_be_is_told(thing, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SALATTACK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SalattackError, match=r"cannot use .*cache: Not a dir.*SALATTACK_CACHE"):
        assets.fetch("thing")


def test_the_wanted_file_is_taken_out_of_a_zip(server, thing, cache, tmp_path):
    thing(member="thing.txt")
    extra = ("models/notes.txt", "x"), ("models/thing.txt/", "")
    source = zipped(tmp_path / "z.zip", ("models/thing.txt", CONTENT), *extra)
    server.contents["/thing.txt"] = source.read_bytes()
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert assets.add("thing", source).read_bytes() == CONTENT
    assert cached(cache) == ["things/thing.txt"]


def test_a_zip_without_the_file_or_with_damage_is_refused(server, thing, cache, tmp_path):
    thing(member="thing.txt", inferred=True)
    damaged = bytearray(zipped(tmp_path / "z.zip", ("thing.txt", CONTENT)).read_bytes())
    damaged[200] ^= 255
    other = zipped(tmp_path / "z.zip", ("other", "x")).read_bytes()
    two = zipped(tmp_path / "z.zip", ("a/thing.txt", "x"), ("thing.txt", "y")).read_bytes()
    cases = {other: "holds 0 files named thing", two: "holds 2 files named thing"}
    cases |= dict.fromkeys((bytes(damaged), b"PK\3\4 no more", b"no zip"), "is damaged")
    for content, message in cases.items():
        server.contents["/thing.txt"] = content
        with pytest.raises(SalattackError, match=message):
            assets.fetch("thing")
        assert cached(cache) == []


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


UNSAFE = (
    "../thing.txt",
    "a/../../b",
    "/elsewhere/b",
    "..\\b",
    "\\\\host\\b",
    "C:\\b",
    "c:b",
    link("b"),
)


@pytest.mark.parametrize("name", UNSAFE)
def test_a_zip_with_a_link_or_a_leaving_path_is_refused(server, thing, cache, tmp_path, name):
    source = zipped(tmp_path / "z.zip", ("thing.txt", CONTENT), (name, b"evil"))
    server.contents["/thing.txt"] = source.read_bytes()
    thing(member="thing.txt")
    for bring in (lambda: assets.fetch("thing"), lambda: assets.add("thing", source)):
        with pytest.raises(SalattackError, match=r"refused: .* is a link or leaves its folder"):
            bring()
    assert cached(cache) == [] and source.exists()


def test_a_file_by_hand_is_verified_and_copied(thing, cache, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"another")
    with pytest.raises(SalattackError, match=r"not the published thing: .*expected"):
        assets.add("thing", mine)
    mine.write_bytes(PAGE)
    with pytest.raises(SalattackError, match="a web page"):
        assets.add("thing", mine)
    with pytest.raises(SalattackError, match=r"nowhere is not a file; give the path of thing.txt"):
        assets.add("thing", tmp_path / "nowhere")
    assert cached(cache) == []
    mine.write_bytes(CONTENT)
    assert assets.add("thing", mine).read_bytes() == mine.read_bytes() == CONTENT


def test_a_folder_is_fetched_and_verified_as_a_whole(server, folder, cache, tmp_path):
    place = assets.fetch("thing")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == FOLDER
    assert assets.checked("thing") == (place, folder.checksum.removeprefix("sha256:"))
    shutil.copytree(place, tmp_path / "mine")
    (place / "b.npy").write_bytes(b"damaged")
    assert re.match(r"is damaged: b\.npy has sha256", assets.problems()["thing"])
    assert assets.add("thing", tmp_path / "mine") == place and assets.problems() == {"thing": None}
    (place / "c.npy").unlink()
    assert assets.problems() == {"thing": "is damaged: c.npy is missing"}
    assets.fetch("thing")
    assert assets.problems() == {"thing": None}
    (tmp_path / "mine" / "c.npy").unlink()
    with pytest.raises(SalattackError, match=r"mine/c\.npy is not a file; give the path of folder"):
        assets.add("thing", tmp_path / "mine")


def test_a_folder_that_lacks_a_file_is_not_cached_and_resumes(server, folder, cache):
    third = server.contents.pop("/folder/c.npy")
    with pytest.raises(SalattackError, match=r"folder/c\.npy was not downloaded \(404"):
        assets.fetch("thing")
    assert not (cache / "things").exists() and assets.problems() == {}
    server.contents["/folder/c.npy"] = third
    assets.fetch("thing")
    files = [path for path, _ in server.log]
    assert assets.problems() == {"thing": None} and files.count("/folder/a.npy") == 1
    assert cached(cache) == [f"things/folder/{file}" for file in FOLDER]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"wrong", r"not the published thing: b\.npy has sha256"), (PAGE, r"came instead of b\.npy")],
)
def test_a_folder_with_one_wrong_file_is_not_cached(server, folder, cache, content, message):
    server.contents["/folder/b.npy"] = content
    with pytest.raises(SalattackError, match=message):
        assets.fetch("thing")
    assert not (cache / "things").exists()
    server.contents["/folder/b.npy"] = FOLDER["b.npy"]
    assets.fetch("thing")
    assert assets.problems() == {"thing": None}


def test_the_commands(server, thing, cache, tmp_path, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(app, ["assets", *arguments])

    assert "–" in run("list").stdout and "is empty" in run("verify").stdout
    missing = run("path", "thing").exception
    assert isinstance(missing, SalattackError)
    assert "is not in the cache; run `salattack assets fetch thing`" in str(missing)
    fetched = run("fetch", "thing")
    assert fetched.stdout.strip() == run("path", "thing").stdout.strip()
    assert "MIT" in fetched.stderr and Path(fetched.stdout.strip()).read_bytes() == CONTENT
    row = next(line for line in run("list").stdout.splitlines() if line.startswith("thing"))
    assert all(word in row for word in ("1.5 MB", "present", "MIT", server.address))
    assert (run("verify").exit_code, run("verify").stdout) == (0, "thing: intact\n")
    Path(fetched.stdout.strip()).write_bytes(b"x")
    damage = run("verify")
    assert damage.exit_code == 1 and "is damaged: thing.txt has sha256" in damage.stdout
    (tmp_path / "mine").write_bytes(CONTENT)
    assert run("add", "thing", str(tmp_path / "mine")).exit_code == 0
    assert run("verify").exit_code == 0
    asset = thing(inferred=True, checksum=f"sha256:{'0' * 64}", group="all")
    assert "expected 000" in run("add", "thing", str(tmp_path / "mine")).stderr
    assert "unknown asset 'other'; known: thing" in str(run("fetch", "other").exception)
    second = replace(asset, name="second", file="b", licence="academic use only")
    monkeypatch.setitem(assets.ASSETS, "second", second)
    server.plan = ["503"]
    group = run("fetch", "all")
    assert group.stdout.split() == [str(asset.path)] and "503" in str(group.exception)
    assert "academic use only" in group.stderr  # before the download


def checkpoint(path, network, **extra):
    """Write a checkpoint as StarGAN's authors did, with running statistics."""
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.randn(module.num_features)
            state[f"{name}.running_var"] = torch.rand(module.num_features)
    torch.save(state | extra, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.filterwarnings("ignore:stargan-celeba-128 may not be")
def test_a_generator_loads_from_the_cache_and_is_hashed_once(
    cache, tmp_path, photos, target, monkeypatch
):
    first, second = StarGAN(conv_dim=8), StarGAN(conv_dim=8)
    photos, target = photos[:1, :, ::2, ::2], target[:1]
    source = checkpoint(tmp_path / "200000-G.ckpt", first)
    archive = zipped(tmp_path / "z.zip", ("models/200000-G.ckpt", source.read_bytes()))
    with pytest.raises(
        SalattackError, match=r"run `salattack assets fetch stargan-celeba-128`, or"
    ):
        load_generator("stargan-celeba-128", device="cpu")
    place = assets.add("stargan-celeba-128", archive)

    def load():
        with pytest.warns(UserWarning, match="200000-G.ckpt is not the published"):
            return load_generator("stargan-celeba-128", device="cpu")

    torch.testing.assert_close(load()(photos, target), first(photos, target), atol=1e-5, rtol=0)
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda f, kind: hashed.append(f.name) or digest(f, kind)
    )
    torch.testing.assert_close(load()(photos, target), first(photos, target), atol=1e-5, rtol=0)
    assert hashed == [str(place)]

    place.unlink()
    assets.add("stargan-celeba-128", checkpoint(tmp_path / "new.ckpt", second))
    torch.testing.assert_close(load()(photos, target), second(photos, target), atol=1e-5, rtol=0)
    place.write_bytes(place.read_bytes()[:-10])
    with pytest.raises(SalattackError, match="is damaged"):
        load_generator("stargan-celeba-128", device="cpu")


@pytest.mark.filterwarnings("ignore:stargan-celeba-128 may not be")
def test_a_cached_file_that_does_not_fit_is_named(tmp_path):
    source = checkpoint(tmp_path / "g.ckpt", StarGAN(conv_dim=8), head=torch.zeros(1))
    assets.add("stargan-celeba-128", source)
    with pytest.raises(SalattackError, match=r"200000-G\.ckpt does not fit StarGAN: Unexpected"):
        load_generator("stargan-celeba-128", device="cpu")


def test_pfan_loads_from_the_cache(tmp_path):
    state = PFAN().state_dict()
    torch.save({"model": state, "epoch": 204}, tmp_path / "pfan.pth")
    assets.add("pfan-duts", tmp_path / "pfan.pth")
    loaded = load_saliency("pfan-duts", device="cpu").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded.keys() | state.keys())

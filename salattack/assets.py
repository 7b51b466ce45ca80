"""Published files that the package does not hold: fetched, verified, kept in a cache folder.

The folder is the system's own for caches, or the one that the environment variable SALATTACK_CACHE
names. A file comes into its place whole and checked, or not at all.
"""

import json
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pooch
from filelock import FileLock, Timeout
from pooch.hashes import hash_matches

from .errors import SalattackError, one_of
from .files import written_whole
from .transfer import (
    DiskFullError,
    describe_page,
    download,
    download_from_drive,
    forget,
    room,
    unpack,
    zip_members,
)

ZIP, PICKLE = b"PK\3\4", b"\x80\x02"
BEGINNINGS = {".zip": (ZIP,), ".ckpt": (ZIP, PICKLE), ".pth": (ZIP, PICKLE)}  # torch writes both


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A published file.

    Attributes:
        name: what it is called here; the model's name where it holds weights.
        file: its place in the cache.
        address: where it is fetched from.
        size: of the file in bytes, None where unknown.
        checksum: of the file, "sha256:…" or "md5:…", None where none is known.
        inferred: the checksum's owner is a guess, so that a mismatch is a warning, not an error.
        member: the file's name inside the zip at ``address``; None when it lies there bare.
        licence: the terms it comes under.
        source: the page that tells of it, should the address have moved.
    """

    name: str
    file: str
    address: str
    size: int | None = None
    checksum: str | None = None
    inferred: bool = False
    member: str | None = None
    licence: str
    source: str

    @property
    def path(self) -> Path:
        """Where it lies in the cache once it is there."""
        return cache() / self.file

    @property
    def by_hand(self) -> str:
        """What to do when the address does not give the file."""
        return (
            f"get {self.path.name} by hand (see {self.source}) and run "
            f"`salattack assets add {self.name} FILE`"
        )


def _stargan(size: int, key: str, sha256: str) -> Asset:
    return Asset(
        name=f"stargan-celeba-{size}",
        file=f"stargan-celeba-{size}/200000-G.ckpt",
        address=f"https://www.dropbox.com/s/{key}/celeba-{size}x{size}-5attrs.zip?dl=1",
        size=33_764_594,
        checksum=f"sha256:{sha256}",
        inferred=True,  # public pointers name both sums; which is which follows from their folders
        member="200000-G.ckpt",
        licence="MIT",
        source="https://github.com/yunjey/stargan",
    )


def _celeba(part: str, file: str, key: str, size: int, md5: str) -> Asset:
    # Checksums are those of torchvision.datasets.CelebA, sizes what its downloads print.
    return Asset(
        name=f"celeba-{part}",
        file=f"celeba/{file}",
        address=f"https://drive.google.com/uc?id={key}",
        size=size,
        checksum=f"md5:{md5}",
        licence="non-commercial research",
        source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    )


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        _stargan(
            128,
            "7e966qq0nlxwte4",
            "5d8ee48fa2f5232f4bc0919a9ec795409041181688a1e0f596adec754b3ddd5c",
        ),
        _stargan(
            256,
            "zdq6roqf63m0v5f",
            "399a26023ec159fd3a9ddd04603bcb0fb34b647588a9e4e8acc9bf7da3774d44",
        ),
        Asset(
            name="stargan-v2-celeba-hq-256",
            file="stargan-v2-celeba-hq-256/100000_nets_ema.ckpt",
            address="https://www.dropbox.com/s/96fmei6c93o8b8t/100000_nets_ema.ckpt?dl=1",
            licence="CC BY-NC 4.0",
            source="https://github.com/clovaai/stargan-v2",
        ),
        Asset(
            name="attgan-celeba-128",
            file="attgan-celeba-128/128_shortcut1_inject1_none.pth",
            address="http://bit.ly/attgan-pretrain",  # a folder of zips: by hand
            licence="code MIT; trained on CelebA (non-commercial)",
            source="https://github.com/elvisyjlin/AttGAN-PyTorch",
        ),
        Asset(
            name="ganimation-celeba-128",
            file="ganimation-celeba-128/30_net_gen.pth",
            # A folder: by hand.
            address="https://drive.google.com/drive/folders/1DJHeeLwZ3OsbiesvH7UM44cB3NxhebxF",
            licence="code MIT; trained on CelebA (non-commercial)",
            source="https://github.com/donydchen/ganimation_replicate",
        ),
        Asset(
            name="cyclegan-vangogh-256",
            file="cyclegan-vangogh-256/style_vangogh.pth",
            address="http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/"
            "style_vangogh.pth",
            licence="BSD",
            source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
        ),
        Asset(
            name="pfan-duts",
            file="pfan-duts/best-model_epoch-204_mae-0.0505_loss-0.1370.pth",
            address="https://drive.google.com/uc?id=1Sc7dgXCZjF4wVwBihmIry-Xk7wTqrJdr",
            licence="none stated: trained on DUTS-TR (non-commercial)",
            source="https://github.com/sairajk/"
            "PyTorch-Pyramid-Feature-Attention-Network-for-Saliency-Detection",
        ),
        _celeba(
            "images",
            "img_align_celeba.zip",
            "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
            1_443_490_838,
            "00d2c5bc6d35e252742224ab0c1e8fcb",
        ),
        _celeba(
            "attributes",
            "list_attr_celeba.txt",
            "0B7EVK8r0v71pblRyaVFSWGxPY0U",
            26_721_026,
            "75e246fa4810816ffd6ee81facbd244c",
        ),
        _celeba(
            "partition",
            "list_eval_partition.txt",
            "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
            2_836_386,
            "d32c9cbf5e040fd4025c592c306e6668",
        ),
    )
}


def cache() -> Path:
    """Return the cache folder; it need not exist."""
    return Path(os.environ.get("SALATTACK_CACHE") or pooch.os_cache("salattack")).expanduser()


def known(name: str) -> Asset:
    """Return the asset of that name.

    Raises:
        SalattackError: an unknown name.
    """
    if name not in ASSETS:
        raise one_of("asset", name, ASSETS)
    return ASSETS[name]


def fault(asset: Asset) -> str | None:
    """Return what is wrong with the file in the cache, or None when it is whole.

    It is compared to the known checksum and, where that is unknown or inferred, to the one that
    was recorded when the file came.
    """
    if not asset.path.is_file():
        return "is not in the cache"
    if asset.checksum and hash_matches(asset.path, asset.checksum):
        return None
    if asset.checksum and not asset.inferred:
        return f"is damaged: {_sums(asset, asset.path)}"
    try:
        recorded = json.loads(_record(asset).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"came unchecked; run `salattack assets add {asset.name} {asset.path}`"
    found = pooch.file_hash(asset.path)
    return None if found == recorded else f"is damaged: sha256 {found}, it came as {recorded}"


def path(name: str) -> Path:
    """Return the place of a file of the cache that is there and whole.

    Raises:
        SalattackError: an unknown name, a file that is missing, damaged, or came unchecked.
    """
    asset = known(name)
    if problem := fault(asset):
        raise SalattackError(
            f"{asset.path} {problem}; `salattack assets fetch {name}` gets a good one"
        )
    return asset.path


def verify() -> dict[str, str | None]:
    """Return what is wrong (None: nothing) with each file that is in the cache, by name."""
    return {name: fault(asset) for name, asset in ASSETS.items() if asset.path.exists()}


def fetch(name: str) -> Path:
    """Bring a file into the cache, unless it is there and whole, and return its place.

    A transfer that broke off goes on where it stopped; a second process waits for the first.

    Raises:
        SalattackError: an unknown name; an address that gives no file, or another one than the
            known; a connection that keeps breaking; a full disk.

    Warns:
        UserWarning: an inferred checksum does not match.
    """
    asset = known(name)
    with _locked(asset):
        if fault(asset) is None:
            return asset.path
        part, came = asset.path.with_name(f".{asset.path.name}.part"), False
        try:
            if urlsplit(asset.address).hostname == "drive.google.com":
                download_from_drive(asset.address, part, asset.size)
            else:
                download(asset.address, part, None if asset.member else asset.size)
            came = True
            _file(asset, part, fetched=True)
        except DiskFullError:
            raise  # what came is kept, and the address is not to blame
        except SalattackError as error:
            if came:  # all of it, and it is not the file: there is nothing to go on with
                forget(part)
            raise SalattackError(f"{error}; or {asset.by_hand}") from error
        forget(part)
    return asset.path


def add(name: str, file: str | Path) -> Path:
    """Verify a file that came by another way, copy it into the cache, and return its place.

    Args:
        name: of the asset.
        file: the file, or the published zip that holds it; it stays as it is.

    Raises:
        SalattackError: an unknown name, an unreadable or another file than the known, a zip with
            unsafe paths, a full disk, or a whole file that is already there.

    Warns:
        UserWarning: an inferred checksum does not match.
    """
    asset, file = known(name), Path(file)
    if not file.is_file():
        raise SalattackError(f"{file} is not a file; give the path of {asset.path.name}")
    with _locked(asset):
        _file(asset, file, fetched=False)
    return asset.path


def _file(asset: Asset, arrived: Path, *, fetched: bool) -> None:
    """Check what arrived, put the wanted file in its place, and record its checksum."""
    member = _look(asset, arrived, packed=fetched and asset.member is not None)
    size = member.file_size if member else arrived.stat().st_size
    with written_whole(asset.path) as beside:
        with room(asset.path.parent, 0 if fetched and not member else size):
            if member:
                unpack(arrived, member, beside)
            elif fetched:
                arrived.replace(beside)
            else:
                shutil.copyfile(arrived, beside)
        _check(asset, beside)
        sums = {"sha256": pooch.file_hash(beside), "bytes": size}
    came_from = asset.address if fetched else str(arrived)
    with written_whole(_record(asset)) as beside:
        beside.write_text(json.dumps({**sums, "from": came_from}, indent=2) + "\n")


def _record(asset: Asset) -> Path:
    return asset.path.with_name(f"{asset.path.name}.json")


def _look(asset: Asset, arrived: Path, *, packed: bool) -> zipfile.ZipInfo | None:
    """Look at how a file begins and, if it is a zip, at its paths; return the wanted member."""
    try:
        with arrived.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise SalattackError(f"{arrived} cannot be read ({error.strerror})") from error
    if start.lstrip().startswith(b"<"):
        raise SalattackError(f"{arrived} is {describe_page(start)}, not {asset.path.name}")
    kind = ".zip" if packed else asset.path.suffix
    if not start.startswith(BEGINNINGS.get(kind, b"")):
        raise SalattackError(f"{arrived} is not a {kind} file: it begins with {start[:8]!r}")
    if not start.startswith(ZIP):
        return None
    members = zip_members(arrived)
    names = [PurePosixPath(member.filename).name for member in members]
    if asset.member is None or (not packed and "data.pkl" in names):  # torch's own zip
        return None
    if names.count(asset.member) != 1:
        count = names.count(asset.member)
        raise SalattackError(f"{arrived} holds {count} files named {asset.member}, not one")
    return members[names.index(asset.member)]


def _check(asset: Asset, new: Path) -> None:
    """Refuse a file that is not the known one, or that would replace a whole one."""
    if asset.checksum and hash_matches(new, asset.checksum):
        return
    if asset.checksum and not asset.inferred:
        raise SalattackError(f"this is not the published {asset.path.name}: {_sums(asset, new)}")
    if fault(asset) is None and pooch.file_hash(new) != pooch.file_hash(asset.path):
        raise SalattackError(
            f"{asset.path} is there and whole, and this file is another ({_sums(asset, new)}); "
            "remove the first if you want the second"
        )
    if asset.inferred:
        others = (a for a in ASSETS.values() if a.inferred and a.name != asset.name)
        other = next((a.name for a in others if hash_matches(new, a.checksum)), None)
        also = f"; it is what is known as {other}" if other else ""
        warnings.warn(
            f"{asset.name} is not the file that is known by that name: {_sums(asset, new)}{also}",
            stacklevel=4,
        )


def _sums(asset: Asset, file: Path) -> str:
    algorithm, _, expected = (asset.checksum or "sha256:").partition(":")
    sums = f"{algorithm} {pooch.file_hash(file, algorithm)}"
    sums += f", expected {expected}" if expected else ""
    if asset.size not in (None, size := file.stat().st_size):
        sums += f"; {size} bytes, expected {asset.size}"
    return sums


@contextmanager
def _locked(asset: Asset) -> Iterator[None]:
    """Keep other processes from filing the same asset meanwhile."""
    lock = FileLock(cache() / f".{asset.name}.lock")
    try:
        asset.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{asset.name}: waiting for another process", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        message = f"cannot write to {cache()}: {reason}; set SALATTACK_CACHE to another folder"
        raise SalattackError(message) from error
    try:
        yield
    finally:
        lock.release()

"""Published files that the package does not ship: download, verify, cache.

The cache is the system's cache folder, or the folder in the environment variable SALATTACK_CACHE.
An asset is one file or a folder of files. It enters the cache complete and verified, or not at all.
"""

import csv
import errno
import hashlib
import os
import re
import shutil
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir
from tqdm import tqdm

from ..errors import SalattackError, one_of
from .files import RESOURCES

OPTIONS = {"quiet": True, "use_cookies": False, "resume": True, "timeout": (10, 60), "retries": 4}
UNSAFE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:")  # a path that leaves its folder


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A published file or folder, a row of ``resources/assets.csv``."""

    name: str  # in this package; the model's name if the asset holds weights
    file: str  # its path in the cache
    address: str  # the URL; of a folder, the URL before each file name
    size: int = 0  # in bytes, 0 if unknown
    checksum: str = ""  # "sha256:…" or "md5:…", empty if unknown; of a folder, that of its listing
    inferred: bool = False  # which file the checksum is of is a guess: a mismatch only warns
    member: str = ""  # the file's name inside the zip at ``address``; empty if it is not in a zip
    files: Mapping[str, str] = field(default_factory=dict)  # of a folder: NAME.sha256's names, sums
    licence: str  # the licence and the terms of use
    source: str  # the page that describes it
    group: str = ""  # a name that `salattack assets fetch` takes for several assets together

    @property
    def path(self) -> Path:
        """Its path in the cache, whether it is there or not."""
        return cache() / self.file

    @property
    def record(self) -> Path:
        """Where the sha256 of the first download is kept, if the published one is not certain."""
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def certain(self) -> bool:
        """Whether only a file with the published checksum is accepted."""
        return bool(self.checksum) and not self.inferred

    @property
    def by_hand(self) -> str:
        """What to do when the address does not give the file."""
        then = f"run `salattack assets add {self.name} FILE`"
        return f"download {self.path.name} by hand from {self.source} and {then}"


def _asset(row: dict) -> Asset:
    listing = RESOURCES / f"{row['name']}.sha256"  # as `sha256sum` writes it
    lines = listing.read_text().splitlines() if listing.exists() else []
    row |= {"size": int(row["size"] or 0), "inferred": bool(row["inferred"])}
    return Asset(**row, files={file: sha256 for sha256, file in map(str.split, lines)})


with (RESOURCES / "assets.csv").open(newline="") as _rows:
    ASSETS = {row["name"]: _asset(row) for row in csv.DictReader(_rows)}


def cache() -> Path:
    """Return the cache folder; it need not exist."""
    return Path(os.environ.get("SALATTACK_CACHE") or user_cache_dir("salattack")).expanduser()


def known(name: str) -> Asset:
    """Return the asset of that name; an unknown one is a SalattackError."""
    if name not in ASSETS:
        raise one_of("asset", name, ASSETS)
    return ASSETS[name]


def checked(name: str) -> tuple[Path, str]:
    """Return the path of an asset in the cache and its checksum, for which it is read once.

    One that is unknown, missing, damaged or was never verified is a SalattackError.
    """
    asset = known(name)
    found, problem = _inspect(asset)
    if problem:
        advice = f"run `salattack assets fetch {name}`, or {asset.by_hand}"
        raise SalattackError(f"{asset.path} {problem}; {advice}")
    return asset.path, found


def problems() -> dict[str, str | None]:
    """Return, for each asset in the cache, what is wrong with it (None: nothing), by name."""
    return {name: _inspect(asset)[1] for name, asset in ASSETS.items() if asset.path.exists()}


def fetch(name: str) -> Path:
    """Download an asset into the cache, unless it is there and intact, and return its path.

    A second process waits for the first. The next call resumes an interrupted download, unless the
    checksum is uncertain: then nobody would notice that two versions of a file were joined. An
    inferred checksum that does not match is a warning. An unknown name, an address that does not
    give the published file, a connection that keeps breaking and a full disk are a SalattackError.
    """
    asset = known(name)
    with _staged(asset, resume=asset.certain) as staged:
        if _inspect(asset)[1]:
            how = {"desc": name, "unit": "B", "unit_scale": True, "disable": None}
            with tqdm(total=asset.size or None, **how) as bar:
                _collect(asset, staged, lambda file, part: _download(asset, file, part, bar))
            _install(asset, staged, packed=bool(asset.member))
    return asset.path


def add(name: str, file: str | Path) -> Path:
    """Verify what was downloaded by hand, copy it into the cache, and return its path there.

    ``file`` is the file, the published zip that holds it, or the folder. An unknown name, a missing
    or wrong file, an unsafe zip and a full disk are a SalattackError.
    """
    asset, file = known(name), Path(file)
    missing = [file / part for part in asset.files or [""] if not (file / part).is_file()]
    if missing:
        raise SalattackError(f"{missing[0]} is not a file; give the path of {asset.path.name}")
    with _staged(asset, resume=False) as staged:
        _collect(asset, staged, lambda part, copy: shutil.copyfile(file / part, copy))
        _install(asset, staged, packed=bool(asset.member) and zipfile.is_zipfile(file))
    return asset.path


@contextmanager
def _staged(asset: Asset, *, resume: bool) -> Iterator[Path]:
    """Lock an asset and give the path where it is collected before it is verified."""
    folder = cache()
    stage = folder / f".{asset.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{asset.name}.lock"):
            if not resume:
                shutil.rmtree(stage, ignore_errors=True)
            yield stage / asset.path.name
    except OSError as error:
        problem = f"cannot use {error.filename or folder}: {error.strerror}; fix this"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(folder).free / 1e6
            problem = f"the disk of {folder} is full ({free:.1f} MB free); free some space"
        advice = "or set SALATTACK_CACHE to another folder, and run the command again"
        raise SalattackError(f"{problem} {advice}") from error


def _collect(asset: Asset, staged: Path, take: Callable[[str, Path], object]) -> None:
    """Have ``take`` write each file of an asset to its path in ``staged``; refuse web pages."""
    for file in asset.files or [""]:
        part = staged / file
        part.parent.mkdir(parents=True, exist_ok=True)
        if not part.exists():
            take(file, part)
        with part.open("rb") as opened:
            start = opened.read(4096).lstrip()
        if start.startswith(b"<"):
            part.unlink()
            title = re.search(rb"(?is)<title[^>]*>(.*?)</title", start)
            said = " ".join(title[1].decode("utf-8", "replace").split()) if title else "untitled"
            page = f"a web page (“{said}”) came instead of {part.name}"
            raise SalattackError(f"{page}; {asset.by_hand}")


def _download(asset: Asset, file: str, part: Path, bar: tqdm) -> None:
    """Download one file; gdown retries, resumes and checks the length."""
    import gdown

    def progress(received: int, total: int | None) -> None:
        bar.update(before + received - bar.n)
        if (total or 0) - received > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    address, before = asset.address + file, bar.n
    try:
        gdown.download(address, str(part), progress=progress, **OPTIONS)
    except (gdown.exceptions.DownloadError, OSError) as error:
        if getattr(error, "errno", None):  # from the disk: requests' own OSErrors have none
            raise
        if type(error) is gdown.exceptions.DownloadError and error.__cause__ is None:
            shutil.rmtree(part.parent)  # the server cannot resume: the next call starts again
        reason = " ".join(re.split(r";|\.\n", str(error))[0].split())
        advice = f"run the command again, or {asset.by_hand}"
        raise SalattackError(f"{address} was not downloaded ({reason}); {advice}") from error


def _install(asset: Asset, staged: Path, *, packed: bool) -> None:
    """Verify what was collected and move it to its place."""
    try:
        if packed:
            _unpack(staged, asset.member)
        found, problem = _compare(asset, staged, asset.checksum)
        if problem and asset.certain:
            raise SalattackError(f"this is not the published {asset.name}: {problem}")
        if problem and asset.inferred:
            warnings.warn(f"{asset.name} may not be the published file: {problem}", stacklevel=3)
        if asset.path.is_dir():
            shutil.rmtree(asset.path)
        asset.path.parent.mkdir(parents=True, exist_ok=True)
        if not asset.certain:
            asset.record.write_text(f"sha256:{found}")
        staged.replace(asset.path)
    finally:
        shutil.rmtree(staged.parent, ignore_errors=True)


def _inspect(asset: Asset) -> tuple[str, str | None]:
    """Return the checksum of an asset in the cache, and what is wrong with it."""
    if not asset.path.exists():
        return "", "is not in the cache"
    if not asset.certain and not asset.record.is_file():
        return "", "was never verified"
    expected = asset.checksum if asset.certain else asset.record.read_text()
    found, problem = _compare(asset, asset.path, expected)
    return found, problem and f"is damaged: {problem}"


def _compare(asset: Asset, place: Path, checksum: str) -> tuple[str, str | None]:
    """Return the checksum of a file or folder, and how it differs from the expected one."""
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    for file, wanted in (asset.files or {"": expected}).items():
        part = place / file
        if not part.is_file():
            return "", f"{part.name} is missing"
        with part.open("rb") as opened:
            found = hashlib.file_digest(opened, algorithm).hexdigest()
        if found != wanted:
            return found, f"{part.name} has {algorithm} {found}, expected {wanted}"
    return expected, None


def _unpack(path: Path, wanted: str) -> None:
    """Replace a zip by the one file in it that is wanted; paths in the zip are never written to."""
    beside = path.with_name(f"{path.name}.unpacked")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                if UNSAFE.search(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
                    why = f"{entry.filename!r} in it is a link or leaves its folder"
                    raise SalattackError(f"the zip was refused: {why}")
            names = [entry.filename.rpartition("/")[2] for entry in entries]
            if "data.pkl" in names:  # the file itself, which torch writes as a zip
                return
            if (count := names.count(wanted)) != 1:
                raise SalattackError(f"the zip holds {count} files named {wanted}, not one")
            with archive.open(entries[names.index(wanted)]) as packed, beside.open("wb") as file:
                shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, UnicodeDecodeError) as error:
        raise SalattackError(f"the zip with {wanted} is damaged ({error})") from error
    beside.replace(path)

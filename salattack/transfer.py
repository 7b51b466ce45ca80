"""Taking a file from outside: over a bad line, onto a full disk, out of a zip with odd paths."""

import errno
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from tqdm import tqdm

from .errors import SalattackError

TRIES, WAIT = 5, 2.0  # of a transfer that breaks off; the wait, in seconds, grows by WAIT each time
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
CHUNK = 1 << 16


class DiskFullError(SalattackError):
    """No room in a folder: more room or another place mends it, another source does not."""


@contextmanager
def room(folder: Path, needed: int) -> Iterator[None]:
    """Turn a folder that is full, gets full or cannot be written to into one sentence.

    Args:
        folder: where the block writes.
        needed: in bytes; 0 where that is unknown.

    Raises:
        DiskFullError: at once when there is less room than needed, or when the block runs out.
        SalattackError: the folder cannot be written to.
    """

    def full() -> DiskFullError:
        amount = f"{needed / 1e6:.1f} MB are needed" if needed else "more is needed"
        return DiskFullError(
            f"{folder} is full: {amount}, {shutil.disk_usage(folder).free / 1e6:.1f} MB are free; "
            "make room or set SALATTACK_CACHE to another folder, and try again: what came is kept"
        )

    if shutil.disk_usage(folder).free < needed:
        raise full()
    try:
        yield
    except requests.RequestException:  # an OSError too, and not of the folder
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full() from error
        reason = error.strerror or error
        message = f"cannot write to {folder}: {reason}; set SALATTACK_CACHE to another folder"
        raise SalattackError(message) from error


def download(address: str, part: Path, size: int | None = None) -> None:
    """Fetch a file by HTTP into ``part``, after what an earlier transfer left there.

    Args:
        address: of the file; redirects are followed.
        part: grows as the file comes, and stays when the transfer breaks off.
        size: refuse a file of another size, in bytes.

    Raises:
        DiskFullError: no room for it.
        SalattackError: no such file, a web page in its place, another size, or a connection that
            broke off in each of `TRIES` tries.
    """
    for attempt in range(TRIES):
        time.sleep(WAIT * attempt)
        try:
            return _transfer(address, part, size)
        except requests.RequestException as error:
            last = error
    raise SalattackError(
        f"{address} was not read to its end in {TRIES} tries ({_reason(last)}); "
        "try again to go on from where it stopped"
    ) from last


def _transfer(address: str, part: Path, size: int | None) -> None:
    tag = _tag(part)
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text()
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        status, given = answer.status_code, answer.headers
        if status == 416 and given.get("Content-Range") == f"bytes */{have}":
            return  # all of it had come
        resumed = status == 206
        goes_on = given.get("Content-Range", "").startswith(f"bytes {have}-")
        if status == 416 or (resumed and not goes_on):
            forget(part)
            raise requests.ConnectionError("the server cannot go on where the transfer stopped")
        if 400 <= status < 500 and status not in (408, 429):
            raise SalattackError(f"{address} answers {status} {answer.reason}")
        answer.raise_for_status()
        if given.get("Content-Type", "").startswith("text/html"):
            page = next(answer.iter_content(CHUNK), b"")
            raise SalattackError(f"{address} gives {describe_page(page)} instead of the file")
        have = have if resumed else 0
        length = given.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if size is not None and total not in (None, size):
            raise SalattackError(f"{address} gives {total} bytes instead of {size}")
        with room(part.parent, (total or have) - have):
            validator = given.get("ETag", "W/")
            if validator.startswith("W/"):  # too weak to join two halves by
                validator = given.get("Last-Modified", "")
            tag.unlink(missing_ok=True)
            if validator:
                tag.write_text(validator)
            with part.open("ab" if resumed else "wb") as file, _bar(part, total, have) as bar:
                for chunk in answer.iter_content(CHUNK):
                    bar.update(file.write(chunk))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError("the connection closed early")


def _reason(error: Exception) -> str:
    """Return the innermost of what requests and gdown say, on one line."""
    if isinstance(error.__cause__, requests.RequestException):
        error = error.__cause__
    while error.args and isinstance(
        inner := getattr(error.args[0], "reason", error.args[0]), Exception
    ):
        error = inner
    return " ".join(str(error.args[0] if error.args else error).split())


def _tag(part: Path) -> Path:
    """Return where it stands which version of the file the part is of."""
    return part.with_name(f"{part.name}.tag")


def forget(part: Path) -> None:
    """Remove what a transfer left."""
    for left in (part, _tag(part)):
        left.unlink(missing_ok=True)


def download_from_drive(address: str, part: Path, size: int | None = None) -> None:
    """Fetch a file from Google Drive into ``part``; gdown keeps its own part beside meanwhile.

    Args:
        address: with the file's id.
        part: appears when all has come; taken as it is when it is there.
        size: in bytes, for the bar and the room.

    Raises:
        DiskFullError: no room for it.
        SalattackError: Drive does not give the file.
    """
    import gdown
    from gdown.exceptions import DownloadError

    def show(arrived: int, total: int | None) -> None:
        bar.total = total
        bar.update(arrived - bar.n)

    with room(part.parent, 0 if part.exists() else size or 0), _bar(part, size) as bar:
        try:
            gdown.download(
                address,
                str(part),
                quiet=True,
                use_cookies=False,
                resume=True,
                timeout=TIMEOUT,
                retries=TRIES - 1,
                progress=show,
            )
        except (DownloadError, requests.RequestException) as error:
            message = f"Google Drive does not give {address} ({_reason(error)})"
            raise SalattackError(message) from error


def _bar(part: Path, total: int | None, have: int = 0) -> tqdm:
    name = part.name.removeprefix(".").removesuffix(".part")
    return tqdm(  # shown on a terminal alone
        total=total, initial=have, desc=name, unit="B", unit_scale=True, leave=False, disable=None
    )


def describe_page(start: bytes) -> str:
    """Say what web page came, by the title in its first bytes."""
    title = re.search(rb"<title[^>]*>(.*?)</title", start, re.DOTALL | re.IGNORECASE)
    said = " ".join(title[1].decode("utf-8", "replace").split()) if title else ""
    return f"a web page (“{said}”)" if said else "a web page"


def zip_members(path: Path) -> list[zipfile.ZipInfo]:
    """Return the files in a zip after a look at all its paths.

    Raises:
        SalattackError: a damaged zip, or one that holds a link or a path that leaves its folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise SalattackError(f"{path} is a damaged zip ({error})") from error
    for member in members:
        name = member.orig_filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
            raise SalattackError(f"{path} is refused: {name!r} in it leaves its folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SalattackError(f"{path} is refused: {name!r} in it is a link")
    return [member for member in members if not member.is_dir()]


def unpack(path: Path, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member of a zip to ``target``, whatever path the zip gives it.

    Raises:
        SalattackError: it is damaged, encrypted or packed in an unknown way.
    """
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as packed,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise SalattackError(f"{path}: {member.filename} is damaged ({error})") from error

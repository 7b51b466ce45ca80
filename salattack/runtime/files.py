"""Files written whole or not at all, and their checksums."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SalattackError

RESOURCES = Path(__file__).parents[1] / "resources"  # what the package ships besides code


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to, and rename it to ``path`` when all went well.

    Folders are made. The name keeps the suffix, which tells many writers the format. A path that
    cannot be written to is a SalattackError.
    """
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise SalattackError(f"cannot write {path}: {reason}; choose another path") from error
    finally:
        if beside.exists():
            beside.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8 by way of `written_whole`."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal; of a folder, that of `sha256sum`'s list of it."""
    if path.is_dir():
        lines = (f"{sha256(one)}  {one.name}\n" for one in sorted(path.iterdir()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

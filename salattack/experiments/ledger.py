"""Measurements on disk, written as they are made and known by what they were made of.

SQLite: a transaction survives a kill at any moment, and Python includes it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ..errors import SalattackError
from ..faces.sets import Face
from ..images import to_uint8

KEYS = ("key", "precision")
VERSION = 2  # of the file's layout, of the keys and of the measures; 1 knew faces by their place
SCHEMA = f"""
begin;
create table if not exists measurements
    (key text, precision text, measures text not null, primary key (key, precision));
create table if not exists failures
    (source text primary key, face_id text not null, failure text not null);
pragma user_version = {VERSION};
commit;
"""


class Ledger:
    """A file of measurements that any number of evaluations, interrupted or not, share.

    A measurement's key is a checksum of all that it depends on, see `evaluate`. Names are not part
    of it: a renamed photo or attacker is not measured again, and a replaced photo is. Rows of one
    attacker and batch are written together or not at all. A row is written once.

    The file is made where it is missing; ":memory:" keeps nothing.

    Raises:
        SalattackError: the file cannot be opened, is no ledger, or has another version's layout.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self.path = path
        with self._explained():
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, timeout=60)
            (version,) = self.db.execute("pragma user_version").fetchone()
            tables = {name for (name,) in self.db.execute("select name from sqlite_master")}
            if version != VERSION and (version or "settings" in tables):
                raise SalattackError(
                    f"the ledger {path} was made by another version of salattack and is not "
                    "changed; use another ledger"
                )
            if version != VERSION:
                self.db.executescript(SCHEMA)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SalattackError(
                f"the ledger {self.path} cannot be used ({error}); what it holds is kept: "
                "make room or choose another path"
            ) from error

    def missing(self, keys: Sequence[str]) -> set[str]:
        """Return which of these keys have no measurement yet."""
        done = {key for (key,) in self._read("select key from measurements", "key", keys)}
        return set(keys) - done

    def append(self, rows: pd.DataFrame) -> None:
        """Add rows of `KEYS` and measures in one transaction; known ones stay as they are."""
        measures = rows.drop(columns=list(KEYS)).to_dict("records")
        heads = rows[list(KEYS)].itertuples(index=False, name=None)
        values = [(*h, json.dumps(m)) for h, m in zip(heads, measures, strict=True)]
        with self._explained(), self.db:
            self.db.executemany("insert or ignore into measurements values (?, ?, ?)", values)

    def rows(self, keys: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the measurements of these keys (all when None) in the order they were written.

        The columns are `KEYS` and, as float64, each measure.
        """
        found = self._read("select key, precision, measures from measurements", "key", keys)
        measures = pd.DataFrame([json.loads(text) for *_, text in found], dtype="float64")
        return pd.DataFrame([head for *head, _ in found], columns=list(KEYS)).join(measures)

    def fail(self, source: str, face_id: str, reason: str) -> None:
        """Record why a face could not be read; it is tried again when a run is restarted."""
        values = (source, face_id, reason)
        with self._explained(), self.db:
            self.db.execute("insert or replace into failures values (?, ?, ?)", values)

    def forgive(self, sources: Sequence[str]) -> None:
        """Remove the failures of these sources, which are about to be tried again."""
        with self._explained(), self.db:
            query = f"delete from failures where {_AMONG.format('source')}"
            self.db.execute(query, (json.dumps(list(sources)),))

    def failures(self, sources: Sequence[str] | None = None) -> pd.DataFrame:
        """Return face_id, source and failure of what could not be read, of these sources or all."""
        query = "select face_id, source, failure from failures"
        found = self._read(query, "source", sources)
        return pd.DataFrame(found, columns=["face_id", "source", "failure"])

    def _read(self, query: str, column: str, among: Sequence[str] | None) -> list[tuple]:
        where = "" if among is None else f" where {_AMONG.format(column)}"
        values = () if among is None else (json.dumps(list(among)),)
        with self._explained():
            return self.db.execute(f"{query}{where} order by rowid", values).fetchall()


# As JSON, since SQLite limits how many parameters a query may have.
_AMONG = "{} in (select value from json_each(?))"


def content(face: Face) -> str:
    """Return a checksum of a face's labels and 8-bit pixels."""
    digest = hashlib.sha256(json.dumps(face.labels.tolist()).encode())
    digest.update(to_uint8(face.image).contiguous().numpy().tobytes())
    return digest.hexdigest()


def checksum(value: object) -> str:
    """Return a checksum of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

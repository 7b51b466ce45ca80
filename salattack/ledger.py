"""Measurements on disk as they are made: one row per image × attacker × attribute × precision.

SQLite and not Parquet: a transaction survives a kill at any moment, needs no footer, and comes
with Python.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from .errors import SalattackError

KEYS = ("place", "attacker", "attribute", "precision")
SCHEMA = """
create table if not exists settings (name text primary key, value text not null);
create table if not exists faces (place integer primary key, face_id text not null, failure text);
"""


class Ledger:
    """A file of measurements that one evaluation, interrupted or not, fills.

    A face is known by its ``place`` in the sample, so that a larger, nested sample continues a
    smaller one's ledger. Rows of a place, attacker and attribute are written together or not at
    all, and once.

    Args:
        path: of the file, made where it is missing; ":memory:" keeps nothing.

    Raises:
        SalattackError: the file cannot be opened or is no ledger.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self.path = path
        with self._explained():
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, timeout=60)
            self.db.executescript(SCHEMA)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SalattackError(
                f"the ledger {self.path} cannot be used ({error}); what it holds is kept: "
                "make room or choose another place"
            ) from error

    def settle(self, settings: Mapping[str, object]) -> None:
        """Record what the measurements depend on, or check it against what is recorded.

        Settings that the ledger does not know yet (a further attacker's) are added.

        Raises:
            SalattackError: names every setting that differs.
        """
        texts = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        with self._explained(), self.db:
            known = dict(self.db.execute("select name, value from settings"))
            differ = [
                f"{name} was {known[name]}, now {text}"
                for name, text in texts.items()
                if known.get(name, text) != text
            ]
            if differ:
                raise SalattackError(
                    f"the ledger {self.path} was made with other settings: {'; '.join(differ)}; "
                    "use those, or another ledger"
                )
            self.db.executemany("insert or ignore into settings values (?, ?)", texts.items())

    def settings(self) -> dict[str, object]:
        """Return what the measurements depend on, as `settle` was told."""
        return {name: json.loads(text) for name, text in self._read("select * from settings")}

    def missing(
        self, places: Sequence[int], ids: Sequence[str], attacker: str, attributes: Sequence[str]
    ) -> list[int]:
        """Return which of these faces have no rows for their attribute yet: indices into places.

        Raises:
            SalattackError: another face has one of these places.
        """
        span = min(places), max(places)
        known = dict(
            self._read("select place, face_id from faces where place between ? and ?", span)
        )
        for place, face_id in zip(places, ids, strict=True):
            if known.get(place, face_id) != face_id:
                raise SalattackError(
                    f"the ledger {self.path} was made from other faces: number {place} was "
                    f"{known[place]} and is {face_id} now; use the same faces, or another ledger"
                )
        done: set[tuple] = set()
        if self._columns():
            query = (
                "select place, attribute from measurements "
                "where attacker = ? and place between ? and ?"
            )
            done = set(self._read(query, (attacker, *span)))
        pairs = zip(places, attributes, strict=True)
        return [i for i, pair in enumerate(pairs) if pair not in done]

    def append(self, rows: pd.DataFrame) -> None:
        """Add rows in one transaction: they are all there after a kill, or none; none twice.

        Args:
            rows: with `KEYS`, ``face_id`` and the measures.
        """
        faces = rows[["place", "face_id"]].drop_duplicates()
        measures = rows.drop(columns="face_id")
        names = ", ".join(f'"{name}"' for name in measures)
        if (known := self._columns()) and set(known) != set(measures):
            raise SalattackError(
                f"the ledger {self.path} holds other measures than this version takes; "
                "finish it with the version that began it, or use another ledger"
            )
        with self._explained(), self.db:
            self.db.execute(
                f"create table if not exists measurements "
                f"({names}, primary key ({', '.join(KEYS)}))"
            )
            self.db.executemany(
                f"insert or ignore into measurements ({names}) "
                f"values ({', '.join('?' * len(measures.columns))})",
                measures.astype(object).itertuples(index=False, name=None),
            )
            # A face that was unreadable once and is measured now is no failure any more.
            self.db.executemany(
                "insert or replace into faces values (?, ?, null)",
                faces.astype(object).itertuples(index=False, name=None),
            )

    def fail(self, place: int, face_id: str, reason: str) -> None:
        """Record why a face could not be measured; it is tried again when a run is restarted."""
        with self._explained(), self.db:
            self.db.execute(
                "insert or replace into faces values (?, ?, ?)", (place, face_id, reason)
            )

    def failures(self, n: int | None = None) -> pd.DataFrame:
        """Return place, face_id and failure of what could not be measured among the first n."""
        query = "select place, face_id, failure from faces where failure is not null and place < ?"
        return self._frame(query + " order by place", (_limit(n),))

    def rows(self, attackers: Sequence[str] | None = None, n: int | None = None) -> pd.DataFrame:
        """Return the measurements in the sample's order, whatever order they were made in.

        Args:
            attackers: these, in this order; all in the order of their names when None.
            n: of the sample's first n faces alone.
        """
        if not self._columns():
            return pd.DataFrame(columns=["face_id", *KEYS])
        query = (
            "select face_id, m.* from measurements m join faces using (place) where place < ? "
            "order by place, m.rowid"
        )
        rows = self._frame(query, (_limit(n),))
        if attackers is None:
            attackers = sorted(rows["attacker"].unique())
        rows = rows[rows["attacker"].isin(attackers)]
        rank = rows["attacker"].map({name: i for i, name in enumerate(attackers)})
        order = rows.assign(rank=rank).sort_values(["place", "rank"], kind="stable").index
        return rows.loc[order].reset_index(drop=True)

    def _columns(self) -> list[str]:
        return [row[1] for row in self._read("pragma table_info(measurements)")]

    def _read(self, query: str, values: Sequence = ()) -> list[tuple]:
        with self._explained():
            return self.db.execute(query, values).fetchall()

    def _frame(self, query: str, values: Sequence) -> pd.DataFrame:
        with self._explained():
            frame = pd.read_sql_query(query, self.db, params=values)
        measures = [c for c in frame if c not in (*KEYS, "face_id", "failure")]
        return frame.astype(dict.fromkeys(measures, "float64"))  # NaN is null in SQLite


def _limit(n: int | None) -> int:
    return 2**62 if n is None else n

import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from salattack import evaluation, tables
from salattack.errors import SalattackError
from salattack.faces import load_faces, to_pil
from salattack.ledger import Ledger
from salattack.study import open_study

ATTACKS = evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 2)


def run(study, ledger=None, attacks=ATTACKS, **options):
    options = {"batch_size": 2, "progress": False} | options
    return evaluation.evaluate(study, attacks, ledger=ledger, **options)


@pytest.fixture(scope="module")
def study():
    return open_study(n_images=5, image_size=64, device="cpu")


@pytest.fixture(scope="module")
def rows(study):
    return run(study)


def first(study, n):
    return replace(study, faces=study.faces.subset(n))


def forbidden(*_):
    raise AssertionError("computed again")


def test_what_is_done_is_read_and_not_computed(study, rows, tmp_path):
    path = tmp_path / "new" / "ledger.sqlite"
    pd.testing.assert_frame_equal(run(study, Ledger(path)), rows)
    again = run(study, Ledger(path), engine=lambda s, a, batches, t: map(forbidden, batches))
    pd.testing.assert_frame_equal(again, rows)


def test_a_larger_sample_goes_on_from_a_smaller_one(study, rows, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    small = run(first(study, 4), ledger)
    counted = []
    whole = evaluation.evaluate(
        study,
        ATTACKS,
        batch_size=2,
        ledger=ledger,
        progress=False,
        engine=lambda s, a, b, t: evaluation.measure_here(s, a, _noting(b, counted), t),
    )
    assert counted == [(4,), (4,)]
    pd.testing.assert_frame_equal(whole[whole["place"] < 4], small)
    pd.testing.assert_frame_equal(whole, rows)
    pd.testing.assert_frame_equal(run(first(study, 4), ledger), small)


def _noting(batches, counted):
    for batch in batches:
        counted += [chunk.places for chunk in batch]
        yield batch


def test_a_further_attacker_is_added(study, rows, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for name in ATTACKS:
        run(study, ledger, {name: ATTACKS[name]})
    pd.testing.assert_frame_equal(run(study, ledger), rows)


SCRIPT = """
import sys
from salattack import evaluation
from salattack.ledger import Ledger
from salattack.study import open_study
study = open_study(n_images=5, image_size=64, device="cpu")
attacks = evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 2)
evaluation.evaluate(study, attacks, batch_size=2, ledger=Ledger(sys.argv[1]), progress=False)
"""


@pytest.mark.slow
def test_killed_again_and_again_and_the_same_to_the_bit(study, rows, tmp_path):
    path = tmp_path / "ledger.sqlite"
    seen = [0]
    for _ in range(3):  # each time until a little more is written, then SIGKILL
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, path])
        while child.poll() is None and _count(path) <= seen[-1]:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen.append(_count(path))
    assert seen == sorted(set(seen)) and seen[-1] < len(rows)  # each got further, none to the end
    finished = run(study, Ledger(path))
    pd.testing.assert_frame_equal(finished, rows)
    pd.testing.assert_frame_equal(tables.table_1(finished), tables.table_1(rows))


def _count(path):
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(path, timeout=10) as db:
            return db.execute("select count(*) from measurements").fetchone()[0]
    except sqlite3.OperationalError:  # no table yet
        return 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3}, "batch_size was 2, now 3"),
        ({"targets": "Male"}, 'targets was "rotate", now "Male"'),
        (
            {"attacks": {"i-fgsm": replace(ATTACKS["i-fgsm"], steps=9)}},
            r"other settings: i-fgsm.steps was 2, now 9; use those, or another ledger",
        ),
    ],
)
def test_other_settings_are_refused_and_named(study, tmp_path, change, message):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    run(first(study, 1), ledger)
    with pytest.raises(SalattackError, match=message):
        run(first(study, 1), ledger, **change)


def test_another_arithmetic_is_refused(study, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    run(first(study, 1), ledger)
    with pytest.raises(SalattackError, match='compute was "float32", now "bfloat16"'):
        run(replace(first(study, 1), compute="bfloat16"), ledger)


def test_other_faces_are_refused(study, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    run(first(study, 2), ledger)
    others = replace(study, faces=study.faces.subset(slice(1, 3)))
    with pytest.raises(SalattackError, match=r"number 0 was .* use the same faces, or another"):
        run(others, ledger)


def test_no_ledger_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("this is no database, only some text " * 9)
    with pytest.raises(SalattackError, match=r"ledger.sqlite cannot be used \(file is not a data"):
        Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(SalattackError, match="cannot be used"):
        Ledger(tmp_path)


def test_a_full_disk_loses_nothing(study, rows, tmp_path):
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.executescript("pragma page_size = 512; create table small_pages (x);")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    run(first(study, 2), ledger)
    ledger.db.execute("pragma max_page_count = 1")  # SQLite's own "database or disk is full"
    with pytest.raises(SalattackError, match=r"full.*what it holds is kept: make room"):
        run(study, ledger, batch_size=2)
    again = Ledger(tmp_path / "ledger.sqlite")
    pd.testing.assert_frame_equal(again.rows(list(ATTACKS)), rows[rows["place"] < 2])
    pd.testing.assert_frame_equal(run(study, again), rows)


@pytest.fixture
def album(tmp_path):
    """Twenty-one photos in a folder, the third of them broken."""
    shipped = load_faces(n_images=3, image_size=64)
    for i in range(21):
        to_pil(shipped[i % 3].image).save(tmp_path / f"{i:02}.png")
    (tmp_path / "02.png").write_bytes((tmp_path / "02.png").read_bytes()[:100])
    return tmp_path


CHEAP = evaluation.attackers(["fgsm"], 0.05, 0.02, 1)


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_a_broken_photo_is_recorded_and_the_run_goes_on(album, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    study = open_study(faces=str(album), image_size=64, device="cpu")
    rows = run(study, ledger, CHEAP, batch_size=4)
    assert rows["face_id"].nunique() == 20 and "02.png" not in set(rows["face_id"])
    (failure,) = ledger.failures().itertuples(index=False)
    assert failure.place == 2 and failure.face_id == "02.png"
    assert "02.png is not a readable picture" in failure.failure
    # Mended, it is measured at the next start, and alone.
    Image.open(album / "01.png").save(album / "02.png")
    mended = run(study, ledger, CHEAP, batch_size=4)
    assert mended["face_id"].nunique() == 21 and ledger.failures().empty
    pd.testing.assert_frame_equal(
        mended[mended["place"] != 2].reset_index(drop=True), rows.reset_index(drop=True)
    )


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_too_many_broken_photos_stop_the_run(album):
    (album / "05.png").write_text("no picture")
    study = open_study(faces=str(album), image_size=64, device="cpu")
    with pytest.raises(SalattackError, match="2 of 21 images could not be read, more than 5%"):
        run(study, None, CHEAP, batch_size=4)


def test_profiles_nest():
    sizes = [n for n in evaluation.PROFILES.values() if n]
    assert sizes == sorted(sizes) == [20, 100, 500, 1000, 2000]
    with pytest.raises(SalattackError, match="unknown profile 'huge'; known: demo, tiny, small"):
        evaluation.sample_size("huge")

import inspect
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from salattack.cli import main as cli
from salattack.errors import SalattackError
from salattack.experiments import evaluation, trade_off
from salattack.experiments import table_1 as tables
from salattack.experiments.ledger import Ledger
from salattack.experiments.study import open_study
from salattack.faces import load_faces
from salattack.images import to_pil

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
        counted += [chunk.places for chunk in batch.chunks]
        yield batch


def test_a_further_attacker_is_added(study, rows, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for name in ATTACKS:
        run(study, ledger, {name: ATTACKS[name]})
    pd.testing.assert_frame_equal(run(study, ledger), rows)


SCRIPT = """
import sys
import torch
from salattack.experiments import evaluation
from salattack.experiments.ledger import Ledger
from salattack.experiments.study import open_study
torch.set_num_threads(int(sys.argv[2]))  # others round differently
study = open_study(n_images=5, image_size=64, device="cpu")
attacks = evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 2)
evaluation.evaluate(study, attacks, batch_size=2, ledger=Ledger(sys.argv[1]), progress=False)
"""


@pytest.mark.slow
def test_killed_again_and_again_and_the_same_to_the_bit(study, rows, tmp_path):
    path = tmp_path / "ledger.sqlite"
    seen = [0]
    for _ in range(3):  # each time until a little more is written, then SIGKILL
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, path, str(torch.get_num_threads())])
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


def settled(study, ledger, **change):
    """What `evaluate` gives with a ledger that has served others, which must not show."""
    found = run(study, ledger, **change)
    pd.testing.assert_frame_equal(found, run(study, **change))
    return found


@pytest.mark.slow
def test_one_ledger_serves_any_settings(study, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    two = first(study, 2)
    plain = settled(two, ledger)
    stronger = {"i-fgsm": replace(ATTACKS["i-fgsm"], steps=3)}
    changes = (
        {"targets": "Male"},
        {"attacks": stronger},
        {"study": replace(two, compute="bfloat16")},
        {"study": replace(two, origin=two.origin | {"generator": ["another", None]})},
    )
    counts = [len(ledger.rows())]
    for change in changes:
        settled(**{"study": two, "ledger": ledger} | change)
        counts.append(len(ledger.rows()))
    assert counts == sorted(set(counts))  # each was measured, none was taken from another
    pd.testing.assert_frame_equal(run(two, ledger), plain)
    assert len(ledger.rows()) == counts[-1]


def test_experiments_share_what_they_measure(study):
    ledger, two = Ledger(), first(study, 2)
    trade_off.curves(two, ["i-fgsm"], [0.05, 0.1], 2, ledger=ledger, progress=False)
    same = evaluation.attackers(["i-fgsm"], 0.05, 0.2 * 0.05, 2)
    engine = lambda s, a, batches, t: map(forbidden, batches)  # noqa: E731
    rows = evaluation.evaluate(two, same, ledger=ledger, engine=engine, progress=False)
    assert len(rows) == 2 * 2


def test_other_code_measures_again(study, monkeypatch):
    ledger, one = Ledger(), first(study, 1)
    run(one, ledger, CHEAP)
    monkeypatch.setattr("salattack.experiments.study._code", lambda: "another")
    run(one, ledger, CHEAP)
    assert len(ledger.rows()) == 2 * 2


def test_an_attacker_under_another_name_is_not_measured_again(study, rows, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    run(study, ledger)
    named = {f"my {name}": attack for name, attack in ATTACKS.items()}
    again = run(study, ledger, named, engine=lambda s, a, batches, t: map(forbidden, batches))
    pd.testing.assert_frame_equal(
        again.drop(columns="attacker"), rows.drop(columns="attacker"), check_exact=True
    )
    assert list(again["attacker"]) == [f"my {name}" for name in rows["attacker"]]


def photos(folder, *which):
    folder.mkdir(parents=True)
    shipped = load_faces(n_images=4, image_size=64)
    for i, face in enumerate(which):
        to_pil(shipped[face].image).save(folder / f"{i:02}.png")
    return folder


def opened(folder, **options):
    return open_study(faces=str(folder), image_size=64, device="cpu", **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
def test_photos_of_the_same_names_never_share_numbers(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    a, b = (opened(photos(tmp_path / n, *w)) for n, w in (("a", (0, 1)), ("b", (2, 3))))
    first_rows = settled(a, ledger)
    assert not (settled(b, ledger)["l1"] == first_rows["l1"]).any()
    # A replaced photo is measured again, a renamed one is not.
    (tmp_path / "b" / "00.png").replace(tmp_path / "a" / "00.png")
    settled(opened(tmp_path / "a"), ledger)
    count = len(ledger.rows())
    (tmp_path / "a" / "00.png").rename(tmp_path / "a" / "00 renamed.png")
    renamed = settled(opened(tmp_path / "a"), ledger)
    assert set(renamed["face_id"]) == {"00 renamed.png", "01.png"}
    assert len(ledger.rows()) == count
    # And so is one whose labels are others.
    table = "file,Black_Hair,Blond_Hair,Brown_Hair,Male,Young\n"
    table += "00 renamed.png,1,0,0,1,1\n01.png,1,0,0,1,1\n"
    (tmp_path / "a" / "attributes.csv").write_text(table)
    settled(opened(tmp_path / "a"), ledger, targets="Male")
    assert len(ledger.rows()) == count + len(renamed)


@pytest.mark.filterwarnings("ignore:.*no attributes.csv")
@pytest.mark.parametrize("name", ["i-fgsm", "universal"])
def test_equal_faces_are_measured_once_and_each_has_its_rows(tmp_path, name):
    study = opened(photos(tmp_path / "album", 0, 1, 0, 0))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    attacks = evaluation.attackers([name], 0.05, 0.02, 2)
    rows = run(study, ledger, attacks, targets="Male", batch_size=3)
    assert list(rows["place"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    measured = rows.drop(columns=["face_id", "place"])
    same = measured[rows["place"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(measured[rows["place"] == 2].reset_index(drop=True), same)
    pd.testing.assert_frame_equal(
        run(study, ledger, attacks, targets="Male", batch_size=3), rows, check_exact=True
    )


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_shared_perturbation_of_a_grown_sample_is_that_of_the_whole(study, tmp_path, batch_size):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    universal = evaluation.attackers(["universal"], 0.05, 0.02, 2)
    run(first(study, 2), ledger, universal, batch_size=batch_size)
    grown = run(first(study, 4), ledger, universal, batch_size=batch_size)
    fresh = run(first(study, 4), None, universal, batch_size=batch_size)
    pd.testing.assert_frame_equal(grown, fresh, check_exact=True)


def test_growing_past_a_short_batch_changes_that_batch_only_by_rounding(study, rows):
    ledger = Ledger()
    run(first(study, 3), ledger)
    grown = run(study, ledger)
    whole = grown["place"].isin([0, 1, 4])  # whose batch of two did not change
    pd.testing.assert_frame_equal(grown[whole], rows[whole], check_exact=True)
    for measure in ("l1", "damage_l2"):
        assert np.allclose(grown[measure], rows[measure], rtol=0.1)


def test_every_profile_grows_by_whole_batches():
    default = inspect.signature(evaluation.evaluate).parameters["batch_size"].default
    assert inspect.signature(cli.evaluate_sample).parameters["batch_size"].default == default
    assert not any(n % default for n in evaluation.PROFILES.values() if n)


def test_a_ledger_of_the_layout_before_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("create table settings (name text primary key, value text not null)")
        db.execute("create table faces (place integer primary key, face_id text, failure text)")
    before = path.read_bytes()
    with pytest.raises(SalattackError, match=r"ledger.sqlite was made by another .*use another le"):
        Ledger(path)
    assert path.read_bytes() == before
    with sqlite3.connect(tmp_path / "newer.sqlite") as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(SalattackError, match=r"newer.sqlite was made by another version"):
        Ledger(tmp_path / "newer.sqlite")


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
    kept = run(first(study, 2), again, engine=lambda s, a, batches, t: map(forbidden, batches))
    pd.testing.assert_frame_equal(kept, rows[rows["place"] < 2])
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
    assert failure.face_id == "02.png" and failure.source == str(album / "02.png")
    assert "02.png is not a readable picture" in failure.failure
    # Mended, it is measured at the next start, and alone.
    mirrored = Image.open(album / "01.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(album / "02.png")
    attacked = []
    mended = run(
        study,
        ledger,
        CHEAP,
        batch_size=4,
        engine=lambda s, a, b, t: evaluation.measure_here(s, a, _noting(b, attacked), t),
    )
    assert attacked == [(2,)]
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

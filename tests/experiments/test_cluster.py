import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from salattack.cli.main import app
from salattack.errors import SalattackError
from salattack.experiments import evaluation
from salattack.experiments.ledger import Ledger
from salattack.experiments.study import open_study
from salattack.faces import load_faces
from salattack.faces.reading import open_photo
from salattack.protect import batch, disruption

pytest.importorskip("ray", reason="Ray is an extra: pip install 'salattack[ray]'")
cluster = pytest.importorskip("salattack.experiments.evaluation")

ATTACKS = evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 2)


@pytest.fixture(scope="module", autouse=True)
def two_processes():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def one_thread():
    """As many as Ray gives a worker: other numbers of threads add in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_two_workers_one_killed_give_the_same_table(tmp_path, one_thread):
    study = open_study(n_images=6, image_size=64, device="cpu")
    options = {"batch_size": 1, "progress": False}
    expected = evaluation.evaluate(study, ATTACKS, **options)
    killed = []

    def opened():  # in a worker, which leaves its process id
        (tmp_path / str(os.getpid())).touch()
        return open_study(n_images=6, image_size=64, device="cpu")

    def engine(*given):
        work = cluster.measure_on_ray(*given, open_study=opened, workers=2)
        for result in work:
            if not killed:
                killed.extend(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
                os.kill(killed[0], signal.SIGKILL)
            yield result

    ledger = Ledger(tmp_path / "ledger.sqlite")
    rows = evaluation.evaluate(study, ATTACKS, ledger=ledger, engine=engine, **options)
    workers = {p.name for p in tmp_path.iterdir() if p.name.isdigit()}
    assert killed and len(workers) >= len(killed) + 1  # another process took its place
    assert not rows.duplicated(["place", "attacker", "attribute", "precision"]).any()
    keys = ["place", "face_id", "attacker", "attribute", "precision"]
    pd.testing.assert_frame_equal(rows[keys], expected[keys])
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)


@pytest.mark.slow
def test_back_pressure_and_every_item_once():
    taken = []

    def items():
        for i in range(9):
            taken.append(i)
            yield i

    done = cluster.map_on_ray(lambda: lambda i: i * i, items(), workers=2)
    assert next(done) in (0, 1, 4)
    assert len(taken) <= 4  # no more than the workers hold, and one that waits
    assert len(list(done)) == 8 and taken == list(range(9))


@pytest.mark.slow
def test_refuses():
    with pytest.raises(SalattackError, match="workers must be ≥ 1"):
        next(cluster.map_on_ray(lambda: abs, [1], workers=0))
    with pytest.raises(SalattackError, match="has no GPU"):
        next(cluster.map_on_ray(lambda: abs, [1], gpus=1))

    def broken():
        raise OSError("weights.safetensors is not here")

    with pytest.raises(SalattackError, match=r"no worker can start .*weights.safetensors is not"):
        next(cluster.map_on_ray(lambda: broken(), [1], workers=1))


# Photos: the command, with workers that die at the worst moments


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five small photos of one face, and one that is none; the attack shortened to one step."""
    monkeypatch.setattr(disruption, "STEPS", 1)
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    face = open_photo(load_faces("openpeople").sources[0]).crop((250, 200, 1450, 1500))
    for name in ("a.png", "b.png", "c.png", "d.jpg", "below/a.png"):
        face.resize((240, 260)).save(folder / name)
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:5000])
    return folder


def command(*arguments):
    return CliRunner().invoke(app, ["protect", *map(str, arguments), "--device", "cpu"])


def dying(monkeypatch, before, after):
    """Let the worker of ``before`` die as it begins that photo, of ``after`` once it is written.

    Each as often as said; returns the folder where processes leave their ids.
    """
    traces = before.parents[1] / "traces"
    traces.mkdir()
    mapped = batch.map_on_ray

    def map_on_ray(make, items, **options):
        def made():
            (traces / str(os.getpid())).touch()
            work = make()

            def die(job, photo, times):
                deaths = traces / photo.name
                count = len(deaths.read_text()) if deaths.exists() else 0
                if job.source == photo and count < times:
                    deaths.write_text("x" * (count + 1))
                    os.kill(os.getpid(), signal.SIGKILL)

            def do(job):
                if job.source == before:
                    (job.target.parent / f".{os.getpid()}.{job.target.name}").touch()
                die(job, before, 9)
                outcome = work(job)
                die(job, after, 1)
                return outcome

            return do

        return mapped(made, items, **options)

    monkeypatch.setattr(batch, "map_on_ray", map_on_ray)
    return traces


@pytest.mark.slow
def test_photos_of_lost_workers_are_done_again_each_once(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert command(photos / "d.jpg", "-o", out).exit_code == 0  # the local engine began
    stamp = (out / "d.jpg").stat().st_mtime_ns
    traces = dying(monkeypatch, photos / "c.png", photos / "b.png")
    monkeypatch.setattr(batch, "RETRIES", 1)
    run = command(photos, "-o", out, "--engine", "ray", "--workers", 2)
    assert run.exit_code == 3, run.output
    assert "2 of 6 photos are not protected" in run.output
    assert "bad.png is not a readable picture" in run.output
    assert "c.png: its worker was lost 2 times" in run.output
    assert (traces / "c.png").read_text() == "xx" and (traces / "b.png").read_text() == "x"
    assert len([p for p in traces.iterdir() if p.name.isdigit()]) >= 2 + 2
    assert "1 photos were done before" in run.output
    assert (out / "d.jpg").stat().st_mtime_ns == stamp
    entries = [json.loads(line) for line in (out / batch.RECORD).open()]
    done = [entry["target"] for entry in entries if "written" in entry]
    assert sorted(done) == ["a.png", "b.png", "below/a.png", "d.jpg"]  # each once
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert files == {batch.RECORD, *done}  # and nothing half written
    assert all(f"{out / name}: 1 face: " in run.output for name in done if name != "d.jpg")
    # As one process does it; sign() may differ where threads round otherwise.
    assert command(photos / "a.png", "-o", tmp_path / "alone.png").exit_code == 0
    files = (photos / "a.png", out / "a.png", tmp_path / "alone.png")
    photo, apart, alone = (np.asarray(Image.open(p), int) for p in files)
    assert np.abs(apart - alone).mean() < np.abs(apart - photo).mean() / 4

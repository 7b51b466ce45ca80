import os
import signal

import pandas as pd
import pytest

from salattack import evaluation
from salattack.errors import SalattackError
from salattack.ledger import Ledger
from salattack.study import open_study

pytest.importorskip("ray", reason="Ray is an extra: pip install 'salattack[ray]'")
cluster = pytest.importorskip("salattack.cluster")

ATTACKS = evaluation.attackers(["i-fgsm", "saliency-aware"], 0.05, 0.02, 2)


@pytest.fixture(scope="module", autouse=True)
def two_processes():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_two_workers_one_killed_give_the_same_table(tmp_path):
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
    # Bit for bit on the same number of threads; Ray gives each worker one.
    pd.testing.assert_frame_equal(rows, expected, rtol=0.02)


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


def test_refuses():
    with pytest.raises(SalattackError, match="workers must be ≥ 1"):
        next(cluster.map_on_ray(lambda: abs, [1], workers=0))
    with pytest.raises(SalattackError, match="has no GPU"):
        next(cluster.map_on_ray(lambda: abs, [1], gpus=1))

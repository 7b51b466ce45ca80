import json
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pandas as pd
import pytest

import salattack as salattack_package
from salattack.cli import main as cli
from salattack.cli.main import _parameters
from salattack.cli.options import Profile
from salattack.cli.protect import protect
from salattack.errors import SalattackError
from salattack.experiments import evaluation, samples
from salattack.experiments.ledger import Ledger
from salattack.faces import load_faces
from salattack.images import to_pil
from salattack.protect.disruption import STRENGTHS
from salattack.runtime.files import written_whole
from salattack.runtime.progress import progress_bar

ROOT = Path(__file__).parents[2]


def salattack(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "salattack.cli.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


HELD = """
import subprocess, sys
from pathlib import Path
import numpy as np
{before}
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
block = np.ones(2**24)  # 128 MiB
most = pages()
del block
print(most - pages() < 2**14)  # of 2^15 pages of 4 KiB
"""


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or resource.getpagesize() != 4096, reason="not glibc, 4 KiB"
)
def test_only_the_command_line_keeps_freed_memory():
    def held(before):
        code = [sys.executable, "-c", HELD.format(before=before)]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        return subprocess.check_output(code, text=True, env=plain).split()

    assert held("from salattack.generators import load_generator; load_generator()") == ["False"]
    line = "from salattack.cli import main as cli; cli.app = lambda: None; cli.main()"
    assert held(line) == ["True"]
    child = HELD.format(before="")  # as a notebook's kernel is
    assert held(f"{line}; subprocess.run([sys.executable, '-c', {child!r}])") == ["True", "True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "table"], "salattack: unknown notebook 'table'; known: ablation"),
        (["run", "framework", "-p", "n_image=3"], "unknown notebook parameter 'n_image'"),
        (["run", "framework", "-p", "n_images"], "a parameter is NAME=VALUE, got 'n_images'"),
        (["reproduce", "-p", "images=3"], "unknown notebook parameter 'images'; known: aimed_at"),
        (["reproduce", "--notebooks", "nowhere"], "no notebooks in nowhere"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    done = salattack(*arguments)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_parameters_are_read_as_python_where_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    found = _parameters(
        ["n_images=8", "attackers=['pgd']", "device=cpu", "faces=photos", "bound=.1"]
    )
    assert found == {
        "n_images": 8,
        "attackers": ["pgd"],
        "device": "cpu",
        "faces": str(tmp_path / "photos"),
        "bound": 0.1,
    }
    assert _parameters(["faces=openpeople"]) == {"faces": "openpeople"}


def test_any_path_counts_from_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.jpg").write_text("")
    found = _parameters(["photo=me.jpg", "mask=masks/new.png", "strength=strong", "seed=3"])
    assert found == {
        "photo": str(tmp_path / "me.jpg"),
        "mask": str(tmp_path / "masks" / "new.png"),
        "strength": "strong",
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("arguments", "place", "rest"),
    [
        ([], Path("results"), {}),  # figures/ is committed: no run replaces it unasked
        (["-p", "steps=3"], Path("results"), {"steps": 3}),
        (["-p", "output=/x"], Path("/x"), {}),
        (["-p", "output=/x", "--output", "y"], Path("y"), {}),
        (["-p", "profile=None"], Path("results"), {"profile": None}),
        (["--profile", "tiny"], Path("results"), {"profile": "tiny"}),
        (["--faces", "openpeople"], Path("results"), {"faces": "openpeople"}),
    ],
)
def test_where_reproduce_writes(tmp_path, monkeypatch, arguments, place, rest):
    asked = []

    def run(notebooks, output, executed, settings, jobs):
        asked.append((output, settings, jobs))
        return "27 claims"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("salattack.workflow.notebooks.run_notebook", None)
    monkeypatch.setattr("salattack.workflow.reproduce.reproduce", run)
    monkeypatch.setattr(Ledger, "failures", lambda self: pd.DataFrame())
    monkeypatch.setattr(Ledger, "__init__", lambda self, path: None)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr("sys.argv", ["salattack", "reproduce", "--jobs", "1", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and asked == [(place, rest, 1)]


def test_nothing_half_written_is_left(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), written_whole(target) as beside:
        beside.write_text("ha")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with written_whole(target) as beside:
        beside.write_text("new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SalattackError, match=r"cannot write .*table.csv: .*choose another path"),
        written_whole(tmp_path / "file" / "table.csv") as beside,
    ):
        beside.write_text("x")


def test_importing_the_package_is_light():
    code = "import sys, salattack; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_imported_when_it_is_used():
    for name in salattack_package.__all__:
        assert getattr(salattack_package, name) is not None and name in dir(salattack_package)
    assert set(salattack_package._HOME) == set(salattack_package.__all__)
    assert callable(salattack_package.table_1) and callable(salattack_package.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'attackers'"):
        _ = salattack_package.attackers
    assert (Path(salattack_package.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_evaluate_says_what_it_left_out_and_goes_on(tmp_path):
    album, out = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    shipped = load_faces(n_images=3)
    for i in range(20):
        to_pil(shipped[i % 3].image).save(album / f"{i:02}.png")
    (album / "20.png").write_text("no picture")
    arguments = ["evaluate", str(album), "--profile", "tiny", "--attacker", "fgsm"]
    arguments += ["--output", str(out)]
    done = salattack(*arguments)
    assert done.returncode == 3
    assert "salattack: 1 images could not be read:\n  20.png: " in done.stderr
    assert "20 of 21 images" in done.stdout and "| FGSM" in done.stdout
    run = json.loads((out / "run.json").read_text())
    assert len(run["faces"]) == 21 and run["settings"]["fgsm.bound"] == 0.05
    kept = Ledger(out / "ledger.sqlite")  # beside the tables when no other is named
    assert list(kept.failures()["face_id"]) == ["20.png"]
    assert len(kept.rows()) == 30  # 3 faces × 5 edits × 2 precisions
    assert "bound 0.05 and step 0.01 in [-1, 1], 10 steps" in samples.premises(out)
    table = (out / "table_1_damage.md").read_bytes()
    (album / "20.png").unlink()
    again = salattack(*arguments)  # all the rest is in the ledger
    assert len(kept.rows()) == 30
    assert again.returncode == 0 and (out / "table_1_damage.md").read_bytes() == table
    other = salattack(*arguments, "--bound", "0.1")
    assert other.returncode == 0 and (out / "table_1_damage.md").read_bytes() != table
    assert "bound 0.1 and" in samples.premises(out)
    assert salattack(*arguments, "--engine", "slurm").returncode == 2


def test_help_is_in_order_and_choices_are_those_of_the_package():
    shown = salattack("--help").stdout
    commands = re.findall(r"^  (\w+)  +\S.*", shown.partition("Commands:")[2], re.M)
    assert commands == ["reproduce", "verify", "compare", "run", "evaluate", "protect", "assets"]
    assert "run its experiments, check its claims, protect photos." in " ".join(shown.split())
    assert "..." not in shown.partition("Commands:")[2]  # each fits its line
    assert salattack("--version").stdout == f"salattack {salattack_package.__version__}\n"
    assert set(get_args(Profile)) == set(evaluation.PROFILES)
    hints = get_type_hints(protect)
    assert set(get_args(hints["strength"])) == set(STRENGTHS)
    wrong = salattack("evaluate", "openpeople", "--profile", "huge")
    assert wrong.returncode == 2 and "'huge' is not one of 'demo'" in wrong.stderr


def test_bars_are_for_terminals(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with progress_bar(2) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert not progress_bar(2).disable
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress_bar(2).disable

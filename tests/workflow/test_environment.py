"""One list of dependencies: pyproject.toml; conda and the lock agree with it."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEPENDENCIES = [*PROJECT["dependencies"], *chain(*EXTRAS.values())]
LOCK = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line.strip()
]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_conda_takes_its_dependencies_from_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert plain == ["python" + PROJECT["requires-python"], "pip"]
    assert pip[0] == "-c requirements.lock"
    (extras,) = re.fullmatch(r"-e \.\[([\w,]+)\]", pip[1]).groups()
    assert set(extras.split(",")) == set(EXTRAS)
    assert len(pip) == 2


def test_make_installs_the_same():
    makefile = (ROOT / "Makefile").read_text()
    assert f"-e '.[{','.join(EXTRAS)}]'" in makefile and "-c requirements.lock" in makefile


@pytest.mark.parametrize(
    ("tests", "notebooks", "code"), [(0, 0, 0), (1, 0, 2), (0, 1, 2), (2, 0, 2)]
)
def test_make_test_runs_both_parts_and_tells_of_either(tmp_path, tests, notebooks, code):
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\necho ran $*\ncase $* in *--nbval*) exit {notebooks};; esac\nexit {tests}\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"BIN={tmp_path}", "-o", ".venv/ready"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code  # make's own for any that is not 0
    assert done.stdout.count("ran -m pytest") == 2
    assert f"exit codes: tests {tests}, notebooks {notebooks}" in done.stdout


@pytest.mark.parametrize("line", DEPENDENCIES)
def test_the_lock_satisfies_every_dependency(line):
    wanted = Requirement(line)
    found = [entry for entry in LOCK if normal(entry.name) == normal(wanted.name)]
    assert found, f"{wanted.name} is not locked; run make lock"
    for entry in found:
        (pin,) = entry.specifier
        assert pin.operator == "==" and wanted.specifier.contains(pin.version)


def test_the_lock_holds_names_and_versions_only():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|--|@", text)


def test_what_is_installed_is_what_is_locked():
    for entry in LOCK:
        if entry.marker is None or entry.marker.evaluate():
            try:
                version = metadata.version(entry.name)
            except metadata.PackageNotFoundError:
                continue  # a tool of the lock itself, or another platform's
            assert entry.specifier.contains(version), f"{entry}: {version} is installed"


def test_the_packages_that_users_asked_for_are_there():
    names = {normal(Requirement(line).name) for line in DEPENDENCIES}
    asked = {"torch", "torchvision", "jupyterlab", "matplotlib", "papermill", "nbval", "pillow"}
    assert asked <= names


def test_the_method_needs_torch_and_kornia_alone():
    around = ["generators", "saliency", "faces", "runtime", "experiments", "protect", "cli"]
    code = (
        "import sys, salattack.attacks, salattack.presets\n"
        f"around = {{f'salattack.{{name}}' for name in {around}}}\n"
        "heavy = {'requests', 'gdown', 'pandas', 'openpeople', 'torchvision'}\n"
        "print(sorted((around | heavy) & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

"""The guide says what is so: its blocks run as written and are as short as its title says."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from salattack.errors import SalattackError
from salattack.experiments.evaluation import evaluate
from salattack.experiments.study import open_study
from salattack.generators import GENERATORS, AttGAN, CycleGAN, edits_of, load_generator
from salattack.presets import attacker

GUIDE = (Path(__file__).parents[1] / "docs" / "own_generator.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S)
COMMAND = re.search(r"^    python mine.py (.*)$", GUIDE, re.M)[1].split()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own, and the registry as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    known = dict(GENERATORS)
    yield tmp_path
    GENERATORS.clear()
    GENERATORS.update(known)


@pytest.fixture
def weights(place):
    torch.manual_seed(0)
    network = CycleGAN(8, 2)
    save_file(network.state_dict(), place / "mine.safetensors")
    return network


def test_a_block_has_at_most_ten_lines():
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_any_callable(place):
    names = {}
    exec(BLOCKS[0], names)
    with Image.open(place / "disrupted.png") as saved:
        assert saved.size == (128, 128)
    change = names["disrupted"] - names["photo"]
    assert 0 < change.abs().max() <= 0.1 + 1e-6
    g = names["g"]
    assert not torch.equal(g(names["disrupted"], None), g(names["photo"], None))


@pytest.mark.slow
def test_the_file_is_the_command_line(place, weights, monkeypatch, capsys):
    strength = ["--attacker", "fgsm", "--steps", "1", "--device", "cpu", "--batch-size", "20"]
    monkeypatch.setattr(sys, "argv", ["mine.py", *COMMAND, *strength])
    with pytest.raises(SystemExit) as ended:
        exec(BLOCKS[1], {})
    assert not ended.value.code
    assert "FGSM" in capsys.readouterr().out
    assert "mine" in (place / "results" / "run.json").read_text()


def test_the_entry_serves_a_study(place, weights):
    exec(BLOCKS[1].removesuffix("main()\n"), {})
    study = open_study(
        generator="mine", generator_weights="mine.safetensors", n_images=2, device="cpu"
    )
    photos, labels, _ = next(study.batches(2))
    assert photos.shape[-1] == 128
    with torch.no_grad():
        torch.testing.assert_close(study.generate(photos, labels), weights(photos))


@pytest.mark.parametrize("first", ["", "import my_package; "])
def test_an_installed_package_adds_its_entry_everywhere(first, place):
    declared = re.search(r"^```toml\n(.*?)^```$", GUIDE, re.M | re.S)[1]
    group, line = declared.strip().splitlines()
    assert group == '[project.entry-points."salattack.generators"]'
    package = place / "theirs-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    lines = f"[salattack.generators]\n{line}\nbroken = my_package:nothing\n".replace('"', "")
    (package / "entry_points.txt").write_text(lines)
    imports, entry = BLOCKS[1].removesuffix("main()\n").split('GENERATORS["mine"] = ')
    imports = imports.replace("from salattack.cli.main import main\n", "")
    imports += "from salattack.generators import edits_of, load_generator\n"
    (place / "my_package.py").write_text(imports + "entry = " + entry)
    code = first + "from salattack.generators import GENERATORS; import sys; "
    code += "print('my_package' in sys.modules, 'none' in GENERATORS, 'mine' in GENERATORS, "
    code += "GENERATORS['mine'].file, *GENERATORS, len(GENERATORS) == len(list(GENERATORS)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{Path(__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    early, unknown, known, file, *names, whole = done.stdout.split()
    assert early == str(bool(first))  # an installed package is not imported before it is needed
    assert (unknown, known, file, whole) == ("False", "True", "mine.safetensors", "True")
    assert "mine" in names and "stargan-celeba128-w32" in names and "broken" not in names
    assert "'broken' of an installed package cannot be used" in done.stderr


def test_an_entry_that_forgets_its_edits_says_so(place):
    save_file(AttGAN(4).state_dict(), place / "attgan.safetensors")
    study = open_study(
        generator="attgan-celeba-128",
        generator_weights="attgan.safetensors",
        n_images=1,
        device="cpu",
    )
    with pytest.raises(
        SalattackError, match=r"AttGAN takes a target of \(1, 13\), .* docs/own_gen"
    ):
        evaluate(replace(study, edits=edits_of("stargan-celeba-128")), {"fgsm": attacker("fgsm")})


def test_the_named_models_exist():
    table = GUIDE[GUIDE.index("| Name in the registry") : GUIDE.index("`load_generator(name")]
    rows = [row.split("|")[1:-1] for row in table.splitlines()[2:] if row.startswith("|")]
    named = {name: row for row in rows for name in re.findall(r"`(\w[\w-]+)`", row[0])}
    assert {*named, "stargan-celeba-256"} == {*GENERATORS}
    for name, row in named.items():
        assert str(GENERATORS[name].image_size) in row[4]
    with pytest.raises(SalattackError, match="unknown generator 'mine'"):
        load_generator("mine")

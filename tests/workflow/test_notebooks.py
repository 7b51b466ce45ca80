"""The committed notebooks: clean, with outputs, and their pictures drawn again."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from small_notebooks import Close

from salattack.errors import SalattackError
from salattack.reporting import charts, figures, style
from salattack.workflow.notebooks import (
    assigned,
    begin,
    check_parameters,
    checkout,
    find_notebook,
    output_folder,
    run_notebook,
)
from salattack.workflow.reproduce import NOTEBOOKS, OPTIONAL

FOLDER = Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
INTERACTIVE = "protect"  # regenerates nothing: it waits for a photo


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def pictures(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                if picture := output.get("data", {}).get(kind):
                    yield Image.open(io.BytesIO(base64.b64decode(picture)))


def test_every_notebook_is_reproduced():
    assert {path.stem for path in PATHS} == {*NOTEBOOKS, OPTIONAL, INTERACTIVE}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_committed_as_a_reader_wants_it(path):
    notebook = read(path.stem)
    nbformat.validate(notebook)
    first, second = notebook.cells[:2]
    assert first.cell_type == "markdown"
    told = ("Regenerates **", "**Extension.**")
    assert any(word in first.source for word in told) or path.stem == INTERACTIVE
    assert second.metadata.get("tags") == ["parameters"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run `make figures` and commit"
    assert any(cell.outputs for cell in code)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"


def test_the_edits_that_broke_are_counted_among_those_there_are(capsys):
    cell = next(c for c in read("attribute_visualization").cells if "broken = (" in c.source)
    exec(cell.source, {"damage": pd.DataFrame({"broken": [0.5, 0.0], "damage_l2": [0.1, 0.2]})})
    assert capsys.readouterr().out.splitlines()[0].endswith(": 1 of 2")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_every_notebook_shows_its_equation(path):
    assert path.stem == INTERACTIVE or any("$$" in c.source for c in read(path.stem).cells)


def test_outputs_are_close_up_to_rounding_and_not_further():
    kept = Close("damage 0.203 of 12 faces")
    assert kept == "damage  0.206 of 12 faces" and kept != "damage 0.230 of 12 faces"
    assert kept != "damage 0.203 of 13 faces" and kept != "harm 0.203 of 12 faces"
    drawn = [io.BytesIO() for _ in range(3)]
    for buffer, grey in zip(drawn, (100, 101, 110), strict=True):
        Image.new("RGB", (90, 60), (grey,) * 3).save(buffer, "PNG")
    same, near, far = (base64.b64encode(buffer.getvalue()).decode() for buffer in drawn)
    assert Close(same) == near and Close(same) != far and Close(same) != "text"


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_one_split_and_seed_choose_the_faces_of_all(path):
    code = [cell.source for cell in read(path.stem).cells if cell.cell_type == "code"]
    if "faces" in assigned(code[0]):
        assert {"split", "seed"} <= assigned(code[0])
        assert "split=split," in code[1] and "seed=seed," in code[1]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_no_traces_of_a_machine(path):
    text = path.read_text()
    assert "papermill" not in read(path.stem).metadata
    without_pictures = re.sub(
        r'"image/(?:png|jpeg)": "[^"]*"|data:image/\w+;base64,[^"]*', "", text
    )
    assert not re.search(r"/(home|root|tmp|work|Users)/|site-packages", without_pictures)
    assert str(Path.home()) + "/" not in without_pictures


@pytest.mark.parametrize(
    ("name", "parts"), {"photographs": 3, "chart": 2}.items(), ids=lambda value: str(value)
)
def test_figures_are_wide_enough_for_print_and_small(name, parts, tmp_path):
    """Photographs have 128 pixels: 150 dpi show them all on an inch. Charts have 300."""
    if name == "photographs":
        photos = torch.rand(1, 3, 128, 128) * 2 - 1
        figure = figures.picture_grid(
            [list(photos.expand(parts, -1, -1, -1))], errors=[[0.1, 0.01, None]]
        )
    else:
        figure = charts.transfer(pd.DataFrame(np.eye(parts), ["a", "b"], ["a", "b"]))
    suffix = ".jpg" if name == "photographs" else ".png"
    saved = style.save(figure, (tmp_path / "figure").with_suffix(suffix), vector=True)
    dpi = style.PHOTO_DPI if name == "photographs" else style.DPI
    with Image.open(saved) as image:
        assert image.info["dpi"][0] == pytest.approx(dpi, abs=1)
        assert image.width == pytest.approx(dpi * figure.get_size_inches()[0], abs=1)
    pdf = saved.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(pdf) < 30_000 + 20_000 * parts  # 256 colours a photo


def test_the_interactive_one_keeps_its_result_and_no_dead_widget():
    outputs = [o for cell in read(INTERACTIVE).cells for o in cell.get("outputs", [])]
    (shown,) = [output["data"] for output in outputs]
    assert "visibly broken" in shown["text/html"] and "data:image/jpeg" in shown["text/html"]
    assert not [kind for kind in shown if "widget" in kind]


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SalattackError, match=r"parameter 'n_image'; known: .*n_images"):
        run_notebook(FOLDER / "framework.ipynb", tmp_path / "out.ipynb", {"n_image": 2})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_value_fails_with_its_message_and_leaves_nothing(tmp_path):
    with pytest.raises(SalattackError, match=r"^framework: unknown attacker 'nobody'; known: fgsm"):
        run_notebook(FOLDER / "framework.ipynb", tmp_path / "out.ipynb", {"attacker": "nobody"})
    assert not list(tmp_path.iterdir())


def test_a_running_kernel_leaves_nothing_beside_the_notebook(tmp_path):
    cell = new_code_cell("from pathlib import Path\nsorted(p.name for p in Path().iterdir())")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[cell], metadata=metadata), tmp_path / "here.ipynb")
    run_notebook(tmp_path / "here.ipynb", tmp_path / "out.ipynb", {})
    executed = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1]
    assert executed.outputs[0].data["text/plain"] == "['here.ipynb']"


def test_papermills_own_injection_is_checked():
    cells = ["", "a = 1\nb, c = 2, 3", "# Parameters\na = 5\n"]
    check_parameters(cells)
    check_parameters(cells[:2])
    with pytest.raises(SalattackError, match="unknown notebook parameter 'd'; known: a, b, c"):
        check_parameters([*cells[:2], "# Parameters\nd = 5\n"])
    assert assigned("%matplotlib inline\nx = 1") == set()


def test_every_notebook_begins_with_the_check_of_its_parameters(tmp_path, monkeypatch):
    for path in PATHS:
        assert (
            "notebook.begin("
            in [c for c in read(path.stem).cells if c.cell_type == "code"][1].source
        )
    shell = SimpleNamespace(user_ns={"In": ["", "a = 1", "# Parameters\nb = 2"]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    with pytest.raises(SalattackError, match="unknown notebook parameter 'b'; known: a"):
        begin(str(tmp_path))
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert begin(str(tmp_path)) == tmp_path


def test_unknown_notebooks_are_refused(tmp_path):
    with pytest.raises(SalattackError, match="unknown notebook 'table'; known: ablation"):
        find_notebook("table", FOLDER)
    with pytest.raises(SalattackError, match="no notebooks in"):
        find_notebook("framework", tmp_path)


def test_outputs_land_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    assert output_folder("results") == FOLDER.parent / "results"
    assert output_folder(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert checkout(tmp_path) == tmp_path

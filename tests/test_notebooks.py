"""The committed notebooks: clean, with outputs, and their pictures drawn again."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from salattack.errors import SalattackError
from salattack.workflow.notebooks import (
    assigned,
    check_parameters,
    checkout,
    find_notebook,
    output_folder,
    run_notebook,
)
from salattack.workflow.reproduce import NOTEBOOKS

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
INTERACTIVE = "protect"  # regenerates nothing: it waits for a photo
DRAWN = ["framework", "attribute_editing", "saliency_maps", "attribute_visualization", "models"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def pictures(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                yield Image.open(io.BytesIO(base64.b64decode(png)))


def test_every_notebook_is_reproduced():
    assert {path.stem for path in PATHS} == {*NOTEBOOKS, INTERACTIVE}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_committed_as_a_reader_wants_it(path):
    notebook = read(path.stem)
    nbformat.validate(notebook)
    first, second = notebook.cells[:2]
    assert first.cell_type == "markdown"
    about = "Regenerates **" in first.source or "**Extension.**" in first.source
    assert about or path.stem == INTERACTIVE
    assert second.metadata.get("tags") == ["parameters"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run `make figures` and commit"
    assert any(cell.outputs for cell in code)
    for cell in code:
        assert not re.search(r"^\s*(def|class|for|while|try)\b", cell.source, re.MULTILINE)
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"


def test_the_edits_that_broke_are_counted_among_those_there_are():
    cell = read("attribute_visualization").cells[-1].source
    *lines, result = cell.splitlines()
    names = {"damage": pd.DataFrame({"broken": [0.5, 0.0]})}
    exec("\n".join(lines), names)
    assert eval(result, names).endswith(": 1 of 2")


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
    without_pictures = re.sub(r'"image/png": "[^"]*"|data:image/\w+;base64,[^"]*', "", text)
    assert not re.search(r"/(home|root|tmp|work|Users)/|site-packages", without_pictures)
    assert str(Path.home()) + "/" not in without_pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_the_picture_is_drawn_again(name, tmp_path):
    run_notebook(FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb", {"output": str(tmp_path)})
    committed = next(pictures(read(name)))
    drawn = next(pictures(nbformat.read(tmp_path / "out.ipynb", as_version=4)))
    assert drawn.size == committed.size
    small = [np.asarray(p.convert("RGB").resize((48, 48)), float) for p in (drawn, committed)]
    # Other processors round otherwise, and sign() amplifies that into other noise of the same kind.
    assert np.abs(small[0] - small[1]).mean() < 3, "run `make figures` and look at the pictures"
    assert small[0].std() > 30  # not blank
    written = {p.name for p in tmp_path.iterdir()} - {"out.ipynb"}
    if name != "models":
        (saved,) = tmp_path.glob("*.png")
        assert written == {saved.name, saved.with_suffix(".pdf").name}
    for saved in tmp_path.glob("*.png"):
        with Image.open(saved) as image:
            assert image.width >= 2000 and image.info["dpi"][0] == pytest.approx(300, abs=1)


def test_the_interactive_one_keeps_its_result_and_no_dead_widget():
    outputs = [o for cell in read(INTERACTIVE).cells for o in cell.get("outputs", [])]
    (shown,) = [output["data"] for output in outputs]
    assert "visibly broken" in shown["text/html"] and "data:image/webp" in shown["text/html"]
    assert not [kind for kind in shown if "widget" in kind]


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SalattackError, match=r"parameter 'n_image'; known: .*n_images"):
        run_notebook(FOLDER / "framework.ipynb", tmp_path / "out.ipynb", {"n_image": 2})
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_fails_with_its_message_and_leaves_nothing(tmp_path):
    with pytest.raises(SalattackError, match=r"^framework: unknown attacker 'nobody'; known: fgsm"):
        run_notebook(FOLDER / "framework.ipynb", tmp_path / "out.ipynb", {"attacker": "nobody"})
    assert not list(tmp_path.iterdir())


def test_a_running_kernel_leaves_nothing_beside_the_notebook(tmp_path):
    cell = new_code_cell("from pathlib import Path\nsorted(p.name for p in Path().iterdir())")
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[cell], metadata=metadata), tmp_path / "here.ipynb")
    run_notebook(tmp_path / "here.ipynb", tmp_path / "out.ipynb", {}, live=False)
    executed = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1]
    assert executed.outputs[0].data["text/plain"] == "['here.ipynb']"


def test_papermills_own_injection_is_checked():
    cells = ["", "a = 1\nb, c = 2, 3", "# Parameters\na = 5\n"]
    check_parameters(cells)
    check_parameters(cells[:2])
    with pytest.raises(SalattackError, match="unknown notebook parameter 'd'; known: a, b, c"):
        check_parameters([*cells[:2], "# Parameters\nd = 5\n"])
    assert assigned("%matplotlib inline\nx = 1") == set()


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

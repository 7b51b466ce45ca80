"""nbval on small copies of the notebooks: numbers within a tolerance, pictures as thumbnails.

``python tests/small_notebooks.py FOLDER [NAME ...]`` writes the copies, with the outputs that are
kept in ``small_notebooks.json``.
``pytest -p small_notebooks --nbval FOLDER`` runs and compares them.
``python tests/small_notebooks.py --keep [NAME ...]`` runs them and keeps what they give.
"""

import base64
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
KEPT = Path(__file__).with_suffix(".json")
TWO = ["i-fgsm", "saliency-aware"]
SMALL = {
    "walkthrough": {"steps": 3},
    "framework": {"n_images": 1, "steps": 3},
    "attribute_editing": {"n_images": 1},
    "saliency_maps": {"n_images": 1, "steps": 3},
    "attack_comparison": {"n_images": 2, "steps": 3, "attackers": TWO, "beside": []},
    "attribute_visualization": {
        "n_images": 1,
        "n_samples": 2,
        "steps": 3,
        "aimed_at": "Blond_Hair",
    },
    "models": {"n_images": 4},
    "trade_off": {"n_images": 2, "steps": 3, "attackers": TWO, "bounds": [0.02, 0.05]},
    "smallest_change": {
        "n_images": 2,
        "fixed": ["saliency-aware"],
        "strengths": [[0.05, 0.01, 3], [0.1, 0.02, 3]],
        "smallest": ["minimum-norm"],
        "gradients": 5,
        "n_shown": 1,
    },
    "ablation": {
        "n_images": 1,
        "questions": ["mask", "blur", "steps"],
        "strength": [0.05, 0.02, 2],
        "steps": [1, 2],
        "transfer_strength": [0.05, 0.02, 2],
    },
    "robustness": {"n_images": 2, "steps": 3, "attackers": TWO},
    "paper_reading": {
        "n_images": 2,
        "strengths": ["bound 0.05, step 0.01"],
        "readings": ["in the ball"],
        "attackers": TWO,
    },
    "transfer": {"n_images": 2, "made_from": 1, "strength": [0.1, 0.04, 2], "attackers": TWO},
    "published_generators": {
        "generators": ["stargan-celeba128-w32", "cyclegan-blond128-w32"],
        "n_images": 1,
        "transfer_images": 1,
        "compute": "float32",
        "attackers": TWO,
        "strengths": [[0.05, 0.02, 2]],
        "shown_at": [0.1, 0.04, 2],
        "beside": [[0.05, 0.02, 2], [0.1, 0.04, 2]],
        "gradients": 3,
    },
}
# Other processors round otherwise, and sign() amplifies that.
RELATIVE = 0.05  # of a number, and one unit of its last printed digit
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # for the kernels: more threads add up in another order
STEPS = 2.0  # mean absolute difference of two thumbnails in 8-bit steps
SIDE = 48
MEASURED = "measured:"
CELL = "from small_notebooks import measured\n\nmeasured(globals())"
TIGHT = 0.01  # of the largest number of a line of `measured`
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")


class Close(str):
    """An output that equals another one up to rounding."""

    __hash__ = None

    def __eq__(self, other: str) -> bool:
        if (mine := thumbnail(self)) is not None:
            theirs = thumbnail(other)
            return theirs is not None and bool(np.abs(mine - theirs).mean() <= STEPS)
        if self.startswith(MEASURED):
            lines = self.splitlines(), other.splitlines()
            return len(lines[0]) == len(lines[1]) and all(map(same_line, *lines))
        texts = [re.sub(r"[\s\-:]+", " ", NUMBER.sub("#", text)) for text in (self, other)]
        numbers = zip(NUMBER.findall(self), NUMBER.findall(other), strict=False)
        return texts[0] == texts[1] and all(near(a, b) for a, b in numbers)

    def __ne__(self, other: str) -> bool:
        return not self == other


def measured(names: Mapping[str, object]) -> None:
    """Print the numbers behind what a notebook shows, five digits each: the copies' last cell.

    Of pictures: means of |x| over the parts of a 4 × 4 grid, which say where. Of the two networks:
    their output for the first face. Of rows: the means, without I-FGSM's, whose first step is
    rounding error that differs between processors.
    """
    import torch

    print(MEASURED)
    found = {key: value for key, value in names.items() if not key.startswith("_")}
    found |= vars(found["edits"]) if "edits" in found else {}
    if study := found.get("study"):
        photo, labels, _ = next(study.batches(1))
        target = study.targets(labels, [study.edits.names[0]])
        found |= {"g(photo)": study.generate(photo, target), "M(photo)": study.saliency_map(photo)}
    for name, value in sorted(found.items()):
        if isinstance(value, torch.Tensor) and value.dim() > 1:
            picture = value.detach().double().abs().reshape(-1, 1, *value.shape[-2:])
            parts = torch.nn.functional.adaptive_avg_pool2d(picture, 4).mean(0).flatten().tolist()
            print(f"{name}:", *(f"{part:.5g}" for part in parts))
    if "rows" in found and "damage_l2" in found["rows"]:
        rows = found["rows"]
        rows = rows[rows["attacker"] != "i-fgsm"] if "attacker" in rows else rows
        for column in ("l1", "l2", "damage_l2"):
            if column in rows:
                print(f"rows, {column}: {rows[column].mean():.5g}")


def same_line(mine: str, theirs: str) -> bool:
    """Whether two lines of `measured` have one name, and numbers within `TIGHT`."""
    (name, _, a), (other, _, b) = mine.partition(": "), theirs.partition(": ")
    a, b = (np.array(part.split(), float) for part in (a, b))
    near = a.shape == b.shape and bool((np.abs(a - b) <= TIGHT * np.abs(a).max(initial=0)).all())
    return name == other and near


def near(a: str, b: str) -> bool:
    digit = 10.0 ** -len(a.partition("e")[0].partition(".")[2]) if "e" not in a else 0.0
    integer = "." not in a and "e" not in a
    slack = 0 if integer and abs(float(a)) < 20 else digit + RELATIVE * abs(float(a))  # counts
    return abs(float(a) - float(b)) <= slack + 1e-12


def thumbnail(text: str) -> np.ndarray | None:
    """Return a picture's pixels, SIDE × SIDE × 3, or None for anything but base64 of one."""
    if not text.startswith(("iVBOR", "/9j/")):
        return None
    picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), float)


def pytest_configure(config) -> None:
    from nbval.plugin import IPyNbCell, IPyNbFile

    os.environ |= ONE_THREAD
    IPyNbCell.sanitize = lambda self, text: Close(text) if isinstance(text, str) else text
    setup = IPyNbFile.setup

    def quieter(self) -> None:
        setup(self)
        self.skip_compare = (*self.skip_compare, "stderr")

    IPyNbFile.setup = quieter


def small(data: dict) -> dict:
    for kind in set(data) & {"image/png", "image/jpeg"}:
        buffer = io.BytesIO()
        pixels = thumbnail("".join(data[kind])).astype("uint8")
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
        data[kind] = base64.b64encode(buffer.getvalue()).decode()
    return data


def copied(name: str, place: Path) -> Path:
    """Write a notebook with small parameters and the cell that prints what it measured."""
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb"))
    notebook = parameterize_notebook(notebook, SMALL[name] | {"output": str(place)})
    cells = notebook.cells
    sliders = (i for i, cell in enumerate(cells) if "ipywidgets" in cell.source)
    cells.insert(next(sliders, len(cells)), nbformat.v4.new_code_cell(CELL))  # no cell after them
    nbformat.write(notebook, path := place / f"{name}.ipynb")
    return path


def keep(names: list[str]) -> None:
    import nbformat

    from salattack.workflow.notebooks import run_notebook

    os.environ |= ONE_THREAD
    os.environ["PYTHONPATH"] = os.pathsep.join([str(KEPT.parent), os.environ.get("PYTHONPATH", "")])
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in names or SMALL:
        with TemporaryDirectory() as place:
            path = copied(name, Path(place))
            run_notebook(path, path, {})
            cells = nbformat.read(path, 4).cells
        outputs = [cell.outputs for cell in cells if cell.cell_type == "code"]
        for output in (output for cell in outputs for output in cell if "data" in output):
            output["data"] = small(output["data"])
        kept[name] = outputs
        KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def copies(folder: Path, names: list[str]) -> None:
    import nbformat

    kept = json.loads(KEPT.read_text())
    for name in names or SMALL:
        notebook = nbformat.read(path := copied(name, folder), 4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, outputs in zip(code, kept[name], strict=True):
            cell.outputs = [nbformat.from_dict(output) for output in outputs]
            cell.execution_count = 1
        nbformat.write(notebook, path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keep"]:
        keep(sys.argv[2:])
    else:
        copies(Path(sys.argv[1]), sys.argv[2:])

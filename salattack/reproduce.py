"""Run the notebooks by papermill; write what they regenerate, and a manifest of how."""

import json
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from . import assets
from .errors import SalattackError, one_of
from .evaluation import sample_size
from .faces import Faces, load_faces
from .files import written_whole
from .generators import GENERATORS
from .notebook import checkout, unknown_parameters
from .saliency import SALIENCY_MODELS
from .weights import SHIPPED, sha256

# The paper's order, then ours; each notebook is run with those of the common settings that it has.
NOTEBOOKS = (
    "framework",
    "attribute_editing",
    "saliency_maps",
    "attack_comparison",
    "attribute_visualization",
    "models",
    "trade_off",
    "ablation",
    "robustness",
    "paper_reading",
    "transfer",
)
DEMO = {  # the shipped default, beyond what CI affords
    "attack_comparison": {"n_images": 20},
    "trade_off": {"n_images": 8, "steps": 10},
    "ablation": {"n_images": 4, "strength": [0.1, 0.02, 10], "steps": [1, 5, 10, 20, 50]},
    "robustness": {"n_images": 8},
    "transfer": {"n_images": 8, "made_from": 4},
}
WIDGET = "application/vnd.jupyter.widget-view+json"  # an output that is dead without a kernel
PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "scipy", "pillow", "openpeople")


def find_notebook(name: str, folder: Path) -> Path:
    """Return the path of a notebook by name.

    Raises:
        SalattackError: no such notebook; lists the known ones.
    """
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.ipynb"))
        if not known:
            raise SalattackError(
                f"no notebooks in {folder}; run from a checkout or pass --notebooks"
            )
        raise one_of("notebook", name, known)
    return path


def run_notebook(source: Path, output: Path, parameters: Mapping, *, live: bool = True) -> None:
    """Execute a notebook from its own folder and write the result without machine traces.

    Args:
        source: the notebook.
        output: where the executed one goes, written beside and renamed.
        parameters: for papermill.
        live: pass on what the cells print while they run.

    Raises:
        SalattackError: an unknown parameter, or a cell that failed (its error's message).
    """
    with warnings.catch_warnings():  # papermill and its friends deprecate each other at import
        warnings.simplefilter("ignore")
        import nbformat
        import papermill
        from traitlets.config import Config

    unknown_parameters(parameters, papermill.inspect_notebook(str(source)))
    stream = sys.stderr if live else None
    try:
        # Sockets in the file system: nobody else can reach the kernel, and it need not warn of
        # that. In a folder of their own: a killed run leaves none beside the notebooks.
        with TemporaryDirectory(prefix="salattack-") as place:
            ipc = {"transport": "ipc", "ip": f"{place}/kernel"}
            notebook = papermill.execute_notebook(
                str(source),
                None,
                dict(parameters),
                cwd=source.parent,
                progress_bar=False,
                stderr_file=stream,
                config=Config({"KernelManager": ipc} if os.name == "posix" else {}),
            )
    except papermill.PapermillExecutionError as error:
        kind = "" if error.ename == SalattackError.__name__ else f"{error.ename}: "
        raise SalattackError(f"{source.stem}: {kind}{error.evalue}") from error
    strip(notebook)
    with written_whole(output) as beside:
        nbformat.write(notebook, beside)


def strip(notebook: Mapping) -> None:
    """Remove in place what tells of a machine or a moment: times, paths, progress, execution."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                output.get("metadata", {}).pop("papermill", None)


def reproduce(notebooks: Path, output: Path, executed: Path, settings: Mapping) -> Path:
    """Run every notebook, and write the figures, the table and ``manifest.json``.

    At the end it writes the verdicts on the paper's claims and a static page of it all, and says
    how far the run agrees with the committed figures. The page is in ``report/``: beside
    ``executed`` if ``output`` is the committed figures, else in ``output``.

    Args:
        notebooks: their folder.
        output: where figures and table go.
        executed: where the executed notebooks go.
        settings: common parameters; each notebook gets those that it has.

    Returns:
        The path of the table in Markdown.

    Raises:
        SalattackError: a setting that no notebook has, or a notebook that failed.
    """
    import papermill

    from . import report  # which strips notebooks as this module does
    from .compare import as_text, compare, other_settings
    from .verify import premises, verify

    sources = {name: find_notebook(name, notebooks) for name in NOTEBOOKS}
    known = {name: set(papermill.inspect_notebook(str(path))) for name, path in sources.items()}
    unknown_parameters(settings, sorted(set().union(*known.values())))
    output, executed = output.resolve(), executed.resolve()
    root = checkout(notebooks.resolve())
    place = output.relative_to(root) if output.is_relative_to(root) else output
    runs, before = {}, _stamps(output)
    for number, (name, source) in enumerate(sources.items(), start=1):
        given = {key: value for key, value in settings.items() if key in known[name]}
        if given.get("profile"):  # such a run is long: it resumes where it was stopped
            given = {"ledger": str(place / "ledger.sqlite")} | given
        parameters = DEMO.get(name, {}) | given | {"output": str(place)}
        say(f"[{number}/{len(sources)}] {name}")
        began = time.perf_counter()
        run_notebook(source, executed / source.name, parameters)
        seconds = time.perf_counter() - began
        say(f"[{number}/{len(sources)}] {name} done in {seconds:.0f} s")
        runs[name] = {"parameters": parameters, "seconds": round(seconds, 1)}
    strength = runs["attack_comparison"]["parameters"]
    claims, given = verify(output, strength), premises(output, strength)
    report.save_claims(claims, output, given)
    # The folder may hold files of other commands and of earlier runs.
    made = [output / name for name, stamp in _stamps(output).items() if before.get(name) != stamp]
    with written_whole(output / "manifest.json") as beside:
        beside.write_text(json.dumps(manifest(runs, made, settings), indent=2) + "\n")
    committed = root / "figures"
    place = (executed.parent if output == committed else output) / "report"
    pages = [executed / source.name for source in sources.values()]
    index = report.write_report(claims, output, pages, place)
    say(f"\n{report.as_text(claims, given)}\nReport: {index}")
    if output == committed:
        why = "this run replaced it"
    elif not (committed / "manifest.json").is_file():
        why = f"{committed} holds no manifest"
    else:
        why = other_settings(output, committed)
    agreement = f"none, because {why}" if why else f"\n{as_text(compare(output, committed))}"
    say(f"\nComparison with the committed figures: {agreement}")
    return output / "table_1.md"


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when one of the folder's figures or tables is written, by name."""
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".pdf", ".csv", ".md", ".tex")
    }


def say(line: str) -> None:
    """Print a line of progress to stderr at once."""
    print(line, file=sys.stderr, flush=True)


def manifest(runs: Mapping, made: Iterable[Path], settings: Mapping) -> dict:
    """Return what is needed to repeat a run: versions, hardware, checksums, durations.

    Args:
        runs: notebook name → its parameters and seconds.
        made: the files that the run wrote.
        settings: the common parameters.
    """
    models = [GENERATORS[settings.get("generator", "stargan-celeba128-w32")]]
    models += [SALIENCY_MODELS[settings.get("saliency", "pfan-light")]]
    known = (*GENERATORS.values(), *SALIENCY_MODELS.values())  # transfer.ipynb takes several
    weights = {m.file: sha256(SHIPPED / m.file) for m in known if m.shipped}
    for key, model in zip(("generator_weights", "saliency_weights"), models, strict=True):
        if path := settings.get(key):
            weights[Path(path).name] = sha256(Path(path))
        elif model.asset:
            weights[model.file] = assets.checked(model.asset)[1]
    compared = runs["attack_comparison"]["parameters"]
    faces = load_faces(
        compared.get("faces", "openpeople"),
        n_images=sample_size(compared["profile"])
        if compared.get("profile")
        else compared["n_images"],
        split=compared.get("split"),
        seed=compared.get("seed", 0),
    )
    return provenance() | {
        "seed": settings.get("seed", 0),
        "notebooks": runs,
        "weights": weights,
        "inputs": {name: _checksum(faces, i) for i, name in enumerate(faces.ids)},
        "outputs": {path.name: sha256(path) for path in made},
    }


def provenance() -> dict:
    """Return when, with which versions and on what hardware this process runs."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("salattack", *PACKAGES)},
        "hardware": hardware(),
    }


def _checksum(faces: Faces, index: int) -> str | None:
    try:
        return faces.checksum(index)
    except SalattackError:  # unreadable; the ledger says why
        return None


def hardware() -> dict:
    """Return processor, cores, threads that torch uses, and CUDA devices."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }

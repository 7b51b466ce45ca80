"""Running a notebook, checking its parameters, and removing what tells of a machine."""

import ast
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from ..errors import SalattackError, one_of
from ..reporting.page import strip
from ..runtime.files import written_whole


def assigned(source: str) -> set[str]:
    """Return the names that a cell's top level assigns; none where it is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    targets = (t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets)
    return {name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)}


def unknown_parameters(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse parameters that a notebook does not have: a SalattackError lists those known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise one_of("notebook parameter", name, known)


def check_parameters(cells: Sequence[str]) -> None:
    """Refuse what papermill injected if no cell before it had a parameter of that name.

    Papermill itself only warns. ``cells`` are the sources executed so far, IPython's ``In``.
    """
    for place, cell in enumerate(cells):
        if cell.lstrip().startswith("# Parameters"):  # how papermill marks its cell
            known = set().union(*map(assigned, cells[:place]))
            unknown_parameters(sorted(assigned(cell)), sorted(known))


def checkout(start: Path) -> Path:
    """Return the nearest folder from ``start`` upwards that holds ``notebooks/``, else ``start``.

    A notebook's working folder is its own in Jupyter, and the caller's under papermill.
    """
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return start


def output_folder(name: str) -> Path:
    """Return a notebook's folder or file; a relative one counts from the checkout's root."""
    return checkout(Path.cwd()) / name


def begin(output: str = "results") -> Path:
    """Check the parameters of the notebook that calls this, and return its output folder."""
    from IPython import get_ipython

    if shell := get_ipython():
        check_parameters(shell.user_ns["In"])
    return output_folder(output)


def find_notebook(name: str, folder: Path) -> Path:
    """Return the path of a notebook by name; a SalattackError lists the known ones."""
    known = sorted(path.stem for path in folder.glob("*.ipynb"))
    if not known:
        raise SalattackError(f"no notebooks in {folder}; run from a checkout or pass --notebooks")
    if name not in known:
        raise one_of("notebook", name, known)
    return folder / f"{name}.ipynb"


def known_parameters(source: Path) -> dict[str, object]:
    """Return a notebook's parameters with their defaults."""
    found = _papermill().inspect_notebook(str(source))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}


def run_notebook(source: Path, output: Path, parameters: Mapping) -> None:
    """Execute a notebook from its own folder and write the result without machine traces.

    What the cells print to stderr is passed on. Several threads may call this at the same time.

    Raises:
        SalattackError: an unknown parameter, or a cell that failed (its error's message).
    """
    from traitlets.config import Config

    unknown_parameters(parameters, sorted(known_parameters(source)))
    try:
        # Sockets in the file system: nobody else can reach the kernel, and it need not warn of
        # that. In a folder of their own: a killed run leaves none beside the notebooks.
        with TemporaryDirectory(prefix="salattack-") as place:
            ipc = {"transport": "ipc", "ip": f"{place}/kernel"} if os.name == "posix" else {}
            # Shutting down interrupts the idle kernel, which would report it as an error.
            client = {"extra_arguments": ["--log-level=CRITICAL"]}
            notebook = _papermill().execute_notebook(
                str(source),
                None,
                dict(parameters),
                resources={"metadata": {"path": str(source.parent)}},  # the kernel's folder
                progress_bar=False,
                stderr_file=sys.stderr,
                config=Config({"NotebookClient": client, "KernelManager": ipc}),
            )
    except _papermill().PapermillExecutionError as error:
        kind = "" if error.ename == SalattackError.__name__ else f"{error.ename}: "
        raise SalattackError(f"{source.stem}: {kind}{error.evalue}") from error
    _save(notebook, output)


def _save(notebook: Any, path: Path) -> None:
    import nbformat

    strip(notebook)
    with written_whole(path) as beside:
        nbformat.write(notebook, beside)


@cache
def _papermill() -> ModuleType:
    with warnings.catch_warnings():  # papermill and its friends deprecate each other at import
        warnings.simplefilter("ignore")
        import papermill
    return papermill


if __name__ == "__main__":  # for maintainers: FOLDER of executed notebooks, FOLDER of sources
    import nbformat

    for path in Path(sys.argv[1]).glob("*.ipynb"):
        executed = nbformat.read(path, as_version=4)
        tags = ((cell, cell.metadata.get("tags", [])) for cell in executed.cells)
        executed.cells = [cell for cell, found in tags if "injected-parameters" not in found]
        _save(executed, Path(sys.argv[2]) / path.name)

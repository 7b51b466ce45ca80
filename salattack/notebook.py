"""What every notebook does first: refuse parameters that it does not have, find its place."""

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import one_of


def assigned(source: str) -> set[str]:
    """Return the names that a cell's top level assigns; none where it is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    targets = (t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets)
    return {name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)}


def unknown_parameters(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse parameters that a notebook does not have.

    Raises:
        SalattackError: names the first one, and lists the known ones.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise one_of("notebook parameter", name, known)


def check_parameters(cells: Sequence[str]) -> None:
    """Refuse what papermill injected if no cell before it had a parameter of that name.

    Papermill itself only warns, and a mistyped ``-p n_image 8`` would run the default.

    Args:
        cells: the sources executed so far, IPython's ``In``.

    Raises:
        SalattackError: see `unknown_parameters`.
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
    """Return a notebook's ``output`` folder; a relative one counts from the checkout's root."""
    return checkout(Path.cwd()) / name

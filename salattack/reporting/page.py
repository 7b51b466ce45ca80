"""The verdicts as CSV and Markdown, and a run as one static page with its notebooks beside it."""

import base64
import io
import json
import shutil
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from .. import __version__
from ..experiments.claims import ASSUMING, FINDING, NOT, REPRODUCED, UNTESTED, premises
from ..experiments.samples import read_samples
from ..experiments.table_1 import table_1
from ..runtime.files import RESOURCES, written_whole
from .captions import CAPTIONS
from .tables import presentable

TEMPLATE = RESOURCES / "report.html"

# Beside the words, so that a page of verdicts is read at a glance, in grey too.
MARKS = {REPRODUCED: "●", ASSUMING: "◐", NOT: "○", UNTESTED: "–", FINDING: "◇"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # an output that is dead without a kernel
WIDTH = 1200  # pixels that a picture in the page is worth; the files themselves are for print


def tally(claims: pd.DataFrame) -> str:
    """Return in a line how many claims of `verify` have which verdict."""
    counts = claims["verdict"].value_counts()
    parts = (f"{counts[verdict]} {verdict}" for verdict in MARKS if verdict in counts)
    return f"{len(claims)} claims: {', '.join(parts)}."


def as_text(claims: pd.DataFrame, given: str) -> str:
    """Return `verify`'s result for a terminal: its `premises`, a block a claim, and the tally."""
    width = min(shutil.get_terminal_size().columns, 100)
    fill = partial(textwrap.fill, width=width, break_on_hyphens=False)
    inner = partial(fill, initial_indent="    ", subsequent_indent="    ")
    blocks = (
        f"{fill(f'{row.claim} ({row.source}): {row.verdict}')}\n"
        f"{inner(f'paper {row.printed}; here {row.measured}')}\n{inner(row.because)}"
        for row in claims.itertuples()
    )
    return "\n\n".join([fill(given), *blocks, fill(tally(claims))])


def save_claims(claims: pd.DataFrame, folder: str | Path, given: str) -> list[Path]:
    """Write `verify`'s result as ``claims.csv`` and, under its `premises`, ``claims.md``.

    Raises:
        SalattackError: the folder cannot be written to.
    """
    table = claims.to_markdown(index=False, disable_numparse=True)
    contents = {
        "claims.csv": claims.to_csv(index=False),
        "claims.md": f"{tally(claims)}\n\n{given}\n\n{table}\n",
    }
    return [_write(Path(folder) / name, text) for name, text in contents.items()]


def write_report(
    claims: pd.DataFrame, folder: str | Path, notebooks: Sequence[Path], place: str | Path
) -> Path:
    """Write ``index.html``, which holds its figures, and a page for each executed notebook.

    The pages need no network and no file beside them.

    Args:
        claims: from `verify`.
        folder: of the run's tables and PNG figures. If it has a manifest, the page shows only the
            figures that the manifest lists.
        notebooks: executed ones, in the order in which they are to be listed.
        place: a folder for the pages.

    Returns:
        The path of ``index.html``.

    Raises:
        SalattackError: no tables in ``folder``, or ``place`` cannot be written to.
    """
    folder, place = Path(folder), Path(place)
    links = {}
    for path in notebooks:
        title, body = _notebook(path)
        name = f"{path.stem}.html"
        _write(place / name, _page(title=title, notebook=body))
        links[name] = title
    manifest = _manifest(folder)
    figures = sorted(folder.glob("*.png"))
    if "outputs" in manifest:  # other files are not this run's
        figures = [path for path in figures if path.name in manifest["outputs"]]
    table = presentable(table_1(read_samples(folder))).reset_index()
    table = table.replace(", ", ",\u00a0", regex=True)  # an interval stays on one line
    return _write(
        place / "index.html",
        _page(
            title="Defending Deepfakes by Saliency-Aware Attack, reproduced",
            claims=claims.to_dict("records"),
            marks=MARKS,
            tally=tally(claims),
            premises=premises(folder),
            table=table.to_html(index=False, border=0, justify="left"),
            figures=[_figure(path) for path in figures],
            notebooks=links,
            versions=_versions(manifest),
        ),
    )


def _write(path: Path, text: str) -> Path:
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def _page(**content: object) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(content)


def _figure(path: Path) -> dict:
    """Return a figure as a page holds it: caption, description, size, and its pixels in the URI."""
    name = path.stem.replace("_", " ").capitalize()
    caption, description, _ = CAPTIONS.get(path.stem, (name, name, ""))
    with Image.open(path) as image:
        image.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
        pixels = io.BytesIO()
        image.convert("RGB").save(pixels, "PNG")
        width, height = image.size
    data = base64.b64encode(pixels.getvalue()).decode()
    return {
        "name": path.stem,
        "caption": caption,
        "description": description,
        "width": width,
        "height": height,
        "uri": f"data:image/png;base64,{data}",
    }


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


def _notebook(path: Path) -> tuple[str, str]:
    """Return an executed notebook's title and its cells as HTML, without scripts and machine."""
    with warnings.catch_warnings():  # its friends deprecate each other at import
        warnings.simplefilter("ignore")
        import nbformat
        from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    strip(notebook)
    title = _title(notebook.cells, path.stem)
    for cell in notebook.cells:
        cell.metadata["alt"] = title  # of its pictures
    exporter = HTMLExporter(
        template_name="basic",  # the cells alone: no MathJax, no require.js, no style
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        mathjax_url="",
        require_js_url="",
        jquery_url="",
    )
    return title, exporter.from_notebook_node(notebook)[0]


def _title(cells: Iterable, name: str) -> str:
    lines = (
        line for cell in cells if cell.cell_type == "markdown" for line in cell.source.split("\n")
    )
    return next((line[2:].strip() for line in lines if line.startswith("# ")), name)


def _manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _versions(manifest: Mapping) -> str:
    """Return what made the tables; without a manifest only this package's version."""
    if not manifest:
        return f"salattack {__version__}"
    versions = ", ".join(f"{name} {value}" for name, value in manifest.get("versions", {}).items())
    return f"{versions}; seed {manifest.get('seed')}"

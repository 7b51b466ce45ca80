"""The verdicts as CSV and Markdown, and a run as one static page with its notebooks beside it."""

import base64
import io
import json
import re
import shutil
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd
from PIL import Image

from .. import __version__
from ..experiments.claims import ASSUMING, NOT, REPRODUCED, UNTESTED, VERDICTS
from ..experiments.samples import MODELS, premises, read_samples
from ..experiments.table_1 import by_sample_size, table_1
from ..runtime.files import RESOURCES, write_text
from .captions import CAPTIONS, FIGURE_SUFFIXES, Caption
from .tables import DAMAGE_CAPTION, TABLE_CAPTION, damage_table, flat_layout

MARKS = {REPRODUCED: "●", ASSUMING: "◐", NOT: "○", UNTESTED: "–"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # an output that is dead without a kernel
PAGE_WIDTH = 1200  # pixels of a picture in the page; the files themselves are for print


def tally(claims: pd.DataFrame) -> str:
    """Return in a line how many claims of `verify` have which verdict."""
    counts = claims["verdict"].value_counts()
    parts = (f"{counts[verdict]} {verdict}" for verdict in MARKS if verdict in counts)
    return f"{len(claims)} claims: {', '.join(parts)}."


def overview(folder: str | Path) -> pd.DataFrame:
    """Return the damage table in short: the attackers that the paper prints, and L2-PGD."""
    table = table_1(read_samples(folder))
    shown = table["paper_l1"].notna() | (table.index == "l2-pgd")
    return damage_table(table[shown])


def claims_text(claims: pd.DataFrame, given: str) -> str:
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
    text = f"{tally(claims)}\n\n{given}\n"
    for verdict, group in claims.groupby("verdict", sort=False):
        table = group.drop(columns="verdict").to_markdown(index=False, disable_numparse=True)
        text += f"\n## {VERDICTS[verdict]}\n\n{table}\n"
    contents = {"claims.csv": claims.to_csv(index=False), "claims.md": text}
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
        place: a folder for the pages; the path of its ``index.html`` is returned.

    Raises:
        SalattackError: no tables in ``folder``, or ``place`` cannot be written to.
    """
    folder, place, links = Path(folder), Path(place), {}
    for path in notebooks:
        title, body = _notebook(path)
        links[_write(place / f"{path.stem}.html", _rendered(title=title, notebook=body)).name] = (
            title
        )
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    written = manifest.get("outputs")  # other files are not this run's
    found = [p for at in (folder, folder / "published") for p in sorted(at.glob("*"))]
    figures = [
        name
        for name in (p.relative_to(folder).as_posix() for p in found if p.suffix in FIGURE_SUFFIXES)
        if written is None or name in written or name.startswith("published/")
    ]
    figures.sort(key=lambda name: [*CAPTIONS, name].index(name))
    shipped = {model.file for kind in MODELS.values() for model in kind.values() if model.shipped}
    rows = read_samples(folder)
    return _write(
        place / "index.html",
        _rendered(
            title="Reproduction report: Defending Deepfakes by Saliency-Aware Attack",
            standins="weights" in manifest and set(manifest["weights"]) <= shipped,
            groups=claims.groupby("verdict", sort=False),
            marks=MARKS,
            tally=tally(claims),
            premises=premises(folder),
            table=flat_layout(by_sample_size(rows), "<b>{}</b>"),
            damage=damage_table(table_1(rows)).reset_index(),
            captions=(TABLE_CAPTION, DAMAGE_CAPTION),
            figures=[_figure(folder, name) for name in figures],
            notebooks=links,
            run=manifest or {"versions": {"salattack": __version__}},
        ),
    )


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _rendered(**content: object) -> str:
    import jinja2

    loader = jinja2.FileSystemLoader(RESOURCES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.undefined = jinja2.ChainableUndefined
    return environment.get_template("report.html").render(content)


def _figure(folder: Path, name: str) -> dict:
    """Return what the page shows of a figure: texts, notebook, size, and its pixels in a URI."""
    title = Path(name).stem.replace("_", " ").capitalize()
    with Image.open(folder / name) as image:
        image.thumbnail((PAGE_WIDTH, 4 * PAGE_WIDTH), Image.Resampling.LANCZOS)
        known = CAPTIONS.get(name, Caption(title, title, ""))
        return known._asdict() | {
            "width": image.width,
            "height": image.height,
            "uri": _picture_uri(image),
        }


def _picture_uri(image: Image.Image) -> str:
    """Return a picture as WebP in a URI; at this quality all pages together stay below 3 MB."""
    pixels = io.BytesIO()
    image.convert("RGB").save(pixels, "webp", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(pixels.getvalue()).decode()}"


def _dead(output: Mapping) -> bool:
    """Whether an output is a widget and nothing else."""
    data = output.get("data", {})
    return WIDGET in data and "text/html" not in data


def strip(notebook: Mapping) -> None:
    """Remove in place what tells of a machine or a moment: times, paths, progress, execution."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata |= {"kernelspec": kernel, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not _dead(o)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                output.get("metadata", {}).pop("papermill", None)


def _notebook(path: Path) -> tuple[str, str]:
    """Return an executed notebook's title and its cells as HTML, formulas as MathML."""
    with warnings.catch_warnings():  # its friends deprecate each other at import
        warnings.simplefilter("ignore")
        import nbformat
        from latex2mathml.converter import convert
        from nbconvert import HTMLExporter

    def formula(found: re.Match) -> str:
        return convert(found[1] or found[2], display="block" if found[1] else "inline")

    notebook = nbformat.read(path, as_version=4)
    strip(notebook)
    lines = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    title = found[1].strip() if (found := re.search("^# (.+)", lines, re.M)) else path.stem
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\$\$(.+?)\$\$|\$(.+?)\$", formula, cell.source, flags=re.S)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if kind := next(iter({"image/png", "image/jpeg"} & data.keys()), None):
                with Image.open(io.BytesIO(base64.b64decode(data[kind]))) as image:
                    tag = f'<img src="{_picture_uri(image)}" alt="{escape(title)}">'
                output["data"] = {"text/html": tag}
    exporter = HTMLExporter(
        template_name="basic",  # the cells alone: no MathJax, no require.js, no style
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    return title, exporter.from_notebook_node(notebook)[0]

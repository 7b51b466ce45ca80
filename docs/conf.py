"""The documentation site: README.md, docs/, notebooks/ and the docstrings, by Sphinx and MyST-NB.

Sphinx takes the repository's root as its source, so the Markdown files stay where a reader of the
repository finds them, with the same relative links, and the notebooks are shown with the outputs
that are committed. MkDocs wants all pages below one folder, so they would have to be copied.
`make docs` builds it without network, and fails on a broken link.
"""

import re
from pathlib import Path

from docutils.nodes import SkipNode, math, math_block
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html import HTMLTranslator

project, author, copyright = "salattack", "salattack contributors", "2026, salattack contributors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "notebooks/*.ipynb",
    "figures/*.md",
    "figures/celeba/*.md",
    "figures/published/*.md",
    "salattack/resources/weights/*.md",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"  # what a docstring has in backticks is code, and a link where there is one
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"  # with tables
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes as one list
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
html_theme = "furo"
html_title = "salattack"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
# Docstrings are read in a terminal too; only links must be right.
suppress_warnings = ["docutils", "myst.header", "toc.not_included", "mystnb.unknown_mime_type"]

CONTENTS = """
```{toctree}
:hidden:
:caption: Guide
docs/method
docs/parameters
docs/findings
figures/README
docs/seeds
REPRODUCING
docs/celeba
docs/own_generator
docs/protect
docs/speed
docs/api
```
```{toctree}
:hidden:
:caption: Notebooks
notebooks/walkthrough
notebooks/framework
notebooks/attribute_editing
notebooks/saliency_maps
notebooks/attack_comparison
notebooks/attribute_visualization
notebooks/ablation
notebooks/trade_off
notebooks/smallest_change
notebooks/robustness
notebooks/paper_reading
notebooks/transfer
notebooks/published_generators
notebooks/models
notebooks/protect
```
```{toctree}
:hidden:
:caption: Project
CHANGELOG
CONTRIBUTING
```
"""


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Append the table of contents to the README, and keep the intervals of tables on one line."""
    if name == root_doc:
        source[0] += CONTENTS
    if not name.startswith("notebooks/"):
        interval = r"\[([^\s\]]+), ([^\s\]]+)\](?=.*\|$)"
        source[0] = re.sub(interval, r"[\1,&nbsp;\2]", source[0], flags=re.M)


def mathml(translator: HTMLTranslator, node: math | math_block) -> None:
    """Write a formula as MathML, which needs no script from elsewhere."""
    display = "block" if isinstance(node, math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Write index.html, which leads to the first page."""
    page = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">'
    (Path(app.outdir) / "index.html").write_text(page + f'<a href="{root_doc}.html">salattack</a>')


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)

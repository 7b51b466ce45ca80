"""Captions of the figures, and the gallery made of them."""

import tomllib
from typing import NamedTuple

from ..runtime.files import RESOURCES

FIGURE_SUFFIXES = (".jpg", ".png")  # of photographs, and charts


class Caption(NamedTuple):
    """What a figure shows, for those who see it and for those who do not, and who draws it."""

    title: str
    description: str
    notebook: str


_FILE = RESOURCES / "captions.toml"
CAPTIONS = {
    name: Caption(**texts)
    for name, texts in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()
}


def gallery() -> str:
    """Return ``figures/README.md``: each figure with caption, notebook and command."""
    parts = [
        "# Figures\n\n`make figures` draws these figures, those of the published generators only "
        "if they are in the cache\n(`salattack assets fetch published`). The PDFs, where there is "
        "one of the same name, are for print.\n"
    ]
    for name, (title, description, notebook) in CAPTIONS.items():
        parts.append(
            f"## {title}\n\n![{description}]({name})\n\n{description} "
            f"Notebook: [{notebook}](../notebooks/{notebook}.ipynb). "
            f"Command: `salattack run {notebook}`.\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(gallery(), end="")

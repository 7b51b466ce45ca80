"""Train and measure the shipped networks."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pandas as pd
import typer

from ..errors import SalattackError
from ..generators import load_generator
from ..saliency import load_saliency
from . import saliency, stargan
from .bars import bars
from .grids import load_grids
from .quality import flip_rates, generator_quality, saliency_quality, train_classifier
from .resumable import export

app = typer.Typer(help=__doc__, add_completion=False, result_callback=typer.echo)


def add(module: ModuleType) -> None:
    """Add the training of a module as a command; its options are the fields of its settings."""

    def command(**settings: object) -> Path:
        return module.train(module.Settings(**settings))

    command.__signature__ = inspect.signature(module.Settings)
    command.__annotations__ = get_type_hints(module.Settings)
    app.command(module.__name__.rpartition(".")[2], help=module.__doc__.splitlines()[0])(command)


add(stargan)


add(saliency)


app.command("weak-labels")(saliency.weak_labels)


app.command()(export)


app.command()(bars)


@app.command()
def evaluate(data: Path, weights: Path | None = None) -> str:
    """Measure a generator on a folder of grids, or a saliency model on a tar of pairs."""
    if not data.is_dir():
        found = saliency_quality(load_saliency(weights=weights, device="cpu"), data)
        return pd.Series(found).to_string()
    generator = load_generator(weights=weights, device="cpu")
    trained, held = load_grids(data).split()
    judge = train_classifier(trained.tiles[:, 0], trained.labels)
    flips = flip_rates(judge, generator, held).to_string(index=False)
    return f"{pd.Series(generator_quality(generator, held)).to_string()}\n{flips}"


if __name__ == "__main__":
    try:
        app()
    except (SalattackError, ImportError) as error:
        raise SystemExit(str(error)) from None

"""Train and measure the shipped networks."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import typer

from ..errors import SalattackError
from ..generators import load_generator
from ..saliency import load_saliency
from .grids import load_grids
from .quality import bars, flip_rates, generator_quality, saliency_quality, train_classifier
from .resumable import export
from .saliency import train_saliency, weak_labels
from .stargan import train_stargan

training_app = typer.Typer(help=__doc__, add_completion=False, result_callback=typer.echo)


def _training(train: Callable[..., Path]) -> Callable[..., Path]:
    """Return a training as a command, whose options are the fields of its settings."""
    kind = get_type_hints(train)["settings"]

    def command(**settings: object) -> Path:
        return train(kind(**settings))

    command.__signature__, command.__doc__ = inspect.signature(kind), train.__doc__
    command.__annotations__ = get_type_hints(kind)
    return command


training_app.command("stargan")(_training(train_stargan))
training_app.command("saliency")(_training(train_saliency))
for _command in (weak_labels, export, bars):
    training_app.command()(_command)


@training_app.command("evaluate")
def evaluate_model(data: Path, weights: Path | None = None) -> str:
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
        training_app()
    except (SalattackError, ImportError) as error:
        raise SystemExit(str(error)) from None

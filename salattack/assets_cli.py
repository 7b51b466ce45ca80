"""Published models and data: list, fetch, verify, or file them by hand."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

app = typer.Typer(help=__doc__, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As `salattack assets list` gives it.")]


@app.command("list")
def list_assets() -> None:
    """Show every asset: size, licence, whether it is in the cache, address."""
    from .assets import ASSETS, cache

    rows = [
        (
            asset.name,
            f"{asset.size / 1e6:.1f} MB" if asset.size else "unknown",
            "present" if asset.path.is_file() else "–",
            asset.licence,
            asset.address,
        )
        for asset in ASSETS.values()
    ]
    typer.echo(tabulate(rows, ("name", "size", "cache", "licence", "address")))
    typer.echo(f"Cache: {cache()} (SALATTACK_CACHE names another folder)")


@app.command()
def fetch(name: Name) -> None:
    """Bring an asset into the cache and print its path; a broken transfer goes on."""
    from . import assets

    asset = assets.known(name)
    typer.echo(f"{name}: {asset.licence}; {asset.source}", err=True)
    typer.echo(_warned(lambda: assets.fetch(name)))


@app.command()
def add(
    name: Name, file: Annotated[Path, typer.Argument(help="It, or the zip that holds it.")]
) -> None:
    """Verify a file that you got yourself and copy it into the cache."""
    from . import assets

    typer.echo(_warned(lambda: assets.add(name, file)))


@app.command()
def verify() -> None:
    """Compare every file of the cache to its checksum; exit code 1 when one is wrong."""
    from .assets import cache, known
    from .assets import verify as check

    found = check()
    for name, problem in found.items():
        typer.echo(f"{name}: " + (f"{known(name).path} {problem}" if problem else "whole"))
    if not found:
        typer.echo(f"There is nothing in {cache()}; `salattack assets fetch NAME` brings it")
    if any(found.values()):
        raise typer.Exit(1)


@app.command()
def path(name: Name) -> None:
    """Print where an asset lies in the cache, after a check that it is whole."""
    from .assets import path as find

    typer.echo(find(name))


def _warned(work: Callable[[], Path]) -> Path:
    """Do the work and say its warnings as plain lines."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        done = work()
    for warning in said:
        typer.echo(f"salattack: {warning.message}", err=True)
    return done

"""List, fetch, verify or add published models and data."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate
from typer import Argument

from ..runtime import assets

assets_app = typer.Typer(help=__doc__, no_args_is_help=True)
Name = Annotated[str, Argument(help="Name from `salattack assets list`; fetch takes a group too.")]


@assets_app.command("list")
def list_assets() -> None:
    """Show every asset. The list gives size, licence and address, and what is in the cache."""
    rows = []
    for asset in assets.ASSETS.values():
        size = f"{asset.size / 1e6:.1f} MB" if asset.size else "unknown"
        present = "present" if asset.path.exists() else "–"
        rows.append((asset.name, asset.group, size, present, asset.licence, asset.address))
    typer.echo(tabulate(rows, ("name", "group", "size", "cache", "licence and terms", "address")))
    typer.echo(f"Cache: {assets.cache()} (set SALATTACK_CACHE to use another folder)")


@assets_app.command("fetch")
def fetch_asset(name: Name) -> None:
    """Download an asset or a group. Files go into the cache; an interrupted download resumes."""
    names = [asset.name for asset in assets.ASSETS.values() if asset.group == name] or [name]
    for asset in map(assets.known, names):
        typer.echo(f"{asset.name}: {asset.licence}; see {asset.source}", err=True)
    for each in names:
        _told(assets.fetch, each)


@assets_app.command("add")
def add_asset(
    name: Name,
    file: Annotated[Path, Argument(help="The file, its zip or its folder.")],
) -> None:
    """Add a file that you downloaded yourself. It is verified and copied into the cache."""
    _told(assets.add, name, file)


@assets_app.command("verify")
def verify_assets() -> None:
    """Verify every file in the cache. The exit code is 1 if one is wrong."""
    found = assets.problems()
    for name, problem in found.items():
        path = assets.known(name).path
        typer.echo(f"{name}: {f'{path} {problem}' if problem else 'intact'}")
    if not found:
        typer.echo(f"{assets.cache()} is empty; run `salattack assets fetch NAME`")
    raise typer.Exit(any(found.values()))


@assets_app.command("path")
def asset_path(name: Name) -> None:
    """Verify an asset in the cache and print its path."""
    typer.echo(assets.checked(name)[0])


def _told(bring: Callable[..., Path], *arguments: object) -> None:
    """Print the path that a call returns, and its warnings as plain lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: typer.echo(f"salattack: {message}", err=True)
        typer.echo(bring(*arguments))

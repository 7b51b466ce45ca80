"""`salattack protect`: one photo or many, restartable."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import SalattackError
from ..protect.batch import BAD_PHOTOS, _on_ray, _pairs, _protect_all, _protect_one, _work, _worker
from ..protect.photo_file import FORMATS


def protect(
    photos: Annotated[list[Path], typer.Argument(metavar="IN...", help="Photos and folders.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file for one photo, or a folder.")
    ],
    strength: Annotated[
        Literal["gentle", "normal", "strong"],
        typer.Option(help="A stronger change breaks more edits and is easier to see."),
    ] = "normal",
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write a page beside each protected file. It shows the original: keep it private.",
        ),
    ] = False,
    mask: Annotated[
        Path | None,
        typer.Option(help="A grey picture of the photo's size: white may change, black not."),
    ] = None,
    generator: Annotated[
        str, typer.Option(help="Generator to protect against; a wrong name lists those known.")
    ] = "stargan-celeba128-w32",
    generator_weights: Annotated[
        Path | None, typer.Option(help="Weights file of the generator.")
    ] = None,
    whole_frame: Annotated[
        bool, typer.Option("--whole-frame", help="Protect the centre square, not the faces.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Number of processes, with --engine ray.")
    ] = None,
) -> None:
    """Protect photos against face edits. The faces change so that one generator's edits break.

    The change is visible, more so at higher strength. It works against the generator that
    --generator names, and can be undone in part by compressing, shrinking or blurring the file.
    The original is never written to. Embedded thumbnails and previews are dropped, because they
    show the unprotected face; so is other metadata that could hold a picture. Run it again after
    an interruption: photos that are done, unchanged and at the same settings are skipped, unless
    --overwrite asks for all of them. Exit code 3: some photos failed, see the end.
    """
    from ..generators.registry import GENERATORS
    from ..protect.disruption import load_protector
    from ..runtime.files import sha256

    if workers is not None and engine == "local":
        raise SalattackError("--workers goes with --engine ray; pass both or neither")
    load = partial(load_protector, strength, generator=generator, device=device)
    if generator_weights is not None:
        load = partial(load, generator_weights=str(generator_weights.absolute()))
    one_file = len(photos) == 1 and not photos[0].is_dir() and not output.is_dir()
    if one_file and output.suffix.lower() in FORMATS:
        if engine == "ray":
            raise SalattackError("--engine ray is for several photos; give a folder with -o")
        _, said = _protect_one(photos[0], output, load(), report, whole_frame, overwrite, mask=mask)
        typer.echo("\n".join(said))
        return
    if mask is not None:
        raise SalattackError("--mask is for one photo; name it, and a file with -o")
    pairs = _pairs(photos, output)
    protector = load()
    settings = {
        "strength": strength,
        "whole_frame": whole_frame,
        "generator": protector.generator_name,
        "weights": sha256(generator_weights) if generator_weights else GENERATORS[generator].sha256,
        "attack": repr(protector.attack),
    }
    options = {"report": report, "whole_frame": whole_frame, "total": len(pairs)}
    if engine == "ray":
        make = partial(_worker, load, protector.attack, options)
        run = partial(_on_ray, make, workers, protector.device.type == "cuda")
    else:
        run = partial(map, partial(_work, protector, **options))
    failed = _protect_all(
        pairs, output, settings, run, overwrite, report, in_order=engine == "local"
    )
    if failed:
        typer.echo(f"{len(failed)} of {len(pairs)} photos are not protected:", err=True)
        for message in failed:
            typer.echo(f"  {message}", err=True)
        raise typer.Exit(BAD_PHOTOS)

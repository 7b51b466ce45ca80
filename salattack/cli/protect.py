"""`salattack protect`: one photo or many, resumable."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from ..errors import SalattackError
from . import options


def protect(
    photos: Annotated[list[Path], Argument(metavar="IN...", help="Photos and folders.")],
    output: Annotated[Path, Option("--output", "-o", help="A file for one photo, or a folder.")],
    strength: Annotated[
        Literal["normal", "strong", "strongest"],
        Option(help="How badly every edit must break; a stronger change is easier to see."),
    ] = "normal",
    max_change: Annotated[
        float | None,
        Option(min=1, help="Largest change of a colour value, of 255.  [default: no limit]"),
    ] = None,
    alignment_error: Annotated[
        float,
        Option(
            min=0,
            help="Error of a forger's face alignment that the change withstands, in px of a crop "
            "of 128 px. Less is harder to see.",
        ),
    ] = 2.0,
    suffix: Annotated[
        Literal["jpg", "png", "webp"] | None,
        Option("--format", help="Format of the written files.  [default: as the photo, or jpg]"),
    ] = None,
    report: Annotated[
        bool,
        Option(
            "--report",
            help="Write a page beside each file. Keep it private: it shows the original.",
        ),
    ] = False,
    mask: Annotated[
        Path | None,
        Option(help="Grey picture of the photo's size: black keeps the photo as it is."),
    ] = None,
    generator: options.GeneratorName = options.GENERATOR,
    generator_weights: options.Weights = None,
    whole_frame: Annotated[
        bool, Option("--whole-frame", help="Protect the centre square, not the faces.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing files.")] = False,
    device: options.Device = "auto",
    engine: options.EngineName = "local",
    workers: options.Workers = None,
) -> None:
    """Protect photos against face edits. The faces change so that one generator's edits break.

    The command searches for the smallest change that breaks all edits. The change is visible, and
    a higher strength makes it easier to see. With --max-change some edits may not break; the output
    names them. The protection works only against the generator that --generator names.
    Compressing, shrinking or blurring the file undoes part of it.

    The original is never written to. Embedded thumbnails and previews are dropped, because they
    show the unprotected face. Other metadata that could hold a picture is dropped too.

    To resume after an interruption, run the same command again. It skips finished photos if they
    and the settings are unchanged; --overwrite repeats them. Exit code 3: some photos failed. They
    are listed at the end, and so are files in a folder that are not photos.
    """
    from ..protect import batch
    from ..protect.disruption import load_protector
    from ..protect.photo_file import READ

    options.check_workers(workers, engine)
    weights = generator_weights and Path(generator_weights).absolute()
    models = {"generator": generator, "generator_weights": weights, "device": device}
    change = {"max_change": max_change, "alignment_error": alignment_error}
    load = partial(load_protector, strength, **change, **models)
    how = {"report": report, "whole_frame": whole_frame, "overwrite": overwrite}
    one_file = len(photos) == 1 and not photos[0].is_dir() and not output.is_dir()
    if one_file and output.suffix.lower() in READ:
        if engine == "ray":
            raise SalattackError("--engine ray is for several photos; give a folder with -o")
        name = photos[0].name
        _, said = batch.protect_one(photos[0], output, load(), name, mask=mask, **how)
        typer.echo("\n".join(said))
        return
    if mask is not None:
        raise SalattackError("--mask is for one photo; name it, and a file with -o")
    if engine == "ray":  # a worker's folder is another one
        photos, output = [photo.absolute() for photo in photos], output.absolute()
    pairs, left = batch.pairs_of(photos, output, suffix and f".{suffix}")
    how |= {"on_ray": engine == "ray", "workers": workers}
    skipped, failed = batch.protect_all(pairs, output, load, **how)
    if skipped:
        typer.echo(f"{skipped} photos were done before and are unchanged: skipped")
    if left:
        typer.echo("\n  ".join([f"{len(left)} files are not taken:", *left]))
    options.end_with(failed, f"of {len(pairs)} photos are not protected")

"""`salattack protect`: one photo or many, restartable."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import SalattackError, one_of
from .photo import FORMATS

RECORD = "salattack-protect.jsonl"  # in the output folder: a line as each photo begins and ends
BAD_PHOTOS = 3  # exit code when some photos of several could not be protected


def protect(
    photos: Annotated[list[Path], typer.Argument(metavar="IN...", help="Photos and folders.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file for one photo, or a folder.")
    ],
    strength: Annotated[
        str, typer.Option(help="gentle, normal or strong: less visible or more broken.")
    ] = "normal",
    report: Annotated[
        bool, typer.Option("--report", help="Write a page beside each photo that shows both.")
    ] = False,
    whole_frame: Annotated[
        bool, typer.Option("--whole-frame", help="Protect the centre square, not the faces.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Protect photos against face edits: change them invisibly, so that the edits break.

    The original is never written to. Run it again after an interruption: photos that are done,
    unchanged and at the same settings are skipped. Exit code 3: some photos failed, see the end.
    """
    from .protect import STRENGTHS, load_protector

    if strength not in STRENGTHS:
        raise one_of("strength", strength, STRENGTHS)
    one_file = len(photos) == 1 and not photos[0].is_dir() and not output.is_dir()
    if one_file and output.suffix.lower() in FORMATS:
        protector = load_protector(strength, device=device)
        _protect_one(photos[0], output, protector, report, whole_frame, overwrite)
        return
    pairs = _pairs(photos, output)
    protector = load_protector(strength, device=device)
    settings = {
        "strength": strength,
        "whole_frame": whole_frame,
        "generator": protector.generator_name,
        "attack": repr(protector.attack),
    }
    failed = _protect_all(pairs, output, settings, protector, report, whole_frame, overwrite)
    if failed:
        typer.echo(f"{len(failed)} of {len(pairs)} photos are not protected:", err=True)
        for message in failed:
            typer.echo(f"  {message}", err=True)
        raise typer.Exit(BAD_PHOTOS)


def _pairs(photos: list[Path], output: Path) -> list[tuple[Path, Path]]:
    """Return every photo with its target; a folder's photos keep their place below it."""
    if output.exists() and not output.is_dir():
        raise SalattackError(f"{output} is a file; give a folder for several photos")
    pairs: list[tuple[Path, Path]] = []
    inside = output.resolve()
    for given in photos:
        if not given.is_dir():
            pairs.append((given, output / given.name))
            continue
        if given.resolve() == inside:
            raise SalattackError(f"{output} is one of the inputs; choose another output folder")
        written = given.resolve() in inside.parents  # our own results are no photos to protect
        files = sorted(p for p in given.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())
        below = [(p, p.relative_to(given)) for p in files]
        pairs += [
            (p, output / place)
            for p, place in below
            if not (written and inside in p.resolve().parents)
            and not any(part.startswith(".") for part in place.parts)
        ]
    if not pairs:
        raise SalattackError(f"no photos in {photos[0]}; known are {', '.join(FORMATS)}")
    taken: dict[Path, Path] = {}
    sources = {source.resolve() for source, _ in pairs}
    for source, target in pairs:
        if target.resolve() in sources:
            raise SalattackError(f"{target} is one of the photos; choose another output folder")
        if taken.setdefault(target, source) != source:
            raise SalattackError(f"{taken[target]} and {source} would both become {target}")
    return list(dict.fromkeys(pairs))


def _protect_all(
    pairs: list[tuple[Path, Path]],
    output: Path,
    settings: dict,
    protector: object,
    report: bool,
    whole_frame: bool,
    overwrite: bool,
) -> list[str]:
    """Protect every photo that the record does not hold as done; return what went wrong."""
    from .weights import sha256

    begun, done = read_record(output / RECORD)
    failed, skipped = [], 0
    for number, (source, target) in enumerate(pairs, 1):
        name = target.relative_to(output).as_posix()
        try:
            asked = {"photo": sha256(source), "settings": settings}
        except OSError as error:
            failed.append(f"{source}: {error.strerror}")
            continue
        last = done.get(name, {})
        if target.is_file() and last.get("asked") == asked and last["written"] == sha256(target):
            skipped += 1
            continue
        # Only what an interrupted run, or an earlier one, has written here may be replaced.
        ours = target.is_file() and (
            last.get("written") == sha256(target) if last else name in begun
        )
        try:
            if not target.exists() or ours:
                _note(output, {"target": name, "begun": asked})
            label = f"{number} of {len(pairs)} · {source.name}"
            figures = _protect_one(
                source, target, protector, report, whole_frame, overwrite or ours, label
            )
            _note(output, {"target": name, "asked": asked, "written": sha256(target), **figures})
        except SalattackError as error:
            failed.append(str(error))
            _note(output, {"target": name, "failed": str(error)})
    if skipped:
        typer.echo(f"{skipped} photos were done before and are unchanged: skipped")
    return failed


def read_record(path: Path) -> tuple[set[str], dict[str, dict]]:
    """Return the targets begun, and the last line of each that was done, of a run's record.

    A line that an interruption cut is left out: its photo counts as begun.
    """
    begun: set[str] = set()
    done: dict[str, dict] = {}
    if not path.exists():
        return begun, done
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            name = entry["target"]
        except (ValueError, KeyError, TypeError):
            continue
        if "begun" in entry:
            begun.add(name)
            done.pop(name, None)
        elif "written" in entry:
            done[name] = entry
    return begun, done


def _note(output: Path, entry: dict) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / RECORD).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        raise SalattackError(
            f"cannot write {output / RECORD}: {error.strerror}; choose another place"
        ) from error


def _protect_one(
    source: Path,
    target: Path,
    protector: object,
    report: bool,
    whole_frame: bool,
    overwrite: bool,
    label: str = "",
) -> dict:
    """Protect a photo under a progress bar, say what became of it, and return its figures."""
    from .protect import protect_photo
    from .protect_report import in_words, write_report
    from .study import progress_bar

    steps = protector.attack.gradients
    with progress_bar(steps, hidden=not sys.stderr.isatty()) as bar:

        def show(face: int, faces: int, step: int) -> None:
            bar.total, bar.n = faces * steps, (face - 1) * steps + step
            bar.set_description(f"{label or source.name} · face {face} of {faces}")

        done = protect_photo(
            source, target, protector, whole_frame=whole_frame, overwrite=overwrite, on_step=show
        )
    typer.echo(f"{target}: {in_words(done)}")
    if report:
        page = target.with_name(target.name + ".html")
        write_report(done, protector, page)
        typer.echo(f"{page}: the photo before and after")
    return done.record()

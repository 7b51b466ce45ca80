"""Many photos: resumable, on this machine or on a Ray cluster."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import SalattackError
from ..runtime.files import sha256, write_text
from ..runtime.parallel import map_on_ray
from ..runtime.progress import progress_bar
from .disruption import Protector
from .page import body, in_words
from .photo_file import READ, name_written
from .protection import Protected, measure, protect_photo

RECORD = "salattack-protect.jsonl"  # in the output folder: a line as each photo begins and ends
RETRIES = 3  # of a photo whose worker was lost, since the photo itself may be the cause


class Job(NamedTuple):
    """One photo of several."""

    label: str  # of its progress bar
    source: Path
    target: Path
    entry: dict  # for the record: the target's name, and what was asked of which photo
    overwrite: bool
    done: bool  # only the report is missing


Outcome = tuple[dict, list[str]]  # the entry for the record (or none), lines for the user


def pairs_of(
    photos: list[Path], output: Path, suffix: str | None = None
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return every photo with its target, and why any file of a folder is not taken.

    A folder's photos keep their paths below it. ``suffix`` is that of `name_written`.

    Raises:
        SalattackError: no photos, two with the same target, or an output among the inputs.
    """
    if output.exists() and not output.is_dir():
        raise SalattackError(f"{output} is a file; give a folder for several photos")
    pairs: dict[Path, Path] = {}  # by target
    inside, left = output.resolve(), []
    for given in photos:
        found = [(given, Path(given.name))]
        if given.is_dir():
            if given.resolve() == inside:
                raise SalattackError(f"{output} is one of the inputs; choose another output folder")
            written = given.resolve() in inside.parents  # our own results are not inputs
            found = []
            for path in sorted(given.rglob("*")):
                below = path.relative_to(given)
                if path.is_dir() or (written and inside in path.resolve().parents):
                    continue
                if any(part.startswith(".") for part in below.parts):
                    left.append(f"{path}: hidden")
                elif path.suffix.lower() not in READ:
                    left.append(f"{path}: not named as a photo")
                elif not path.is_file():
                    left.append(f"{path}: a link to nothing, or no file")
                else:
                    found.append((path, below))
        for source, below in found:
            target = output / below.with_name(name_written(below.name, suffix))
            if (first := pairs.setdefault(target, source)) != source:
                raise SalattackError(f"{first} and {source} would both become {target}")
    if not pairs:
        raise SalattackError(f"no photos in {photos[0]}; known are {', '.join(READ)}")
    if both := {path.resolve() for path in pairs} & {path.resolve() for path in pairs.values()}:
        raise SalattackError(f"{both.pop()} is one of the photos; choose another output folder")
    return [(source, target) for target, source in pairs.items()], left


def protect_all(
    pairs: list[tuple[Path, Path]],
    output: Path,
    load: Callable[[], Protector],
    *,
    overwrite: bool = False,
    report: bool = False,
    whole_frame: bool = False,
    on_ray: bool = False,
    workers: int | None = None,
) -> tuple[int, list[str]]:
    """Protect every photo that the record does not hold as done with the same settings.

    With ``on_ray``, a cluster does it whose workers see the same files at the same paths. Returned
    are how many photos were skipped, and what went wrong with others.
    """
    protector, record, failed, skipped = load(), _read_record(output / RECORD), [], 0
    attack, how = protector.attack, {"report": report, "whole_frame": whole_frame}
    settings = {**protector.origin, "attack": repr(attack), "whole_frame": whole_frame}
    settings["alignment_error"] = protector.alignment_error

    def jobs() -> Iterator[Job]:
        nonlocal skipped
        for number, (source, target) in enumerate(pairs, 1):
            name = target.relative_to(output).as_posix()
            try:
                entry = {"target": name, "asked": {"photo": sha256(source), "settings": settings}}
            except OSError as error:
                failed.append(f"{source}: {error.strerror}")
                continue
            last = record.get(name, {})
            intact = target.is_file() and last.get("written") == sha256(target)
            done = intact and last["asked"] == entry["asked"] and not overwrite
            if done and not (report and _is_newer(target, _page(target))):
                skipped += 1
                continue
            # Without --overwrite only files that this record lists may be replaced.
            free = intact or (last and "written" not in last) or not target.exists()
            if free and not done:
                _note(output, entry)
            label = f"{number} of {len(pairs)} · {source.name}"
            yield Job(label, source, target, entry, overwrite or bool(free), done)

    def lost(job: Job) -> Outcome:
        reason = f"{job.source}: its worker was lost {RETRIES + 1} times"
        reason += "; give workers more memory or shrink the photo"
        return {**job.entry, "failed": reason}, []

    outcomes = map(partial(_work, protector, **how), jobs())
    if on_ray:
        outcomes = map_on_ray(
            lambda: partial(_work, replace(load(), attack=attack), **how),
            jobs(),
            workers=workers,
            gpus=int(protector.device.type == "cuda"),
            retries=RETRIES,
            lost=lost,
        )
    # On this machine each photo shows its own bar.
    with progress_bar(len(pairs), hidden=not (on_ray and sys.stderr.isatty())) as bar:
        bar.set_description(f"{len(pairs)} photos")
        for finished, (entry, said) in enumerate(outcomes, 1):
            if entry:
                _note(output, entry)
            if "failed" in entry:
                failed.append(entry["failed"])
            bar.n = finished + skipped
            bar.write("\n".join(said)) if said else bar.refresh()
    _sweep([target for _, target in pairs])
    return skipped, sorted(failed)


def _sweep(targets: list[Path]) -> None:
    """Remove what processes that run no more left half written, by `written_whole`'s names."""
    ours = {path for target in targets for path in (target, _page(target))}
    for folder in {target.parent for target in targets}:
        for path in folder.glob(".*"):
            name = re.fullmatch(r"\.(\d+)\.(.+)", path.name)
            if name and path.with_name(name[2]) in ours and not _alive(int(name[1])):
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Return whether a process of this id runs; True where that is unknown."""
    try:
        if os.name == "posix":  # elsewhere os.kill would end it
            os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _page(target: Path) -> Path:
    return target.with_name(target.name + ".html")


def _is_newer(target: Path, page: Path) -> bool:
    return not page.exists() or page.stat().st_mtime_ns < target.stat().st_mtime_ns


def _work(protector: Protector, job: Job, *, report: bool, whole_frame: bool) -> Outcome:
    """Protect one of several photos; an error is part of the outcome."""
    try:
        if job.done:
            done = measure(job.source, job.target, protector, whole_frame=whole_frame)
            return {}, [_report(done, protector)]
        how = {"overwrite": job.overwrite, "whole_frame": whole_frame}
        figures, said = protect_one(job.source, job.target, protector, job.label, report, **how)
    except SalattackError as error:
        named = job.source.name in str(error)
        return {**job.entry, "failed": str(error) if named else f"{job.source}: {error}"}, []
    return {**job.entry, "written": sha256(job.target), **figures}, said


def _read_record(path: Path) -> dict[str, dict]:
    """Return the last entry, begun or written, of each target of a run."""
    record = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # an interruption may cut a line short
            entry = json.loads(line)
            if "failed" not in entry:
                record[entry["target"]] = entry
    return record


def _note(output: Path, entry: dict) -> None:
    path = output / RECORD
    try:
        output.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; choose another path"
        raise SalattackError(message) from error


def protect_one(
    source: Path, target: Path, protector: Protector, label: str, report: bool, **options: object
) -> tuple[dict, list[str]]:
    """Protect a photo under a progress bar; return its record and lines for the user."""
    steps = protector.attack.gradients
    with progress_bar(steps, hidden=not sys.stderr.isatty()) as bar:

        def show(face: int, faces: int, step: int) -> None:
            bar.total, bar.n = faces * steps, (face - 1) * steps + step
            bar.set_description(f"{label} · face {face} of {faces}")

        done = protect_photo(source, target, protector, on_step=show, **options)
    said = [f"{target}: {text}" for text in (in_words(done), *done.notes)]
    return done.record(), [*said, _report(done, protector)] if report else said


def _report(done: Protected, protector: Protector) -> str:
    page = _page(done.target)
    write_text(page, body(done, protector, page=True))
    return f"{page}: the photo before and after"

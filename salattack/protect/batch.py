"""Many photos: resumable, on this machine or on a Ray cluster."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import SalattackError
from .photo_file import FORMATS

if TYPE_CHECKING:
    from ..attacks import Attack
    from .disruption import Protector
    from .protection import Protected


RECORD = "salattack-protect.jsonl"  # in the output folder: a line as each photo begins and ends
BAD_PHOTOS = 3  # exit code when some photos of several could not be protected
RETRIES = 3  # of a photo whose worker was lost: the photo itself may be what kills it


@dataclass(frozen=True)
class Job:
    """One photo of several: its number, what was asked, and whether its target may be replaced."""

    number: int
    source: Path
    target: Path
    name: str  # of the target in the record
    asked: dict
    overwrite: bool
    done: dict | None = None  # the record's entry, where only the report is still to be written


Outcome = tuple[Job, dict, list[str]]  # with its entry in the record, and what to say


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
    run: Callable[[Iterator[Job]], Iterable[Outcome]],
    overwrite: bool,
    report: bool,
    in_order: bool,
) -> list[str]:
    """Protect every photo that the record does not hold as done; return what went wrong.

    Jobs are decided on and noted as begun when ``run`` takes them.
    """
    from ..runtime.files import sha256
    from ..runtime.progress import progress_bar

    begun, done = read_record(output / RECORD)
    failed: dict[int, str] = {}
    skipped = finished = 0

    def jobs() -> Iterator[Job]:
        nonlocal skipped
        for number, (source, target) in enumerate(pairs, 1):
            name = target.relative_to(output).as_posix()
            try:
                asked = {"photo": sha256(source), "settings": settings}
            except OSError as error:
                failed[number] = f"{source}: {error.strerror}"
                continue
            last, there = done.get(name, {}), target.is_file()
            intact = there and last.get("written") == sha256(target)
            if intact and last.get("asked") == asked and not overwrite:
                if report and _older(_page(target), target):
                    yield Job(number, source, target, name, asked, overwrite, last)
                else:
                    skipped += 1
                continue
            # Only what an interrupted run, or an earlier one, has written here may be replaced.
            ours = intact if last else there and name in begun
            free = ours or not target.exists()
            if free:
                _note(output, {"target": name, "begun": asked})
            yield Job(number, source, target, name, asked, overwrite or free)

    hidden = in_order or not sys.stderr.isatty()  # in order, each photo shows its own bar
    with progress_bar(len(pairs), hidden=hidden) as bar:
        for job, entry, said in run(jobs()):
            _note(output, entry)
            if "failed" in entry:
                failed[job.number] = entry["failed"]
            finished += 1
            bar.n = finished + skipped
            bar.set_description(f"{len(pairs)} photos")
            for line in said:
                bar.write(line)
    _sweep([target for _, target in pairs])
    if skipped:
        typer.echo(f"{skipped} photos were done before and are unchanged: skipped")
    return [failed[number] for number in sorted(failed)]


def _sweep(targets: list[Path]) -> None:
    """Remove what killed processes left half written, by the names of `written_whole`.

    What a live process writes is left alone: it may be another run into the same folder.
    """
    ours = {path for target in targets for path in (target, _page(target))}
    for folder in {t.parent for t in targets if t.parent.is_dir()}:
        for path in folder.glob(".*"):
            name = re.fullmatch(r"\.(\d+)\.(.+)", path.name)
            if name and path.with_name(name[2]) in ours and not _alive(int(name[1])):
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Return whether a process of this id runs; true where that cannot be asked."""
    if os.name != "posix":  # elsewhere os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _page(target: Path) -> Path:
    return target.with_name(target.name + ".html")


def _older(page: Path, target: Path) -> bool:
    return not page.exists() or page.stat().st_mtime_ns < target.stat().st_mtime_ns


def _work(
    protector: "Protector", job: Job, *, total: int, report: bool, whole_frame: bool
) -> Outcome:
    """Protect one of several photos; what is wrong with it is part of the outcome."""
    from ..runtime.files import sha256

    label = f"{job.number} of {total} · {job.source.name}"
    try:
        if job.done is not None:
            from .protection import protected_before

            result = protected_before(job.source, job.target, protector, job.done)
            return job, job.done, [_report(result, protector)]
        figures, said = _protect_one(
            job.source, job.target, protector, report, whole_frame, job.overwrite, label
        )
    except SalattackError as error:
        return job, {"target": job.name, "failed": str(error)}, []
    written = sha256(job.target)
    return job, {"target": job.name, "asked": job.asked, "written": written, **figures}, said


def _worker(
    load: Callable[[], "Protector"], attack: "Attack", options: dict
) -> Callable[[Job], Outcome]:
    return partial(_work, replace(load(), attack=attack), **options)


def _on_ray(
    make: Callable[[], Callable[[Job], Outcome]],
    workers: int | None,
    gpu: bool,
    jobs: Iterator[Job],
) -> Iterator[Outcome]:
    """Protect photos on a Ray cluster whose workers see the same files by the same paths."""
    from ..runtime.parallel import map_on_ray

    def lost(job: Job) -> Outcome:
        times = f"its worker was lost {RETRIES + 1} times"
        reason = f"{job.source}: {times}; give workers more memory or shrink the photo"
        return job, {"target": job.name, "failed": reason}, []

    found = (
        replace(job, source=job.source.absolute(), target=job.target.absolute()) for job in jobs
    )
    return map_on_ray(make, found, workers=workers, gpus=int(gpu), retries=RETRIES, lost=lost)


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
    protector: "Protector",
    report: bool,
    whole_frame: bool,
    overwrite: bool,
    label: str = "",
    mask: Path | None = None,
) -> tuple[dict, list[str]]:
    """Protect a photo under a progress bar; return its figures, and what became of it in words."""
    from ..runtime.progress import progress_bar
    from .page import in_words
    from .protection import protect_photo

    steps = protector.attack.gradients
    with progress_bar(steps, hidden=not sys.stderr.isatty()) as bar:

        def show(face: int, faces: int, step: int) -> None:
            bar.total, bar.n = faces * steps, (face - 1) * steps + step
            bar.set_description(f"{label or source.name} · face {face} of {faces}")

        done = protect_photo(
            source,
            target,
            protector,
            mask=mask,
            whole_frame=whole_frame,
            overwrite=overwrite,
            on_step=show,
        )
    said = [f"{target}: {in_words(done)}", *(f"{target}: {note}" for note in done.notes)]
    if report:
        said.append(_report(done, protector))
    return done.record(), said


def _report(done: "Protected", protector: "Protector") -> str:
    """Write the page of a protected photo; return what to say of it."""
    from .page import write_report

    page = _page(done.target)
    write_report(done, protector, page)
    return f"{page}: the photo before and after"

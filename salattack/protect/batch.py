"""Many photos: resumable, on this machine or on a Ray cluster."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..attacks import Attack
from ..errors import SalattackError
from ..runtime.files import sha256
from ..runtime.parallel import map_on_ray
from ..runtime.progress import progress_bar
from .disruption import Protector
from .page import in_words, write_report
from .photo_file import READ, name_written
from .protection import Protected, measure, protect_photo

RECORD = "salattack-protect.jsonl"  # in the output folder: a line as each photo begins and ends
RETRIES = 3  # of a photo whose worker was lost, since the photo itself may be the cause


@dataclass(frozen=True)
class Job:
    """One photo of several; ``name`` is the target's in the record."""

    number: int
    source: Path
    target: Path
    name: str
    asked: dict  # checksum of the photo, and settings
    overwrite: bool = False
    done: bool = False  # only the report is missing


Outcome = tuple[Job, dict, list[str]]  # the entry for the record (or none), lines for the user


def pairs_of(
    photos: list[Path], output: Path, suffix: str | None = None
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return every photo with its target; a folder's photos keep their paths below it.

    Args:
        photos: files and folders.
        output: the folder to write to.
        suffix: of the files to write, see `name_written`.

    Returns:
        The pairs, and a line for each file of a folder that is not taken, with the reason.

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
    sources = {source.resolve() for source in pairs.values()}
    for target in pairs:
        if target.resolve() in sources:
            raise SalattackError(f"{target} is one of the photos; choose another output folder")
    return [(source, target) for target, source in pairs.items()], left


def protect_all(
    pairs: list[tuple[Path, Path]],
    output: Path,
    settings: dict,
    run: Callable[[Iterator[Job]], Iterable[Outcome]],
    *,
    overwrite: bool,
    report: bool,
    hidden: bool,
) -> tuple[int, list[str]]:
    """Protect every photo that the record does not hold as done; ``run`` draws the jobs.

    Returns:
        How many photos were skipped, and what went wrong with others.
    """
    record = _read_record(output / RECORD)
    failed: dict[int, str] = {}
    skipped = 0

    def jobs() -> Iterator[Job]:
        nonlocal skipped
        for number, (source, target) in enumerate(pairs, 1):
            name = target.relative_to(output).as_posix()
            try:
                asked = {"photo": sha256(source), "settings": settings}
            except OSError as error:
                failed[number] = f"{source}: {error.strerror}"
                continue
            job, last = Job(number, source, target, name, asked), record.get(name, {})
            intact = target.is_file() and last.get("written") == sha256(target)
            if intact and last["asked"] == asked and not overwrite:
                if report and not _has_page(target):
                    yield replace(job, done=True)
                else:
                    skipped += 1
                continue
            # Without --overwrite only files that this record lists may be replaced.
            free = intact or "begun" in last or not target.exists()
            if free:
                _note(output, {"target": name, "begun": asked})
            yield replace(job, overwrite=overwrite or free)

    with progress_bar(len(pairs), hidden=hidden) as bar:
        bar.set_description(f"{len(pairs)} photos")
        for finished, (job, entry, said) in enumerate(run(jobs()), 1):
            if entry:
                _note(output, entry)
            if "failed" in entry:
                failed[job.number] = entry["failed"]
            bar.n = finished + skipped
            bar.write("\n".join(said)) if said else bar.refresh()
    _sweep([target for _, target in pairs])
    return skipped, [failed[number] for number in sorted(failed)]


def _sweep(targets: list[Path]) -> None:
    """Remove files that killed processes left half written, known by `written_whole`'s names.

    Files of living processes stay: another run may write into the same folder.
    """
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


def _has_page(target: Path) -> bool:
    page = _page(target)
    return page.exists() and page.stat().st_mtime_ns >= target.stat().st_mtime_ns


def work(protector: Protector, job: Job, *, total: int, report: bool, **options: object) -> Outcome:
    """Protect one of several photos; an error is part of the outcome."""
    label = f"{job.number} of {total} · {job.source.name}"
    try:
        if job.done:
            done = measure(job.source, job.target, protector, **options)
            return job, {}, [_report(done, protector)]
        figures, said = protect_one(
            job.source, job.target, protector, label, report, overwrite=job.overwrite, **options
        )
    except SalattackError as error:
        return job, {"target": job.name, "failed": str(error)}, []
    entry = {"target": job.name, "asked": job.asked, "written": sha256(job.target)}
    return job, entry | figures, said


def worker(load: Callable[[], Protector], attack: Attack, options: dict) -> Callable:
    """Load the models in a cluster's worker; return what it does with a job."""
    return partial(work, replace(load(), attack=attack), **options)


def on_ray(
    make: Callable[[], Callable[[Job], Outcome]],
    workers: int | None,
    gpu: bool,
    jobs: Iterator[Job],
) -> Iterator[Outcome]:
    """Protect photos on a Ray cluster whose workers see the same files at the same paths."""

    def lost(job: Job) -> Outcome:
        reason = f"{job.source}: its worker was lost {RETRIES + 1} times"
        reason += "; give workers more memory or shrink the photo"
        return job, {"target": job.name, "failed": reason}, []

    jobs = (
        replace(job, source=job.source.absolute(), target=job.target.absolute()) for job in jobs
    )
    return map_on_ray(make, jobs, workers=workers, gpus=int(gpu), retries=RETRIES, lost=lost)


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
    """Protect a photo under a progress bar, with the options of `protect_photo`.

    Returns:
        The figures for the record, and lines for the user.
    """
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
    write_report(done, protector, page)
    return f"{page}: the photo before and after"

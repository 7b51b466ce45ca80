"""Measure `salattack protect` on the shipped photos, and draw what a smaller change costs.

For maintainers: ``python docs/measure_protect.py`` writes protect.csv, alignment.csv, protect.png
and protect_faces.jpg beside itself. It takes about an hour of one core. It resumes if it is run
again, with the photos that protect.csv lacks.
"""

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import grid_sample

from salattack.faces import load_faces
from salattack.faces.shipped import LANDMARKS, OpenPeople
from salattack.metrics import fake_damage, photo_change
from salattack.presets import attacker
from salattack.protect.detection import FoundFace, find_faces
from salattack.protect.disruption import Protector, load_protector, other_alignment
from salattack.protect.photo_file import read_photo
from salattack.protect.placement import Place
from salattack.protect.protection import FaceMeasure, protect_photo
from salattack.reporting.figures import picture_grid
from salattack.reporting.style import FONT, STYLES, save

FOLDER = Path(__file__).parent
HALF = {f"P{n:03}-{'selfie' if n % 2 else 'portrait'}" for n in range(1, 11)}  # ten people
# The paper's attack, which `salattack protect` used before it searched for the smallest change.
FIXED = attacker("saliency-aware", blurs=(), start=0.001, bound=0.15, step_size=0.015, steps=30)
SETTINGS = {  # of `load_protector`; those with changes for `HALF` the photos
    "default": {},
    "fixed strength": {},
    "error 1": {"alignment_error": 1.0},
    "error 0.5": {"alignment_error": 0.5},
    "error 0": {"alignment_error": 0.0},
    "limit 16": {"max_change": 16.0},
    "limit 8": {"max_change": 8.0},
}
OTHERS, SEED = 6, 999  # alignments that the search has not seen
COLUMNS = [
    "setting",
    "photo",
    "broken",
    "broken_labelled",
    "broken_elsewhere",
    "broken_far",
    "psnr_aligned",
    "ssim",
    "tint",
]


def labelled(photos: OpenPeople, index: int, face: FoundFace, size: int = 128) -> Place:
    """Return where a face of a shipped photo lies by its labelled instead of its detected eyes."""
    points = photos.table.iloc[index][LANDMARKS[:4]].to_numpy("float64").reshape(2, 2)
    left_eye, right_eye = map(tuple, points.tolist())
    return Place.of_face(face._replace(left_eye=left_eye, right_eye=right_eye), size)


def misalignment(photos: OpenPeople, index: int, size: int = 128) -> tuple[float, float]:
    """Return how far the crops by the detected and by the labelled eyes lie apart.

    It is the root mean square over a crop of ``size`` px, and over its face, in px of the crop.
    """
    found = find_faces(read_photo(Path(photos.sources[index])).pixels)[0]
    a, b = Place.of_face(found, size), labelled(photos, index, found, size)
    x, y = np.meshgrid(*[np.arange(size) + 0.5] * 2)
    squares = np.abs(((a.a - b.a) * (x + 1j * y) + a.b - b.b) / b.a) ** 2
    inside = photos.face_ellipse(index).numpy()
    return tuple(round(float(np.sqrt(part.mean())), 2) for part in (squares, squares[inside]))


def broken(protector: Protector, before: Tensor, after: Tensor) -> int:
    """Return how many edits of a crop (1, 3, s, s) break if it is changed."""
    pair = protector.fakes(before), protector.fakes(after)
    return int(fake_damage(*pair)["success"].sum())


def elsewhere(face: FaceMeasure, protector: Protector, error: float) -> float:
    """Return the mean number of edits broken at other alignments, see `other_alignment`."""
    random, found = torch.Generator().manual_seed(SEED), []
    for _ in range(OTHERS):
        grid = other_alignment(protector.image_size, random, error)
        pair = (
            grid_sample(x, grid, padding_mode="border", align_corners=False)
            for x in (face.before, face.after)
        )
        found.append(broken(protector, *pair))
    return round(sum(found) / len(found), 2)


def measure(setting: str, photos: OpenPeople, index: int, protector: Protector) -> list[object]:
    """Protect a photo in its own format, and return its row."""
    source = Path(photos.sources[index])
    with TemporaryDirectory() as folder:
        target = Path(folder, source.name)
        (face,) = protect_photo(source, target, protector).faces
        place = labelled(photos, index, face.place.face)
        crops = [place.crop(read_photo(path).pixels) for path in (source, target)]
    psnr = photo_change(face.before, face.after, face.mask)["psnr"].item()
    rates = [elsewhere(face, protector, error) for error in (1.0, 2.0)]
    numbers = *rates, round(psnr, 2), round(face.ssim, 4), round(face.tint, 1)
    by_label = broken(protector, *crops)
    return [setting, photos.ids[index], face.broken, by_label, *numbers]


@matplotlib.rc_context(FONT)
def drawn(rows: pd.DataFrame) -> Figure:
    """Draw the edits that break against the tint: means of each setting over the same photos."""
    means = rows[rows["photo"].isin(HALF)].groupby("setting")[list(COLUMNS[2:])].mean()
    figure = Figure(figsize=(6.8, 2.6), layout="constrained")
    panels = {"a smaller alignment error": "error", "a limit of the change": "limit"}
    kinds = {"broken": "aligned as protected", "broken_labelled": "aligned by labelled eyes"}
    places = figure.subplots(1, 2, sharey=True)
    for axes, (title, begins) in zip(places, panels.items(), strict=True):
        part = means[[name.startswith((begins, "default")) for name in means.index]]
        part = part.sort_values("tint")
        styles = zip(STYLES.values(), kinds.items(), strict=False)
        for (colour, marker, line), (key, label) in styles:
            drawing = {"marker": marker, "linestyle": line, "color": colour, "label": label}
            axes.plot(part["tint"], part[key], lw=1.1, ms=4.5, markerfacecolor="white", **drawing)
        for setting, row in part.iterrows():
            place = row["tint"] + 0.7, row["broken_labelled"] - 0.1
            axes.annotate(setting, place, va="top", fontsize=7.5)
        axes.set(xlim=(0, 42), ylim=(-0.6, 5.4), xlabel="tint, of 255", title=title)
    places[0].set_ylabel("edits broken, of 5")
    places[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 0.8))
    return figure


@matplotlib.rc_context(FONT)
def looks(photos: OpenPeople, size: int = 384) -> Figure:
    """Draw six people as in the file before and after the default, with the edits that break."""
    protector, rows, notes = load_protector(), [[], []], []
    for index in map(photos.ids.index, sorted(HALF)[:6]):
        source = Path(photos.sources[index])
        with TemporaryDirectory() as folder:
            target = Path(folder, source.name)
            (face,) = protect_photo(source, target, protector).faces
            place = Place.of_face(face.place.face, size)
            for row, path in zip(rows, (source, target), strict=True):
                row.append(place.crop(read_photo(path).pixels)[0])
        notes.append(f"{face.broken} of 5, SSIM {face.ssim:.2f}")
    return picture_grid(rows, ("Photo", "Protected"), errors=[[None] * len(notes), notes])


def main() -> None:
    """Measure what the tables lack, and draw the chart."""
    path = FOLDER / "protect.csv"
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    done = set(pd.read_csv(path)[["setting", "photo"]].itertuples(index=False, name=None))
    photos = load_faces("openpeople", kind=["selfie", "portrait"])
    apart = [misalignment(photos, index) for index in range(len(photos))]
    table = pd.DataFrame(apart, photos.ids, ["crop", "face"]).rename_axis("photo")
    table.to_csv(FOLDER / "alignment.csv", lineterminator="\n")
    for setting, how in SETTINGS.items():
        protector = load_protector(**how)
        if setting == "fixed strength":
            protector = replace(protector, attack=FIXED)
        for index, photo in enumerate(photos.ids):
            if (not how or photo in HALF) and (setting, photo) not in done:
                row = measure(setting, photos, index, protector)
                with path.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(row)
    save(drawn(pd.read_csv(path)), FOLDER / "protect.png")
    save(looks(photos), FOLDER / "protect_faces.jpg")


if __name__ == "__main__":
    main()

"""Measure `salattack protect` on the shipped photos, and draw what a limit of the change costs.

For maintainers: ``python docs/measure_protect.py`` writes protect.csv and protect.png
beside itself. It takes about 40 minutes of one core, and goes on where it was stopped.
"""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn.functional import grid_sample

from salattack.faces import load_faces
from salattack.metrics import fake_damage, photo_change
from salattack.protect.disruption import Protector, load_protector, other_alignment
from salattack.protect.protection import FaceMeasure, protect_photo
from salattack.reporting.style import FONT, STYLES, save

FOLDER = Path(__file__).parent
HALF = {f"P{n:03}-{'selfie' if n % 2 else 'portrait'}" for n in range(1, 11)}  # ten people
LIMITS = {"none": None, "16": 16.0, "8": 8.0}  # --max-change
OTHERS, SEED = 6, 999  # alignments that the search has not seen
COLUMNS = [
    "limit",
    "photo",
    "broken",
    "broken_elsewhere",
    "broken_far",
    "psnr_aligned",
    "ssim",
    "tint",
]


def elsewhere(face: FaceMeasure, protector: Protector, times: float) -> float:
    """Return the mean number of edits broken at other alignments, see `other_alignment`."""
    random, found = torch.Generator().manual_seed(SEED), []
    for _ in range(OTHERS):
        grid = other_alignment(protector.image_size, random, times)
        pair = (
            protector.fakes(grid_sample(x, grid, padding_mode="border", align_corners=False))
            for x in (face.before, face.after)
        )
        found.append(fake_damage(*pair)["success"].sum().item())
    return round(sum(found) / len(found), 2)


def measure(limit: str, photo: str, source: Path, protector: Protector) -> list[object]:
    """Protect a photo in its own format, and return its row."""
    with TemporaryDirectory() as folder:
        done = protect_photo(source, Path(folder, source.name), protector)
    (face,) = done.faces
    psnr = photo_change(face.before, face.after, face.mask)["psnr"].item()
    rates = [elsewhere(face, protector, times) for times in (1.0, 2.0)]
    numbers = *rates, round(psnr, 2), round(face.ssim, 4), round(face.tint, 1)
    return [limit, photo, face.broken, *numbers]


@matplotlib.rc_context(FONT)
def drawn(rows: pd.DataFrame) -> Figure:
    """Draw the edits that break against the tint: means of each limit over the same photos."""
    means = rows[rows["photo"].isin(HALF)].groupby("limit")[list(COLUMNS[2:])].mean()
    means = means.sort_values("tint")
    figure = Figure(figsize=(3.5, 2.6), layout="constrained")
    axes = figure.subplots()
    kinds = {"broken": "at the face's own alignment", "broken_elsewhere": "at six others"}
    for (colour, marker, line), (key, label) in zip(STYLES.values(), kinds.items(), strict=False):
        drawing = {"marker": marker, "linestyle": line, "color": colour, "label": label}
        axes.plot(means["tint"], means[key], lw=1.1, ms=4.5, markerfacecolor="white", **drawing)
    for limit, row in means.iterrows():
        name = "no limit" if limit == "none" else f"limit {limit}"
        text = f"{name}\nSSIM {row['ssim']:.2f}"
        axes.annotate(text, (row["tint"] - 0.8, row["broken"] + 0.3), ha="right", fontsize=7.5)
    axes.set(xlim=(0, 36), ylim=(-0.2, 6.2), xlabel="tint, of 255", ylabel="edits broken, of 5")
    axes.legend(fontsize=7, loc="lower right")
    return figure


def main() -> None:
    """Measure what protect.csv lacks, and draw the chart."""
    path = FOLDER / "protect.csv"
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    done = set(pd.read_csv(path, dtype=str)[["limit", "photo"]].itertuples(index=False, name=None))
    photos = load_faces("openpeople", kind=["selfie", "portrait"])
    sources = dict(zip(photos.ids, map(Path, photos.sources), strict=True))
    for limit, change in LIMITS.items():
        protector = load_protector(max_change=change)
        for photo in sources:
            if (change is None or photo in HALF) and (limit, photo) not in done:
                row = measure(limit, photo, sources[photo], protector)
                with path.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(row)
    save(drawn(pd.read_csv(path, dtype={"limit": str})), FOLDER / "protect.png")


if __name__ == "__main__":
    main()

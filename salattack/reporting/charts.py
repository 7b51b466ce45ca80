"""Tables → charts. Nothing is computed here; markers tell attackers apart without colour."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, groupby, product, zip_longest

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ..experiments.paper_reading import printed
from ..experiments.statistics import columns_of
from ..experiments.table_1 import ERRORS, PRINTED
from ..metrics import SUCCESS
from ..presets import label_of
from .style import FONT, STYLES, WIDTH

Style = tuple[str, str, str]  # colour, marker, line
End = tuple[float, float, str, str]  # of a curve: x, y, its label and colour

# The edits of a photo by kind, known by how their names begin; others are "other".
KINDS = {
    "compressed": ("JPEG", "WebP"),
    "blurred": ("Gaussian", "average"),
    "resampled": ("resize", "crop"),
    "noise, fewer bits": ("noise", "4-bit"),
    "saved": ("8 bits",),
    "edited twice": ("edited twice",),
}


def _styled(names: Iterable[object]) -> Iterator[tuple[Style, object]]:
    """Yield each name with its style; what is no attacker of `STYLES` takes one that is free."""
    names = list(names)
    others = cycle([style for name, style in STYLES.items() if name not in names])
    return ((STYLES.get(name) or next(others), name) for name in names)


def _curve(axes: Axes, x: Iterable, y: Iterable, style: Style, label: str) -> None:
    colour, marker, line = style
    marks = {"marker": marker, "markersize": 4.5, "markerfacecolor": "white"}
    axes.plot(x, y, linestyle=line, color=colour, linewidth=1.1, label=label, **marks)


def _estimates(
    axes: Axes, found: pd.DataFrame, rows: Sequence[float], place: float, style: Style, label: str
) -> None:
    """Draw estimates: a marker and a bar at each row, ``place`` in [0, 1] of its height."""
    y = [row + 0.7 * (place - 0.5) for row in rows]
    value, low, high = (found[name] for name in found)
    axes.hlines(y, low, high, color=style[0], lw=1.1)
    _curve(axes, value, y, (*style[:2], ""), label)


def _panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: object
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _threshold(axes: Axes, draw: str = "axhline") -> None:
    line = {"color": "0.6", "linewidth": 0.7, "linestyle": (0, (4, 3)), "zorder": 0}
    getattr(axes, draw)(SUCCESS, **line)


def _label_ends(axes: Axes, ends: Sequence[End], x: float, step: float) -> None:
    """Name curves at the panel's right edge, labels ``step`` apart: from the top if negative."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {end: to_axes.transform(end[:2])[1] for end in ends}
    further, limit = (max, 0.0) if step > 0 else (min, 1.0)
    for end in sorted(ends, key=lambda end: (heights[end], -end[0]), reverse=step < 0):
        limit = further(limit, heights[end])
        axes.annotate(
            end[2], end[:2], (x, limit), color=end[3], textcoords="axes fraction", va="center",
            arrowprops={"arrowstyle": "-", "color": "0.75", "lw": 0.6, "relpos": (0, 0.5)},
        )  # fmt: skip
        limit += step


@matplotlib.rc_context(FONT)
def trade_off(means: pd.DataFrame) -> Figure:
    """Draw damage against change of the photo: a curve per attacker of `means`, by its bounds."""
    figure, axes = _panels(5.0, 3.4)
    ends = []
    for style, name in _styled(means.index.unique("attacker")):
        curve = means.loc[name].sort_index()
        x, y = 100 * curve["l2"], curve["damage_l2"]
        _curve(axes, x, y, style, label_of(name))
        ends.append((x.iloc[-1], y.iloc[-1], label_of(name), style[0]))
    axes.set(xscale="log", xlabel="change of the photo: MSE × 100 in [-1, 1]")
    axes.set(yscale="log", ylabel="damage to the fake: MSE in [-1, 1]")
    _threshold(axes)
    at = {"va": "bottom", "transform": axes.get_yaxis_transform()}
    axes.text(0.01, SUCCESS, "broken above", fontsize=7.5, color="0.35", **at)
    _label_ends(axes, ends, 1.06, -0.07)
    return figure


@matplotlib.rc_context(FONT)
def trade_off_appendix(means: pd.DataFrame) -> Figure:
    """Draw three measures of the damage in `means` against two of the change, a panel each.

    Damage in features is left out where the saliency model has none.
    """
    changes = (
        ("l2", 100, "change of the photo: MSE × 100 in [-1, 1]"),
        ("background_l1", 1, "change of its background: L1 in [-1, 1]"),
    )
    damages = [
        ("damage_l2", "damage to the fake:\nMSE in [-1, 1]"),
        ("damage_edited", "where the edit is:\nMSE in [-1, 1]"),
        ("damage_features", "in features:\ndistance, no unit"),
    ]
    damages = [(measure, label) for measure, label in damages if measure in means]
    shape = len(damages), len(changes)
    figure, axes = _panels(WIDTH, 1.0 + 2.0 * len(damages), *shape, sharex="col", sharey="row")
    pairs = zip(axes.flat, product(damages, changes), strict=True)
    for panel, ((damage, name_of_damage), (measure, factor, label)) in pairs:
        for style, name in _styled(means.index.unique("attacker")):
            curve = means.loc[name].sort_index()
            _curve(panel, factor * curve[measure], curve[damage], style, label_of(name))
        panel.set(xlabel=label, ylabel=name_of_damage, xscale="log", yscale="log")
        panel.label_outer()
    for panel in axes[0]:
        _threshold(panel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@matplotlib.rc_context(FONT)
def transfer(matrix: pd.DataFrame) -> Figure:
    """Draw a matrix of `across`: rows what was aimed at, columns what is then asked."""
    figure, axes = _panels(5.2 if matrix.shape[1] < 4 else WIDTH, 3.2)
    shades = axes.imshow(matrix.clip(1e-4), cmap="Greys", norm="log", aspect="auto")
    labels = [re.sub("[-_]", "\n", name, count=1) for name in matrix.columns]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(matrix)), [c.replace("_", " ") for c in matrix.index])
    axes.set(xlabel=matrix.columns.name, ylabel=matrix.index.name)
    axes.tick_params(length=0, labelsize=8)
    values = matrix.to_numpy()
    for row, column in product(*map(range, values.shape)):
        value = values[row, column]
        shade = "white" if shades.norm(max(value, 1e-4)) > 0.6 else "black"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=shade)
    ticks = LogLocator(subs=(1, 2, 3, 5))
    bar = figure.colorbar(shades, label="damage: MSE in [-1, 1]", ticks=ticks, format="%g")
    bar.minorticks_off()
    return figure


@matplotlib.rc_context(FONT)
def training(curve: pd.DataFrame) -> Figure:
    """Draw how close a generator came to the published one along its training, and how fragile.

    ``curve`` is the ``evaluation.csv`` of `salattack.training.stargan.train`.
    """
    panels = {
        "ratio": "error to the published output, relative to the photo's",
        "ssim": "SSIM to the published output",
        "damage": "damage by PGD: MSE in [-1, 1]",
        "broken": "share of outputs above 0.05",
    }
    averaged = curve[curve["weights"] == "average"]
    figure, places = _panels(WIDTH, 3.6, 2, 2, sharex=True)
    for axes, (measure, label) in zip(places.flat, panels.items(), strict=True):
        _curve(axes, averaged["step"], averaged[measure], STYLES["i-fgsm"], label)
        axes.set(title=label, ylim=(0, 1.08 * averaged[measure].max()))
    figure.supxlabel("step", fontsize=9)
    return figure


def _kind(transform: str) -> str:
    return next((kind for kind, names in KINDS.items() if transform.startswith(names)), "other")


@matplotlib.rc_context(FONT)
def robustness(table: pd.DataFrame) -> Figure:
    """Draw what each edit of the photo leaves of the damage, in `summarise`, grouped by kind.

    The first transform is the untouched picture.
    """
    transforms, attackers = (table.index.unique(name) for name in ("transform", "attacker"))
    places, labels, y = {}, {}, 0.0
    for kind, names in groupby(transforms, key=_kind):
        start = y
        for name in names:
            places[name], y = y, y + 1
        labels[kind] = (start + y - 1) / 2, y - 0.1
        y += 0.5
    size = 0.055 * len(attackers) + 0.07
    figure, axes = _panels(WIDTH, size * y + 0.9)
    axes.axvline(100, color="0.6", lw=0.8, ls="--", zorder=0)
    for number, (style, name) in enumerate(_styled(attackers)):
        rows = table.xs(name, level="attacker").loc[transforms]
        left = 100 * rows[columns_of("remaining")]
        untouched = f"{label_of(name)} ({rows['damage_l2'].iloc[0]:.3f})"
        place = (number + 0.5) / len(attackers)
        _estimates(axes, left, list(places.values()), place, style, untouched)
    axes.set_yticks(list(places.values()), list(places))
    axes.set(ylim=(y - 0.9, -0.6), xlim=(0, None))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    aside = {"transform": axes.get_yaxis_transform(), "va": "center", "style": "italic"}
    for kind, (middle, end) in labels.items():
        if kind not in places and end - middle > 0.95:  # one row needs no heading
            axes.text(1.01, middle, kind, fontsize=8, **aside)
    axes.set_xlabel(
        "damage that is left, % of that on the untouched 8-bit photo (in brackets, MSE)\n"
        f"bars: 95 % interval over {table['faces'].max()} faces"
    )
    figure.legend(loc="outside upper center", ncols=min(len(attackers), 3))
    return figure


@matplotlib.rc_context(FONT)
def paper_reading(table: pd.DataFrame) -> Figure:
    """Draw Table I's averages as printed beside those of a few readings, rows of `rank`."""
    attackers = [name for name in PRINTED if f"{name} l1" in table]
    paper = printed(attackers)
    texts = ["printed: the averages of Table I"] + [
        f"reading {number}: {row.strength}; {row.attackers}; errors in {row.arithmetic}; "
        f"stored as {row.precision} (distance {row.distance:.2f})"
        for number, row in enumerate(table.itertuples(), start=1)
    ]
    height = 1.0 + 0.42 * len(attackers) + 0.17 * len(table)
    figure, panels = _panels(WIDTH, height, 1, 2, sharey=True)
    for column, (axes, (measure, label)) in enumerate(zip(panels, ERRORS.items(), strict=True)):
        values = [paper[:, column], *table[[f"{n} {measure}" for n in attackers]].to_numpy()]
        for number, (style, row) in enumerate(zip(STYLES.values(), values, strict=False)):
            at = [i + 0.4 * (number / (len(values) - 1) - 0.5) for i in range(len(attackers))]
            _curve(axes, row, at, (*style[:2], ""), texts[number])
            beside = {"textcoords": "offset points", "va": "center", "fontsize": 8}
            for value, y in zip(row, at, strict=True):
                axes.annotate(f"{value:.3f}", (value, y), (6, 0), **beside)
        axes.set_xlabel(label)
        axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
        axes.grid(axis="x")
    panels[0].set_yticks(range(len(attackers)), [label_of(name) for name in attackers])
    panels[0].set_ylim(len(attackers) - 0.5, -0.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    return figure


@matplotlib.rc_context(FONT)
def published(table: pd.DataFrame) -> Figure:
    """Draw each attacker's damage to each generator, a panel for each bound of `summary`."""
    generators, bounds, attackers = (table.index.unique(name) for name in table.index.names)
    height = 0.9 + len(generators) * (0.07 * len(attackers) + 0.15)
    share = {"sharex": True, "sharey": True, "squeeze": False}
    figure, panels = _panels(WIDTH, height, 1, len(bounds), **share)
    for axes, bound in zip(panels[0], bounds, strict=True):
        for number, (style, name) in enumerate(_styled(attackers)):
            rows = table.xs((bound, name), level=("bound", "attacker"))
            at, place = generators.get_indexer(rows.index), (number + 0.5) / len(attackers)
            _estimates(axes, rows[columns_of("damage_l2")], at, place, style, label_of(name))
        _threshold(axes, "axvline")
        axes.set(xscale="log", title=f"bound {bound:g}")
        axes.set(xlabel="damage: MSE in [-1, 1]; broken right of the line")
        axes.set_yticks(range(len(generators)), generators)
        axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(generators) - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@matplotlib.rc_context(FONT)
def smallest_change(rows: pd.DataFrame) -> Figure:
    """Draw the share of broken fakes against the PSNR of the photo, one curve per attacker.

    An attacker of a fixed strength has a marker for each bound: share and median PSNR. A
    minimum-norm attacker has a point for each photo and edit, above its curve: the share of fakes
    that it breaks while the photo keeps that PSNR. ``rows`` are those of `smallest_change.measure`;
    with a column ``generator``, each has a panel.
    """
    grouped = rows.groupby(rows.get("generator", pd.Series("", rows.index)), sort=False)
    if len(grouped) == 1:
        figure, axes = _panels(5.6, 3.4)
        _smallest_change(axes, rows, label=True)
        return figure
    lines = -(-len(grouped) // 3)
    share = {"sharex": True, "sharey": True, "squeeze": False}
    figure, panels = _panels(WIDTH, 0.7 + 2.1 * lines, lines, 3, **share)
    for axes, part in zip_longest(panels.flat, grouped):
        axes.set_axis_off() if part is None else _smallest_change(axes, part[1], part[0])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _smallest_change(axes: Axes, rows: pd.DataFrame, title: str = "", label: bool = False) -> None:
    """Draw one panel of `smallest_change`, its curves with or without a label."""
    strip, ends = 103, []
    for (colour, marker, line), name in _styled(rows["attacker"].unique()):
        group = rows[rows["attacker"] == name]
        curve = group.groupby("bound").agg(x=("psnr", "median"), y=("success", "mean"))
        if len(curve) > 1:
            x, y = curve["x"], 100 * curve["y"]
            _curve(axes, x, y, (colour, marker, ""), label_of(name))
            axes.plot(x, y, color=colour, ls=":", lw=0.6, alpha=0.5)  # ties its markers
            ends.append((x.iloc[0], y.iloc[0], label_of(name), colour))
            continue
        broken = sorted(group["psnr"][group["success"] == 1], reverse=True)
        share = [100 * i / len(group) for i in range(len(broken) + 1)]
        strip += 6
        axes.step([*broken, rows["psnr"].min()], share, color=colour, ls=line, lw=1.1)
        style = {"color": colour, "ms": 4, "mfc": "none", "mew": 0.7, "alpha": 0.7}
        axes.plot(broken, [strip] * len(broken), marker, label=label_of(name), **style)
        if label:
            at = axes.get_yaxis_transform()
            axes.text(1.01, strip, label_of(name), color=colour, va="center", transform=at)
    n = len(rows) // len(rows.groupby(["attacker", "bound"]))
    axes.set(xlabel="PSNR of the photo in dB: less change →", ylabel="fakes broken, %", title=title)
    axes.set(ylim=(-3, strip + 4), yticks=range(0, 101, 20))
    axes.grid(axis="y", color="0.92")
    axes.label_outer()
    if label:
        axes.set_ylabel(f"fakes broken, % of {n}")
        _label_ends(axes, ends, 1.01, 0.07)

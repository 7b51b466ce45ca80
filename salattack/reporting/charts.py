"""Tables → charts. Nothing is computed here; markers tell attackers apart without colour."""

from collections.abc import Sequence
from itertools import cycle, groupby, product

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..metrics import SUCCESS
from ..presets import label_of
from .style import FONT, STYLES, WIDTH

# The edits of a photo by kind, known by how their names begin; others are "other".
KINDS = {
    "compressed": ("JPEG", "WebP"),
    "blurred": ("Gaussian", "average"),
    "resampled": ("resize", "crop"),
    "noise, fewer bits": ("noise", "4-bit"),
    "saved": ("8 bits",),
    "edited twice": ("edited twice",),
}


def trade_off(means: pd.DataFrame) -> Figure:
    """Draw damage against change of the photo, one curve per attacker, one point per bound.

    Args:
        means: from `means`: attacker, bound, ``l2`` and ``damage_l2`` in [-1, 1].
    """
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        axes = figure.subplots()
        ends = []
        for style, (name, curve) in zip(cycle(STYLES), _curves(means), strict=False):
            label = label_of(name)
            _curve(axes, 100 * curve["l2"], curve["damage_l2"], style, label)
            last = curve.iloc[-1]
            ends.append((100 * last["l2"], last["damage_l2"], label, style[0]))
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="change of the photo: MSE × 100 in [-1, 1]")
        axes.set(ylabel="damage to the fake: MSE in [-1, 1]")
        axes.axhline(SUCCESS, color="0.6", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        axes.text(
            *(0.01, SUCCESS), "broken above", va="bottom", fontsize=7.5,
            color="0.35", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
        _label_ends(axes, ends)
    return figure


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Name curves at the panel's right edge, each label tied to its last point and kept apart."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {end: to_axes.transform(end[:2])[1] for end in ends}
    ceiling = 1.0
    for end in sorted(ends, key=heights.get, reverse=True):
        ceiling = min(ceiling, heights[end])
        axes.annotate(
            end[2], end[:2], (1.06, ceiling), color=end[3], textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.75", "lw": 0.6, "relpos": (0, 0.5)},
        )  # fmt: skip
        ceiling -= 0.07


def trade_off_appendix(means: pd.DataFrame) -> Figure:
    """Draw three measures of the damage against two of the change, a panel each.

    Args:
        means: as `trade_off`, with ``background_l1`` and ``damage_edited`` in [-1, 1] too, and
            ``damage_features`` where the saliency model has features.
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
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(WIDTH, 1.0 + 2.0 * len(damages)), layout="constrained")
        axes = figure.subplots(len(damages), len(changes), sharex="col", sharey="row")
        pairs = zip(axes.flat, product(damages, changes), strict=True)
        for panel, ((damage, name_of_damage), (measure, factor, label)) in pairs:
            for style, (name, curve) in zip(cycle(STYLES), _curves(means), strict=False):
                _curve(panel, factor * curve[measure], curve[damage], style, label_of(name))
            panel.set(xlabel=label, ylabel=name_of_damage, xscale="log", yscale="log")
            panel.label_outer()
        for panel in axes[0]:
            panel.axhline(SUCCESS, color="0.6", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _curves(means: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = means.groupby("attacker", sort=False)
    return [(str(name), curve.sort_values("bound")) for name, curve in groups]


def transfer(matrix: pd.DataFrame) -> Figure:
    """Draw damage as a matrix: rows what was aimed at, columns what is then asked.

    Args:
        matrix: from `transfer` or `across`, mean damage
            in [-1, 1]; the names of its index and columns label the axes.
    """
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        shades = axes.imshow(matrix, cmap="Greys", vmin=0, aspect="auto")
        axes.set_xticks(range(matrix.shape[1]), [c.replace("_", "\n") for c in matrix.columns])
        axes.set_yticks(range(matrix.shape[0]), [c.replace("_", " ") for c in matrix.index])
        axes.set(xlabel=matrix.columns.name, ylabel=matrix.index.name)
        axes.tick_params(length=0)
        dark = matrix.to_numpy().max() / 2
        for row, values in enumerate(matrix.to_numpy()):
            for column, value in enumerate(values):
                shade = "white" if value > dark else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=shade)
        figure.colorbar(shades, label="damage: MSE in [-1, 1]")
    return figure


def training(curve: pd.DataFrame) -> Figure:
    """Draw how close a generator came to the published one along its training, and how fragile.

    Args:
        curve: the ``evaluation.csv`` of `salattack.training.stargan.train`: step, weights,
            ``ratio``, ``ssim``, ``damage`` and ``broken``.
    """
    panels = (
        (("ratio", "error to the published output / identity's"), ("ssim", "SSIM to it")),
        (("damage", "damage by PGD: MSE in [-1, 1]"), ("broken", "share of outputs above 0.05")),
    )
    averaged = curve[curve["weights"] == "average"]
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        for axes, measures in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for style, (measure, label) in zip(STYLES, measures, strict=False):
                _curve(axes, averaged["step"], averaged[measure], style, label)
            axes.set(xlabel="step", ylim=(0, None))
            axes.legend()
    return figure


def _curve(axes: Axes, x: pd.Series, y: pd.Series, style: tuple[str, str, str], label: str) -> None:
    colour, marker, line = style
    marks = {"marker": marker, "markersize": 4.5, "markerfacecolor": "white"}
    axes.plot(x, y, linestyle=line, color=colour, linewidth=1.1, label=label, **marks)


def _kind(transform: str) -> str:
    return next((kind for kind, names in KINDS.items() if transform.startswith(names)), "other")


def robustness(table: pd.DataFrame) -> Figure:
    """Draw what each edit of the disrupted photo leaves of the damage, edits grouped by kind.

    Args:
        table: from `summarise`; the first transform is the untouched picture.
    """
    transforms, attackers = (table.index.unique(name) for name in ("transform", "attacker"))
    places, labels, y = {}, {}, 0.0
    for kind, names in groupby(transforms, key=_kind):
        start = y
        for name in names:
            places[name], y = y, y + 1
        labels[kind] = (start + y - 1) / 2, y - 0.1
        y += 0.5
    with matplotlib.rc_context(FONT):
        size = 0.055 * len(attackers) + 0.07
        figure = Figure(figsize=(WIDTH, size * y + 0.9), layout="constrained")
        axes = figure.subplots()
        axes.axvline(100, color="0.6", lw=0.8, ls="--", zorder=0)
        for number, (style, name) in enumerate(zip(cycle(STYLES), attackers, strict=False)):
            rows = table.xs(name, level="attacker").loc[transforms]
            left = 100 * rows[["remaining", "remaining_low", "remaining_high"]]
            shift = 0.7 * ((number + 0.5) / len(attackers) - 0.5)
            at = [places[transform] + shift for transform in transforms]
            axes.hlines(at, left["remaining_low"], left["remaining_high"], color=style[0], lw=1.1)
            untouched = f"{label_of(name)} ({rows['damage_l2'].iloc[0]:.3f})"
            _curve(axes, left["remaining"], pd.Series(at), (style[0], style[1], ""), untouched)
        axes.set_yticks(list(places.values()), list(places))
        axes.set(ylim=(y - 0.9, -0.6), xlim=(0, None))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="0.9", lw=0.6)
        axes.set_axisbelow(True)
        for kind, (middle, end) in labels.items():
            if kind not in places and end - middle > 0.95:  # one row needs no heading
                axes.text(
                    *(1.01, middle), kind, transform=axes.get_yaxis_transform(), va="center",
                    fontsize=8, style="italic",
                )  # fmt: skip
        faces = table["faces"].max()
        axes.set_xlabel(
            "damage that is left, % of that on the untouched 8-bit photo (in brackets, MSE); "
            f"bars: 95 % interval over {faces} faces"
        )
        figure.legend(loc="outside upper center", ncols=min(len(attackers), 3))
    return figure


def paper_reading(table: pd.DataFrame) -> Figure:
    """Draw Table I's averages as printed beside what a few readings of the paper give for them.

    Args:
        table: some rows of `rank`, up to five, in order of appearance.
    """
    from ..experiments.paper_reading import MEASURES, PRINTED, printed

    attackers = [name for name in PRINTED if f"{name} l1" in table]
    paper, labels = printed(attackers), ("$L^1$", "$L^2$ × 100")
    texts = ["printed: the averages of Table I"] + [
        f"reading {number}: {row.strength}; {row.attackers}; errors in {row.arithmetic}; "
        f"stored as {row.precision} (distance {row.distance:.2f})"
        for number, row in enumerate(table.itertuples(), start=1)
    ]
    with matplotlib.rc_context(FONT):
        figure = Figure(
            figsize=(WIDTH, 1.0 + 0.42 * len(attackers) + 0.17 * len(table)), layout="constrained"
        )
        panels = figure.subplots(1, 2, sharey=True)
        for column, (axes, measure) in enumerate(zip(panels, MEASURES, strict=True)):
            values = [paper[:, column], *table[[f"{n} {measure}" for n in attackers]].to_numpy()]
            for number, (style, row) in enumerate(zip(STYLES, values, strict=False)):
                shift = 0.4 * (number / (len(values) - 1) - 0.5)
                at = pd.Series(range(len(attackers))) + shift
                _curve(axes, row, at, (style[0], style[1], ""), texts[number])
                for value, y in zip(row, at, strict=True):
                    axes.annotate(
                        f"{value:.4f}".rstrip("0"), (value, y), (6, 0), va="center",
                        textcoords="offset points", fontsize=8,
                    )  # fmt: skip
            axes.set_xlabel(labels[column])
            axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
            axes.grid(axis="x", color="0.9", lw=0.6)
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(attackers)), [label_of(name) for name in attackers])
        panels[0].set_ylim(len(attackers) - 0.5, -0.5)
        handles = panels[0].get_legend_handles_labels()[0]
        figure.legend(handles, texts, loc="outside lower left", fontsize=8)
    return figure


def published(table: pd.DataFrame) -> Figure:
    """Draw each attacker's damage to each generator, a panel for each bound of `summary`."""
    generators, bounds, attackers = (table.index.unique(name) for name in table.index.names)
    with matplotlib.rc_context(FONT):
        height = 0.9 + len(generators) * (0.055 * len(attackers) + 0.12)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(1, len(bounds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, bound in zip(panels, bounds, strict=True):
            for number, (style, name) in enumerate(zip(cycle(STYLES), attackers, strict=False)):
                rows = table.xs((bound, name), level=("bound", "attacker"))
                shift = 0.7 * ((number + 0.5) / len(attackers) - 0.5)
                at = [generators.get_loc(generator) + shift for generator in rows.index]
                axes.hlines(at, rows["damage_l2_low"], rows["damage_l2_high"], style[0], lw=1.1)
                mark = (style[0], style[1], "")
                _curve(axes, rows["damage_l2"], pd.Series(at, dtype=float), mark, label_of(name))
            axes.axvline(SUCCESS, color="0.6", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
            label = "damage: MSE in [-1, 1]; broken right of the line"
            axes.set(xscale="log", title=f"bound {bound:g}", xlabel=label)
            axes.set_yticks(range(len(generators)), generators)
            axes.tick_params(axis="y", length=0)
        panels[0].set_ylim(len(generators) - 0.5, -0.5)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def smallest_change(rows: pd.DataFrame) -> Figure:
    """Draw the share of broken fakes against the PSNR of the photo, one curve per attacker.

    An attacker of a fixed strength has a point for each bound: share and median PSNR. A
    minimum-norm attacker has a point for each photo and edit, above its curve: the share of fakes
    that it breaks while the photo keeps that PSNR.

    Args:
        rows: from `smallest_change.measure`: attacker, bound, ``psnr`` in dB and ``success``.
    """
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        strip, ends = 103, []
        for style, (name, group) in zip(cycle(STYLES), rows.groupby("attacker", sort=False)):
            colour, marker, line = style
            curve = group.groupby("bound").agg(x=("psnr", "median"), y=("success", "mean"))
            if len(curve) > 1:
                _curve(axes, curve["x"], 100 * curve["y"], style, label_of(name))
                ends.append((curve["x"].iloc[0], 100 * curve["y"].iloc[0], label_of(name), colour))
                continue
            broken = sorted(group["psnr"][group["success"] == 1], reverse=True)
            share = [100 * i / len(group) for i in range(len(broken) + 1)]
            strip += 5
            axes.step([*broken, rows["psnr"].min()], share, color=colour, ls=line, lw=1.1)
            cloud = [strip] * len(broken)
            axes.plot(broken, cloud, marker, color=colour, ms=4, mfc="none", mew=0.7, alpha=0.7)
            at = axes.get_yaxis_transform()
            axes.text(1.01, strip, label_of(name), color=colour, va="center", transform=at)
        axes.set(xlabel="PSNR of the photo in dB: less change →", ylabel="fakes broken, %")
        axes.set(ylim=(-3, strip + 4), yticks=range(0, 101, 20))
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_axisbelow(True)
        to_axes = axes.transData + axes.transAxes.inverted()
        floor = 0.0
        for x, y, label, colour in sorted(ends, reverse=True):
            height = floor = max(floor, to_axes.transform((x, y))[1])
            axes.annotate(
                label, (x, y), (1.01, height), color=colour, textcoords="axes fraction",
                va="center",
                arrowprops={"arrowstyle": "-", "color": "0.75", "lw": 0.6, "relpos": (0, 0.5)},
            )  # fmt: skip
            floor += 0.07
    return figure

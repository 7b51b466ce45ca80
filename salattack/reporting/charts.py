"""Tables → charts. Nothing is computed here; shape and line tell attackers apart, not colour."""

from itertools import cycle, product
from typing import TYPE_CHECKING

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..metrics import SUCCESS
from ..presets import label_of
from .style import FONT

if TYPE_CHECKING:
    import pandas as pd


STYLES = (
    *(("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", "-")),
    *(("P", "--"), ("X", ":"), ("<", "-."), (">", "-"), ("*", "--")),
)


def trade_off(means: pd.DataFrame) -> Figure:
    """Draw damage against change of the photo, one curve per attacker, one point per bound.

    Args:
        means: from `means`: attacker, bound, ``l2``, ``background_l1``,
            ``damage_l2`` and ``damage_edited`` in [-1, 1], and ``damage_features``
            where the saliency model has features: without it that row of panels is left out.
    """
    changes = (
        ("l2", 100, "change of the photo: L2 × 100 in [-1, 1]"),
        ("background_l1", 1, "change of its background: L1 in [-1, 1]"),
    )
    damages = [
        ("damage_l2", "damage to the fake:\nMSE in [-1, 1]"),
        ("damage_edited", "where the edit is:\nMSE in [-1, 1]"),
        ("damage_features", "in features:\ndistance, no unit"),
    ]
    damages = [(measure, label) for measure, label in damages if measure in means]
    groups = means.groupby("attacker", sort=False)
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(7.0, 1.0 + 2.0 * len(damages)), layout="constrained")
        axes = figure.subplots(len(damages), len(changes), sharex="col", sharey="row")
        pairs = zip(axes.flat, product(damages, changes), strict=True)
        for panel, ((damage, name_of_damage), (measure, factor, label)) in pairs:
            for style, (name, curve) in zip(cycle(STYLES), groups, strict=False):
                curve = curve.sort_values("bound")
                called = label_of(str(name))
                _curve(panel, factor * curve[measure], curve[damage], style, called)
            panel.set(xlabel=label, ylabel=name_of_damage, xlim=(0, None), ylim=(0, None))
            panel.label_outer()
            panel.spines[["top", "right"]].set_visible(False)
        for panel in axes[0]:
            panel.axhline(SUCCESS, color="0.6", linewidth=0.6)
        axes[0, 1].text(
            *(1, SUCCESS), "broken", transform=axes[0, 1].get_yaxis_transform(),
            ha="right", va="bottom", fontsize=6.5, color="0.35",
        )  # fmt: skip
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def transfer(matrix: pd.DataFrame) -> Figure:
    """Draw damage as a matrix: rows what was aimed at, columns what is then asked.

    Args:
        matrix: from `transfer` or `across`, mean damage
            in [-1, 1]; the names of its index and columns label the axes.
    """
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
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
        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        for axes, measures in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for style, (measure, label) in zip(STYLES, measures, strict=False):
                _curve(axes, averaged["step"], averaged[measure], style, label)
            axes.set(xlabel="step", ylim=(0, None))
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(fontsize=7, frameon=False)
    return figure


def _curve(axes: Axes, x: pd.Series, y: pd.Series, style: tuple[str, str], label: str) -> None:
    marker, line = style
    axes.plot(
        x,
        y,
        marker=marker,
        linestyle=line,
        color="black",
        markerfacecolor="white",
        markersize=4,
        linewidth=0.9,
        label=label,
    )


def robustness(table: "pd.DataFrame") -> Figure:
    """What each edit of the disrupted photo leaves of the damage, a panel per attacker.

    Shape and place alone carry it: it needs no colour.

    Args:
        table: from `summarise`; the first transform is the untouched picture.
    """
    transforms, attackers = (table.index.unique(name) for name in ("transform", "attacker"))
    y = range(len(transforms))
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(7.0, 0.19 * len(transforms) + 0.95), layout="constrained")
        panels = figure.subplots(1, len(attackers), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, attackers, strict=True):
            rows = table.xs(name, level="attacker").loc[transforms]
            left = 100 * rows[["remaining", "remaining_low", "remaining_high"]]
            axes.axvline(100, color="0.6", lw=0.8, ls="--", zorder=0)
            axes.hlines(y, left["remaining_low"], left["remaining_high"], color="0.45", lw=1.6)
            axes.plot(left["remaining"], y, "o", color="black", ms=3.5)
            for place, value in zip(y, left["remaining"], strict=True):
                axes.annotate(
                    f"{value:.0f}".replace("nan", "–"),
                    (1, place),
                    (3, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    fontsize=6.5,
                )
            untouched = rows["damage_l2"].iloc[0]
            axes.set_title(f"{label_of(name)}\n(MSE {untouched:.3f})", fontsize=7)
            axes.grid(axis="y", color="0.9", lw=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(y, transforms)
        panels[0].invert_yaxis()
        panels[0].set_xlim(left=0)
        faces = table["faces"].max()
        figure.supxlabel(
            "Damage that is left (% of that on the untouched 8-bit picture, whose MSE in [-1, 1] "
            f"is in the title)\nBars: 95 % interval over {faces} faces",
            fontsize=8,
        )
    return figure


def paper_reading(table: "pd.DataFrame") -> Figure:
    """Table I's averages as printed, and what a few readings of the paper give for them.

    Args:
        table: some rows of `rank`, up to five, in order of appearance.
    """
    from ..experiments.paper_reading import MEASURES, PRINTED, printed

    attackers = [name for name in PRINTED if f"{name} l1" in table]
    paper, labels = printed(attackers), ("$L^1$", "$L^2$ × 100")
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(7.0, 2.35 + 0.17 * len(table)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for column, (axes, measure) in enumerate(zip(panels, MEASURES, strict=True)):
            for y, name in enumerate(attackers):
                axes.plot(2 * [paper[y, column]], [y - 0.36, y + 0.36], color="black", lw=1.6)
                for place, (_, row) in enumerate(table.iterrows()):
                    axes.plot(
                        row[f"{name} {measure}"],
                        y + 0.62 * ((place + 0.5) / len(table) - 0.5),
                        marker="osD^v"[place],
                        color="black",
                        markerfacecolor="white" if place % 2 else "0.55",
                        markersize=4.5,
                    )
            axes.set_xlabel(labels[column])
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="0.9", lw=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(attackers)), [label_of(name) for name in attackers])
        panels[0].invert_yaxis()
        handles = [
            axes.plot([], [], color="black", lw=1.6)[0],
            *(
                axes.plot([], [], "osD^v"[i], color="black", mfc="white" if i % 2 else "0.55")[0]
                for i in range(len(table))
            ),
        ]
        texts = [
            f"{r.strength}; {r.attackers}; errors {r.arithmetic} (distance {r.distance:.2f})"
            for r in table.itertuples()
        ]
        figure.legend(
            handles,
            ["printed (average of Table I)", *texts],
            loc="outside lower left",
            fontsize=7,
            frameon=False,
        )
    return figure

"""Tables → charts. Nothing is computed here; shape and line tell attackers apart, not colour."""

from itertools import cycle, product

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .attacks import label_of
from .figures import FONT
from .metrics import SUCCESS

STYLES = (
    *(("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", "-")),
    *(("P", "--"), ("X", ":"), ("<", "-."), (">", "-"), ("*", "--")),
)


def trade_off(means: pd.DataFrame) -> Figure:
    """Draw damage against change of the photo, one curve per attacker, one point per bound.

    Args:
        means: from `salattack.trade_off.means`: attacker, bound, ``l2``, ``background_l1``,
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
        matrix: from `salattack.ablation.transfer` or `salattack.cross_model.across`, mean damage
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

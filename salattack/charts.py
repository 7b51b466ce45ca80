"""Tables → charts. Nothing is computed here; shape and line tell attackers apart, not colour."""

from itertools import cycle

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from .attacks import LABELS
from .figures import FONT
from .metrics import SUCCESS

STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", "-"), ("P", "--"), ("X", ":"))


def trade_off(means: pd.DataFrame) -> Figure:
    """Draw damage against change of the photo, one curve per attacker, one point per bound.

    Args:
        means: from `salattack.trade_off.means`: attacker, bound, ``l2``, ``background_l1`` and
            ``damage_l2`` in [-1, 1].
    """
    panels = (
        ("l2", 100, "change of the photo: L2 × 100 in [-1, 1]"),
        ("background_l1", 1, "change of its background: L1 in [-1, 1]"),
    )
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(7.0, 3.0), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for panel, (measure, factor, label) in zip(axes, panels, strict=True):
            groups = means.groupby("attacker", sort=False)
            for (marker, line), (name, curve) in zip(cycle(STYLES), groups, strict=False):
                curve = curve.sort_values("bound")
                panel.plot(
                    factor * curve[measure],
                    curve["damage_l2"],
                    marker=marker,
                    linestyle=line,
                    color="black",
                    markerfacecolor="white",
                    markersize=4,
                    linewidth=0.9,
                    label=LABELS.get(str(name), str(name)),
                )
            panel.axhline(SUCCESS, color="0.6", linewidth=0.6)
            panel.set(xlabel=label, xlim=(0, None), ylim=(0, None))
            panel.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("damage to the fake: MSE in [-1, 1]")
        axes[1].text(
            *(1, SUCCESS), "broken", transform=axes[1].get_yaxis_transform(),
            ha="right", va="bottom", fontsize=6.5, color="0.35",
        )  # fmt: skip
        axes[0].legend(fontsize=7, frameon=False)
    return figure


def transfer(matrix: pd.DataFrame) -> Figure:
    """Draw damage as a matrix: rows the edit aimed at, columns the edit asked for.

    Args:
        matrix: from `salattack.ablation.transfer`, mean damage in [-1, 1].
    """
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        shades = axes.imshow(matrix, cmap="Greys", vmin=0, aspect="auto")
        axes.set_xticks(range(matrix.shape[1]), [c.replace("_", "\n") for c in matrix.columns])
        axes.set_yticks(range(matrix.shape[0]), [c.replace("_", " ") for c in matrix.index])
        axes.set(xlabel="edit asked for", ylabel="edit aimed at")
        axes.tick_params(length=0)
        dark = matrix.to_numpy().max() / 2
        for row, values in enumerate(matrix.to_numpy()):
            for column, value in enumerate(values):
                shade = "white" if value > dark else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=shade)
        figure.colorbar(shades, label="damage: MSE in [-1, 1]")
    return figure

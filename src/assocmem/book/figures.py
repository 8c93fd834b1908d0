"""One figure style for the book: readable in light and dark mode, in grey, and colour-blind."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), ordered so that neighbours also differ in lightness.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 6.8  # inches, the text column

STYLE = {
    # An opaque, slightly warm panel stays legible on a dark page; black on transparent does not.
    "figure.facecolor": "#fbfaf7",
    "axes.facecolor": "#fbfaf7",
    "savefig.facecolor": "#fbfaf7",
    "figure.figsize": (WIDTH, 3.4),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "assocmem",  # the same element ids at every build
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dcd9d0",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "image.cmap": "cividis",
    "axes.prop_cycle": cycler(color=COLORS) + cycler(marker=MARKERS),
}


def use_style() -> None:
    """Set the book's figure style, and SVG as the format of figures in a notebook.

    The date is left out of the SVG, so that a figure that did not change is the same file.
    """
    mpl.rcParams.update(STYLE)
    from IPython.core.getipython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def figure(columns: int = 1, rows: int = 1, height: float = 3.0, **kw) -> tuple[Figure, list[Axes]]:
    """A figure of the text's width with `rows × columns` axes, handed back as a flat list.

    Args:
        columns: axes side by side.
        rows: axes on top of each other.
        height: height of one row, in inches.
        **kw: passed on to `matplotlib.pyplot.subplots`.
    """
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False, **kw)
    return fig, list(axes.flat)

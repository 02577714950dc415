"""How every figure looks, and how it becomes files that are equal for equal results."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

PALETTE = ("#2A7FC1", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""After Okabe and Ito, apart for every common kind of colour blindness; readable on light and dark."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")

INK = "#1b1f24"
PAPER = "#fefefe"
"""Fill of hollow markers: the page's own ground, light or dark."""

FLOOR_INK = "#8a8f98"
_GRID = "#8a8f9840"

_MOST_PIXELS = 60_000
"""Along a side of a PNG; beyond 65,535 there is none."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    # A dollar sign in a name is no formula.
    "text.parse_math": False,
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class DrawnFigure:
    """One figure in both formats."""

    name: str
    """File name without its ending."""
    title: str
    description: str
    """What it shows, for readers who do not see it."""
    svg: str
    png: bytes


def draw(name: str, title: str, description: str, figure: Figure) -> DrawnFigure:
    """A figure as SVG and PNG without dates, random identifiers or a library's version.

    Args:
        name: file name without its ending; also sets the SVG's identifiers apart from those of
            other figures on the same page.
        title: heading.
        description: text alternative.
        figure: drawn under `STYLE`.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        vector = io.StringIO()
        unsigned = {"Date": None, "Creator": None, "Format": None, "Type": None}
        # What the font lacks is drawn as a box; the tables have the name.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        # Hundreds of names leave no room for curves; that is seen, and nobody can mend it here.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(vector, format="svg", metadata=unsigned, transparent=True)
        dpi = min(200.0, _MOST_PIXELS / max(figure.get_size_inches()))
        raster = io.BytesIO()
        figure.savefig(raster, format="png", metadata={"Software": None}, dpi=dpi)
    return DrawnFigure(
        name,
        title,
        description,
        _page_ready(vector.getvalue(), name, description),
        raster.getvalue(),
    )


def _page_ready(svg: str, name: str, description: str) -> str:
    """SVG that can stand in a page beside others, in its text colour, with a text alternative."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, white)")
    text = description.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-alt" ', 1).replace(
        ">", f'>\n <title id="{name}-alt">{text}</title>', 1
    )

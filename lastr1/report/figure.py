"""How every figure of a report looks."""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

DPI = 200
"""pixels per inch; the page shows an inch as 100 CSS pixels, so these are sharp on dense screens"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colours and width of a figure.  The hues are Okabe and Ito's, distinct for colour-blind readers."""

    width: float = 8.7
    """inches"""
    paper: str = "#ffffff"
    ink: str = "#1c2024"
    muted: str = "#60646c"
    grid: str = "#e6e8eb"
    blue: str = "#0072b2"
    orange: str = "#d55e00"
    green: str = "#009e73"
    purple: str = "#b0578d"

    @property
    def narrow(self) -> bool:
        """For a telephone."""
        return self.width < 5


LIGHT = Look()
DARK = Look(
    paper="#191b1f",
    ink="#eceef0",
    muted="#a0a6ae",
    grid="#2e3238",
    blue="#56b4e9",
    orange="#e69f00",
    green="#2bc69b",
    purple="#e39ac4",
)
NARROW_LIGHT = replace(LIGHT, width=3.6)
NARROW_DARK = replace(DARK, width=3.6)


def new_figure(look: Look, height: float) -> tuple[Any, Any]:
    """A figure of the look's width and `height` inches with one pair of axes."""
    figure = Figure((look.width, height), dpi=DPI, layout="constrained", facecolor=look.paper)
    axes = figure.subplots()
    tidy(axes, look, size=8.5)
    return figure, axes


def tidy(axes: Any, look: Look, size: float) -> None:
    """Horizontal grid lines, no frame, labels of `size` points."""
    axes.set_facecolor(look.paper)
    axes.grid(axis="y", color=look.grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(look.grid)
    axes.tick_params(which="both", colors=look.muted, labelsize=size, length=0)
    axes.xaxis.label.set_size(size)
    axes.yaxis.label.set_size(size)


def legend(figure: Any, look: Look, columns: int) -> None:
    """Below the axes, where it hides nothing."""
    figure.legend(
        loc="outside lower left",
        ncols=columns,
        fontsize=8,
        frameon=False,
        labelcolor=look.ink,
        handlelength=1.6,
    )


def percent(share: float) -> str:
    """A share for people: 0.421 -> 42%."""
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def save(figure: Any, path: Path) -> None:
    """PNG in 128 colours, a quarter of the bytes; the same input gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(128).save(path, optimize=True)

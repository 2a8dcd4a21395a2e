"""Pieces of a page: pure functions from values to HTML.  Text is escaped where it enters."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from lastr1.report.figure import DARK, LIGHT, NARROW_DARK, NARROW_LIGHT, Look, percent
from lastr1.train.evaluate import Tally

LOOKS = (
    # A browser takes the first that matches.
    ("_narrow_dark", "(max-width: 640px) and (prefers-color-scheme: dark)", NARROW_DARK),
    ("_narrow", "(max-width: 640px)", NARROW_LIGHT),
    ("_dark", "(prefers-color-scheme: dark)", DARK),
)
"""suffix of the PNG, media query, look"""


def section(title: str, body: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def details(title: str, body: str) -> str:
    """A part of the page that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>\n<div>{body}</div></details>"


def missing(what: str) -> str:
    """Stands where a piece of the run is not there."""
    return f'<p class="missing">{escape(what)}</p>'


def card(name: str, big: str, small: str, *, lead: bool = False) -> str:
    """A headline number; `big` is HTML (see `change`)."""
    kind = "card lead" if lead else "card"
    return (
        f'<div class="{kind}"><div class="name">{escape(name)}</div><div class="big">{big}</div>'
        f'<div class="small">{escape(small)}</div></div>'
    )


def change(before: str | None, after: str | None) -> str:
    """`before -> after` as HTML, the later one large; a dash for what is missing."""
    old = f'<span class="from">{escape(before or "–")} → </span>'
    return old + escape(after or "–")


def data_uri(path: Path, kind: str) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def picture(directory: Path, name: str, alt: str, draw: Callable[[Path, Look], None]) -> str:
    """A figure drawn for light and dark, wide and narrow screens; the PNGs stay in `directory`."""
    path = directory / f"{name}.png"
    draw(path, LIGHT)
    sources = []
    for suffix, query, look in LOOKS:
        variant = directory / f"{name}{suffix}.png"
        draw(variant, look)
        sources.append(f'<source media="{query}" srcset="{data_uri(variant, "image/png")}">\n')
    return (
        f'<picture>{"".join(sources)}<img alt="{escape(alt)}" src="{data_uri(path, "image/png")}"></picture>'
    )


def rate(tally: Tally) -> float:
    """Share of successes; 0 of 0 is 0."""
    return tally.successes / max(1, tally.episodes)


def interval(tally: Tally) -> str:
    """95% interval in whole percent."""
    low, high = tally.wilson95
    return f"{100 * low:.0f}–{100 * high:.0f}%"


def task_row(name: str, before: Tally | None, after: Tally | None, *, total: bool = False) -> str:
    """One line of the table: intervals drawn, counts, difference in percentage points."""
    points = f"{100 * (rate(after) - rate(before)):+.0f}" if before and after else "–"
    return (
        f'<tr{" class=total" if total else ""}><td class="task">{escape(name)}</td>'
        f'<td class="bars"><div class="strip">{_whisker(before, "before")}{_whisker(after, "after")}</div>'
        "</td>"
        f'<td class="number" data-name="warm-up">{_counted(before)}</td>'
        f'<td class="number" data-name="final">{_counted(after)}</td>'
        f'<td class="number" data-name="points">{points.replace("-", "−")}</td></tr>\n'
    )


def _whisker(tally: Tally | None, kind: str) -> str:
    if tally is None:
        return ""
    low, high = tally.wilson95
    return (
        f'<i class="{kind}" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b class="{kind}" style="left:{100 * rate(tally):.1f}%"></b>'
    )


def _counted(tally: Tally | None) -> str:
    if tally is None:
        return "–"
    return (
        f'{percent(rate(tally))} <span class="range">{tally.successes}/{tally.episodes} · '
        f"{interval(tally)}</span>"
    )


def bars(named: Sequence[tuple[str, float]]) -> str:
    """Minutes of named stages, given in seconds, as bars on one scale."""
    longest = max(max(seconds for _, seconds in named), 1e-9)
    rows = "".join(
        f'<span>{escape(name)}</span><span><u style="width:{100 * seconds / longest:.1f}%"></u></span>'
        f"<span>{seconds / 60:.1f} min</span>"
        for name, seconds in named
    )
    return f'<div class="stages">{rows}</div>'

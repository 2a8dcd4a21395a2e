"""A finished run as one HTML file: no network, no scripts, pictures and videos inside."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from lastr1.config import Config
from lastr1.knobs import to_dict
from lastr1.report import plots
from lastr1.report.figure import percent
from lastr1.report.pieces import (
    bars,
    card,
    change,
    data_uri,
    details,
    interval,
    missing,
    picture,
    rate,
    section,
    task_row,
)
from lastr1.report.plots import Metrics
from lastr1.train.evaluate import Evaluation

CSS = Path(__file__).with_name("page.css")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a job and its wall-clock time."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Video:
    """One filmed episode."""

    path: Path
    """mp4 (H.264); a file that is not there is reported on the page"""
    policy: str
    """who played: warm-up, final"""
    instruction: str
    success: bool


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the page shows.  A piece that is empty or None is named as missing where it would stand."""

    title: str
    summary: str = ""
    """a sentence or two below the title"""
    before: Evaluation | None = None
    """the policy after the warm-up"""
    after: Evaluation | None = None
    """the policy after reinforcement"""
    metrics: Metrics = ()
    """one row per iteration, as `read_metrics` returns them"""
    stages: tuple[Stage, ...] = ()
    """in the order they ran"""
    videos: tuple[Video, ...] = ()
    """of one instruction stand side by side, in this order"""
    config: Config | None = None
    command: str = ""
    """the command line that repeats the run"""
    versions: dict[str, str] = field(default_factory=dict)
    """package or machine -> version"""


def write_page(directory: Path, report: DemoReport) -> Path:
    """Write `directory/index.html`, and its figures as PNGs in `directory/plots` too; the page's path."""
    folder = directory / "plots"
    directory.mkdir(parents=True, exist_ok=True)
    body = "\n".join(
        (
            _header(report),
            _cards(report),
            section("Learning curve", _curve(report, folder)),
            section("Success per task", _tasks(report)),
            section("How long it thinks", _thoughts(report, folder)),
            section("Videos", _videos(report.videos)),
            details("Time, losses and policy drift", _inside(report, folder)),
            details("Configuration", _configuration(report.config)),
            section("Repeat it", _origin(report)),
        )
    )
    page = directory / "index.html"
    # The policy states, and lets the browser enforce, that nothing outside the file is fetched or run.
    page.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>{escape(report.title)}</title>
<style>
{CSS.read_text()}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
""",
        encoding="utf-8",
    )
    return page


def _header(report: DemoReport) -> str:
    summary = f'<p class="lede">{escape(report.summary)}</p>' if report.summary else ""
    return (
        f"<header><h1>{escape(report.title)}</h1>{summary}"
        '<div class="key"><span><span class="swatch before"></span>warm-up: taught by demonstrations</span>'
        '<span><span class="swatch after"></span>final: after reinforcement (LAPO)</span></div></header>'
    )


def _cards(report: DemoReport) -> str:
    before, after, rows = report.before, report.after, plots.history(report.metrics)
    seconds = [(s.name, s.seconds) for s in report.stages] or list(plots.phase_seconds(rows).items())
    longest = max(seconds, key=lambda named: named[1], default=None)
    cards = (
        card(
            "Success, greedy",
            _change(before, after, lambda e: percent(rate(e.total))),
            " → ".join(interval(e.total) for e in (before, after) if e) + " (95% intervals)",
            lead=True,
        ),
        card("Latents", _change(before, after, lambda e: f"{e.mean_latents:.1f}"), "per decision, mean"),
        card(
            "Control steps", _change(before, after, lambda e: f"{e.control_steps:.0f}"), "per episode, mean"
        ),
        card(
            "Training episodes",
            f"{sum(row['episodes'] for row in rows):,.0f}" if rows else "–",
            f"in {len(rows):,} iterations" if rows else "no training metrics",
        ),
        card(
            "Minutes",
            f"{sum(s for _, s in seconds) / 60:.1f}" if seconds else "–",
            f"most of it: {longest[0]}, {longest[1] / 60:.1f}" if longest else "not timed",
        ),
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _change(before: Evaluation | None, after: Evaluation | None, show: Callable[[Evaluation], str]) -> str:
    return change(show(before) if before else None, show(after) if after else None)


def _curve(report: DemoReport, folder: Path) -> str:
    if not report.metrics and report.before is None and report.after is None:
        return missing("No training metrics and no evaluation: nothing to draw.")
    lack = "" if report.metrics else missing("No training metrics: only the evaluations are drawn.")
    drawn = picture(
        folder,
        "learning_curve",
        "Success of training episodes over training, with the greedy evaluations before and after.",
        lambda path, look: plots.learning_curve(report.metrics, report.before, report.after, path, look),
    )
    caption = (
        "Training episodes are sampled, and may take failing tasks more often; evaluations are greedy over "
        "all tasks: the points may lie above the line. Whiskers are 95% Wilson intervals."
    )
    return f"{lack}<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def _tasks(report: DemoReport) -> str:
    before, after = report.before, report.after
    if before is None and after is None:
        return missing("No evaluation of either policy.")
    names = list(dict.fromkeys(name for e in (before, after) if e for name in e.tasks))
    rows = [
        task_row(
            name,
            before.tasks[name] if before and name in before.tasks else None,
            after.tasks[name] if after and name in after.tasks else None,
        )
        for name in names
    ]
    total = task_row(
        "All tasks", before.total if before else None, after.total if after else None, total=True
    )
    return (
        '<p class="note">Greedy episodes; bars are 95% Wilson intervals.</p>'
        '<table><thead><tr><th>Task</th><th><div class="scale"><span>0</span><span>50</span>'
        "<span>100%</span></div></th><th>Warm-up</th><th>Final</th><th>Points</th></tr></thead>"
        f"<tbody>{''.join(rows)}{total}</tbody></table>"
    )


def _thoughts(report: DemoReport, folder: Path) -> str:
    if report.before is None and report.after is None:
        return missing("No evaluation of either policy.")
    drawn = picture(
        folder,
        "thought_lengths",
        "Share of decisions per thought length, before and after.",
        lambda path, look: plots.thought_lengths(report.before, report.after, path, look),
    )
    caption = "The policy chooses after every group of latents whether to think on or to act."
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def _videos(videos: Sequence[Video]) -> str:
    if not videos:
        return missing("No episode was filmed.")
    groups: dict[str, list[str]] = {}
    for video in videos:
        groups.setdefault(video.instruction, []).append(_video(video))
    cells = [
        f'<div><h3>{escape(instruction)}</h3><div class="pair">{"".join(films)}</div></div>'
        for instruction, films in groups.items()
    ]
    return f'<div class="videos">{"".join(cells)}</div>'


def _video(video: Video) -> str:
    result = '<span class="good">✓ success</span>' if video.success else '<span class="bad">✗ failure</span>'
    film = (
        f'<video autoplay loop muted playsinline controls src="{data_uri(video.path, "video/mp4")}"></video>'
        if video.path.is_file()
        else missing(f"{video.path.name} is not there.")
    )
    return f"<figure>{film}<figcaption>{escape(video.policy)} · {result}</figcaption></figure>"


def _inside(report: DemoReport, folder: Path) -> str:
    named = [(stage.name, stage.seconds) for stage in report.stages]
    stages = "<h3>Stages</h3>" + (bars(named) if named else missing("The stages were not timed."))
    if not report.metrics:
        return stages + missing("No training metrics.")
    metrics = report.metrics
    time = missing("The iterations were not timed.")
    if plots.phase_seconds(metrics):
        time = picture(
            folder,
            "phases",
            "Seconds per iteration by phase.",
            lambda p, look: plots.phases(metrics, p, look),
        )
    figures = picture(
        folder, "losses", "Losses and policy drift.", lambda p, look: plots.losses(metrics, p, look)
    )
    return f"{stages}<h3>Time per iteration</h3>{time}<h3>Per iteration, mean over its updates</h3>{figures}"


def _configuration(config: Config | None) -> str:
    if config is None:
        return missing("The run left no configuration.")
    return f"<pre>{escape(json.dumps(to_dict(config), indent=2))}</pre>"


def _origin(report: DemoReport) -> str:
    command = (
        f'<pre class="wrap">{escape(report.command)}</pre>'
        if report.command
        else missing("The command line was not recorded.")
    )
    versions = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.versions.items())
    return command + (f"<dl>{versions}</dl>" if versions else missing("No versions were recorded."))

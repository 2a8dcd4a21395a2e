from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lastr1.config import Config
from lastr1.report.page import DemoReport, Stage, Video, write_page
from lastr1.rollout.record import write_video
from lastr1.train.evaluate import Evaluation, Tally

VOID = {"meta", "img", "source"}
NASTY = "<script>alert('1')</script> & \"more\""


class Reader(HTMLParser):
    """Fails on unbalanced tags; keeps tags, addresses and text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "srcset", "href", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evaluation(successes: int, task: str = NASTY) -> Evaluation:
    tally = Tally.of([k < successes for k in range(10)])
    return Evaluation(
        total=tally,
        tasks={task: tally},
        mean_latents=6.25,
        latents={4: 7, 8: 9},
        control_steps=31.0,
        rows=({"task": 0, "success": True, "seconds": 0.5},),
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    film = out / "a.mp4"
    write_video(film, np.zeros((4, 32, 32, 3), np.uint8), 10)
    row = {"success": 0.5, "episodes": 600, "grad_norm": 1.0, "collect_seconds": 90.0, "update_seconds": 30.0}
    report = DemoReport(
        title=NASTY,
        summary=NASTY,
        before=evaluation(2),
        after=evaluation(9),
        metrics=[{"step": k, **row} for k in range(2)],
        stages=(Stage(name=NASTY, seconds=90), Stage(name="LAPO", seconds=240)),
        videos=(
            Video(path=film, policy="warm-up", instruction=NASTY, success=False),
            Video(path=out / "gone.mp4", policy=NASTY, instruction=NASTY, success=True),
        ),
        config=Config(name=NASTY),
        command=f"lastr1 demo --name {NASTY}",
        versions={NASTY: NASTY},
    )
    return write_page(out, report)


def test_everything_is_inside_the_file(full: Path) -> None:
    found = Reader(full)
    assert found.tags.count("img") == 4
    assert found.tags.count("video") == 1
    assert all(a.startswith(("data:image/png;base64,", "data:video/mp4;base64,")) for a in found.addresses)
    assert "url(" not in full.read_text()
    assert "@import" not in full.read_text()


def test_every_string_is_escaped(full: Path) -> None:
    found = Reader(full)
    assert "script" not in found.tags
    # title, heading, summary, task, videos, stage, config, command, versions
    assert found.text.count("alert('1')") >= 10


def test_the_headline_numbers(full: Path) -> None:
    text = Reader(full).text
    for part in ("20% → 90%", "6–51% → 60–98%", "6.2 → 6.2", "31 → 31", "1,200", "in 2 iterations", "5.5"):
        assert part in text
    assert "+70" in text
    assert "9/10" in text


def test_a_video_that_is_not_there_is_named(full: Path) -> None:
    assert "gone.mp4 is not there" in Reader(full).text


def test_an_empty_report_says_what_is_missing(tmp_path: Path) -> None:
    found = Reader(write_page(tmp_path / "new", DemoReport(title="nothing")))
    assert found.addresses == []
    for part in ("No training metrics", "No evaluation", "No episode was filmed", "no configuration"):
        assert part in found.text
    assert "command line was not recorded" in found.text


def test_one_evaluation_alone(tmp_path: Path) -> None:
    found = Reader(write_page(tmp_path, DemoReport(title="half", after=evaluation(9))))
    assert "– → 90%" in found.text
    assert found.tags.count("img") == 2


def test_a_task_that_only_one_policy_played_is_listed(tmp_path: Path) -> None:
    before, after = evaluation(2, "push"), evaluation(9, "pull")
    page = write_page(tmp_path, DemoReport(title="two", before=replace(before, latents={}), after=after))
    text = Reader(page).text
    assert "push" in text
    assert "pull" in text

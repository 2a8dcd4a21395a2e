"""The first picture of every task on one sheet, through the command line."""

import numpy as np
import pytest
from PIL import Image

from lastr1.cli import main
from lastr1.envs.base import Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.report import sheet


@pytest.mark.parametrize("chosen", [(), ("--env.tasks", "2", "0")])
def test_a_sheet_shows_every_task_as_the_policy_first_sees_it(chosen, tmp_path, capsys, monkeypatch):
    """One cell per task, in the recipe's order, of five in a row; the rest stays empty."""
    figures = []

    class Kept(sheet.Figure):
        def savefig(self, path):
            figures.append(self)
            super().savefig(path)

    monkeypatch.setattr(sheet, "Figure", Kept)
    path = tmp_path / "new" / "sheet.png"
    assert main(["contact-sheet", "tabletop", "--env.image", "32", *chosen, "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    with Image.open(path) as picture:
        assert picture.size == (1300, 340)  # 13 x 3.4 inches of 100 pixels
    env, tasks = TabletopEnv("tabletop", 32), [int(task) for task in chosen[1:]] or range(4)
    cells = figures[0].axes
    assert len(cells) == 5
    for cell, task in zip(cells, tasks, strict=False):
        (picture,) = cell.get_images()
        np.testing.assert_array_equal(
            picture.get_array(), env.reset(Start(task=task, state=0)).images["front"]
        )
        title = cell.get_title(loc="left")
        assert " ".join(title.split()) == f"{task}: {env.tasks[task]}"
    assert not any(cell.get_images() for cell in cells[len(tasks) :])

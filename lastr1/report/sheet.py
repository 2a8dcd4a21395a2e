"""Job: the first frames of every task of a suite on one picture, to look at before anything is trained."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lastr1.config import EnvConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.report.figure import LIGHT
from lastr1.train.progress import track

COLUMNS = 5  # pictures in a row


def contact_sheet(config: EnvConfig, path: Path) -> Path:
    """Write what the policy sees first in each task (stored state 0, or seed 0) as a PNG; its path."""
    env = make_env(config)
    tasks = config.tasks if config.tasks is not None else tuple(range(len(env.tasks)))
    state = 0 if env.stored_states else None
    cameras = len(env.spec.cameras)  # their pictures stand side by side
    columns = max(COLUMNS // cameras, 1)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(2.6 * columns * cameras, 3.4 * rows), dpi=100, layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in cells:
        cell.axis("off")
    with track(f"contact sheet {config.suite}", len(tasks)) as bar:
        for cell, task in zip(cells, tasks, strict=False):
            seen = env.reset(Start(task=task, state=state))
            cell.imshow(np.hstack(list(seen.images.values())))
            title = textwrap.fill(f"{task}: {seen.instruction}", 34 * cameras)
            cell.set_title(title, fontsize=9, color=LIGHT.ink, loc="left")
            bar.advance()
    env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path

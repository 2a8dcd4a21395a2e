"""Which files a suite's tasks come from, by their hashes: to tell whether they are the same elsewhere."""

import contextlib
import hashlib
import io
from pathlib import Path

from lastr1.config import EnvConfig
from lastr1.envs.libero import CAPS
from lastr1.envs.libero_stack import import_stack


def task_assets(config: EnvConfig) -> dict[str, str]:
    """SHA-256 of the scene and the stored states of every task that is used; the embedded world has no files.

    `UserError` when the suite's packages are missing.
    """
    if config.suite not in CAPS:
        return {}
    import_stack()
    from libero.libero import benchmark, get_libero_path

    with contextlib.redirect_stdout(io.StringIO()):
        suite = benchmark.get_benchmark_dict()[config.suite]()
    states = Path(get_libero_path("init_states"))
    found = {}
    for task in config.tasks if config.tasks is not None else range(len(suite.tasks)):
        facts = suite.tasks[task]
        # The package keeps the states as numbers under the old, pickled file's name.
        stored = states / facts.problem_folder / f"{facts.init_states_file}.npz"
        for path in (Path(suite.get_task_bddl_file_path(task)), stored):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found

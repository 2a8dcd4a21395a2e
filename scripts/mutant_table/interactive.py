"""Faults in reinforcement with interventions."""

from mutant_table.fault import faults

TESTS = {
    "algo/interactive.py": ["tests/algo/test_interactive.py"],
    "train/buffers.py": ["tests/train/test_buffers.py"],
    "train/actor.py": ["tests/train/test_interactive.py"],
    "train/interactive.py": ["tests/train/test_interactive.py"],
}

MUTANTS = [
    *faults(
        "algo/interactive.py",
        ("the most hopeful critic counts", ".amin(0))", ".amax(0))"),
        (
            "a future after the end",
            "torch.where(terminated, 0.0, full_precision(after).amin(0))",
            "full_precision(after).amin(0)",
        ),
        ("critics share their loss", ".mean(-1).sum()", ".mean()"),
        ("micro-batches weigh the same", "max(1.0, count)", "max(1.0, float(len(chosen)))"),
        ("guidance at another temperature", "full_precision(logits) / temperature", "full_precision(logits)"),
        ("away from what the critics prefer", "return -(advantage", "return (advantage"),
    ),
    *faults(
        "train/buffers.py",
        (
            "interventions drown among demonstrations",
            "[paths for folder in folders if (paths := self.streams[folder])]",
            "[[path for folder in folders for path in self.streams[folder]]]",
        ),
        ("a transition may be half there", 'folder / f".{place.name}"', "folder / place.name"),
        ("a renamed file may be empty", "    sync(temporary)\n", ""),
        ("objects are read", "np.load(file, allow_pickle=False)", "np.load(file, allow_pickle=True)"),
        ("demonstrations count as played", "if folder != DEMONSTRATIONS:", "if folder:"),
        (
            "a discarded episode stays",
            'glob(f"{episode:06}_*.npz")',
            'glob(f"{episode:06}_0000.npz")',
        ),
        ("an episode is numbered twice", "max(found, default=-1) + 1", "max(found, default=0)"),
    ),
    *faults(
        "train/actor.py",
        ("every chunk of a person is a takeover", "given is not None and not held", "given is not None"),
        ("a chunk of two drivers", "if (given is not None) != chunk.held:", "if False:"),
    ),
    *faults(
        "train/interactive.py",
        ("success with help counts as alone", "(success * (takeovers == 0))", "success"),
        ("help, by chunks", "self._takeovers += row.takeover", "self._takeovers += row.is_intervention"),
        ("updates before there is enough", "count < max(1, job.start_after)", "count < 1"),
        ("updates whatever the ratio", "step < due(job, count) if job", "playing if job"),
    ),
]

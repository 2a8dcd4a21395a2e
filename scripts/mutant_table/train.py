"""Faults in the jobs."""

from mutant_table.fault import faults

TESTS = {
    "train/learner.py": ["tests/train/test_device.py"],
    "train/evaluate.py": ["tests/train/test_evaluate.py"],
    "train/checkpoint.py": ["tests/train/test_checkpoint.py"],
    "train/compare.py": ["tests/train/test_compare.py"],
    "train/warmup.py": ["tests/train/test_warmup.py", "tests/train/test_targets.py"],
}

MUTANTS = [
    *faults(
        "train/learner.py",
        ("rescored terms stay on the GPU", "return moved(found[1], CPU)", "return found[1]"),
        ("weights stay on the CPU", "weight = batch.weight.to(device)", "weight = batch.weight"),
    ),
    *faults(
        "train/evaluate.py",
        ("a state played twice is full coverage", "== len(pairs) == distinct ==", "== len(pairs) =="),
        ("thoughts cut short are compared", "(said > 0).all(axis=1)", "(said > 0).any(axis=1)"),
        ("rows out of order", "if [e.start for e in episodes] != list(starts):", "if not episodes:"),
    ),
    *faults(
        "train/checkpoint.py",
        ("the best is dropped", "if path != best and not (", "if not ("),
    ),
    *faults(
        "train/compare.py",
        ("one tail", "min(1.0, float(2 * tail / 2**n))", "min(1.0, float(tail / 2**n))"),
        ("pairs taken for independent", "phi = _phi(a, b, c, d)", "phi = 0.0"),
    ),
    *faults(
        "train/warmup.py",
        (
            "a compressor is pulled towards the thought",
            "latent=labels.latent.detach())",
            "latent=labels.latent)",
        ),
        ("passes see the targets again", "mean = read(Thought(latent=mean.d", "read(Thought(latent=mean.d"),
    ),
]

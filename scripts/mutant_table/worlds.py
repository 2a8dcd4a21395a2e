"""Faults in recordings, and playing."""

from mutant_table.fault import faults

TESTS = {
    "demos/lerobot.py": ["tests/demos/test_lerobot_success.py"],
    "demos/libero_raw.py": ["tests/demos/test_hdf5.py"],
    "demos/hdf5.py": ["tests/demos/test_hdf5.py"],
    "demos/cache.py": ["tests/demos/test_cache.py"],
    "report/conventions.py": ["tests/demos/test_libero_doctor.py"],
    "rollout/collect.py": ["tests/rollout/test_slots.py", "tests/rollout/test_collect.py"],
}

MUTANTS = [
    *faults(
        "demos/lerobot.py",
        ("episodes that do not say have failed", ".as_py() is False", ".as_py() is not True"),
        ("the first row decides", "table[SUCCESS][-1]", "table[SUCCESS][0]"),
    ),
    *faults(
        "demos/libero_raw.py",
        ("gripper command taken for an open fraction", "(1.0 - np.clip(command, 0.0, 1.0))", "command"),
    ),
    *faults(
        "demos/hdf5.py",
        ("pictures left upside down", "images[seen, ::-1, ::-1]", "images[seen]"),
        ("observation after the action taken for the one before", "np.maximum(kept - late, 0)", "kept"),
    ),
    *faults(
        "demos/cache.py",
        ("views of another teacher", 'blake2b(f"{identity}\\n{', 'blake2b(f"{'),
        ("a damaged view is believed", "vectors if stored", "vectors if True or stored"),
    ),
    *faults(
        "report/conventions.py",
        (
            "a rotation's quaternion is not looked at in another order",
            "for shift in (1, -1):",
            "for shift in ():",
        ),
    ),
    *faults(
        "rollout/collect.py",
        ("a slot leaves its scene", "(waiting[i][1].task != last, ", "("),
        ("the policy waits for all", "-(-len(running) // self.groups)", "len(running)"),
        ("patience has no end", "return seen if overdue or ", "return seen if "),
        ("slots build the same scene", "waiting[i][1].task in held, i)", "i)"),
    ),
]

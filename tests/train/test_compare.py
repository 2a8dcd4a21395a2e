"""Two evaluations, start by start: the test, the interval, and what is refused."""

import json

import pytest

from lastr1.cli import main
from lastr1.train.compare import Paired, mcnemar, paired_interval
from lastr1.train.sign import sealed


def test_exact_mcnemar_by_hand():
    """12 against 2: (1 + 14 + 91) / 2^14 in one tail, twice.  Nothing or a draw says nothing."""
    assert mcnemar(12, 2) == mcnemar(2, 12) == 2 * 106 / 16384
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(5, 0) == 2 / 32


def test_interval_of_a_paired_difference_by_hand():
    """36, 12, 2, 0: shares 48/50 and 38/50, difference 0.2; Wilson [0.8654, 0.9890] and [0.6259, 0.8570].

    phi = (36*0 - 12*2) / sqrt(48*2*38*12) = -0.11471 (negative: no correction).  Down: squares of 0.0946 and
    0.0970, less 2 phi times their product: 0.1431; up: 0.0290 and 0.1341: 0.1404.
    """
    low, high = paired_interval(36, 12, 2, 0)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    other = paired_interval(36, 2, 12, 0)
    assert other == pytest.approx((-high, -low))


def test_agreement_narrows_the_interval():
    """The same shares, of pairs that agree: phi = (40*8 - 1*1 - 25) / sqrt(41*9*41*9)."""
    apart, alike = paired_interval(33, 8, 8, 1), paired_interval(40, 1, 1, 8)
    assert alike[1] - alike[0] < 0.6 * (apart[1] - apart[0])
    assert -1 <= paired_interval(0, 5, 0, 0)[0] <= 1 == paired_interval(0, 5, 0, 0)[1]


def test_counting_pairs():
    found = Paired.of([(True, True), (False, True), (False, True), (True, False), (False, False)])
    assert (found.both, found.only_a, found.only_b, found.neither) == (1, 1, 2, 1)
    assert found.difference == pytest.approx(0.2)  # B solves 3 of 5, A 2


def result(successes, *, first=0, renderer="egl: soft", cap=9, code="0" * 64, assets=None, **env):
    """An evaluation of states `first`, `first` + 1, ... of tasks 0 and 2 in turn."""
    rows = [
        {"task": 2 * (i % 2), "state": first + i // 2, "seed": 0, "success": s}
        for i, s in enumerate(successes)
    ]
    return {
        "env": {"suite": "toy", "image": 8, "render": "full", "released_init_patch": False, **env},
        "setup": {
            "suite": "toy", "cap": cap, "settle": 2, "camera": "front", "image": 8, "render": "full",
            "patches": [], "renderer": renderer, "packages": {},
        },
        "tasks": {"push it": {}, "lift it": {}},
        "rows": rows,
        "signature": {"assets": assets or {}, "code": {"sources": code}},
    }  # fmt: skip


@pytest.fixture
def held(tmp_path, capsys):
    """`held(a, b)`: exit code of `lastr1 compare`, and what it printed."""

    def run(a, b):
        for name, facts in (("a", a), ("b", b)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "result.json").write_text(json.dumps(facts))
        code = main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
        out, err = capsys.readouterr()
        return code, out if code == 0 else err

    return run


def test_only_shared_starts_count(held):
    """A plays states 0..2 of both tasks, B 1..3: four pairs; in task 0 B alone solves both."""
    a = sealed(result([1, 1, 0, 1, 0, 1]))
    b = sealed(result([1, 1, 1, 0, 0, 0], first=1, renderer="egl: gpu"))
    code, text = held(a, b)
    assert code == 0
    lines = text.splitlines()
    assert "4 initial states are shared" in lines
    assert "A plays 2 more, which do not count here" in lines
    assert "NOTE: renderer: egl: soft against egl: gpu" in lines
    assert any(line.startswith("push it") and "B - A +100.0 points" in line for line in lines)
    assert any(line.startswith("lift it") and "B - A -50.0 points" in line for line in lines)
    assert lines[-1] == "exact McNemar: 1 solved by A alone, 2 by B alone, two-sided p = 1"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"cap": 10}, "setup.cap: 9 against 10"),
        ({"render": "coarse"}, "env.render: full against coarse"),
        ({"assets": {"push.bddl": "b"}}, "push.bddl: a against b"),
        ({"first": 9}, "share no initial state"),
    ],
)
def test_different_protocols_are_refused(held, other, said):
    a, b = (
        result([1, 0], assets={"push.bddl": "a"}),
        result([1, 0], **{"assets": {"push.bddl": "a"}, **other}),
    )
    code, text = held(sealed(a), sealed(b))
    assert code == 2
    assert text.count("\n") == 1
    assert said in text


def test_results_that_cannot_be_taken_at_their_word(held):
    whole = sealed(result([1, 0]))
    edited = {**whole, "rows": [{**row, "success": True} for row in whole["rows"]]}
    twice = result([1, 0])
    twice["rows"].append(twice["rows"][0])
    old = {key: value for key, value in whole.items() if key != "signature"}
    for wrong, said in ((edited, "was edited"), (sealed(twice), "2 times"), (old, "of another version")):
        code, text = held(whole, wrong)
        assert code == 2
        assert said in text


def test_a_missing_evaluation(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert f"{tmp_path / 'result.json'} is missing" in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 2
    assert "lastr1 compare A B" in capsys.readouterr().err

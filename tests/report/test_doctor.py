"""What the doctor says, on made-up machines and on this one."""

import sys
from pathlib import Path

import pytest

from lastr1.report import doctor
from lastr1.report.doctor import GIB, Fact, Probe


def test_a_vital_fault_is_unhealthy_and_shows_its_fix():
    lines, healthy = doctor.summary([Fact(name="torch", found="absent", fix="make setup", vital=True)])
    assert not healthy
    assert lines[0].split() == ["FIX", "torch", "absent", "->", "make", "setup"]
    assert "cannot run" in lines[-1]


def test_an_optional_fault_is_a_note():
    lines, healthy = doctor.summary(
        [
            Fact(name="torch", found="2.13.0", vital=True),
            Fact(name="libero", found="absent", fix="make libero"),
        ]
    )
    assert healthy
    assert [line.split()[0] for line in lines[:2]] == ["ok", "note"]
    assert lines[-1] == "lastr1 demo can run here"


def test_one_line_per_fact(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "ask", lambda _: Probe(ok=True, line="fine"))
    lines, healthy = doctor.doctor()
    assert healthy
    assert [line.split()[1] for line in lines[:-1]] == [
        *("python", "processors", "memory", "disk"),
        *("torch", "transformers", "numpy", "mujoco"),
        *("gpu", "base", "renderer", "libero"),
    ]
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "vital"), [("gpu", True), ("base", True), ("renderer", False), ("libero", False)]
)
def test_what_the_demo_cannot_do_without(monkeypatch: pytest.MonkeyPatch, name: str, vital: bool):
    programs = {
        "gpu": doctor.DEVICE,
        "base": doctor.POLICY,
        "renderer": doctor.RENDERER,
        "libero": doctor.LIBERO,
    }
    broken = programs[name]
    monkeypatch.setattr(doctor, "ask", lambda program: Probe(ok=program != broken, line="it broke"))
    lines, healthy = doctor.doctor()
    (line,) = [line for line in lines if line.split()[1] == name]
    assert healthy is not vital
    assert line.startswith("FIX" if vital else "note")
    assert "it broke" in line
    assert "->" in line


def test_an_unknown_package_is_absent():
    fact = doctor.package("no-such-package-as-this", vital=True)
    assert (fact.found, fact.fix) == ("absent", "make setup")


def test_what_auto_means_is_said(monkeypatch: pytest.MonkeyPatch):
    """By the package's own choice, in the probe; on a machine made up by a stand-in for torch's answers."""
    monkeypatch.setattr(doctor, "ask", lambda _: Probe(ok=True, line=""))
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor.device().found.startswith("none: --device auto takes the cpu")
    pretended = (
        "import torch\n"
        "torch.cuda.is_available = lambda: True\n"
        "torch.cuda.device_count = lambda: 2\n"
        "torch.cuda.get_device_name = lambda device: f'NVIDIA of {device.type}'\n"
    )
    monkeypatch.undo()
    probe = doctor.ask(pretended + doctor.DEVICE)
    assert probe == Probe(ok=True, line="NVIDIA of cuda, which --device auto takes (2 here)")


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "ask", lambda _: Probe(ok=True, line=""))
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "reinstall" in doctor.device().fix
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor.device().fix == ""


def test_little_memory_is_said_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 2 * GIB)
    (memory,) = [fact for fact in doctor.machine() if fact.name == "memory"]
    assert memory.found == "2.0 GiB"
    assert "--env.workers" in memory.fix
    assert not memory.vital


def test_a_container_grants_less_than_the_machine_has(tmp_path: Path):
    group = tmp_path / "memory.max"
    machine = doctor.memory_bytes(group)
    group.write_text("max\n")
    assert doctor.memory_bytes(group) == machine
    group.write_text("1048576\n")
    assert doctor.memory_bytes(group) == 1048576


def test_probes_are_processes_of_their_own():
    assert doctor.ask("print('noise'); print('answer')") == Probe(ok=True, line="answer")
    assert doctor.ask("raise ValueError('two\\nlines')") == Probe(ok=False, line="lines")
    assert doctor.ask("import os; os._exit(7)") == Probe(ok=False, line="crashed (code 7)")
    user = "from lastr1.types import UserError; raise UserError('x is not a policy')"
    assert doctor.ask(user) == Probe(ok=False, line="x is not a policy")


def test_a_probe_that_hangs_is_given_up():
    assert doctor.ask("import time; time.sleep(60)", 0.5) == Probe(ok=False, line="no answer within 0.5 s")


def test_asking_needs_no_torch():
    program = "import sys, lastr1.report.doctor; assert 'torch' not in sys.modules"
    assert doctor.ask(program) == Probe(ok=True, line="")


@pytest.mark.slow
def test_on_this_machine():
    lines, _ = doctor.doctor()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in lines[0]
    (torch,) = [line for line in lines if line.split()[1] == "torch"]
    assert torch.startswith("ok")

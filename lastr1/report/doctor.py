"""Job: what this machine can run, one line per fact, and the one-line fix of whatever is missing."""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 1024**3
LITTLE_MEMORY = 4.0
"""GiB: a LIBERO process takes 1.7-2.5 (measured), torch about one"""
LITTLE_DISK = 5.0
"""GiB: an environment with LIBERO takes 4.7 (measured)"""
PATIENCE = 180
"""seconds for one probe"""

# Probes run in processes of their own: a broken torch or graphics driver may crash, or never answer.
POLICY = """
from lastr1.model import weights
from lastr1.train.run import BUILTIN
policy = weights.load(BUILTIN).policy
print(f"{BUILTIN.name}, {sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M parameters")
"""
DEVICE = """
import torch
from lastr1.train.device import device_named
device = device_named("auto")
if device.type == "cuda":
    name, count = torch.cuda.get_device_name(device), torch.cuda.device_count()
    print(f"{name}, which --device auto takes ({count} here)")
"""
RENDERER = """
import os
os.environ.setdefault("MUJOCO_GL", "egl")
import mujoco
scene = "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"
model = mujoco.MjModel.from_xml_string(scene)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any(), "the picture is black"
    from OpenGL import GL
    print(os.environ["MUJOCO_GL"] + ": " + GL.glGetString(GL.GL_RENDERER).decode())
"""
LIBERO = """
from lastr1.envs.libero_stack import PINNED, import_stack
import_stack()
print(", ".join(f"{name} {pinned}" for name, pinned in PINNED.items()))
"""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that was looked at."""

    name: str
    found: str
    fix: str = ""
    """what to do about it (empty: nothing is wrong)"""
    vital: bool = False
    """the verdict is bad while it needs a fix"""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a process of its own said: the last line of what it printed."""

    ok: bool
    line: str


def doctor() -> tuple[list[str], bool]:
    """One line per fact, and whether `lastr1 demo` can run here."""
    with ThreadPoolExecutor() as pool:
        probed = list(pool.map(lambda look: look(), (device, policy, renderer, libero)))
    return summary([*machine(), *packages(), *probed])


def summary(
    facts: list[Fact],
    good: str = "lastr1 demo can run here",
    bad: str = "lastr1 demo cannot run here: apply the fixes marked FIX",
) -> tuple[list[str], bool]:
    """The facts as lines, then the verdict, and whether it is good: no vital fact needs a fix."""
    healthy = not any(fact.fix and fact.vital for fact in facts)
    return [*map(_line, facts), good if healthy else bad], healthy


def _line(fact: Fact) -> str:
    mark = "ok" if not fact.fix else "FIX" if fact.vital else "note"
    line = f"{mark:<5}{fact.name:<14}{fact.found}"
    return f"{line}  ->  {fact.fix}" if fact.fix else line


def machine() -> list[Fact]:
    """Interpreter, processors, memory and disk."""
    memory, disk = memory_bytes() / GIB, shutil.disk_usage(Path.cwd()).free / GIB
    old = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer, remove .venv, make setup"
    few = f"under {LITTLE_MEMORY:.0f} GiB runs may be killed: lower --env.slots and --env.workers"
    full = f"LIBERO and runs need more than {LITTLE_DISK:.0f} GiB: free some, or choose another --out"
    return [
        Fact(name="python", found=f"{platform.python_version()}, {platform.platform()}", fix=old, vital=True),
        Fact(name="processors", found=f"{processors()} usable"),
        Fact(name="memory", found=f"{memory:.1f} GiB", fix=few if memory < LITTLE_MEMORY else ""),
        Fact(name="disk", found=f"{disk:.1f} GiB free here", fix=full if disk < LITTLE_DISK else ""),
    ]


def processors() -> int:
    """Processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(group: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Memory of the machine, or what its container (cgroup v2, `group`) grants if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    granted = group.read_text().strip() if group.is_file() else "max"
    return total if granted == "max" else min(total, int(granted))


def packages() -> list[Fact]:
    """Versions of what the package stands on."""
    vital = [package(name, vital=True) for name in ("torch", "transformers", "numpy")]
    return [*vital, package("mujoco", vital=False)]


def package(name: str, *, vital: bool) -> Fact:
    """The installed version, or how to install it."""
    try:
        return Fact(name=name, found=version(name), vital=vital)
    except PackageNotFoundError:
        return Fact(name=name, found="absent", fix="make setup" if vital else "make libero", vital=vital)


def device() -> Fact:
    """The accelerator that torch sees, and what `--device auto` means; nothing here needs one."""
    probe = ask(DEVICE)
    if not probe.ok:
        return Fact(
            name="gpu", found=f"torch fails: {probe.line}", fix="remove .venv, make setup", vital=True
        )
    if not probe.line and shutil.which("nvidia-smi"):
        fix = "pip install --force-reinstall torch (this one is built for processors only)"
        return Fact(name="gpu", found="present, unseen by torch: --device auto takes the cpu", fix=fix)
    none = "none: --device auto takes the cpu (the embedded world needs no more)"
    return Fact(name="gpu", found=probe.line or none)


def policy() -> Fact:
    """The base that ships with the package, loaded for real."""
    probe = ask(POLICY)
    fix = "make setup; git checkout -- lastr1/assets"
    return Fact(name="base", found=probe.line, fix="" if probe.ok else fix, vital=True)


def renderer() -> Fact:
    """Whether MuJoCo can draw without a screen."""
    probe = ask(RENDERER)
    fix = "make libero (as root it installs the driver; otherwise it prints the command)"
    return Fact(name="renderer", found=probe.line, fix="" if probe.ok else fix)


def libero() -> Fact:
    """Whether the LIBERO suites can be opened."""
    probe = ask(LIBERO)
    return Fact(name="libero", found=probe.line, fix="" if probe.ok else "make libero")


def ask(program: str, seconds: float = PATIENCE) -> Probe:
    """Run a few lines of Python in a process of their own; not ok when they fail or outlast `seconds`."""
    try:
        done = subprocess.run(  # what is run is written above
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(ok=False, line=f"no answer within {seconds:g} s")
    if done.returncode == 0:
        return Probe(ok=True, line=_last(done.stdout))
    return Probe(ok=False, line=_last(done.stderr) or f"crashed (code {done.returncode})")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("lastr1.types.UserError: ") if lines else ""

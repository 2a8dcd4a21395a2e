"""What an evaluation's `result.json` says besides the outcome, so that nobody need take it on trust."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lastr1
from lastr1.config import Config
from lastr1.envs.assets import task_assets
from lastr1.knobs import to_dict
from lastr1.model import manifest
from lastr1.train.evaluate import Assessment, Capped
from lastr1.train.run import write_json

LIBRARIES = ("torch", "transformers", "numpy")
SEAL = "sha256"
"""of everything else in the file"""
_PROGRESS = ("optimizer.safetensors", "compressor.safetensors")  # of training: not part of the policy


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Which code played which policy on which tasks."""

    code: dict[str, str]
    """version, and SHA-256 of the package's sources"""
    config: dict[str, Any]
    """the resolved recipe"""
    policy: dict[str, str]
    """file -> SHA-256: weights, knobs, statistics"""
    assets: dict[str, str]
    """task file -> SHA-256"""
    versions: dict[str, str]
    seconds: float
    """wall clock of all episodes (0: not played yet)"""


def sign(config: Config, checkpoint: Path) -> Signature:
    """Put together before the episodes, which may take hours: the files are those that play.

    `UserError` when the policy's manifest says otherwise, or the suite's packages are missing.
    """
    return Signature(
        code={"lastr1": lastr1.__version__, "sources": sources()},
        config=to_dict(config),
        policy=policy_hashes(checkpoint),
        assets=task_assets(config.env),
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        seconds=0.0,
    )


def policy_hashes(directory: Path) -> dict[str, str]:
    """Every byte that makes the policy.  `UserError` when its manifest says otherwise."""
    manifest.check(directory, limit=0)
    paths = [*directory.glob("*.safetensors"), *directory.glob("*.json")]
    names = sorted(p.name for p in paths if p.name not in (*_PROGRESS, manifest.NAME))
    return manifest.hashes(directory, names)


def sources() -> str:
    """SHA-256 of the package's Python files, by path."""
    root, found = Path(lastr1.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()} {manifest.digest(path)}\n".encode())
    return found.hexdigest()


def write_result(
    out: Path,
    config: Config,
    checkpoint: Path,
    result: Assessment,
    signature: Signature,
    points: Sequence[Capped],
) -> None:
    """`out/result.json`, sealed; `points`: what is known of the curve over caps."""
    facts = {
        "recipe": config.name,
        "checkpoint": str(checkpoint),
        "env": to_dict(config.env),
        "rules": to_dict(result.rules),
        "coverage": to_dict(result.coverage),
        "setup": to_dict(result.setup),
        **to_dict(result.evaluation),
        "caps": [to_dict(point) for point in points],
        "signature": to_dict(signature),
    }
    write_json(out / "result.json", sealed(facts))


def sealed(result: dict[str, Any]) -> dict[str, Any]:
    """A result with the hash of all that it says."""
    return {**result, SEAL: _seal(result)}


def is_sealed(result: dict[str, Any]) -> bool:
    """Whether nothing was changed by hand since."""
    return str(result[SEAL]) == _seal({key: value for key, value in result.items() if key != SEAL})


def _seal(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()

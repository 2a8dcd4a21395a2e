"""A lastr1 policy behind LeRobot's interface.

Observations take the way of `lastr1 serve`: the same checks and conversions (`serve/keys.py`), the same
greedy decisions (`serve/engine.py`).
Axes: B robots side by side, H image rows, W image columns, S state, C control steps of a chunk, A action.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from lastr1.model import manifest, weights
from lastr1.serve.engine import PolicyThinker
from lastr1.serve.keys import DROID, LIBERO, actions_for, naming_of, observation_of
from lastr1.spec import RobotSpec
from lastr1.types import Array, UserError
from lerobot_policy_lastr1.configuration_lastr1 import FROZEN, Lastr1Config

IMAGES, STATE, ACTION, TASK = "observation.images.", "observation.state", "action", "task"
FOLDER = "lastr1"
"""where the policy's own folder stands in a LeRobot folder"""
FILES = ["config.json", "policy_*.json", f"{FOLDER}/*"]


class Lastr1Policy(PreTrainedPolicy):
    """Thinks, then acts for a whole chunk; only for running, not for training."""

    config_class = Lastr1Config
    name = "lastr1"

    def __init__(self, config: Lastr1Config, *inputs: object, **others: object) -> None:
        """Load `config.checkpoint`.  `UserError` names every feature of the robot that does not fit."""
        super().__init__(config, *inputs, **others)
        folder = Path(config.checkpoint)
        if not config.checkpoint:
            raise UserError("lastr1: no checkpoint: give --policy.checkpoint, the folder of a lastr1 policy")
        manifest.check(folder, manifest.QUICK)
        self.bundle = weights.load(folder)
        self.policy = self.bundle.policy.eval()
        self._thinker = PolicyThinker(self.bundle, config.max_groups)
        self._due: deque[Tensor] = deque()
        _agree(self.bundle.spec, config)
        config.input_features, config.output_features = features(self.bundle.spec)
        self.to(config.device)

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **others: Any
    ) -> "Lastr1Policy":
        """Read a folder (or a repository of the Hub) that `save_pretrained` wrote."""
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            revision = others.pop("revision", None)
            folder = Path(snapshot_download(str(folder), revision=revision, allow_patterns=FILES))
        config = config or PreTrainedConfig.from_pretrained(folder)
        assert isinstance(config, Lastr1Config)
        if not config.checkpoint:
            config.checkpoint = str(folder / FOLDER)
        return cls(config)

    def _save_pretrained(self, save_directory: Path, state_dict: object = None) -> None:  # noqa: ARG002
        """The policy's own folder travels inside LeRobot's."""
        weights.save(self.bundle, save_directory / FOLDER)
        replace(self.config, checkpoint="")._save_pretrained(save_directory)

    def reset(self) -> None:
        """An episode begins: what was left of the last chunk is not played."""
        self._due.clear()

    def predict_action_chunk(self, batch: Mapping[str, Any], **_: object) -> Tensor:
        """[B, C, A] in the robot's units.

        From images [B, 3, H, W] (float 0..1 or uint8), state [B, S] and task, one text or B of them.
        `UserError` and `ValueError` (`WireError`) name what is missing or does not fit.
        """
        spec, words = self.bundle.spec, self.config.gripper
        observations = []
        for row in _rows(batch, spec):
            naming = naming_of(row, spec)
            if words != "lastr1":
                other = {"libero": LIBERO, "droid": DROID}[words]
                naming = replace(naming, closed=other.closed, open=other.open)
            observations.append(observation_of(row, naming, spec))
        chunks = self._thinker.decide(observations, self._thinker.groups).chunks
        actions = np.stack([actions_for(chunk, naming, spec) for chunk in chunks])
        return torch.from_numpy(actions).to(self.config.device)

    def select_action(self, batch: Mapping[str, Any], **_: object) -> Tensor:
        """The next action [B, A]; decides when the last chunk has been played."""
        if not self._due:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._due.extend(chunk.unbind(1))
        return self._due.popleft()

    def forward(self, batch: Mapping[str, Any]) -> NoReturn:
        """Says where to train instead."""
        raise NotImplementedError(FROZEN)

    def get_optim_params(self) -> NoReturn:
        """Says where to train instead."""
        raise NotImplementedError(FROZEN)


def features(spec: RobotSpec) -> tuple[dict[str, PolicyFeature], dict[str, PolicyFeature]]:
    """What a robot sees and obeys, as LeRobot's input and output features."""
    seen = {
        IMAGES + camera.name: PolicyFeature(type=FeatureType.VISUAL, shape=(3, camera.height, camera.width))
        for camera in spec.cameras
    }
    state = PolicyFeature(type=FeatureType.STATE, shape=(len(spec.state),))
    action = PolicyFeature(type=FeatureType.ACTION, shape=(len(spec.action),))
    return {**seen, STATE: state}, {ACTION: action}


def _agree(spec: RobotSpec, config: Lastr1Config) -> None:
    """Names of cameras, sizes of state and action; images may have any size, units are not in LeRobot's."""
    wrong = []
    if config.input_features:
        missing = [IMAGES + c.name for c in spec.cameras if IMAGES + c.name not in config.input_features]
        if missing:
            there = [key for key in config.input_features if key.startswith(IMAGES)]
            wrong.append(f"no {', '.join(missing)} (but {', '.join(there)}): rename with a rename_map")
    for key, dims, found in (
        (STATE, spec.state, config.input_features),
        (ACTION, spec.action, config.output_features),
    ):
        if found and (key not in found or tuple(found[key].shape) != (len(dims),)):
            there = list(found[key].shape) if key in found else "nothing"
            wrong.append(
                f"{key}: {there}, not [{len(dims)}]: {', '.join(f'{d.name} ({d.unit})' for d in dims)}"
            )
    if wrong:
        raise UserError(f"the policy drives {spec.name}, not this robot: {'; '.join(wrong)}")


def _rows(batch: Mapping[str, Any], spec: RobotSpec) -> list[dict[str, object]]:
    """One request per robot, under the names that `lastr1 serve` knows."""
    keys = [IMAGES + camera.name for camera in spec.cameras]
    missing = [key for key in (*keys, STATE, TASK) if key not in batch]
    if missing:
        raise UserError(f"the observation has no {', '.join(missing)}: it has {', '.join(sorted(batch))}")
    state = batch[STATE].float().cpu().numpy()
    tasks: Sequence[str] = [batch[TASK]] * len(state) if isinstance(batch[TASK], str) else batch[TASK]
    images = {camera.name: _pixels(batch[IMAGES + camera.name]) for camera in spec.cameras}
    return [
        {
            **{f"observation/images/{name}": rows[i] for name, rows in images.items()},
            "observation/state": state[i],
            "prompt": task,
        }
        for i, task in enumerate(tasks)
    ]


def _pixels(images: Tensor) -> Array:
    """uint8 [B, H, W, 3] of [B, 3, H, W]."""
    if images.dtype != torch.uint8:
        images = (images.float() * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(images.movedim(1, -1).cpu().numpy())

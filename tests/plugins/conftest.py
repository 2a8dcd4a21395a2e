"""LeRobot, or where it is not installed a stand-in with the few names that the plugin uses.

The stand-in keeps to the interface of LeRobot 0.6.1, with which these tests pass as well: run them in an
environment that has it.
"""

import dataclasses
import enum
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


class FeatureType(enum.Enum):
    STATE = "STATE"
    VISUAL = "VISUAL"
    ACTION = "ACTION"


@dataclasses.dataclass
class PolicyFeature:
    type: FeatureType
    shape: tuple


@dataclasses.dataclass
class PreTrainedConfig:
    input_features: dict | None = dataclasses.field(default_factory=dict)
    output_features: dict | None = dataclasses.field(default_factory=dict)
    device: str | None = None
    pretrained_path: Path | None = None

    _choices = {}  # noqa: RUF012 - no field: it has no annotation

    def __post_init__(self):
        self.device = self.device or "cpu"

    @classmethod
    def register_subclass(cls, name):
        return lambda found: cls._choices.setdefault(name, found)

    @classmethod
    def get_choice_class(cls, name):
        return cls._choices[name]

    def _save_pretrained(self, directory):
        (name,) = [n for n, c in self._choices.items() if c is type(self)]
        facts = {"type": name, **dataclasses.asdict(self)}
        (directory / "config.json").write_text(json.dumps(facts, default=lambda x: x.value))

    @classmethod
    def from_pretrained(cls, directory):
        facts = json.loads((Path(directory) / "config.json").read_text())
        found = cls._choices[facts.pop("type")](**facts)
        for features in (found.input_features, found.output_features):
            for key, entry in features.items():
                features[key] = PolicyFeature(FeatureType(entry["type"]), tuple(entry["shape"]))
        return found


class PreTrainedPolicy(torch.nn.Module):
    def __init__(self, config, *inputs, **others):
        super().__init__()
        self.config = config

    def save_pretrained(self, directory):
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(directory))


class Step:
    def __init__(self, **facts):
        self.facts = facts


class PolicyProcessorPipeline(dict):
    def __init__(self, *, steps, name, to_transition=None, to_output=None):
        self.steps, self.name = steps, name

    def save_pretrained(self, directory):
        (Path(directory) / f"{self.name}.json").write_text(json.dumps([s.facts for s in self.steps]))


def stand_in() -> None:
    """Put it where `import lerobot` finds it."""
    names = {
        "lerobot": {},
        "lerobot.configs": {},
        "lerobot.configs.policies": {"PreTrainedConfig": PreTrainedConfig},
        "lerobot.configs.types": {"FeatureType": FeatureType, "PolicyFeature": PolicyFeature},
        "lerobot.policies": {},
        "lerobot.policies.pretrained": {"PreTrainedPolicy": PreTrainedPolicy},
        "lerobot.processor": {
            "PolicyAction": torch.Tensor,
            "PolicyProcessorPipeline": PolicyProcessorPipeline,
            **dict.fromkeys(
                ("AddBatchDimensionProcessorStep", "DeviceProcessorStep", "RenameObservationsProcessorStep"),
                Step,
            ),
        },
        "lerobot.processor.converters": dict.fromkeys(
            ("policy_action_to_transition", "transition_to_policy_action")
        ),
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module


@pytest.fixture(scope="session")
def real():
    """Whether LeRobot itself is here."""
    return importlib.util.find_spec("lerobot") is not None


@pytest.fixture(scope="session")
def plugin(real):
    """The plugin's modules: configuration, modeling, processor and the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "plugins" / "lerobot_policy_lastr1")
        before = set(sys.modules)
        if not real:
            stand_in()
        pages = ("configuration_lastr1", "modeling_lastr1", "processor_lastr1", "__main__")
        yield [importlib.import_module(f"lerobot_policy_lastr1.{page}") for page in pages]
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("lerobot", "lerobot_policy_lastr1"):
                del sys.modules[name]

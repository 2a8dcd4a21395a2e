"""What LeRobot does before and after: nothing is normalized, the policy has statistics of its own."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from lerobot_policy_lastr1.configuration_lastr1 import Lastr1Config


def make_lastr1_pre_post_processors(
    config: Lastr1Config,
    dataset_stats: object = None,  # noqa: ARG001
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """The steps that LeRobot's commands override by name, and back to the CPU."""
    before: PolicyProcessorPipeline[dict[str, Any], dict[str, Any]] = PolicyProcessorPipeline(
        steps=[
            RenameObservationsProcessorStep(rename_map={}),
            AddBatchDimensionProcessorStep(),
            DeviceProcessorStep(device=config.device),
        ],
        name="policy_preprocessor",
    )
    after: PolicyProcessorPipeline[PolicyAction, PolicyAction] = PolicyProcessorPipeline(
        steps=[DeviceProcessorStep(device="cpu")],
        name="policy_postprocessor",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after

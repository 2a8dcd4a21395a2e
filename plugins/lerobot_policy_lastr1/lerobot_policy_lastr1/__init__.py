"""LeRobot plugin: importing it registers the policy type `lastr1`.

LeRobot finds the three modules by their names: `configuration_`, `modeling_` and `processor_lastr1`.
"""

from lerobot_policy_lastr1.configuration_lastr1 import Lastr1Config

__all__ = ["Lastr1Config"]

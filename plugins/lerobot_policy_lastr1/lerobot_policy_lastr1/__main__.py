"""Wrap a lastr1 policy as a folder that LeRobot loads: `lastr1-to-lerobot runs/train/last wrapped`."""

import argparse
import sys
from pathlib import Path

from lastr1.types import UserError
from lerobot_policy_lastr1.configuration_lastr1 import GRIPPERS, Lastr1Config
from lerobot_policy_lastr1.modeling_lastr1 import Lastr1Policy
from lerobot_policy_lastr1.processor_lastr1 import make_lastr1_pre_post_processors


def wrap(checkpoint: Path, out: Path, gripper: str = "lastr1") -> None:
    """Write `out`: config, processors, and the policy's own folder.  `UserError` if it exists."""
    if out.exists():
        raise UserError(f"{out} exists: choose another folder")
    config = Lastr1Config(checkpoint=str(checkpoint), gripper=gripper, device="cpu")
    Lastr1Policy(config).save_pretrained(out)
    for pipeline in make_lastr1_pre_post_processors(config):
        pipeline.save_pretrained(out)


def main() -> int:
    """The command; a mistake is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder that lastr1 wrote")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--gripper", choices=GRIPPERS, default="lastr1", help="how the robot says open")
    given = parser.parse_args()
    try:
        wrap(given.checkpoint, given.out, given.gripper)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

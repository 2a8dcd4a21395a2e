"""How a reinforcement run is doing: running means and the price of a latent, which every checkpoint holds."""

import json
from pathlib import Path

from lastr1.train.price import LatentPrice
from lastr1.train.reinforce import TaskSuccess
from lastr1.types import UserError

FILE = "standing.json"


class Standing:
    """Success per task, and of all episodes (weight of the newest iteration 0.2; it starts at the first)."""

    def __init__(self, tasks: TaskSuccess, price: LatentPrice) -> None:
        self.tasks, self.price = tasks, price
        self.success: float | None = None

    def note(self, success: float) -> None:
        """Take in an iteration; tasks and price are told where episodes are played and charged."""
        self.success = success if self.success is None else self.success + 0.2 * (success - self.success)

    def memory(self) -> dict[str, bytes]:
        """A file for a checkpoint."""
        facts = {
            "success": self.success,
            "tasks": {str(task): r for task, r in self.tasks.rate.items()},
            "latent_price": self.price.value,
        }
        return {FILE: (json.dumps(facts, indent=1) + "\n").encode()}

    def recall(self, directory: Path) -> None:
        """Go on where `memory` was written.  `UserError` when it is not there."""
        try:
            facts = json.loads((directory / FILE).read_text())
            self.success = None if facts["success"] is None else float(facts["success"])
            self.tasks.rate.update({int(task): float(rate) for task, rate in facts["tasks"].items()})
            self.price.value = float(facts["latent_price"])
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(f"{directory} cannot be resumed from ({error}): begin again with --out") from None

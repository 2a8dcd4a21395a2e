"""The collectors of a run: who plays what, and what happens when one of them is lost."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

from lastr1 import spans
from lastr1.cluster import ray
from lastr1.cluster.workers import Played, Suite
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode
from lastr1.train.learner import shares
from lastr1.train.progress import say
from lastr1.types import UserError

Actor = Any  # a handle of Ray's
Reference = Any  # to an object in Ray's store

LOST = (RayActorError, ObjectLostError, OutOfMemoryError)
"""an actor is gone (the last: Ray ended it, as its machine ran out of memory), or what it left is"""


EVALUATION = -1
"""in the place of an iteration: episodes that nobody learns from"""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Episodes of one iteration that one collector is to play."""

    iteration: int
    """or `EVALUATION`"""
    starts: list[Start]
    noise: int | None
    first: int
    """number of its first episode"""


def answer(reference: Reference) -> Any:
    """What a method returned; its own error, not Ray's account of it."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None


class Crew:
    """Collectors, each of which plays its share of every iteration.

    A collector does what it is told in the order it was told: what is ordered before new weights come is
    played with the old ones.  What is played depends on the order, not on the collector: others play the
    share of one that is lost, and episodes neither go missing nor count twice.
    """

    def __init__(self, hire: Callable[[int], tuple[Actor, Reference]], count: int, restarts: int) -> None:
        """`hire(place)`: a new collector, and a reference to its `Suite` when it is ready."""
        self._hire, self._restarts = hire, restarts
        self.lost = 0
        self._orders: dict[Reference, tuple[Actor, Order]] = {}
        self._played: dict[int, dict[int, list[Episode]]] = {}  # iteration -> number of the first -> episodes
        self._weights: tuple[int, Sequence[Reference]] | None = None
        hired = [hire(place) for place in range(count)]
        self._places = [actor for actor, _ in hired]
        self._starting: dict[Actor, Reference] = {}
        try:
            self.suite: Suite = [answer(ready) for _, ready in hired].pop()
        except OutOfMemoryError as error:
            why = str(error).splitlines()[0]
            raise UserError(f"a collector did not start ({why}): lower --cluster.collectors") from None

    def load(self, version: int, parts: Sequence[Reference]) -> None:
        """Whatever is ordered from now on is played with these weights."""
        self._weights = version, parts
        self._loads = [actor.load.remote(version, *parts) for actor in self._places]

    def order(self, iteration: int, starts: list[Start], noise: int | None) -> None:
        """Share an iteration's episodes among the collectors that are there (`noise` None: greedy ones)."""
        actors = self._present()
        self._played[iteration] = {}
        for actor, rows in zip(actors, shares(len(starts), len(actors)), strict=True):
            if len(rows):
                own = [starts[i] for i in rows]
                self._submit(actor, Order(iteration=iteration, starts=own, noise=noise, first=int(rows[0])))

    def wait(self, iteration: int) -> list[Episode]:
        """The iteration's episodes, in the order of their starts."""
        while waiting := [ref for ref, (_, order) in self._orders.items() if order.iteration == iteration]:
            for reference in ray.wait(waiting)[0]:
                self._take(reference)
        for reference in ray.wait(self._loads, num_returns=len(self._loads), timeout=0)[0]:
            with contextlib.suppress(*LOST):
                answer(reference)  # new weights that could not be taken in are not passed over
        found = self._played.pop(iteration)
        return [episode for first in sorted(found) for episode in found[first]]

    def _submit(self, actor: Actor, order: Order) -> None:
        self._orders[actor.play.remote(order.starts, order.noise, order.first)] = actor, order

    def _take(self, reference: Reference) -> None:
        actor, order = self._orders.pop(reference)
        try:
            played: Played = answer(reference)
        except LOST as error:
            self._replace(actor, error)
            self._submit(min(self._present(), key=self._busy), order)
        else:
            self._played[order.iteration][order.first] = played.episodes
            spans.keep(played.spans)

    def _busy(self, actor: Actor) -> int:
        return sum(other == actor for other, _ in self._orders.values())

    def _present(self) -> list[Actor]:
        """Those that are ready; if there are none, those that are to come."""
        for actor, ready in list(self._starting.items()):
            if ray.wait([ready], timeout=0)[0]:
                del self._starting[actor]
                try:
                    answer(ready)
                except LOST as error:
                    self._replace(actor, error)
        return [actor for actor in self._places if actor not in self._starting] or self._places

    def _replace(self, actor: Actor, error: Exception) -> None:
        if actor not in self._places:
            return  # another of its orders told us before
        self.lost += 1
        if self.lost > self._restarts:
            raise UserError(
                f"{self.lost} collectors were lost, lastly: {error}; repair that, or raise --cluster.restarts"
            ) from None
        say("cluster: a collector was lost; others play its episodes until another is there")
        with contextlib.suppress(*LOST):
            ray.kill(actor)
        place = self._places.index(actor)
        self._starting.pop(actor, None)
        self._places[place], ready = self._hire(place)
        self._starting[self._places[place]] = ready
        if self._weights is not None:
            version, parts = self._weights
            self._places[place].load.remote(version, *parts)

    def close(self) -> None:
        """End all collectors."""
        for actor in self._places:
            ray.kill(actor)

"""Playing the policy: observe, think, act, until every start has become an episode."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lastr1 import spans
from lastr1.envs.base import Start
from lastr1.envs.pool import EnvLost, EnvPool
from lastr1.model.noise import Noise
from lastr1.model.policy import Decision, LatentPolicy
from lastr1.model.prompt import CPU
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Decided, Episode, Step, moved, tree_map
from lastr1.types import ActionChunk, Observation, Outcome


@dataclass(kw_only=True)
class _Running:
    """An episode under way."""

    index: int
    start: Start
    since: float = math.inf
    """`time.perf_counter()` since when it waits for a decision; infinite while its simulator works"""
    began: float = field(init=False)
    observation: Observation = field(init=False)
    """seen last"""
    decided: Decided = field(init=False)
    """decided last"""
    steps: list[Step] = field(default_factory=list)
    success: bool = False

    def see(self, answer: Observation | Outcome) -> bool:
        """Take in the beginning, or what came of a decision; whether that was the end."""
        self.since = time.perf_counter()
        if isinstance(answer, Observation):
            self.observation, self.began = answer, self.since
            return False
        self.steps.append(Step(decided=self.decided, reward=answer.reward, steps=answer.steps))
        self.observation, self.success = answer.observation, answer.terminated
        return answer.terminated or answer.truncated


Running = dict[int, _Running]
"""slot -> its episode"""


class Player:
    """A policy in a pool of environments.

    It decides for all episodes that wait for it at once, as soon as one in `groups` of those under way waits,
    or one has waited for `patience` seconds.  With 1 and no end of patience that is all of them: batches, and
    so the rounding of what is computed, are the same every time.  With 2, simulators of one half work while
    the policy decides for the other.
    """

    def __init__(
        self, bundle: Bundle, pool: EnvPool, slots: int, groups: int = 1, patience: float = math.inf
    ) -> None:
        self.bundle, self.pool, self.slots = bundle, pool, slots
        self.groups, self.patience = groups, patience
        self.version = 0
        self._tasks: dict[int, int] = {}  # slot -> task it played last

    def play(
        self,
        starts: Sequence[Start],
        *,
        noise: int | None,
        first: int = 0,
        most: int | None = None,
        progress: Callable[[Episode], None] = lambda _: None,
    ) -> list[Episode]:
        """One episode per start, in the order of `starts`.

        `noise` seeds every draw by (noise, episode, decision), so the result does not depend on workers; None
        plays greedily.  Episodes are numbered from `first`.  Finished episodes leave the batch at once.  Of
        greedy episodes, thoughts end after `most` groups at the latest (None: as the policy likes).

        One whose simulator is lost begins anew, from the same start and with the same draws: it becomes the
        episode that it would have been, so faults bias nothing.  None is dropped or counted twice, and what
        the lost attempt had reached plays no part.  (A simulator that does not repeat itself gives another
        draw of the same episode instead; that is biased only if its faults depend on what it would do next.)
        """
        waiting = deque(enumerate(starts, first))
        running: Running = {}
        done: dict[int, Episode] = {}
        lost: Counter[int] = Counter()
        while waiting or running:
            self._fill(waiting, running)
            ready = self._ready(running)
            if ready:
                chunks = self._decide_for([running[slot] for slot in ready], noise, most)
                self.pool.send(dict(zip(ready, chunks, strict=True)))
            ended = []
            for slot, answer in self._hear(running):
                if isinstance(answer, EnvLost):
                    game = running.pop(slot)
                    waiting.appendleft((game.index, game.start))
                    lost[game.index] += 1
                elif running[slot].see(answer):
                    ended.append(running.pop(slot))
            for index, episode in self._finish(ended, noise, most):
                done[index] = episode
                progress(episode)
        return [replace(done[i], lost=lost[i]) for i in sorted(done)]

    def _fill(self, waiting: deque[tuple[int, Start]], running: Running) -> None:
        """Begin an episode in every free slot, as long as some wait."""
        free = [slot for slot in range(self.slots) if slot not in running]
        begin = {slot: self._next(slot, waiting) for slot in free[: len(waiting)]}
        running |= {slot: _Running(index=index, start=start) for slot, (index, start) in begin.items()}
        self.pool.send({slot: start for slot, (_, start) in begin.items()})

    def _ready(self, running: Running) -> list[int]:
        """Slots to decide for, if it is time to."""
        seen = [slot for slot in sorted(running) if running[slot].since < math.inf]
        overdue = any(time.perf_counter() - running[slot].since >= self.patience for slot in seen)
        return seen if overdue or len(seen) >= self._enough(running) else []

    def _enough(self, running: Running) -> int:
        return -(-len(running) // self.groups)

    def _hear(self, running: Running) -> list[tuple[int, Observation | Outcome | EnvLost]]:
        """Answers of simulators by slot, when there are enough to decide or patience ends."""
        seen = [game.since for game in running.values() if game.since < math.inf]
        least, patience = self._enough(running) - len(seen), math.inf
        if seen:
            patience = self.patience - (time.perf_counter() - min(seen))
        elif self.patience < math.inf:
            least = 1  # it begins with the first
        return sorted(self.pool.receive(least, patience).items())

    def _next(self, slot: int, waiting: deque[tuple[int, Start]]) -> tuple[int, Start]:
        """Of the task whose scene the slot holds; else of one that no slot holds; else the first.

        A change of task builds another scene, which takes LIBERO seconds.
        """
        last = self._tasks.get(slot)
        held = set(self._tasks.values())
        chosen = min(
            range(len(waiting)),
            key=lambda i: (waiting[i][1].task != last, waiting[i][1].task in held, i),
        )
        found = waiting[chosen]
        del waiting[chosen]
        self._tasks[slot] = found[1].task
        return found

    def _decide_for(self, games: list[_Running], noise: int | None, most: int | None) -> list[ActionChunk]:
        """What is played next in each."""
        decided, chunks = self._decide(games, noise, most)
        for game, one in zip(games, decided, strict=True):
            game.decided, game.since = one, math.inf
        return chunks

    def _decide(
        self, games: list[_Running], noise: int | None, most: int | None
    ) -> tuple[list[Decided], list[ActionChunk]]:
        bundle, policy = self.bundle, self.bundle.policy
        seeds = [_seed(noise, game.index, len(game.steps)) for game in games] if noise is not None else None
        draws = draw_noise(policy, seeds) if seeds is not None else None
        pixels = np.stack([bundle.prompts.views(game.observation) for game in games])
        instructions = [game.observation.instruction for game in games]
        prompt = bundle.prompts.batch(instructions, pixels, policy.device)
        with spans.span("policy", f"decide for {len(games)}"):
            decision = moved(policy.decide(prompt, draws, most=most), CPU)  # stored where there is room
        bins = decision.tokens.reshape(len(games), policy.config.chunk, -1).numpy()
        chunks = [ActionChunk(actions=actions) for actions in bundle.codec.decode(bins)]
        return list(_unstack(decision, instructions, pixels)), chunks

    def _finish(
        self, ended: list[_Running], noise: int | None, most: int | None
    ) -> Iterator[tuple[int, Episode]]:
        cut = [game for game in ended if not game.success]
        # One more thought: the value after a truncation.
        after = iter(self._decide(cut, noise, most)[0] if cut else [])
        for game in ended:
            yield (
                game.index,
                Episode(
                    start=game.start,
                    steps=tuple(game.steps),
                    success=game.success,
                    after=None if game.success else next(after),
                    seconds=time.perf_counter() - game.began,
                    version=self.version,
                ),
            )


def _unstack(decision: Decision, instructions: list[str], pixels: np.ndarray) -> Iterator[Decided]:
    for i, instruction in enumerate(instructions):
        yield Decided(
            instruction=instruction,
            pixels=pixels[i],
            thought=tree_map(lambda x, i=i: x[i], decision.thought),
            tokens=decision.tokens[i],
            terms=tree_map(lambda x, i=i: x[i], decision.terms),
            rules=decision.rules[i],
        )


def draw_noise(policy: LatentPolicy, seeds: Sequence[int]) -> Noise:
    """Dice for a batch of decisions, where the policy computes."""
    drawn = Noise.draw(
        seeds, latents=policy.config.latents, width=policy.backbone.width, actions=policy.action_tokens
    )
    return moved(drawn, policy.device)


def scene_seed(run: int, stream: int, index: int) -> int:
    """Seed of a fresh scene (streams 0 training, 1 evaluation, 2 demonstrations, 3 progress) or of dice (from
    4 on); streams never meet."""
    return _seed(run, stream, index) & 0xFFFFFFFF


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""Playing the policy: observe, think, act, until every start has become an episode."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lastr1.envs.base import Start
from lastr1.envs.pool import EnvLost, EnvPool
from lastr1.model.noise import Noise
from lastr1.model.policy import Decision
from lastr1.model.prompt import CPU
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Decided, Episode, Step, moved, tree_map
from lastr1.types import ActionChunk, Observation


@dataclass(kw_only=True)
class _Running:
    index: int
    start: Start
    observation: Observation
    began: float
    steps: list[Step] = field(default_factory=list)


class Player:
    """A policy in a pool of environments."""

    def __init__(self, bundle: Bundle, pool: EnvPool, slots: int) -> None:
        self.bundle, self.pool, self.slots = bundle, pool, slots
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
        running: dict[int, _Running] = {}
        done: dict[int, Episode] = {}
        lost: Counter[int] = Counter()

        def again(index: int, start: Start) -> None:
            waiting.appendleft((index, start))
            lost[index] += 1

        while waiting or running:
            self._fill(waiting, running, again)
            slots = sorted(running)
            decided, chunks = self._decide([running[s] for s in slots], noise, most)
            outcomes = self.pool.play(dict(zip(slots, chunks, strict=True)))
            ended = {}
            for slot, decision in zip(slots, decided, strict=True):
                game, outcome = running[slot], outcomes[slot]
                if isinstance(outcome, EnvLost):
                    del running[slot]
                    again(game.index, game.start)
                    continue
                game.steps.append(Step(decided=decision, reward=outcome.reward, steps=outcome.steps))
                game.observation = outcome.observation
                if outcome.terminated or outcome.truncated:
                    ended[slot] = running.pop(slot), outcome.terminated
            for index, episode in self._finish(list(ended.values()), noise, most):
                done[index] = episode
                progress(episode)
        return [replace(done[i], lost=lost[i]) for i in sorted(done)]

    def _fill(
        self,
        waiting: deque[tuple[int, Start]],
        running: dict[int, _Running],
        again: Callable[[int, Start], None],
    ) -> None:
        """Begin an episode in every free slot, as long as some wait."""
        while waiting and (free := [slot for slot in range(self.slots) if slot not in running]):
            begin = {slot: self._next(slot, waiting) for slot in free[: len(waiting)]}
            seen = self.pool.reset({slot: start for slot, (_, start) in begin.items()})
            for slot, (index, start) in begin.items():
                observation = seen[slot]
                if isinstance(observation, EnvLost):
                    again(index, start)
                else:
                    running[slot] = _Running(
                        index=index, start=start, observation=observation, began=time.perf_counter()
                    )

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

    def _decide(
        self, games: list[_Running], noise: int | None, most: int | None
    ) -> tuple[list[Decided], list[ActionChunk]]:
        bundle, policy = self.bundle, self.bundle.policy
        seeds = [_seed(noise, game.index, len(game.steps)) for game in games] if noise is not None else None
        draws = (
            moved(
                Noise.draw(
                    seeds,
                    latents=policy.config.latents,
                    width=policy.backbone.width,
                    actions=policy.action_tokens,
                ),
                policy.device,
            )
            if seeds is not None
            else None
        )
        observations = [game.observation for game in games]
        pixels = np.stack(
            [[bundle.prompts.pixels(o.images[c]) for c in bundle.prompts.cameras] for o in observations]
        )
        instructions = [o.instruction for o in observations]
        prompt = bundle.prompts.batch(instructions, pixels.reshape(-1, *pixels.shape[2:]), policy.device)
        # an episode is stored where there is room
        decision = moved(policy.decide(prompt, draws, most=most), CPU)
        bins = decision.tokens.reshape(len(games), policy.config.chunk, -1).numpy()
        chunks = [ActionChunk(actions=actions) for actions in bundle.codec.decode(bins)]
        return list(_unstack(decision, instructions, pixels)), chunks

    def _finish(
        self, ended: list[tuple[_Running, bool]], noise: int | None, most: int | None
    ) -> Iterator[tuple[int, Episode]]:
        cut = [game for game, success in ended if not success]
        after = iter(
            self._decide(cut, noise, most)[0] if cut else []
        )  # one more thought: the value after a truncation
        for game, success in ended:
            yield (
                game.index,
                Episode(
                    start=game.start,
                    steps=tuple(game.steps),
                    success=success,
                    after=None if success else next(after),
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


def scene_seed(run: int, stream: int, index: int) -> int:
    """Seed of a fresh scene; streams (0 training, 1 evaluation, 2 demonstrations, 3 progress) never meet."""
    return _seed(run, stream, index) & 0xFFFFFFFF


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

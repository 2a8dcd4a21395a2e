"""Policy processes beside this one: each plays and learns its share, with weights held in common.

Two processes of one thread do about twice the work of one process of two threads when the policy is small:
its operations are too short to be split.  Parameters lie in shared memory, so an optimizer step here is seen
everywhere; gradients, episodes and scores come back through pipes.
"""

import contextlib
import io
import math
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from lastr1 import spans
from lastr1.config import Config
from lastr1.envs.base import Start
from lastr1.envs.pool import EnvPool
from lastr1.envs.worker import die_with_parent
from lastr1.model.policy import LatentPolicy
from lastr1.model.weights import Bundle
from lastr1.rollout.batch import Episode, Minibatch
from lastr1.rollout.collect import Player
from lastr1.spec import RobotSpec
from lastr1.train import run
from lastr1.train.device import device_of
from lastr1.train.learner import Learner, shares
from lastr1.types import UserError


class Team(Player):
    """A player that shares its episodes with other processes."""

    def __init__(self, bundle: Bundle, pool: EnvPool, config: Config, replicas: Sequence["Replica"]) -> None:
        super().__init__(bundle, pool, **_seating(config))
        self.replicas = tuple(replicas)

    def play(
        self,
        starts: Sequence[Start],
        *,
        noise: int | None,
        first: int = 0,
        most: int | None = None,
        progress: Callable[[Episode], None] = lambda _: None,
    ) -> list[Episode]:
        """As `Player.play`; what another process played is reported when all of its share is done."""
        own, *others = shares(len(starts), 1 + len(self.replicas))
        answers = [
            replica.submit("play", [starts[i] for i in rows], noise, first + int(rows[0]), most, self.version)
            for replica, rows in zip(self.replicas, others, strict=True)
            if len(rows)
        ]
        played = [starts[i] for i in own]
        episodes = super().play(played, noise=noise, first=first, most=most, progress=progress)
        for answer in answers:
            found = answer()
            for episode in found:
                progress(episode)
            episodes += found
        return episodes


@contextlib.contextmanager
def open_team(config: Config, checkpoint: Path, *, training: bool = False) -> Iterator[Team]:
    """The policy of `checkpoint` in the recipe's simulators, in `config.processes` processes.

    For `training`, the recipe's knobs replace its own, and the recipe's adapter lies over it.
    """
    threads, count = torch.get_num_threads(), config.processes
    with run.open_pool(config) as pool, contextlib.ExitStack() as stack:
        bundle = _load(config, checkpoint, pool.spec, training)
        if count > 1:
            torch.set_num_threads(max(1, threads // count))
            stack.callback(torch.set_num_threads, threads)
            share_parameters(bundle.policy)
            found = [Replica(config, bundle, i) for i in range(1, count)]
            replicas = [stack.enter_context(contextlib.closing(replica)) for replica in found]
        else:
            replicas = []
        yield Team(bundle, pool, config, replicas)


class Seating(TypedDict):
    """How a player plays its share of the recipe's episodes; see `Player`."""

    slots: int
    groups: int
    patience: float


def _seating(config: Config) -> Seating:
    env = config.env
    return Seating(
        slots=-(-env.slots // config.processes),
        groups=env.groups,
        patience=math.inf if env.patience is None else env.patience / 1000,
    )


def _load(config: Config, checkpoint: Path, spec: RobotSpec, training: bool) -> Bundle:
    device = device_of(config)
    if training:
        return run.load_policy(checkpoint, spec, device, config.policy, config.adapter)
    bundle = run.load_policy(checkpoint, spec, device)
    if config.evaluate.both_rules and bundle.policy.config.stop_likelihood == "consistent":
        bundle.policy.note_rules()  # the `released` stop is taught as the probability that `first` tests
    return bundle


class Replica:
    """Another process with the same policy, and our end of its pipe."""

    def __init__(self, config: Config, bundle: Bundle, number: int) -> None:
        """`bundle`: its parameters are shared already."""
        context = multiprocessing.get_context("spawn")
        self.number = number
        self._pipe, theirs = context.Pipe()
        # Not a daemon: it may have simulator processes of its own.
        self._process = context.Process(target=_serve, args=(theirs, config, bundle))
        self._process.start()
        theirs.close()

    def submit(self, job: str, *arguments: Any) -> Callable[[], Any]:
        """Begin `job` there (`play`, `rescore` or `gradient`); call the result to wait for its answer.

        `RuntimeError` when the process failed or is gone.
        """
        with contextlib.suppress(ConnectionError):  # it died since: noticed where its answer is read
            _send(self._pipe, (job, arguments))
        return self._receive

    def _receive(self) -> Any:
        try:
            answer, worked = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5.0)
            raise RuntimeError(
                f"policy process {self.number} died (exit code {self._process.exitcode}); "
                f"continue from the last checkpoint with --resume"
            ) from None
        spans.keep(worked)
        if isinstance(answer, UserError):
            raise answer
        if isinstance(answer, Exception):
            raise RuntimeError(f"policy process {self.number}: {answer!r}") from answer
        return answer

    def close(self) -> None:
        """End the process, by force after 5 s."""
        self._pipe.close()
        self._process.join(5.0)
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, config: Config, bundle: Bundle) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    die_with_parent()
    torch.set_num_threads(max(1, config.threads // config.processes))
    with run.open_pool(config) as pool:
        player = Player(bundle, pool, **_seating(config))
        learner = Learner(bundle, config.lapo, config.optimizer)

        def play(
            starts: list[Start], noise: int | None, first: int, most: int | None, version: int
        ) -> list[Episode]:
            player.version = version
            return player.play(starts, noise=noise, first=first, most=most)

        def gradient(batch: Minibatch, value_only: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
            parts = learner.gradient(batch, value_only=value_only)
            return parts, [p.grad for p in bundle.policy.parameters() if p.grad is not None]

        jobs: dict[str, Callable[..., Any]] = {
            "play": play,
            "rescore": learner.rescore,
            "gradient": gradient,
        }
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                job, arguments = pipe.recv()
                try:
                    answer = jobs[job](*arguments)
                except Exception as error:  # raised again by whoever asked
                    answer = error
                _send(pipe, (answer, spans.taken()))


def share_parameters(policy: LatentPolicy) -> None:
    """Move all parameters into one tensor in shared memory: a tensor each would be a file handle each."""
    parameters = list(policy.parameters())
    sizes = [p.numel() for p in parameters]
    shared: Tensor = torch.empty(sum(sizes)).share_memory_()  # type: ignore[no-untyped-call]
    for parameter, part in zip(parameters, torch.split(shared, sizes), strict=True):
        part.copy_(parameter.detach().flatten())
        parameter.data = part.view_as(parameter)


class _Pickler(pickle.Pickler):
    """Tensors travel as arrays, which `Connection.recv` reads like anything else.

    `Connection.send` would have torch put the whole storage behind every row into shared memory.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.detach().numpy(),)
        return NotImplemented


def _send(pipe: Connection, value: Any) -> None:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    pipe.send_bytes(buffer.getbuffer())

"""Job: LAPO on a cluster."""

from pathlib import Path

from lastr1.cluster.fleet import RankLost, RayFleet, connected, open_crew_and_ranks
from lastr1.config import Config
from lastr1.train.progress import say
from lastr1.train.session import Trained, check_shape, iterate, open_session
from lastr1.types import UserError


def train(
    config: Config, checkpoint: Path, out: Path, *, resume: bool = False, profile: bool = False
) -> Trained:
    """As `lastr1.train.jobs.train`; when a learner rank is lost, the run goes on from its last checkpoint."""
    with connected(config.cluster):
        for _ in range(1 + config.cluster.restarts):
            try:
                return _train(config, checkpoint, out, resume, profile)
            except RankLost as error:
                say(f"cluster: {error}; going on from the last checkpoint")
                resume, last = True, error
    raise UserError(f"{last} {1 + config.cluster.restarts} times: repair that, or raise --cluster.restarts")


def _train(config: Config, checkpoint: Path, out: Path, resume: bool, profile: bool) -> Trained:
    session = open_session(config, checkpoint, out.resolve(), resume=resume, profile=profile)
    check_shape(session.start, config.policy)
    with open_crew_and_ranks(session) as (crew, ranks):
        standing = session.begin(crew.suite.tasks)
        fleet = RayFleet(config, crew, ranks, standing.tasks, session.first)
        return iterate(
            session, fleet, standing, lambda step: fleet.save(step, standing.memory(), standing.success)
        )

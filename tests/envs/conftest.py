"""LIBERO where it is installed; elsewhere its tests skip, and say why."""

from collections.abc import Callable, Iterator

import pytest

from lastr1.envs.libero import LiberoEnv
from lastr1.types import UserError


@pytest.fixture(scope="session")
def libero() -> Callable[..., LiberoEnv]:
    """`libero(suite, **options)`: an environment, to be closed by who asks for it."""

    def make(suite: str, **options: object) -> LiberoEnv:
        try:
            return LiberoEnv(suite, **options)
        except UserError as missing:
            pytest.skip(str(missing))

    return make


@pytest.fixture(scope="module")
def env(libero: Callable[..., LiberoEnv]) -> Iterator[LiberoEnv]:
    """libero_object."""
    env = libero("libero_object")
    yield env
    env.close()

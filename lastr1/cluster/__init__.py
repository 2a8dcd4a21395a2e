"""Training over several processes or machines, on Ray and nothing but Ray."""

from lastr1.types import UserError

try:
    import ray as ray
except ModuleNotFoundError as error:
    raise UserError(f"--cluster.collectors needs Ray ({error}): pip install 'lastr1[cluster]'") from None

"""The API key of a policy server: from a file or the environment, never on the command line.  Torch-free."""

import os
from pathlib import Path

from lastr1.config import ServeConfig
from lastr1.types import UserError

VARIABLE = "LASTR1_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def stored_key(config: ServeConfig) -> str:
    """The key to show, or to ask for; empty: there is none.  `UserError` for a file that holds none."""
    if config.api_key_file is None:
        return os.environ.get(VARIABLE, "")
    path = Path(config.api_key_file)
    key = path.read_text().strip() if path.is_file() else ""
    if not key.isascii() or len(key.split()) != 1:
        raise UserError(f"serve.api_key_file {path}: write the key on one line, or set {VARIABLE}")
    return key


def required_key(config: ServeConfig) -> str:
    """The key that clients have to show.  `UserError` without one where others can reach the server."""
    key = stored_key(config)
    if not key and config.host not in LOOPBACK:
        raise UserError(
            f"serve.host {config.host} can be reached by others: set {VARIABLE} or --serve.api-key-file"
        )
    return key

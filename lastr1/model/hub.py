"""The files of a Hugging Face model folder besides its weights: configuration, tokenizer, statistics, card.

Every mistake in them is a `UserError` of one line that names the file.
"""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer

from lastr1.config import PolicyConfig
from lastr1.model.backbone import MERGE, Qwen3VLConfig, stored_config
from lastr1.model.codec import Codec
from lastr1.spec import RobotSpec
from lastr1.types import UserError

CONFIG, TOKENIZER, OWN = "config.json", "tokenizer.json", "lastr1.json"
STATISTICS = ("statistics.json", "dataset_statistics.json")
"""names under which action statistics are found; the first is what we write"""
PASSENGERS = (
    "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "chat_template.json", "chat_template.jinja", "vocab.json", "merges.txt",
)  # fmt: skip
"""files that we do not read, but that a conversion takes along for others"""
RELEASED = PolicyConfig(latent_policy="deterministic", stop_likelihood="released", eval_stop="first")
"""how the released checkpoints think (ALGORITHM.md 2, C); their folders do not say"""


def existing(directory: Path, name: str) -> Path:
    """The path of a file that has to be there."""
    path = directory / name
    if not path.is_file():
        raise UserError(f"{directory} is not a policy: {name} is missing")
    return path


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """A JSON file that has to be there."""
    path = existing(directory, name)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error})") from None
    return values


def write_json(path: Path, value: Any) -> None:
    """Indented, with a line end."""
    path.write_text(json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `directory` at the end.

    What stood there stays whole until the new one is, and stays for good when filling fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    new, old = workplace / "new", workplace / "old"
    try:
        new.mkdir()
        yield new
        flush(new)
        if directory.exists():
            os.replace(directory, old)
        os.replace(new, directory)
        sync(directory.parent)
    except BaseException:
        if old.exists() and not directory.exists():
            os.replace(old, directory)
        raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def flush(directory: Path) -> None:
    """Everything in a folder reaches the disk: a name must not arrive there before its content."""
    for path in sorted(directory.rglob("*")):
        sync(path)
    sync(directory)


def sync(path: Path) -> None:
    """A file or a folder reaches the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Whatever does not fit inside a file of facts is a fault of that file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{path} is damaged or of another version ({error!r}); use another") from None


def read_config(directory: Path) -> Qwen3VLConfig:
    """The `config.json` of a dense Qwen3-VL."""
    path = directory / CONFIG
    facts = read_json(directory, CONFIG)
    with understood(path):
        kind = facts["model_type"]
        if kind != "qwen3_vl":
            raise UserError(f"{path} describes a {kind!r}, not a qwen3_vl: use a dense Qwen3-VL")
        config = stored_config(directory)
        if config.vision_config.spatial_merge_size != MERGE:
            raise UserError(f"{path}: spatial_merge_size must be {MERGE}; use a Qwen3-VL")
    return config


def read_tokenizer(directory: Path) -> Tokenizer:
    """The `tokenizer.json`; whether it knows our tokens is not asked here."""
    path = directory / TOKENIZER
    facts = read_json(directory, TOKENIZER)
    with understood(path):
        # What the tokenizers library raises has no type of its own, so the commonest faults are found here.
        if facts["model"]["vocab"] is None or facts["added_tokens"] is None:
            raise ValueError("no vocabulary")
    return Tokenizer.from_file(str(path))


def statistics_of(directory: Path) -> Path | None:
    """The file of action statistics, if there is one."""
    return next((directory / name for name in STATISTICS if (directory / name).is_file()), None)


def read_codec(directory: Path) -> Codec:
    """Action statistics in the released schema; the first data set counts (ALGORITHM.md 2.11)."""
    path = statistics_of(directory) or existing(directory, STATISTICS[0])
    with understood(path):
        first, *_ = read_json(directory, path.name).values()
        action = first["action"]
        low, high = (tuple(float(x) for x in action[key]) for key in ("q01", "q99"))
        mask = tuple(bool(x) for x in action["mask"])
        if not len(low) == len(high) == len(mask) or not all(map(math.isfinite, low + high)):
            raise ValueError("q01, q99 and mask must be finite and of one length")
    return Codec(q01=low, q99=high, mask=mask)


def write_statistics(directory: Path, codec: Codec, spec: RobotSpec) -> None:
    """The action statistics of one robot, in the released schema."""
    action = {"q01": codec.q01, "q99": codec.q99, "mask": codec.mask}
    write_json(directory / STATISTICS[0], {spec.name: {"action": action}})


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, and what transformers needs in order to read it."""
    tokenizer.save(str(directory / TOKENIZER))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    write_json(directory / "tokenizer_config.json", facts)


def write_card(directory: Path, spec: RobotSpec, policy: PolicyConfig, codec: Codec, parameters: int) -> None:
    """The model card: what drives which robot, how it thinks, and how to run it."""
    cameras = ", ".join(f"{camera.name} ({camera.width} x {camera.height})" for camera in spec.cameras)
    lengths = [policy.latents_per_group * (k + 1) for k in range(policy.stop_candidates)]
    thought = f"{', '.join(map(str, lengths))} latents" if lengths else "none (actions only)"
    rows = [
        f"| {dim.name} | {dim.unit} | {low:.4g} | {high:.4g} | {'percentiles' if scaled else 'threshold'} |"
        for dim, low, high, scaled in zip(spec.action, codec.q01, codec.q99, codec.mask, strict=True)
    ]
    lines = [
        "---",
        "library_name: lastr1",
        "pipeline_tag: robotics",
        "tags:",
        *(f"- {tag}" for tag in ("robotics", "vla", "latent-reasoning", "qwen3_vl")),
        "---",
        "",
        f"# A latent-thinking policy for {spec.name}",
        "",
        f"A Qwen3-VL with {parameters / 1e6:,.1f} million parameters that thinks in latents before it acts.",
        "",
        f"- cameras: {cameras}; the policy sees {policy.image} x {policy.image} pixels",
        f"- thought: {thought}",
        f"- actions: {policy.chunk} control steps of {len(spec.action)} numbers, {spec.rate:g} per second",
        "",
        "| action | unit | 1st percentile | 99th percentile | decoded by |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "```sh",
        "lastr1 evaluate RECIPE --checkpoint THIS_FOLDER",
        "```",
    ]
    (directory / "README.md").write_text("\n".join(lines) + "\n")

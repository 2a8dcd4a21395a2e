"""What the classes of `lastr1.config` share: the check of a number, plain JSON and back, differences."""

import dataclasses
import json
import types
import typing
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")


def positive(config: object, *names: str) -> None:
    """`ValueError` names the first of these knobs that is not above 0."""
    for name in names:
        value = vars(config)[name]
        if value <= 0:
            raise ValueError(f"{name} must be positive, not {value}")


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(cls: type[T], values: dict[str, Any], path: str = "") -> T:
    """The config that `to_dict` wrote.  `ValueError` names an unknown knob, or a value that does not fit."""
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown knob {path}{key}")
    return cls(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("type[Any]", hint), value, path + ".")
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        ok = value in args
    elif origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(args[0], value, path)
    elif origin is tuple:
        return tuple(_convert(args[0], v, path) for v in value)
    elif hint is float:
        ok, value = isinstance(value, (int, float)) and not isinstance(value, bool), value
    else:
        ok = type(value) is hint
    if not ok:
        raise ValueError(f"{path} = {value!r} is not a {hint}")
    return float(value) if hint is float else value


def differences(a: Any, b: Any) -> list[str]:
    """`path: left against right` for every knob in which two configs differ."""
    left, right = _flat(to_dict(a)), _flat(to_dict(b))
    return [f"{k}: {left[k]} against {right[k]}" for k in left if left[k] != right[k]]


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value})
    return flat

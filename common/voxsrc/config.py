"""Typed configuration: YAML text to a mapping, overrides on it, and the mapping to a frozen dataclass.

The dataclass lives beside the code that it configures and checks its values in `__post_init__` (raising
ConfigError); this module checks keys and types. Every error names the full key path, what was found and
what was expected, and all problems of a mapping come in one. Only what reads or writes YAML imports it: not
every image has it.
"""

import copy
import dataclasses
import difflib
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from voxsrc.errors import ConfigError

Config = TypeVar("Config")

_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_yaml(text: str, name: str) -> dict[str, Any]:
    """The mapping in a YAML text; an empty text is an empty mapping.

    Args:
        text: The text.
        name: The file's name, for errors.

    Raises:
        ConfigError: The text is not YAML, repeats a key, or is no mapping with names as keys.
    """
    from voxsrc.yaml_text import load

    loaded = load(text, name)
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{name}: found {_shown(loaded)}, expected a mapping of keys to values")
    for key in loaded:
        _check_key(key, name)
    return loaded


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A deep copy of `mapping` with `key.path=value` overrides applied in order.

    The value is read as YAML (`3`, `1e-3`, `true`, `null`, `[1, 2]`, `{a: 1}`). Mappings on the way are made
    where absent or null; a list's element is named by its index (`stages.1.margin=0.5`).

    Raises:
        ConfigError: An override has no `=`, an empty key, a value that is not YAML, or a path that leads
            through a value that is neither mapping nor list.
    """
    from voxsrc.yaml_text import load

    changed: dict[str, Any] = copy.deepcopy(dict(mapping))
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"override {override!r}: expected KEY=VALUE with a key such as optimizer.momentum"
            )
        changed = _replaced(changed, keys, 0, load(text, f"override {override!r}"))
    return changed


def from_mapping(cls: type[Config], mapping: Mapping[str, Any], path: str = "") -> Config:
    """The dataclass `cls` filled from `mapping`, each value checked against its annotation.

    Understood: bool, int, float, str, Path, None, Any, Literal, unions, tuple, list, dict or Mapping with str
    keys, and dataclasses, nested in any way. An int is taken for a float, a whole float (`1e6`) for an int,
    a list for a tuple, numeric text (`"1e-3"`) for a float; nothing else is converted.

    Args:
        cls: The dataclass.
        mapping: Its fields by name; those that have a default may be absent.
        path: Key path of the mapping within the whole configuration, for errors; "" at the top.

    Raises:
        ConfigError: Unknown keys (the nearest known one is suggested), missing ones, values of another type,
            or some that a dataclass itself refuses, which it does when all else in it is right; of several,
            each has a line.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"{path or cls.__name__}: found {_shown(mapping)}, expected {_described_mapping(cls)}"
        )
    for key in mapping:
        _check_key(key, path or cls.__name__)
    hints, required = typing.get_type_hints(cls), _fields(cls)
    problems = [
        f"{_join(path, key)}: unknown key, {suggestion(key, required)}"
        for key in mapping
        if key not in required
    ]
    problems += [
        f"{_join(path, name)}: missing, expected {_described(hints[name])}"
        for name, is_required in required.items()
        if is_required and name not in mapping
    ]
    known = [key for key in mapping if key in required]
    values = _convert_all(((hints[key], mapping[key], _join(path, key)) for key in known), problems)
    try:
        return typing.cast(Config, cls(**dict(zip(known, values, strict=True))))
    except ConfigError as error:
        lines = str(error).split("\n")
        raise ConfigError("\n".join(f"{path}: {line}" if path else line for line in lines)) from error


def to_mapping(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values for JSON or `write_yaml`; `from_mapping` gives it back."""
    return {
        field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init
    }


def write_yaml(mapping: Mapping[str, Any]) -> str:
    """YAML text of plain values (see `to_mapping`), in their order; `read_yaml` gives them back."""
    from voxsrc.yaml_text import dump

    return dump(mapping)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Words for an error about an unknown name: the nearest known one, if near, and all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = f"known: {', '.join(names)}" if names else "none is known here"
    return f"did you mean {near[0]}? ({listed})" if near else listed


def _replaced(parent: Any, keys: Sequence[str], depth: int, value: Any) -> Any:
    """A copy of `parent`, found at `keys[:depth]`, in which the rest of the path leads to `value`.

    Only what lies on the path is copied, so that two keys that share a YAML anchor's value part here.
    """
    if depth == len(keys):
        return value
    name, here, key = ".".join(keys), ".".join(keys[:depth]), keys[depth]
    if parent is None:
        parent = {}
    if isinstance(parent, Mapping):
        return {**parent, key: _replaced(parent.get(key), keys, depth + 1, value)}
    if not isinstance(parent, list):
        raise ConfigError(f"override {name}: {here} is {_shown(parent)}, which has no keys")
    if not (key.isdecimal() and int(key) < len(parent)):
        raise ConfigError(
            f"override {name}: {here} is a list; found the index {key!r} of {len(parent)} elements"
        )
    index = int(key)
    return [*parent[:index], _replaced(parent[index], keys, depth + 1, value), *parent[index + 1 :]]


def _fields(cls: Any) -> dict[str, bool]:
    """The fields of a dataclass that a mapping may give, and whether it must."""
    absent = dataclasses.MISSING
    return {
        field.name: field.default is absent and field.default_factory is absent
        for field in dataclasses.fields(cls)
        if field.init
    }


def _convert_all(entries: Iterable[tuple[Any, Any, str]], problems: Iterable[str] = ()) -> list[Any]:
    """`_convert` of each; raises one ConfigError with all problems, those found before first."""
    converted, lines = [], list(problems)
    for hint, value, path in entries:
        try:
            converted.append(_convert(hint, value, path))
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))
    return converted


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` wants it; raises ConfigError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, path)
    if origin is Union or isinstance(hint, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is Literal:
        for choice in arguments:
            if type(choice) is type(value) and choice == value:
                return value
        near = difflib.get_close_matches(str(value), [str(choice) for choice in arguments], n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{path}: found {_shown(value)}, expected {_described(hint)}{meant}")
    if origin in (tuple, list):
        return _convert_sequence(origin, arguments, value, path)
    if hint is dict or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: found {_shown(value)}, expected {_described(hint)}")
        for key in value:
            _check_key(key, path)
        item_hint = arguments[1] if arguments else Any
        items = _convert_all((item_hint, item, _join(path, key)) for key, item in value.items())
        return dict(zip(value, items, strict=True))
    return _convert_scalar(hint, value, path)


def _convert_union(members: Sequence[Any], value: Any, path: str) -> Any:
    if value is None and types.NoneType in members:
        return None
    others = [member for member in members if member is not types.NoneType]
    if len(others) == 1:
        return _convert(others[0], value, path)
    for member in others:
        if isinstance(member, type) and type(value) is member:
            return value
    classes = [member for member in others if dataclasses.is_dataclass(member)]
    if isinstance(value, Mapping) and len(classes) == 1:
        return _convert(classes[0], value, path)
    errors = []
    for member in others:
        try:
            return _convert(member, value, path)
        except ConfigError as error:
            errors.append(error)
    raise ConfigError(
        f"{path}: found {_shown(value)}, expected {' or '.join(_described(member) for member in members)}"
    ) from errors[-1]


def _convert_sequence(origin: Any, arguments: Sequence[Any], value: Any, path: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: found {_shown(value)}, expected a list")
    if origin is list or Ellipsis in arguments:
        hints = [arguments[0]] * len(value)
    else:
        hints = [hint for hint in arguments if hint != ()]
        if len(value) != len(hints):
            raise ConfigError(f"{path}: found {len(value)} elements, expected {len(hints)}")
    pairs = zip(hints, value, strict=True)
    return origin(_convert_all((hint, item, _join(path, str(i))) for i, (hint, item) in enumerate(pairs)))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    # bool is a subclass of int, so `yes` would pass as 1.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float:
        if isinstance(value, str) and _FLOAT.fullmatch(value.strip()):
            value, number = float(value), True
        fits = isinstance(value, float) or (number and abs(value) <= sys.float_info.max)
        if fits and value == value:  # not NaN
            return float(value)
    elif hint is int:
        if number and (isinstance(value, int) or value.is_integer()):
            return int(value)
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif hint in (str, bool, types.NoneType):
        if type(value) is hint:
            return value
    else:
        raise TypeError(f"{path}: a configuration field cannot have the type {hint!r}")
    raise ConfigError(f"{path}: found {_shown(value)}, expected {_described(hint)}")


def _described(hint: Any) -> str:
    """The annotation in words, as `expected` reads."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    if hint in names:
        return names[hint]
    if hint is types.NoneType:
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin is Union or isinstance(hint, types.UnionType):
        return " or ".join(_described(member) for member in arguments)
    if origin in (tuple, list):
        return "a list"
    if dataclasses.is_dataclass(hint):
        return _described_mapping(hint)
    if hint is dict or origin in (dict, Mapping):
        return "a mapping"
    return "a value"


def _described_mapping(cls: Any) -> str:
    fields = _fields(cls)
    required = ", ".join(name for name, is_required in fields.items() if is_required)
    optional = ", ".join(name for name, is_required in fields.items() if not is_required)
    words = f"a mapping with {required}" if required else "a mapping"
    return f"{words} (optional: {optional})" if optional else words


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"


def _check_key(key: Any, path: str) -> None:
    if not isinstance(key, str):
        raise ConfigError(f"{path}: found the key {_shown(key)}, expected a name (quote it if it is one)")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

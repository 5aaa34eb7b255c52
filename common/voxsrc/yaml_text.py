"""YAML as our files have it: numbers such as `1e-3` are numbers, no key is given twice."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from voxsrc.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number (YAML 1.1 makes it a string) and a repeated key an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node; raises ConstructorError on a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: text such as `12e7` (some commit's hash) in quotes, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Values that occur twice are written twice."""
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def load(text: str, name: str) -> Any:
    """The value in a YAML text, None for an empty one; `name` is the file's, for errors.

    Raises:
        ConfigError: The text is not YAML, or repeats a key.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not YAML, {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # a bad character, an impossible date
        raise ConfigError(f"{name}: not YAML, {error}") from error


def dump(mapping: Mapping[str, Any]) -> str:
    """YAML text of plain values, in their order; `load` gives them back."""
    text: str = yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False)
    return text

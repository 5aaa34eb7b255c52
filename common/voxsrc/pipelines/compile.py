"""Compiles the components and pipelines to the YAML packages that are committed.

    python -m voxsrc.pipelines.compile [--check]

A package is what Kubeflow Pipelines accepts (v2 IR). `--check` compares instead of writing, so that a
definition and its package cannot drift apart.
"""

import argparse
import difflib
import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxsrc.command import EXIT_FAILED, add_debug_flag, run_command
from voxsrc.errors import ConfigError
from voxsrc.pipelines.settings import ROOT


def packages() -> Mapping[str, Any]:
    """Returns every committed package: its path below the repository root → the component or pipeline."""
    from voxsrc.pipelines import components, extract, train

    return {
        "components/feature-extractor/feature_extractor_component.yaml": components.feature_extractor,
        "components/train/train_component.yaml": components.train,
        "components/evaluate/evaluate_component.yaml": components.evaluate,
        "extract_pipeline.yaml": extract.extract_pipeline,
        "train_pipeline.yaml": train.train_pipeline,
    }


def compile_package(definition: Any) -> str:
    """Compiles one component or pipeline to the text of its YAML package.

    A component's package can be submitted as a pipeline of one step. Caching is off in it: the key would hold
    the URIs and the image's name, but neither the bucket's content nor the image's digest: stale hits.
    """
    from kfp.compiler import Compiler
    from kfp.dsl.container_component_class import ContainerComponent

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        Compiler().compile(definition, str(path))
        text = path.read_text(encoding="utf-8")
    return _without_caching(text) if isinstance(definition, ContainerComponent) else text


def _without_caching(package: str) -> str:
    """Turns caching off in a component's package, keeping the comments on top, as kfp itself writes it."""
    import yaml

    lines = package.splitlines(keepends=True)
    comments = "".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    spec = yaml.safe_load(package)
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {}
    return comments + yaml.dump(spec, sort_keys=True)


def write(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Writes the packages whose text differs from the file's; returns their names."""
    changed = [name for name, text in texts.items() if _read(root / name) != text]
    for name in changed:
        (root / name).write_text(texts[name], encoding="utf-8")
    return changed


def check(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Returns the names of the packages whose file is missing or differs; shows the differences on stderr."""
    drifted = []
    for name, text in texts.items():
        committed = _read(root / name)
        if committed == text:
            continue
        drifted.append(name)
        difference = difflib.unified_diff(
            (committed or "").splitlines(),
            text.splitlines(),
            f"{name} (committed)",
            f"{name} (compiled)",
            lineterm="",
        )
        print("\n".join(difference), file=sys.stderr)
    return drifted


def compile_all(root: Path = ROOT, *, only_check: bool = False) -> int:
    """Writes the packages that differ from their definitions, or names them, and says which.

    Args:
        root: The repository's.
        only_check: Write nothing; show the differences.

    Returns:
        The exit code of a command: with `only_check` 1 if a package differs, else 0.

    Raises:
        ConfigError: The root is none.
    """
    if not (root / "pyproject.toml").is_file():
        raise ConfigError(
            f"{root}: no pyproject.toml there; expected the repository's root, from which the project is to "
            "be installed with `pip install --editable`"
        )
    texts = {name: compile_package(definition) for name, definition in packages().items()}
    changed = (check if only_check else write)(root, texts)
    verb = "differs from its definition" if only_check else "written"
    for name in texts:
        print(f"{name}: {verb if name in changed else 'up to date'}")
    if only_check and changed:
        print("run: python -m voxsrc.pipelines.compile", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, 1 for drift too."""
    parser = argparse.ArgumentParser(
        prog="python -m voxsrc.pipelines.compile", description="Compile the Kubeflow Pipelines packages."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a committed package differs"
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the repository's root (default: %(default)s)"
    )
    add_debug_flag(parser)
    parsed = parser.parse_args(argv)
    return run_command(lambda _: compile_all(parsed.root, only_check=parsed.check), parsed)


if __name__ == "__main__":
    sys.exit(main())

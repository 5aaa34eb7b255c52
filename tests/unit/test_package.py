"""What importing costs, and that each component's extra provides all that it imports."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "voxsrc": ROOT / "common/voxsrc",
    "feature_extractor": ROOT / "components/feature-extractor/src/feature_extractor",
    "trainer": ROOT / "components/train/src/trainer",
    "evaluator": ROOT / "components/evaluate/src/evaluator",
    "voxceleb_data": ROOT / "data/src/voxceleb_data",
}
# What a component's code reaches, by the extra that its image installs; `voxceleb_data` needs no extra.
EXTRAS = {
    "feature_extractor": "feature-extractor",
    "trainer": "train",
    "evaluator": "evaluate",
    "voxceleb_data": None,
}
# A function that a component never calls needs these, or says so where they are missing.
OPTIONAL = {
    ("voxsrc.feature_set.reader", "torch"),
    ("trainer.history", "wandb"),
    ("voxsrc.yaml_text", "yaml"),
}


def module_path(name: str) -> Path | None:
    """The file of one of our modules, None for other modules."""
    package, *rest = name.split(".")
    if package not in PACKAGES:
        return None
    path = PACKAGES[package].joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_by(module: str, path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, also within functions, but not for type checking."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found = module_path(submodule)
                yield submodule if found is not None and found.exists() else str(node.module)


def reachable(package: str) -> dict[str, Path]:
    """Our modules that a package's modules import, directly or not, themselves included."""
    folder = PACKAGES[package]
    waiting = [
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        for path in folder.rglob("*.py")
    ]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = module_path(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += list(imported_by(name, path))
        waiting.append(name.rpartition(".")[0])
    return found


def declared(extra: str | None) -> set[str]:
    """Normalised names of the distributions that pyproject.toml declares for an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    return {Requirement(line).name.lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_an_extra_provides_all_that_its_component_imports(package: str, extra: str | None) -> None:
    distributions_of = importlib.metadata.packages_distributions()
    missing = set()
    for module, path in reachable(package).items():
        for name in imported_by(module, path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES or (module, top) in OPTIONAL:
                continue
            # `google` is a namespace of many distributions; ours are that library's and what it brings.
            provided_by = ["google-cloud-storage"] if top == "google" else distributions_of.get(top, [top])
            if not declared(extra).intersection(name.lower() for name in provided_by):
                missing.add((module, name))
    assert not missing, f"the extra {extra!r} does not declare what these import: {sorted(missing)}"


def test_common_imports_no_component() -> None:
    for module in reachable("voxsrc"):
        assert module.split(".")[0] == "voxsrc", module


def test_every_module_is_read() -> None:
    assert "voxsrc.storage.gcs" in reachable("voxsrc")
    assert "voxsrc.features.scipy_log_mel" in reachable("feature_extractor")
    assert "voxsrc.features.torch_log_mel" not in reachable("feature_extractor")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_voxsrc_is_light() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'pyarrow', 'google', 'av'}"
    code = f"import sys, voxsrc; print(sorted({heavy}.intersection(sys.modules)))"
    assert run_python(code) == "[]"


def test_the_commands_that_only_look_import_no_torch() -> None:
    for module in ("voxsrc.cli", "voxsrc.feature_set", "feature_extractor.extraction"):
        assert run_python(f"import sys, {module}; print('torch' in sys.modules)") == "False"

"""The pinned requirements: one file an image, in step with pyproject.toml and with what the tests run on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
IMAGES = sorted(set(EXTRAS) - {"dev"})


def pins(name: str) -> dict[str, str]:
    """Package → version in one requirements file."""
    text = (ROOT / "env" / f"requirements-{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", text, re.MULTILINE))


def wanted(extra: str) -> list[Requirement]:
    """What pyproject.toml asks for, without the project's own extras."""
    requirements = [Requirement(line) for line in [*PROJECT["project"]["dependencies"], *EXTRAS[extra]]]
    own = [requirement for requirement in requirements if requirement.name == "voxsrc"]
    return [
        *(requirement for requirement in requirements if requirement.name != "voxsrc"),
        *(nested for requirement in own for name in requirement.extras for nested in wanted(name)),
    ]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_every_requirement_of_the_extra_is_pinned_within_its_bounds(extra: str) -> None:
    pinned = pins(extra)
    for requirement in wanted(extra):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned; run env/lock.sh"
        assert requirement.specifier.contains(version), f"{requirement}: {version}; run env/lock.sh"


@pytest.mark.parametrize("image", [*IMAGES, "pytorch", "build"])
def test_an_image_installs_what_the_tests_ran_on_with_hashes(image: str) -> None:
    tested = pins("dev")
    different = {
        name: (version, tested[name])
        for name, version in pins(image).items()
        if tested.get(name, version) != version
    }
    assert different == {}, "run env/lock.sh"
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "env" / f"requirements-{image}.txt").read_text())[1:]
    assert len(entries) == len(pins(image))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_feature_extractor_has_no_torch() -> None:
    assert not {name for name in pins("feature-extractor") if re.match("torch|nvidia|cuda|triton", name)}


def test_torchaudio_is_for_tests_only() -> None:
    assert "torchaudio" in pins("dev")
    assert not [image for image in [*IMAGES, "pytorch"] if "torchaudio" in pins(image)]


@pytest.mark.parametrize("image", ["train", "evaluate"])
def test_the_image_with_torch_needs_all_of_its_base_image(image: str) -> None:
    # In the image they are left out, as the base image has them: in these versions.
    assert pins("pytorch").items() <= pins(image).items()


def test_the_cpu_variant_leaves_out_torch_and_cuda_and_nothing_else() -> None:
    path = ROOT / "env/requirements-train.txt"
    done = subprocess.run(
        [ROOT / "common/containers/pytorch/without_cuda.sh", path], capture_output=True, text=True, check=True
    )
    left = dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))
    out = pins("train").keys() - left.keys()
    assert {"torch", "triton", "nvidia-cublas", "nvidia-nccl-cu13", "cuda-toolkit"} <= out
    assert {name for name in out if not name.startswith(("nvidia-", "cuda-"))} == {"torch", "triton"}
    # An entry's hashes stay and go with it.
    lines = path.read_text().splitlines()
    assert set(done.stdout.splitlines()) < set(lines)
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z0-9])", done.stdout)[1:])


def test_no_file_names_a_package_index() -> None:
    for path in (ROOT / "env").glob("*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text()), path.name


def test_conda_installs_the_development_requirements() -> None:
    environment = yaml.safe_load((ROOT / "env" / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--requirement requirements-dev.txt"]


def test_the_settings_file_is_an_example_only() -> None:
    lines = (ROOT / "env" / "cloud.env.example").read_text().splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"VOXSRC_[A-Z_]+=[a-z-]*", line) for line in settings), settings
    filled = {line.split("=")[0] for line in settings if not line.endswith("=")}
    assert filled <= {"VOXSRC_KUBERNETES_SERVICE_ACCOUNT", "VOXSRC_KFP_NAMESPACE", "VOXSRC_KFP_EXPERIMENT"}
    assert "env/cloud.env" in (ROOT / ".gitignore").read_text().splitlines()

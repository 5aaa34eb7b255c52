"""The trainer's image with CUDA, as a cluster's GPU machines run it; here it computes on the CPU."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 6.6e9
TAG = "cuda-under-test"


@pytest.fixture(scope="module")
def container(
    docker: Any,
    build: Callable[..., dict[str, str]],
    confined: Callable[..., Any],
    features: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The image, with the features and a folder to write to; gigabytes, which are removed at the end."""
    wheels, out = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("out")
    out.chmod(0o777)  # the container's user is nobody here
    try:
        for name in ("train", "build"):
            requirements = ROOT / "env" / f"requirements-{name}.txt"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            done = subprocess.run(
                [*pip, "--dest", wheels, "--requirement", requirements],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        built = build("train", "--wheels", wheels, "--tag", TAG)
    finally:
        shutil.rmtree(wheels)
    of = type(confined({}))
    yield of(docker, f"{built['image']}:{TAG}", {"/features:ro": features, "/out": out})
    version = docker("image", "inspect", "--format", "{{json .RepoTags}}", f"voxsrc-train:{TAG}")
    docker("image", "rm", "--force", *json.loads(version))


def test_its_size_is_known(docker: Any, container: Any) -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", container.image)) < MAX_BYTES


def test_it_has_kernels_for_the_gpus_that_are_offered(container: Any) -> None:
    """T4 7.5, A100 8.0, L4 8.9 (by 8.6 or its own), H100 9.0."""
    found = json.loads(
        container.python(
            "import json, torch\nprint(json.dumps([torch.version.cuda, torch.cuda.get_arch_list()]))"
        )
    )
    version, kernels = found
    assert version.startswith("13.")
    assert {"sm_75", "sm_80", "sm_90"} <= set(kernels)
    assert {"sm_86", "sm_89"} & set(kernels)


def test_triton_can_build_its_driver_module(container: Any) -> None:
    """It compiles C against Python's headers when torch.compile first runs on a GPU."""
    code = """
import importlib.util, pathlib, shutil, subprocess, sysconfig
assert importlib.util.find_spec("triton")
source = pathlib.Path("/tmp/probe.c")
source.write_text('''#include <Python.h>
static struct PyModuleDef probe = {PyModuleDef_HEAD_INIT, "probe", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&probe); }''')
include = sysconfig.get_paths()["include"]
subprocess.run(
    [shutil.which("gcc"), "-shared", "-fPIC", f"-I{include}", "-o", "/tmp/probe.so", source], check=True
)
spec = importlib.util.spec_from_file_location("probe", "/tmp/probe.so")
print(importlib.util.module_from_spec(spec).__name__)
"""
    options = ("--entrypoint=python", "--tmpfs=/tmp:exec")
    assert container.docker(*container.command("-c", code, options=options)).strip() == "probe"


def test_it_trains_where_there_is_no_gpu(container: Any) -> None:
    recipe = ("--recipe=demo", "--set=num_steps=3", "--set=batch_size=16", "--set=onnx=none")
    printed = container.run(*recipe, "--features=/features/train", "--output=/out/run")
    assert "fp32 on cpu, 3 steps" in printed
    assert "model: /out/run/model" in printed

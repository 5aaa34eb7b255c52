"""Arguments of runs of the train pipeline, and what the check of its inputs says of them."""

import io
import zipfile

from voxsrc import storage
from voxsrc.pipelines.input_check import check_inputs
from voxsrc.pipelines.package import Package

IMAGES = [
    f"{name}_image=r.example/voxsrc/{name}@sha256:{'0' * 64}"
    for name in ("feature_extractor", "train", "evaluate")
]


def an_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/b/c.wav", b"")
    return content.getvalue()


def arguments_in(bucket: str) -> dict[str, str]:
    """Arguments of the train pipeline whose inputs all exist, and outputs do not."""
    inputs = {
        "train_audio": ("audio/vox2", "audio/vox2/a/b/c.wav", b"RIFF"),
        "train_list": ("lists/train.txt", "lists/train.txt", b"a a/b/c.wav\n"),
        "test_audio": ("test.zip", "test.zip", an_archive()),
        "test_list": ("lists/test.txt", "lists/test.txt", b"a a/b/c.wav\n"),
        "trials": ("lists/trials.txt", "lists/trials.txt", b"1 a/b/c.wav a/b/c.wav\n"),
    }
    for _, key, content in inputs.values():
        storage.write_bytes(f"{bucket}/{key}", content)
    outputs = ("train_features", "test_features", "training", "evaluation")
    return {name: f"{bucket}/{key}" for name, (key, _, _) in inputs.items()} | {
        name: f"{bucket}/out/{name}" for name in outputs
    }


def submitting(arguments: dict[str, str], *flags: str) -> list[str]:
    sets = [f"{name}={value}" for name, value in arguments.items()] + IMAGES
    return ["submit", "train", "--run-name", "r", *flags, *(x for item in sets for x in ("--set", item))]


def states(package: Package, arguments: dict[str, str]) -> dict[str, str]:
    return {check.what: check.state for check in check_inputs(package, arguments)}


def missing(package: Package, arguments: dict[str, str]) -> dict[str, str]:
    checks = check_inputs(package, arguments)
    return {c.what: f"{c.found}; {c.remedy}" for c in checks if c.state == "missing"}

"""What is wrong with the images that a run would use: a name that means something else tomorrow."""

import re
from collections.abc import Iterable

from voxsrc.errors import ConfigError
from voxsrc.pipelines.needs import StepNeeds

# All that build_images.sh builds, whichever of them a pipeline runs.
COMPONENTS = frozenset({"feature-extractor", "train", "evaluate"})

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def tag_of(image: str) -> str | None:
    """The tag of an image without a digest, None if it has none; a registry's port is not one."""
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return tag if colon else None


def has_digest(image: str) -> bool:
    """Whether the name says exactly which image."""
    return _DIGEST.search(image) is not None


def names_registry(image: str) -> bool:
    """Whether the name says where to pull the image from; if not, a cluster looks on Docker Hub."""
    return "/" in image


def check_images(needs: Iterable[StepNeeds]) -> list[str]:
    """Warnings about images, each once.

    Raises:
        ConfigError: An image is tagged `latest`, or not at all, which means the same.
    """
    warnings: dict[str, str] = {}
    for step in needs:
        image = step.image
        if image is None or image in warnings:
            continue
        if not image.strip() or (not has_digest(image) and tag_of(image) in (None, "latest")):
            raise ConfigError(
                f"step {step.title}: image {image!r}; expected one by digest, NAME@sha256:…: `latest`, which "
                "an image without a tag means too, changes under a run that is retried. build_image.sh "
                "--push prints the digest"
            )
        if not has_digest(image):
            warnings[image] = (
                f"step {step.title}: image {image} is named by a tag, which may be moved; give it by digest, "
                "as build_image.sh --push prints it"
            )
        if not names_registry(image):
            warnings[image] = (
                f"step {step.title}: image {image} names no registry, so the cluster would look for it on "
                "Docker Hub; give the one that build_image.sh --push prints"
            )
    return list(warnings.values())

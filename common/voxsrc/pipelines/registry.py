"""Checks that Artifact Registry has the images of a run."""

from collections.abc import Iterator, Sequence

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import GcloudError, Project
from voxsrc.pipelines.images import has_digest, names_registry
from voxsrc.pipelines.needs import StepNeeds


def image_checks(needs: Sequence[StepNeeds], project: Project) -> Iterator[Check]:
    """That the images of the steps exist, where they can be looked up."""
    for image in sorted({need.image for need in needs if need.image is not None}):
        what = f"image {image}"
        host = image.partition("/")[0]
        name = image.rpartition("/")[2].partition("@")[0].partition(":")[0].removeprefix("voxsrc-")
        build = f"components/{name}/build_image.sh --push"
        if not names_registry(image):
            found = "names no registry, so the cluster would look on Docker Hub"
            remedy = f"{build}, and give the name that it prints"
            yield Check(what=what, state="missing", found=found, remedy=remedy)
        elif not host.endswith("-docker.pkg.dev"):
            found = "not in Artifact Registry: not looked up"
            yield Check(what=what, state="unknown", found=found, remedy=f"docker manifest inspect {image}")
        else:
            yield _registered(what, image, project, build)


def _registered(what: str, image: str, project: Project, build: str) -> Check:
    """That Artifact Registry has an image, which `build` makes."""
    try:
        exists = project.has_image(image)
    except GcloudError as error:
        remedy = f"gcloud artifacts docker images describe {image}"
        return Check(what=what, state="unknown", found=str(error), remedy=remedy)
    if not exists:
        return Check(what=what, state="missing", found="not in the registry", remedy=build)
    found = "exists" if has_digest(image) else "exists, but its tag may be moved: give it by digest"
    return Check(what=what, state="ok", found=found)

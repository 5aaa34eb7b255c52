"""Whether the inputs of a run exist, asked before it is submitted and with the rights of who asks.

So are the buckets of its outputs. The run may be hours old when a step first reads an input. What cannot be
asked from here is no error: the pods act as an account of their own, which may have the rights that the
caller lacks.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from voxsrc import storage
from voxsrc.config import read_yaml
from voxsrc.errors import ConfigError, CorpusError, NotFoundError, PermissionDeniedError, StorageError
from voxsrc.pipelines.arguments import OUR_PIPELINES
from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.images import names_registry
from voxsrc.pipelines.inputs import Place, recipe_places, run_places
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.package import Package
from voxsrc.storage.uri import split_bucket

# Somebody waits for the answer; a step would go on for ten minutes.
PATIENCE_S = 20
_PATIENCE = "VOXSRC_STORAGE_DEADLINE_S"
# As `voxsrc.models.stored` has it, which needs PyTorch to be imported.
MODEL_DESCRIPTION = "model.yaml"


def require_registries(package: Package, needs: Iterable[StepNeeds]) -> None:
    """Checks that the images of a pipeline of ours say from where the cluster is to pull them.

    Args:
        package: The pipeline; others may well use images of Docker Hub.
        needs: Of its steps.

    Raises:
        ConfigError: Some name no registry, as those do that our packages come with; all are named.
    """
    if package.name not in OUR_PIPELINES:
        return
    images = {need.image for need in needs if need.image is not None}
    if local := sorted(image for image in images if image.strip() and not names_registry(image)):
        noun = "the image names" if len(local) == 1 else "the images name"
        raise ConfigError(
            f"{', '.join(local)}: {noun} no registry, so "
            "that the cluster would look on Docker Hub; expected REGISTRY/NAME@sha256:…, as this prints: "
            "common/containers/build_images.sh --push --yaml >env/run/images.yaml; then give "
            "--arguments env/run/images.yaml"
        )


def require_inputs(package: Package, arguments: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Checks that the inputs exist which the arguments of a run name.

    Args:
        package: The pipeline.
        arguments: As `read_arguments` gives them.
        warn: Is told of those that could not be checked, and why.

    Raises:
        ConfigError: Some are missing; all are named, with what to do.
    """
    checks = check_inputs(package, arguments)
    unchecked: dict[str, list[str]] = defaultdict(list)
    for check in checks:
        if check.state == "unknown":
            unchecked[check.found].append(check.what)
    for reason, names in unchecked.items():
        what = "whether it exists" if len(names) == 1 else "whether they exist"
        warn(f"{', '.join(names)}: not checked {what}, as the pods' own account may see more: {reason}")
    missing = [check for check in checks if check.state == "missing"]
    if missing:
        lines = [f"  {check.what}: {check.found}; {check.remedy}" for check in missing]
        raise ConfigError(
            "nothing was submitted, as the run would fail for its arguments:\n"
            + "\n".join(lines)
            + "\n--no-input-check submits it all the same"
        )


def check_inputs(package: Package, arguments: Mapping[str, Any]) -> list[Check]:
    """One check for each place that the arguments name; an output's is that its bucket exists.

    One more for each place that is given twice, once of them for an output.

    Raises:
        ConfigError: The overrides are none, or a recipe's file is not YAML.
    """
    places = run_places(package, arguments)
    made = {place.uri.rstrip("/") for place in places if place.kind == "output"}
    lookup = _Lookup()
    with _impatient():
        checks = [lookup.check(place) for place in places]
        if places:
            overrides = str(package.effective(arguments).get("overrides", ""))
            added = recipe_places(lookup.recipe, overrides)
            checks += [lookup.check(place) for place in added if place.uri.rstrip("/") not in made]
    return [*checks, *_coinciding(places)]


class _Lookup:
    """Looks places up, until it turns out that none can be.

    Attributes:
        recipe: What the recipe's file has, if it was one and was found.
    """

    def __init__(self) -> None:
        self.recipe: Mapping[str, Any] = {}
        self._nothing_answers = ""
        self._buckets: dict[str, StorageError | None] = {}

    def check(self, place: Place) -> Check:
        """What became of one place."""
        try:
            problem = _misnamed(place)
            if problem is None:
                if self._nothing_answers:
                    return Check(what=place.parameter, state="unknown", found=self._nothing_answers)
                problem = self._absence(place)
        except (NotFoundError, CorpusError) as error:
            is_output = place.kind == "output"
            problem = (
                str(error),
                f"{'make it' if is_output else 'copy what is missing there'}, or correct the name",
            )
        except StorageError as error:
            # Of what is wrong with the name alone nothing else is the cause.
            if error.__cause__ is None and not isinstance(error, PermissionDeniedError):
                problem = str(error), "correct the name"
            else:
                # Neither credentials nor an answer: it would be waited for again and again.
                if not isinstance(error, PermissionDeniedError) or "gs://" not in str(error):
                    self._nothing_answers = str(error)
                return Check(what=place.parameter, state="unknown", found=str(error))
        if problem is None:
            return Check(what=place.parameter, state="ok", found=place.uri)
        return Check(what=place.parameter, state="missing", found=problem[0], remedy=problem[1])

    def _absence(self, place: Place) -> tuple[str, str] | None:
        """What is missing, and what to do; None if all is there."""
        uri = place.uri
        match place.kind:
            case "recipe":
                self.recipe = read_yaml(storage.read_bytes(uri).decode("utf-8", "replace"), uri)
            case "features" if not _is_finished(uri):
                return (
                    f"{uri} is no finished feature set, as it has no manifest.json",
                    "finish its extraction, or correct the name",
                )
            case "audio" if not (place.feature_set and _is_made(place.feature_set)):
                _open_audio(uri)
            case "model" if not storage.exists(storage.join(uri, MODEL_DESCRIPTION)):
                return (
                    f"{uri} is no folder of a trained model, as it has no {MODEL_DESCRIPTION}",
                    "finish its training, or correct the name (a training's model is TRAINING/model)",
                )
            case "output":
                self._look_for_bucket(uri)
            case "file" if not storage.exists(uri):
                return (
                    f"{uri} does not exist",
                    f"copy the file there, or correct the name: gcloud storage ls {storage.parent(uri)}/",
                )
        return None

    def _look_for_bucket(self, uri: str) -> None:
        """Asks once for each bucket; raises NotFoundError, or PermissionDeniedError if that is not known."""
        bucket, _ = split_bucket(uri)
        if bucket not in self._buckets:
            try:
                # of what lies there, if anything, only the answer matters
                _is_empty(uri)
                self._buckets[bucket] = None
            except (NotFoundError, PermissionDeniedError) as error:
                self._buckets[bucket] = error
        if (problem := self._buckets[bucket]) is not None:
            raise problem


def _coinciding(places: Iterable[Place]) -> Iterator[Check]:
    """Outputs that would replace each other, or an input."""
    by_uri: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        by_uri[place.uri.rstrip("/")].append(place)
    for uri, same in by_uri.items():
        if uri and len(same) > 1 and any(place.kind == "output" for place in same):
            yield Check(
                what=", ".join(place.parameter for place in same),
                state="missing",
                found=f"{uri} is given for all of them, and written to",
                remedy="give each output a place of its own",
            )


def _misnamed(place: Place) -> tuple[str, str] | None:
    """What is wrong with the name alone, and what to do; None if nothing is."""
    if not place.uri:
        return "it is empty", "give a gs:// URI"
    if storage.is_remote(place.uri):
        return None
    if place.kind == "output":
        return f"{place.uri} is a path within each pod, lost with it", "give a gs:// URI"
    path = storage.local_path(place.uri)
    return (
        f"{path} is a path of this machine, and does not exist in the cluster",
        f"copy it (gcloud storage cp --recursive {path} gs://BUCKET/) and give its gs:// URI",
    )


def _is_finished(feature_set: str) -> bool:
    from voxsrc.feature_set.manifest import MANIFEST_NAME

    return storage.exists(storage.join(feature_set, MANIFEST_NAME))


def _is_made(feature_set: str) -> bool:
    """Whether an output is a finished feature set; that its bucket is missing, its own check says."""
    try:
        return _is_finished(feature_set)
    except NotFoundError:
        return False


def _open_audio(uri: str) -> None:
    """Raises NotFoundError or CorpusError unless there is audio, by its first bytes or objects."""
    from voxsrc.sources import open_source
    from voxsrc.sources.folder import BucketFolderSource

    source = open_source(uri)
    source.close()
    # the only one that looks into the bucket no sooner than it is read
    if isinstance(source, BucketFolderSource) and _is_empty(uri):
        raise NotFoundError(f"{uri} does not exist, nor anything below it")


def _is_empty(folder: str) -> bool:
    return next(storage.list_files(folder), None) is None


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Lets storage give up sooner, unless the caller has said when."""
    if os.environ.get(_PATIENCE):
        yield
        return
    os.environ[_PATIENCE] = str(PATIENCE_S)
    try:
        yield
    finally:
        del os.environ[_PATIENCE]

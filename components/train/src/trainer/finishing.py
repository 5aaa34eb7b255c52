"""What a training leaves: the model's folder, and a report on test speakers if asked for."""

import argparse
import logging
import os

import torch

import voxsrc
from trainer.data import DeviceFeatures
from trainer.recipe import differing_keys
from trainer.training import Training, TrainingError
from trainer.validation import rows_of_trials, test_trials
from voxsrc import storage
from voxsrc.corpus import read_trials
from voxsrc.errors import NotFoundError
from voxsrc.feature_set import FeatureSet
from voxsrc.models.onnx_export import to_onnx
from voxsrc.models.stored import (
    ONNX_NAME,
    ModelDescription,
    load_model,
    read_description,
    save_model,
)

_log = logging.getLogger("trainer")


def finished_model(model_uri: str, training: Training) -> bool:
    """Whether the model is there already.

    Raises:
        TrainingError: If it is the model of another recipe or of other features.
    """
    try:
        description = read_description(model_uri)
    except NotFoundError:
        return False
    different = differing_keys(dict(description.recipe), training.recipe.to_mapping())
    stored = description.provenance.get("features_sha256")
    if stored != training.state.identity["features_sha256"]:
        different.append(f"features: {description.provenance.get('features')} → {training.features_uri}")
    if different:
        raise TrainingError(
            f"{model_uri} is the model of another training: {'; '.join(different)}; choose another --output"
        )
    return True


def write_outputs(model_uri: str, training: Training, *, stopped_early: bool) -> None:
    """Writes the ONNX form, then weights and description: the description makes the model finished."""
    state, recipe, features = training.state, training.recipe, training.features
    encoder = state.encoder.cpu().to(memory_format=torch.contiguous_format).eval()
    rows = training.history.rows
    if recipe.onnx != "none":
        onnx = to_onnx(encoder, features.manifest.spec, recipe.onnx)
        storage.write_bytes(storage.join(model_uri, ONNX_NAME), onnx)
    metrics = {"steps": rows[-1]["step"], "stopped_early": stopped_early}
    for name in ("loss", "accuracy", "validation_eer"):
        last = next((row[name] for row in reversed(rows) if name in row), None)
        if last is not None:
            metrics[name] = last
    if state.progress.best_eer is not None:
        metrics["best_validation_eer"] = state.progress.best_eer
    description = ModelDescription(
        encoder=recipe.encoder,
        spec=features.manifest.spec,
        recipe=recipe.to_mapping(),
        metrics=metrics,
        provenance={
            **{name: value for name, value in state.identity.items() if name != "recipe"},
            "features": training.features_uri,
            "voxsrc_version": voxsrc.__version__,
            "commit": os.environ.get("VOXSRC_COMMIT", ""),
        },
    )
    save_model(model_uri, encoder, description)


def check_test(parsed: argparse.Namespace, training: Training) -> None:
    """Finds before a long training what would spoil the report after it.

    Raises:
        FeatureSetError: If the test features were made with another spec than the training features.
        CorpusError: If the trials cannot be scored with them.
        StorageError: If they cannot be read.
    """
    if parsed.test_trials is None:
        return
    index = FeatureSet.open(parsed.test_features, spec=training.features.manifest.spec).index
    rows = rows_of_trials(
        read_trials(parsed.test_trials), index, parsed.test_trials, training.state.encoder.min_frames
    )
    seen = {index.speaker_ids[row] for row in rows.values()} & set(training.features.index.speaker_ids)
    if seen and training.world.is_first:
        _log.warning(
            "%d of the test speakers are in the training features, too, the first is %s: the test EER says "
            "little about strangers",
            len(seen),
            min(seen),
        )


def report_test(parsed: argparse.Namespace, model_uri: str, device: torch.device) -> None:
    """Prints the EER on test trials, if they were given, and hands all figures to Kubeflow, if it asks."""
    metrics = {name: float(value) for name, value in read_description(model_uri).metrics.items()}
    if parsed.test_trials is not None:
        model = load_model(model_uri, device)
        features = DeviceFeatures.open(parsed.test_features, device, spec=model.description.spec)
        result = test_trials(model.encoder, features, read_trials(parsed.test_trials), parsed.test_trials)
        print(
            f"test EER {100 * result.equal_error_rate:.2f} % (95 % interval over speakers "
            f"{100 * result.low:.2f} to {100 * result.high:.2f}), {result.num_trials:,} trials"
        )
        metrics["test_eer"] = result.equal_error_rate
    if parsed.executor_input:
        from voxsrc.kfp_output import write_executor_output

        write_executor_output(parsed.executor_input, metrics={"metrics": metrics})

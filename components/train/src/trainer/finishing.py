"""What a training leaves: the model's folder."""

import os
from dataclasses import replace
from typing import Any

import torch

import voxsrc
from trainer.calibrating import fitted_calibration
from trainer.errors import TrainingError
from trainer.recipe import Recipe, differing_keys
from trainer.training import Training
from voxsrc import storage
from voxsrc.errors import NotFoundError
from voxsrc.models.onnx_export import to_onnx
from voxsrc.models.stored import (
    ONNX_NAME,
    ModelDescription,
    load_model,
    read_description,
    save_model,
    write_description,
)


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
    stored, identity = description.provenance, training.state.identity
    if stored.get("features_sha256") != identity["features_sha256"]:
        different.append(f"features: {stored.get('features')} → {training.features_uri}")
    for name in ("noise_sha256", "music_sha256", "initial_model"):
        if stored.get(name) != identity.get(name):
            different.append(f"{name}: {stored.get(name)} → {identity.get(name)}")
    if different:
        raise TrainingError(
            f"{model_uri} is the model of another training: {'; '.join(different)}; choose another --output"
        )
    return True


def write_outputs(model_uri: str, training: Training, *, weights_step: int) -> None:
    """Writes the ONNX form, then weights and description: the description makes the model finished.

    Args:
        model_uri: The model's folder.
        training: It has ended.
        weights_step: The number of steps after which the weights were as they are now.
    """
    state, recipe, features = training.state, training.recipe, training.features
    calibration = fitted_calibration(state.encoder, features, training.validation)
    encoder = state.encoder.cpu().to(memory_format=torch.contiguous_format).eval()
    rows = [row for row in training.history.rows if row["step"] <= weights_step]
    if recipe.onnx != "none":
        onnx = to_onnx(encoder, features.manifest.spec, recipe.onnx)
        storage.write_bytes(storage.join(model_uri, ONNX_NAME), onnx)
    metrics: dict[str, Any] = {"steps": weights_step, "stopped_early": state.progress.stopped_early}
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
        calibration=calibration.to_dict() if calibration is not None else None,
    )
    save_model(model_uri, encoder, description)


def renew_onnx(model_uri: str, recipe: Recipe) -> bool:
    """Writes a finished model's ONNX form from its stored weights, if the recipe asks for another one.

    Args:
        model_uri: The model's folder.
        recipe: That of the model, but for what may change.

    Returns:
        Whether there was one to write.
    """
    description = read_description(model_uri)
    if recipe.onnx == "none" or recipe.onnx == description.recipe.get("onnx"):
        return False
    encoder = load_model(model_uri).encoder
    storage.write_bytes(storage.join(model_uri, ONNX_NAME), to_onnx(encoder, description.spec, recipe.onnx))
    recipe_now = {**description.recipe, "onnx": recipe.onnx}
    write_description(model_uri, replace(description, recipe=recipe_now))
    return True


def report(executor_input: str | None, model_uri: str) -> None:
    """Hands the model's figures to Kubeflow, if it asks for them."""
    if executor_input:
        from voxsrc.kfp_output import write_executor_output

        metrics = {name: float(value) for name, value in read_description(model_uri).metrics.items()}
        write_executor_output(executor_input, metrics={"metrics": metrics})

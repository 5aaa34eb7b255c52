"""A trained model as a folder: `model.safetensors`, `model.yaml`, `model.onnx`.

`model.yaml` has all that another program needs to use the weights: the encoder's architecture, the features'
specification, and where it came from. Equal trainings give equal bytes: nothing in it tells the time.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch

from voxsrc import storage
from voxsrc.config import read_yaml, write_yaml
from voxsrc.errors import ConfigError, NotFoundError, StorageError, VoxsrcError
from voxsrc.features import FbankSpec
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder

FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.yaml"
ONNX_NAME = "model.onnx"

# Below the output of a training.
_MODEL_FOLDER = "model"
_CHECKPOINTS = "checkpoints/latest.json"


class ModelError(VoxsrcError):
    """A stored model is damaged, of another version, or does not fit the features."""


@dataclass(frozen=True)
class ModelDescription:
    """What `model.yaml` says.

    Attributes:
        encoder: The architecture.
        spec: The features that it was trained on, and needs.
        recipe: The resolved recipe of its training.
        metrics: Figures of its training, such as the validation EER.
        provenance: Training set, seed, code version.
        calibration: From cosine scores to log-likelihood ratios, with what it was fitted on; None for a model
            that has none.
    """

    encoder: EncoderConfig
    spec: FbankSpec
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class StoredModel:
    """A model read from its folder, in evaluation mode.

    Attributes:
        encoder: The network.
        description: What `model.yaml` says.
        model_hash: SHA-256 of weights and architecture, hexadecimal: equal for equal embeddings.
    """

    encoder: SpeakerEncoder
    description: ModelDescription
    model_hash: str

    def check_spec(self, spec: FbankSpec, features_uri: str) -> None:
        """Raises ModelError, naming the fields that differ, if features of `spec` do not fit the model."""
        if different := spec.differences(self.description.spec):
            raise ModelError(
                f"{features_uri} has other features than the model was trained on: {different}; extract them "
                "with the model's preset"
            )


def save_model(uri: str, encoder: SpeakerEncoder, description: ModelDescription) -> None:
    """Writes weights, then the description that makes the folder a model; the ONNX form is separate."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    storage.write_bytes(storage.join(uri, WEIGHTS_NAME), safetensors.torch.save(weights))
    write_description(uri, description)


def write_description(uri: str, description: ModelDescription) -> None:
    """Writes `model.yaml` beside weights that are there already."""
    fields = {
        "format_version": FORMAT_VERSION,
        "encoder": description.encoder.to_dict(),
        "fbank_spec": description.spec.to_dict(),
        "fbank_spec_hash": description.spec.hash,
        "recipe": dict(description.recipe),
        "metrics": dict(description.metrics),
        "provenance": dict(description.provenance),
    }
    if description.calibration is not None:
        fields["calibration"] = dict(description.calibration)
    storage.write_bytes(storage.join(uri, DESCRIPTION_NAME), write_yaml(fields).encode())


def read_description(uri: str) -> ModelDescription:
    """The description of the model at `uri`.

    Raises:
        NotFoundError: If there is none; says where a training has one, if `uri` is its output.
        ModelError: If it is of another format version or lacks a part.
    """
    description_uri = storage.join(uri, DESCRIPTION_NAME)
    try:
        content = storage.read_bytes(description_uri)
    except NotFoundError as error:
        if place := _place_in_training(uri):
            raise NotFoundError(f"{description_uri}: does not exist; {place}") from error
        raise
    fields = read_yaml(content.decode(), description_uri)
    if fields.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{description_uri}: format version {fields.get('format_version')}; "
            f"this program reads {FORMAT_VERSION}"
        )
    calibration = fields.get("calibration")
    if not isinstance(calibration, Mapping | None):
        raise ModelError(
            f"{description_uri}: calibration is {calibration!r}; expected a mapping, or no such key"
        )
    try:
        return ModelDescription(
            encoder=EncoderConfig.from_dict(fields["encoder"], "encoder"),
            spec=FbankSpec.from_dict(fields["fbank_spec"], "fbank_spec"),
            recipe=fields["recipe"],
            metrics=fields["metrics"],
            provenance=fields["provenance"],
            calibration=calibration,
        )
    except KeyError as error:
        raise ModelError(f"{description_uri}: has no {error}; it is not a whole description") from error
    except ConfigError as error:
        raise ModelError(f"{description_uri}: {error}") from error


def _place_in_training(uri: str) -> str:
    """Where the model of a training is, if `uri` is its output or has no model yet; otherwise empty."""
    is_model_folder = storage.name(uri) == _MODEL_FOLDER
    output_uri = storage.parent(uri) if is_model_folder else uri
    model_uri = storage.join(output_uri, _MODEL_FOLDER)
    try:
        if not is_model_folder and storage.exists(storage.join(model_uri, DESCRIPTION_NAME)):
            return f"did you mean {model_uri}?"
        if storage.exists(storage.join(output_uri, _CHECKPOINTS)):
            exported = storage.join(output_uri, "exported")
            return (
                "the training has not finished: its command with --export newest (or best) writes the model "
                f"of that checkpoint below {exported}"
            )
    except StorageError:
        return ""  # who may not look around is told what is missing
    return ""


def load_model(uri: str) -> StoredModel:
    """The model at `uri`, on the CPU, in evaluation mode.

    Raises:
        NotFoundError: If it is not there.
        ModelError: If it is damaged.
    """
    description = read_description(uri)
    encoder = SpeakerEncoder(description.encoder)
    weights_uri = storage.join(uri, WEIGHTS_NAME)
    weights = storage.read_bytes(weights_uri)
    try:
        encoder.load_state_dict(safetensors.torch.load(weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{weights_uri}: not the weights that {DESCRIPTION_NAME} describes ({error})"
        ) from error
    return StoredModel(encoder.eval(), description, _model_hash(weights, description.encoder))


def _model_hash(weights: bytes, config: EncoderConfig) -> str:
    architecture = json.dumps(config.to_dict(), sort_keys=True)
    return hashlib.sha256(hashlib.sha256(weights).digest() + architecture.encode()).hexdigest()

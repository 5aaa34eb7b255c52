"""A trained model as a folder: `model.safetensors`, `model.yaml`, `model.onnx`.

`model.yaml` has all that another program needs to use the weights: the encoder's architecture, the features'
specification, and where it came from. Equal trainings give equal bytes: nothing in it tells the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch

from voxsrc import storage
from voxsrc.config import read_yaml, write_yaml
from voxsrc.errors import ConfigError, VoxsrcError
from voxsrc.features import FbankSpec
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder

FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.yaml"
ONNX_NAME = "model.onnx"


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
    """

    encoder: EncoderConfig
    spec: FbankSpec
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class StoredModel:
    """A model read from its folder, in evaluation mode."""

    encoder: SpeakerEncoder
    description: ModelDescription

    def check_spec(self, spec: FbankSpec, features_uri: str) -> None:
        """Raises ModelError, naming the fields that differ, if features of `spec` do not fit the model."""
        ours, theirs = self.description.spec.to_dict(), spec.to_dict()
        different = [
            f"{name} {theirs[name]} (the model's: {ours[name]})"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if different:
            raise ModelError(
                f"{features_uri} has other features than the model was trained on: {', '.join(different)}; "
                "extract them with the model's preset"
            )


def save_model(uri: str, encoder: SpeakerEncoder, description: ModelDescription) -> None:
    """Writes weights, then the description that makes the folder a model; the ONNX form is separate."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    storage.write_bytes(storage.join(uri, WEIGHTS_NAME), safetensors.torch.save(weights))
    fields = {
        "format_version": FORMAT_VERSION,
        "encoder": description.encoder.to_dict(),
        "fbank_spec": description.spec.to_dict(),
        "fbank_spec_hash": description.spec.hash,
        "recipe": dict(description.recipe),
        "metrics": dict(description.metrics),
        "provenance": dict(description.provenance),
    }
    storage.write_bytes(storage.join(uri, DESCRIPTION_NAME), write_yaml(fields).encode())


def read_description(uri: str) -> ModelDescription:
    """The description of the model at `uri`.

    Raises:
        NotFoundError: If there is none.
        ModelError: If it is of another format version or lacks a part.
    """
    description_uri = storage.join(uri, DESCRIPTION_NAME)
    fields = read_yaml(storage.read_bytes(description_uri).decode(), description_uri)
    if fields.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{description_uri}: format version {fields.get('format_version')}; "
            f"this program reads {FORMAT_VERSION}"
        )
    try:
        return ModelDescription(
            encoder=EncoderConfig.from_dict(fields["encoder"], "encoder"),
            spec=FbankSpec.from_dict(fields["fbank_spec"]),
            recipe=fields["recipe"],
            metrics=fields["metrics"],
            provenance=fields["provenance"],
        )
    except KeyError as error:
        raise ModelError(f"{description_uri}: has no {error}; it is not a whole description") from error
    except ConfigError as error:
        raise ModelError(f"{description_uri}: {error}") from error


def load_model(uri: str, device: str | torch.device = "cpu") -> StoredModel:
    """The model at `uri`, on a device, in evaluation mode.

    Raises:
        NotFoundError: If it is not there.
        ModelError: If it is damaged.
    """
    description = read_description(uri)
    encoder = SpeakerEncoder(description.encoder)
    weights_uri = storage.join(uri, WEIGHTS_NAME)
    try:
        encoder.load_state_dict(safetensors.torch.load(storage.read_bytes(weights_uri)))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{weights_uri}: not the weights that {DESCRIPTION_NAME} describes ({error})"
        ) from error
    return StoredModel(encoder.to(device).eval(), description)

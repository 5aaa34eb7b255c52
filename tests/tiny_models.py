"""Stored models that are tiny and untrained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from voxsrc.features import FbankSpec
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder
from voxsrc.models.stored import ModelDescription, StoredModel, load_model, save_model

EMBEDDING_DIM = 8


def make_model(
    uri: str | Path,
    *,
    seed: int = 0,
    spec: FbankSpec | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> StoredModel:
    """Writes a ResNet_mini of a few channels to a folder, and loads it."""
    spec = spec or FbankSpec()
    config = EncoderConfig(
        name="ResNet_mini",
        num_mels=spec.num_mels,
        embedding_dim=EMBEDDING_DIM,
        options={"channels": [2, 2, 4, 4], "se_reduction": 2},
    )
    torch.manual_seed(seed)
    encoder = SpeakerEncoder(config)
    with torch.no_grad():
        # Statistics and scales that are not those of a new network.
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        encoder(3 * torch.randn(8, spec.num_mels, 60))
    description = ModelDescription(config, spec, {}, {}, {}, calibration)
    save_model(str(uri), encoder, description)
    return load_model(str(uri))

"""The models by name, each with the sizes and the source that it is known by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxsrc.config import from_mapping, suggestion, to_mapping
from voxsrc.errors import ConfigError
from voxsrc.models.base import EmbeddingModel
from voxsrc.models.ecapa_tdnn import EcapaTdnn, EcapaTdnnConfig
from voxsrc.models.resnet import (
    RESNET_34,
    RESNET_MINI,
    RESNET_SE_34_L,
    RESNET_SE_34_V2,
    ResNet,
    ResNetConfig,
)
from voxsrc.models.vggvox import VggVox, VggVoxConfig

ModelConfig = ResNetConfig | VggVoxConfig | EcapaTdnnConfig


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that recipes name.

    Attributes:
        config: Its architecture.
        num_mels: Mel bands that it was published with; others are possible.
        embedding_dim: Size of the published embedding, the default.
        source: Paper and code that it follows.
    """

    config: ModelConfig
    num_mels: int
    embedding_dim: int
    source: str


MODELS: dict[str, ModelEntry] = {
    "ResNetSE34L": ModelEntry(
        config=RESNET_SE_34_L, num_mels=40, embedding_dim=512, source="arXiv:2003.11982, voxceleb_trainer"
    ),
    "ResNetSE34V2": ModelEntry(
        config=RESNET_SE_34_V2, num_mels=64, embedding_dim=512, source="arXiv:2009.14153, voxceleb_trainer"
    ),
    "VGGVox": ModelEntry(
        config=VggVoxConfig(), num_mels=40, embedding_dim=512, source="arXiv:1706.08612, voxceleb_trainer"
    ),
    "ResNet34": ModelEntry(
        config=RESNET_34, num_mels=80, embedding_dim=256, source="arXiv:1910.12592, WeSpeaker"
    ),
    "ECAPA_TDNN_512": ModelEntry(
        config=EcapaTdnnConfig(), num_mels=80, embedding_dim=192, source="arXiv:2005.07143, WeSpeaker"
    ),
    "ECAPA_TDNN_1024": ModelEntry(
        config=EcapaTdnnConfig(channels=1024),
        num_mels=80,
        embedding_dim=192,
        source="arXiv:2005.07143, WeSpeaker",
    ),
    "ResNet_mini": ModelEntry(
        config=RESNET_MINI, num_mels=40, embedding_dim=128, source="this project, for tests and the demo"
    ),
}


def build_model(
    name: str, *, num_mels: int, embedding_dim: int | None = None, **options: Any
) -> EmbeddingModel:
    """A new model with random weights from torch's global generator.

    Args:
        name: A key of `MODELS`.
        num_mels: Mel bands F of the input.
        embedding_dim: Size D of the embedding; None is the published one.
        **options: Fields of the model's config to change, such as `channels` or `pooling`.

    Raises:
        ConfigError: On an unknown name or option, or sizes that the model cannot have.
    """
    config = model_config(name, options)
    if embedding_dim is None:
        embedding_dim = MODELS[name].embedding_dim
    match config:
        case ResNetConfig():
            return ResNet(config, num_mels=num_mels, embedding_dim=embedding_dim)
        case VggVoxConfig():
            return VggVox(config, num_mels=num_mels, embedding_dim=embedding_dim)
        case EcapaTdnnConfig():
            return EcapaTdnn(config, num_mels=num_mels, embedding_dim=embedding_dim)


def model_config(name: str, options: Mapping[str, Any]) -> ModelConfig:
    """The architecture of a registered model with some fields replaced.

    Raises:
        ConfigError: On an unknown name or option, or a value that cannot be built.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}: {suggestion(name, MODELS)}")
    registered = MODELS[name].config
    return from_mapping(type(registered), {**to_mapping(registered), **options}, path="options")

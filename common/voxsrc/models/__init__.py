"""Speaker-embedding models by name: `build_model("ResNetSE34L", num_mels=40)`.

`registry` lists them, `encoder` puts the normalisation of features before a model, `complexity` counts
parameters and floating-point operations. Importing this package imports torch.
"""

from voxsrc.models.base import EmbeddingModel
from voxsrc.models.registry import MODELS, ModelEntry, build_model

__all__ = ["MODELS", "EmbeddingModel", "ModelEntry", "build_model"]

"""Speaker embeddings of whole utterances or of crops, from features or straight from audio, cached.

`embeddings` holds them (NumPy alone), `stored` writes and reads them, `embedder` computes them (and imports
torch), `opening` opens feature sets for it, `cache` lets a killed run go on.
"""

from voxsrc.embedding.embeddings import CROPS, WHOLE_UTTERANCES, EmbeddingError, EmbeddingMode, Embeddings

__all__ = ["CROPS", "WHOLE_UTTERANCES", "EmbeddingError", "EmbeddingMode", "Embeddings"]

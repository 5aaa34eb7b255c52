"""Feature sets, opened as the device that embeds them wants. Importing this module imports torch."""

import logging

from voxsrc.device import chosen_device
from voxsrc.errors import NotFoundError, StorageError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec

_log = logging.getLogger(__name__)


def open_for_embedding(uri: str, device: str, *, spec: FbankSpec | None = None) -> FeatureSet:
    """Opens a finished feature set so that `Embedder.embed_set` gets batches that suit the device.

    A GPU wants large batches of one length, thus utterances in the order of their lengths: the set is decoded
    once into a cache file and mapped. A CPU is as fast with a shard at a time, which needs no disk; so is a
    set opened for a GPU where the cache file cannot be written, with a warning that it is slow.

    Args:
        uri: The set's folder, local or gs://.
        device: Of the embedder: `auto`, `cpu`, `cuda` or `cuda:N`.
        spec: If given, the set must have been made with this spec.

    Raises:
        ConfigError: If there is no such device.
        NotFoundError: If there is no finished set.
        FeatureSetError: If it is damaged, or made with another spec.
        StorageError: If it cannot be read.
    """
    if chosen_device(device).type == "cpu":
        return FeatureSet.open(uri, "by_shard", spec=spec)
    try:
        return FeatureSet.open(uri, "mmap", spec=spec)
    except NotFoundError:
        raise
    except (StorageError, OSError) as error:
        _log.warning("%s; its utterances are embedded shard by shard, which is slow on a GPU", error)
        return FeatureSet.open(uri, "by_shard", spec=spec)

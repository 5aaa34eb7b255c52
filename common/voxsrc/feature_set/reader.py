"""Reading a feature set: one utterance, random crops, or all frames as one array.

Letters: N utterances, B crops, T frames, F mel bands.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from voxsrc import storage
from voxsrc.cores import cpu_count
from voxsrc.errors import ConfigError, FeatureSetError
from voxsrc.feature_set.cache import open_decoded
from voxsrc.feature_set.encoding import Float32Array, Uint8Array
from voxsrc.feature_set.index import UtteranceIndex, index_from_parquet
from voxsrc.feature_set.manifest import Manifest, read_manifest, read_verified
from voxsrc.feature_set.shard import decode_shard, empty_levels
from voxsrc.features import FbankSpec

if TYPE_CHECKING:
    import torch

Mode = Literal["by_shard", "ram", "mmap"]

_SHARDS_KEPT = 4
# So many crops at a time pass from bytes to floats: their 1 MB stays in the L2 cache between the steps.
_CROPS_AT_A_TIME = 16


class FeatureSet:
    """A finished feature set, opened for reading.

    Open one with `FeatureSet.open`.

    Attributes:
        uri: Where it is.
        manifest: What it is.
        index: Its utterances.
        mode: How its frames are held, see `open`.

    Example:
        >>> features = FeatureSet.open("gs://bucket/vox2-dev", mode="ram")
        >>> features.read(features.index.utterance_ids[0]).shape
        (612, 40)
    """

    def __init__(self, uri: str, manifest: Manifest, index: UtteranceIndex, mode: Mode) -> None:
        self.uri = uri
        self.manifest = manifest
        self.index = index
        self.mode = mode
        self._frames: Uint8Array | None = None
        self._cache_file: BinaryIO | None = None
        self._recent_shards: OrderedDict[int, Uint8Array] = OrderedDict()

    @classmethod
    def open(
        cls,
        uri: str,
        mode: Mode = "by_shard",
        *,
        spec: FbankSpec | None = None,
        cache_dir: str | None = None,
        num_threads: int | None = None,
    ) -> Self:
        """Opens the finished set at `uri`, local or in a bucket.

        Args:
            uri: The set's folder.
            mode: `by_shard` decodes a shard when an utterance of it is read and keeps the last four;
                `ram` decodes all frames into memory; `mmap` decodes them once into a cache file, which
                all processes of the machine share, and from then on maps it without reading it.
            spec: If given, the set must have been made with this spec.
            cache_dir: Folder of cache files for `mmap`; by default $VOXSRC_CACHE, else ~/.cache/voxsrc.
            num_threads: Threads that decode; by default one for each core that this process may use.

        Raises:
            NotFoundError: If there is no finished set.
            FeatureSetError: If it is damaged, or made with another spec.
            StorageError: If it cannot be read, or the cache file cannot be made.
        """
        if mode not in ("by_shard", "ram", "mmap"):
            raise ConfigError(f"mode {mode!r}; expected by_shard, ram or mmap")
        manifest = read_manifest(uri)
        if spec is not None and spec.hash != manifest.spec.hash:
            raise FeatureSetError(
                f"{uri} has other features than asked for: {manifest.spec.differences(spec)}"
            )
        index_content = read_verified(uri, manifest.index)
        try:
            index = index_from_parquet(index_content, [shard.num_frames for shard in manifest.shards])
        except FeatureSetError as error:
            raise FeatureSetError(f"{storage.join(uri, manifest.index.name)}: {error}") from error
        opened = cls(uri, manifest, index, mode)
        threads = num_threads or cpu_count()
        if mode == "ram":
            opened._frames = empty_levels(*opened.shape)
            opened._decode_all(opened._frames, threads)
        elif mode == "mmap":
            opened._frames = opened._mapped(cache_dir, threads)
        return opened

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """Frames of the whole set, mel bands."""
        return self.manifest.num_frames, self.manifest.spec.num_mels

    @property
    def frames(self) -> Uint8Array:
        """All frames, (T, F) uint8, in the order of `index`; for the modes `ram` and `mmap`.

        Raises:
            ConfigError: In the mode `by_shard`.
        """
        if self._frames is None:
            raise ConfigError(f"{self.uri} is open by shard; open it with mode='ram' or mode='mmap'")
        return self._frames

    def row(self, utterance_id: str) -> int:
        """The utterance's row in `index`.

        Raises:
            FeatureSetError: If the set does not have it, or has several utterances of one id.
        """
        try:
            return self._rows[utterance_id]
        except KeyError:
            raise FeatureSetError(f"{self.uri} has no utterance {utterance_id!r}") from None

    def read(self, utterance_id: str) -> Float32Array:
        """The log-mel features of one utterance, (T, F) float32, in nat, not normalised.

        Raises:
            FeatureSetError: If the set does not have it, or its shard is damaged.
        """
        row = self.row(utterance_id)
        first, count = int(self.index.first_frames[row]), int(self.index.num_frames[row])
        if self._frames is not None:
            levels = self._frames[first : first + count]
        else:
            shard = int(self.index.shards[row])
            first -= self._shard_starts[shard]
            levels = self._shard(shard)[first : first + count]
        return self.manifest.encoding.dequantise(levels)

    def __iter__(self) -> Iterator[tuple[str, Float32Array]]:
        """Every utterance's id and features, in the order of `index`."""
        for utterance_id in self.index.utterance_ids:
            yield utterance_id, self.read(utterance_id)

    def crops(
        self,
        first_frames: Sequence[int] | NDArray[np.int64],
        num_frames: int,
        out: Float32Array | None = None,
    ) -> Float32Array:
        """Windows of the whole set's frames as NumPy arrays; for the modes `ram` and `mmap`.

        The trainer gathers its own, as bytes on the device (`trainer.data.DeviceFeatures`).

        Args:
            first_frames: (B,) where each begins in the frames of the whole set (`index.first_frames`
                plus an offset). That it ends within its utterance is the caller's to see to.
            num_frames: Frames T of each.
            out: (B, T, F) float32 to write into; made if not given.

        Returns:
            (B, T, F) float32, in nat.

        Raises:
            ConfigError: If a crop begins before the first frame or ends after the last, or in the mode
                `by_shard`.
        """
        frames, first_frames = self.frames, np.asarray(first_frames)
        if (
            len(first_frames)
            and not 0 <= first_frames.min() <= first_frames.max() <= len(frames) - num_frames
        ):
            raise ConfigError(
                f"crops begin at {first_frames.min()} to {first_frames.max()}, {num_frames} frames each; "
                f"the set has {len(frames)} frames"
            )
        encoding = self.manifest.encoding
        step, offset = np.float32(encoding.step_nat), np.float32(encoding.offset_nat)
        if out is None:
            out = np.empty((len(first_frames), num_frames, frames.shape[1]), np.float32)
        for start in range(0, len(first_frames), _CROPS_AT_A_TIME):
            part = out[start : start + _CROPS_AT_A_TIME]
            for crop, first in zip(
                part, first_frames[start : start + _CROPS_AT_A_TIME].tolist(), strict=True
            ):
                crop[...] = frames[first : first + num_frames]
            part *= step
            part += offset
        return out

    def read_ahead(self, first_frames: Sequence[int] | NDArray[np.int64], num_frames: int) -> None:
        """Has the kernel fetch windows from the disk meanwhile; does nothing except for `mmap`.

        Reading a window that is not in memory waits for the disk; of windows that were asked for before,
        the disk brings many at a time.

        Args:
            first_frames: (B,) where each begins in the frames of the whole set.
            num_frames: Frames T of each.
        """
        if self._cache_file is None or not hasattr(os, "posix_fadvise"):
            return
        descriptor, width = self._cache_file.fileno(), self.shape[1]
        for begin in (np.asarray(first_frames) * width).tolist():
            os.posix_fadvise(descriptor, begin, num_frames * width, os.POSIX_FADV_WILLNEED)

    def to_torch(self, device: "str | torch.device" = "cpu") -> "torch.Tensor":
        """All frames as a uint8 tensor (T, F) on a device: 34 GB for VoxCeleb2, which one H100 holds.

        On the CPU it shares memory with `frames`; `manifest.encoding` turns bytes into nat.

        Raises:
            ConfigError: In the mode `by_shard`.
        """
        import warnings

        import torch

        with warnings.catch_warnings():
            # The memory map is read-only, and torch has no such tensors: nobody writes into features.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(self.frames).to(device)

    @cached_property
    def _rows(self) -> dict[str, int]:
        rows = {utterance_id: row for row, utterance_id in enumerate(self.index.utterance_ids)}
        if len(rows) < len(self):
            raise FeatureSetError(
                f"{self.uri} has several utterances called {self.index.duplicates()[0]}; extract it again"
            )
        return rows

    @cached_property
    def _shard_starts(self) -> list[int]:
        counts = [shard.num_frames for shard in self.manifest.shards]
        return [0, *np.cumsum(counts, dtype=np.int64).tolist()]

    def _shard(self, shard: int) -> Uint8Array:
        if shard in self._recent_shards:
            self._recent_shards.move_to_end(shard)
        else:
            levels = empty_levels(self.manifest.shards[shard].num_frames, self.shape[1])
            self._decode_into(shard, levels)
            self._recent_shards[shard] = levels
            if len(self._recent_shards) > _SHARDS_KEPT:
                self._recent_shards.popitem(last=False)
        return self._recent_shards[shard]

    def _decode_into(self, shard: int, out: Uint8Array) -> None:
        stored = self.manifest.shards[shard]
        first, last = np.searchsorted(self.index.shards, [shard, shard + 1])
        try:
            decode_shard(read_verified(self.uri, stored), self.index.num_frames[first:last], out)
        except FeatureSetError as error:
            raise FeatureSetError(f"{storage.join(self.uri, stored.name)}: {error}") from error

    def _decode_all(self, out: Uint8Array, num_threads: int) -> None:
        starts = self._shard_starts
        with ThreadPoolExecutor(num_threads) as pool:
            done = [
                pool.submit(self._decode_into, shard, out[starts[shard] : starts[shard + 1]])
                for shard in range(len(self.manifest.shards))
            ]
            try:
                for future in done:
                    future.result()
            finally:
                for future in done:
                    future.cancel()

    def _mapped(self, cache_dir: str | None, num_threads: int) -> Uint8Array:
        if 0 in self.shape:
            return np.empty(self.shape, np.uint8)
        # It stays open for `read_ahead`: advice by the mapping's addresses takes twice the time.
        self._cache_file = open_decoded(
            self.manifest.to_json(), self.shape, lambda out: self._decode_all(out, num_threads), cache_dir
        )
        mapping = mmap.mmap(self._cache_file.fileno(), 0, access=mmap.ACCESS_READ)
        # Without the advice the kernel reads a megabyte around each 8 kB crop.
        mapping.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapping, np.uint8).reshape(self.shape)

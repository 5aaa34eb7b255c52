"""The uint8 frames of a feature set on a device, and random crops of them as log-mel features.

Crops stay (B, T, F), as the frames lie in memory, through dequantisation and augmentation; the model's
(B, F, T) is a transposed view, which the first operation of the encoder's normalisation reads in place.
Transposing for real would take longer than all the rest: for 64 crops of 200 × 40 on one core 0.5 ms on
bytes or 3 ms on floats, after 0.2 ms for gathering and dequantising. Letters: B crops, T frames, F bands.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.placement import DataConfig, Placement, Room, choose_placement
from trainer.sampler import BatchPlan
from voxsrc.errors import ConfigError
from voxsrc.feature_set import FeatureSet, Manifest, read_manifest
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.features import FbankSpec


class DeviceFeatures:
    """A feature set whose frames are at hand for training on one device.

    Open one with `DeviceFeatures.open`. Threads may read from it at the same time.

    Attributes:
        index: The set's utterances.
        manifest: What the set is.
        device: Where crops are delivered.
        placement: Where the frames are: `gpu`, `ram` or `mmap`.
        summary: One line that says so, and why.
    """

    def __init__(
        self,
        index: UtteranceIndex,
        manifest: Manifest,
        frames: Tensor,
        device: torch.device,
        placement: Placement,
        summary: str = "",
        read_ahead: Callable[[NDArray[np.int64], int], None] | None = None,
    ) -> None:
        self.index = index
        self.manifest = manifest
        self.device = device
        self.placement = placement
        self.summary = summary
        self._frames = frames
        self._read_ahead = read_ahead

    @classmethod
    def open(
        cls,
        uri: str,
        device: str | torch.device = "cpu",
        config: DataConfig | None = None,
        *,
        spec: FbankSpec | None = None,
        processes_on_node: int = 1,
    ) -> "DeviceFeatures":
        """Opens the finished set at `uri`, local or in a bucket, and puts its frames where there is room.

        Args:
            uri: The set's folder.
            device: Where crops are wanted.
            config: How; by default automatic.
            spec: If given, the set must have been made with this spec.
            processes_on_node: Training processes that share this machine's memory.

        Raises:
            NotFoundError: If there is no finished set.
            FeatureSetError: If it is damaged, or made with another spec.
            StorageError: If it cannot be read, or the disk has no room for the memory map.
            ConfigError: If the placement that `config` forces has no room, or there is no such device.
        """
        config, device = config or DataConfig(), torch.device(device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"device is {device}, but torch finds no CUDA device; set device to cpu or auto"
            )
        manifest = read_manifest(uri)
        num_bytes = manifest.num_frames * manifest.spec.num_mels
        room = Room.of(device, processes_on_node)
        placement, why = choose_placement(config, num_bytes, device, room)
        # Frames for the GPU pass through RAM, or through the memory map if there is not enough.
        in_ram = placement == "ram" or (placement == "gpu" and num_bytes <= room.ram)
        features = FeatureSet.open(uri, "ram" if in_ram else "mmap", spec=spec, cache_dir=config.cache_dir)
        summary = (
            f"{uri}: {manifest.num_utterances:,} utterances, {num_bytes / 1e9:.3g} GB of frames in "
            f"{_WORDS[placement]} ({why})"
        )
        frames = features.to_torch(device if placement == "gpu" else "cpu")
        ahead = features.read_ahead if placement == "mmap" else None
        return cls(features.index, features.manifest, frames, device, placement, summary, ahead)

    @property
    def reads_ahead(self) -> bool:
        """Whether `read_ahead` does anything: for a memory map."""
        return self._read_ahead is not None

    def read_ahead(self, plan: BatchPlan) -> None:
        """Has a memory map's crops of a later batch fetched from the disk meanwhile."""
        if self._read_ahead is not None:
            self._read_ahead(plan.first_frames, plan.crop_frames)

    def levels(self, rows: NDArray[np.int64], first_frames: NDArray[np.int64], num_frames: int) -> Tensor:
        """The bytes of crops; a crop that reaches its utterance's end goes on at its beginning.

        Args:
            rows: (B,) the utterances' rows in `index`.
            first_frames: (B,) where each crop begins in the frames of the whole set.
            num_frames: Frames T of each.

        Returns:
            (B, T, F) uint8 on the device; from RAM or a memory map the copy there is still under way, in
            the order of the device's current stream.
        """
        begins, lengths = self.index.first_frames[rows], self.index.num_frames[rows]
        wraps = bool((first_frames + num_frames > begins + lengths).any())
        if not wraps and self._frames.device.type == "cpu" and num_frames <= len(self._frames):
            source, indices = _windows(self._frames, num_frames), torch.from_numpy(first_frames)
        else:
            places = torch.from_numpy(np.stack([first_frames, begins, lengths]) if wraps else first_frames)
            indices = _frame_indices(places.to(self._frames.device), num_frames).view(-1)
            source = self._frames
        return self._collected(source, indices, (len(rows), num_frames, self._frames.shape[1]))

    def dequantise(self, levels: Tensor) -> Tensor:
        """Bytes of any shape as float32 in nat; the same bits as `Encoding.dequantise` gives."""
        encoding = self.manifest.encoding
        return levels.float().mul_(encoding.step_nat).add_(encoding.offset_nat)

    def utterance(self, row: int) -> Tensor:
        """All frames of one utterance, (T, F) float32 on the device, in nat."""
        first = int(self.index.first_frames[row])
        levels = self._frames[first : first + int(self.index.num_frames[row])]
        return self.dequantise(levels.to(self.device))

    def _collected(self, source: Tensor, indices: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Rows of `source`, whole crops or single frames, as (B, T, F) on the device."""
        if self.placement == "gpu":
            return source.index_select(0, indices).view(shape)
        # Pinned memory comes from torch's cache, which gives it out again only when its copy is done.
        levels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        rows = levels.view(len(indices), source.shape[1])
        torch.index_select(source, 0, indices, out=rows)
        return levels.to(self.device, non_blocking=True)


_WORDS: dict[Placement, str] = {"gpu": "GPU memory", "ram": "RAM", "mmap": "a memory map"}


def _windows(frames_TF: Tensor, num_frames: int) -> Tensor:
    """Every window of `num_frames` frames as one row of a view: a crop is then one copy."""
    total, num_mels = frames_TF.shape
    return frames_TF.as_strided((total - num_frames + 1, num_frames * num_mels), (num_mels, 1))


def _frame_indices(places: Tensor, num_frames: int) -> Tensor:
    """(B, T) frames of crops that begin at (B,) or loop: (3, B) of crop, utterance, utterance's length."""
    counts = torch.arange(num_frames, device=places.device)
    if places.dim() == 1:
        return places[:, None] + counts
    firsts, begins, lengths = places[:, :, None]
    indices: Tensor = begins + (firsts - begins + counts) % lengths
    return indices

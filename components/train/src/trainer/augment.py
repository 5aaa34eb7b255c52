"""Augmentation of a batch: drawn on the CPU by (seed, step), applied on the device.

The draws of a sample depend on the seed, the step and its place in the whole batch, not on the process
that loads it. Each kind has its own stream of random numbers: turning one on leaves the parameters that
others draw as they are. Letters: B crops of a share of the batch, V voices, T frames, F mel bands, n crops
with one kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer import effects
from trainer.augment_config import ENVIRONMENTS, AugmentConfig, SpecAugmentConfig
from trainer.data import DeviceFeatures
from trainer.noise import Babble, NoiseSource, Recordings
from trainer.placement import DataConfig
from trainer.sampler import BatchPlan
from trainer.utterances import TrainingUtterances
from voxsrc.randomness import RandomStream, between, integers_below

_ADDITIVE = ("noise", "music", "babble")
_INDEPENDENT = ("gain", "gaussian", "spec_augment")
# Frames of Gaussian noise that are made once; a crop takes a window of them that begins anywhere.
_GAUSSIAN_FRAMES = 1 << 16

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draw:
    """What one kind of augmentation does to a share of a batch.

    Attributes:
        samples: (n,) places in the share.
        parameters: By name, (n, …) float32 or int64.
        crops: (n, V) rows and first frames of what is added, for the additive kinds.
    """

    samples: IntArray
    parameters: Mapping[str, FloatArray | IntArray]
    crops: tuple[IntArray, IntArray] | None = None


@dataclass(frozen=True, eq=False)
class PreparedDraw:
    """A `Draw` on the device, with the bytes (n·V, T, F) of what it adds."""

    samples: Tensor
    parameters: Mapping[str, Tensor]
    levels: Tensor | None = None


class Augmenter:
    """Augments the crops of one feature set.

    Args:
        config: What to do.
        features: The training features.
        sources: Where the additive kinds that have a probability find their crops, by kind.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        config: AugmentConfig,
        features: DeviceFeatures,
        sources: Mapping[str, NoiseSource],
        *,
        seed: int,
    ) -> None:
        self.config = config
        self._spec = features.manifest.spec
        self._device = features.device
        self._sources = sources
        kinds = (*ENVIRONMENTS, *_INDEPENDENT)
        self._choices = {kind: RandomStream(seed, f"augment/{kind}/chosen") for kind in ("any", *kinds)}
        self._streams = {kind: RandomStream(seed, f"augment/{kind}") for kind in kinds}
        if config.gaussian.probability > 0:
            shape = (_GAUSSIAN_FRAMES, self._spec.num_mels)
            normals = RandomStream(seed, "augment/gaussian/values").normals(0, shape)
            self._normals = torch.from_numpy(normals).to(self._device)

    @classmethod
    def open(
        cls,
        config: AugmentConfig,
        features: DeviceFeatures,
        utterances: TrainingUtterances,
        *,
        seed: int,
        data: DataConfig | None = None,
        processes_on_node: int = 1,
    ) -> "Augmenter":
        """Opens the feature sets that `config` names.

        Args:
            config: What to do.
            features: The training features.
            utterances: Those that are trained on, and that babble is made of.
            seed: Seed of all draws.
            data: Where to hold the frames of noise and music.
            processes_on_node: Training processes that share this machine's memory.

        Raises:
            FeatureSetError: If a set was made with another spec than the training features.
            ConfigError: If a set is empty, or there is no other speaker for babble.
        """
        sources: dict[str, NoiseSource] = {}
        for kind, chosen in (("noise", config.noise), ("music", config.music)):
            if chosen.probability > 0 and chosen.features is not None:
                sources[kind] = Recordings.open(
                    chosen.features,
                    features.device,
                    data or DataConfig(),
                    spec=features.manifest.spec,
                    key=f"augment.{kind}.features",
                    processes_on_node=processes_on_node,
                )
        if config.babble.probability > 0:
            sources["babble"] = Babble(features, utterances, config.babble.num_voices)
        return cls(config, features, sources, seed=seed)

    def draw(self, plan: BatchPlan) -> dict[str, Draw]:
        """What is done to the crops of `plan`, by kind; kinds without a sample are left out."""
        drawn = {}
        for kind, samples in self._chosen(plan).items():
            if len(samples):
                drawn[kind] = self._draw_kind(kind, plan, samples)
        return drawn

    def prepare(self, draws: Mapping[str, Draw], crop_frames: int) -> dict[str, PreparedDraw]:
        """Brings draws, and the crops that they add, to the device."""
        prepared = {}
        for kind, draw in draws.items():
            levels = None
            if draw.crops is not None:
                rows, first_frames = draw.crops
                features = self._sources[kind].features
                levels = features.levels(rows.reshape(-1), first_frames.reshape(-1), crop_frames)
            prepared[kind] = PreparedDraw(
                self._to_device(draw.samples),
                {name: self._to_device(values) for name, values in draw.parameters.items()},
                levels,
            )
        return prepared

    def apply(self, features: Tensor, prepared: Mapping[str, PreparedDraw]) -> Tensor:
        """Augments log-mel crops (B, T, F) float32 on the device, in nat; overwrites and returns them."""
        for kind, draw in prepared.items():
            changed = self._changed(kind, features.index_select(0, draw.samples), draw)
            features.index_copy_(0, draw.samples, changed)
        return features

    def _chosen(self, plan: BatchPlan) -> dict[str, IntArray]:
        """Places of the samples of each kind, in the order of application."""
        chosen, low = {}, 0.0
        together = self._share(self._choices["any"], plan, 1)[:, 0]
        for kind in (*ENVIRONMENTS, *_INDEPENDENT):
            probability = self.config.probability(kind)
            if not probability:
                continue
            if self.config.combine == "one" and kind in ENVIRONMENTS:
                hit = (together >= low) & (together < low + probability)
                low += probability
            else:
                hit = self._share(self._choices[kind], plan, 1)[:, 0] < probability
            chosen[kind] = np.flatnonzero(hit)
        return chosen

    def _draw_kind(self, kind: str, plan: BatchPlan, samples: IntArray) -> Draw:
        config, stream = self.config, self._streams[kind]
        if kind in _ADDITIVE:
            source = self._sources[kind]
            uniforms = self._share(stream, plan, 1 + source.num_uniforms)[samples]
            rows, firsts, weights = source.choose(plan.labels[samples], uniforms[:, 1:], plan.crop_frames)
            snr_db = between(getattr(config, kind).snr_db, uniforms[:, 0])
            parameters = {"snr_db": _single(snr_db), "weights": _single(weights)}
            return Draw(samples, parameters, (rows, firsts))
        if kind == "reverberation":
            uniforms = self._share(stream, plan, 3)[samples]
            chosen = config.reverberation
            lowest_s = between(chosen.rt60_s, uniforms[:, 0])
            ratio = between(chosen.highest_band_ratio, uniforms[:, 1])
            ratio_db = between(chosen.direct_to_reverberant_db, uniforms[:, 2])
            heights = np.linspace(0.0, 1.0, self._spec.num_mels)
            rt60_s = lowest_s[:, None] * ratio[:, None] ** heights
            return Draw(samples, {"rt60_s": _single(rt60_s), "direct_to_reverberant_db": _single(ratio_db)})
        if kind == "gain":
            gain_db = between(config.gain.gain_db, self._share(stream, plan, 1)[samples, 0])
            return Draw(samples, {"gain_db": _single(gain_db)})
        if kind == "gaussian":
            uniforms = self._share(stream, plan, 2)[samples]
            std_nat = between(config.gaussian.std_nat, uniforms[:, 0])
            firsts = integers_below(_GAUSSIAN_FRAMES, uniforms[:, 1])
            return Draw(samples, {"std_nat": _single(std_nat), "first_frames": firsts})
        return self._draw_masks(config.spec_augment, plan, samples)

    def _draw_masks(self, config: SpecAugmentConfig, plan: BatchPlan, samples: IntArray) -> Draw:
        num_time, num_band = config.num_time_masks, config.num_band_masks
        uniforms = self._share(self._streams["spec_augment"], plan, 2 * (num_time + num_band))[samples]
        times, bands = uniforms[:, : 2 * num_time], uniforms[:, 2 * num_time :]
        return Draw(
            samples,
            {
                "times": _spans(times, config.max_frames, plan.crop_frames),
                "bands": _spans(bands, config.max_bands, self._spec.num_mels),
            },
        )

    def _changed(self, kind: str, crops: Tensor, draw: PreparedDraw) -> Tensor:
        """The crops (n, T, F) with one kind of augmentation."""
        given, spec = draw.parameters, self._spec
        if kind == "spec_augment":
            return effects.mask(crops, given["times"], given["bands"])
        if kind == "gaussian":
            counts = torch.arange(crops.shape[1], device=crops.device)
            places = (given["first_frames"][:, None] + counts) % _GAUSSIAN_FRAMES
            normals = self._normals.index_select(0, places.view(-1)).view(crops.shape)
            return torch.addcmul(crops, normals, given["std_nat"][:, None, None])
        energies = effects.to_energies(crops, spec)
        if kind == "gain":
            energies = energies * 10.0 ** (given["gain_db"][:, None, None] / 10.0)
        elif kind == "reverberation":
            decay = effects.decay_per_frame(given["rt60_s"], spec.hop_ms / 1000)
            energies = effects.reverberate(energies, decay, given["direct_to_reverberant_db"])
        elif draw.levels is not None:
            added = self._sources[kind].features.dequantise(draw.levels)
            voices = effects.to_energies(added, spec).view(len(crops), -1, *crops.shape[1:])
            energies = effects.add_at_snr(energies, voices, given["weights"], given["snr_db"])
        return effects.to_log(energies, spec)

    def _share(self, stream: RandomStream, plan: BatchPlan, num_columns: int) -> NDArray[np.float64]:
        """(B, num_columns) uniform numbers: those of the whole batch, cut to the share that `plan` is."""
        return stream.uniforms(plan.step, (plan.batch_size, num_columns))[plan.share]

    def _to_device(self, values: FloatArray | IntArray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def _single(values: NDArray[np.float64]) -> FloatArray:
    return values.astype(np.float32)


def _spans(uniforms: NDArray[np.float64], max_width: int, length: int) -> IntArray:
    """(n, 2, M) begin and end of M spans within `length`, made of (n, 2·M) uniform numbers."""
    of_widths, of_begins = np.split(uniforms, 2, axis=1)
    widths = integers_below(min(max_width, length) + 1, of_widths)
    begins = integers_below(length - widths + 1, of_begins)
    return np.stack([begins, begins + widths], axis=1)

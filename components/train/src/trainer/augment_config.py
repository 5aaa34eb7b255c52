"""Which augmentations are applied, how often and how strongly: all off by default."""

from dataclasses import dataclass, field
from typing import Any, Literal

from voxsrc.errors import ConfigError

Interval = tuple[float, float]

# In this order they are tried and applied; `combine` says whether one sample can have several.
ENVIRONMENTS = ("reverberation", "noise", "music", "babble")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Noise added to speech.

    Attributes:
        probability: Share of the samples.
        features: Feature set of noise, made with the same spec as the speech; needed if used.
        snr_db: Interval of the signal-to-noise ratio of mel energies. The default is MUSAN's in Kaldi.
    """

    probability: float = 0.0
    features: str | None = None
    snr_db: Interval = (0.0, 15.0)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_recordings(self)


@dataclass(frozen=True, kw_only=True)
class MusicConfig:
    """Music added to speech; fields as in `NoiseConfig`."""

    probability: float = 0.0
    features: str | None = None
    snr_db: Interval = (5.0, 15.0)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_recordings(self)


@dataclass(frozen=True, kw_only=True)
class BabbleConfig:
    """Other training speakers added to speech.

    Attributes:
        probability: Share of the samples.
        num_voices: Fewest and most speakers.
        snr_db: Interval of the ratio to all voices together. Kaldi and voxceleb_trainer give 13 to 20 dB
            for each of 3 to 8 voices, which is 4 to 15 dB to all of them.
    """

    probability: float = 0.0
    num_voices: tuple[int, int] = (3, 8)
    snr_db: Interval = (4.0, 15.0)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_probability(self)
        _check_interval(self, "num_voices", 1, 64)
        _check_interval(self, "snr_db")


@dataclass(frozen=True, kw_only=True)
class ReverberationConfig:
    """Late reverberation, see `effects.reverberate`.

    Attributes:
        probability: Share of the samples.
        rt60_s: Interval of the reverberation time of the lowest band.
        highest_band_ratio: Interval of the highest band's reverberation time relative to the lowest
            band's; the others lie between them on a geometric scale. Air and walls absorb high
            frequencies more.
        direct_to_reverberant_db: Interval of the ratio of energies.
    """

    probability: float = 0.0
    rt60_s: Interval = (0.2, 0.8)
    highest_band_ratio: Interval = (0.4, 1.0)
    direct_to_reverberant_db: Interval = (0.0, 12.0)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_probability(self)
        _check_interval(self, "rt60_s", 0.05, 10.0)
        _check_interval(self, "highest_band_ratio", 0.1, 10.0)
        _check_interval(self, "direct_to_reverberant_db")


@dataclass(frozen=True, kw_only=True)
class GainConfig:
    """Another loudness, which after normalisation shows only near the spec's log offset.

    Attributes:
        probability: Share of the samples.
        gain_db: Interval of the gain.
    """

    probability: float = 0.0
    gain_db: Interval = (-10.0, 10.0)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_probability(self)
        _check_interval(self, "gain_db")


@dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """Independent Gaussian noise on the log-mel values.

    Attributes:
        probability: Share of the samples.
        std_nat: Interval of the standard deviation.
    """

    probability: float = 0.0
    std_nat: Interval = (0.0, 0.5)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_probability(self)
        _check_interval(self, "std_nat", 0.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class SpecAugmentConfig:
    """Masks over frames and over bands, see `effects.mask`; the defaults are WeSpeaker's.

    Attributes:
        probability: Share of the samples.
        num_time_masks: Masks over frames.
        max_frames: Frames of one mask at most; its width is uniform from 0.
        num_band_masks: Masks over mel bands.
        max_bands: Bands of one mask at most.
    """

    probability: float = 0.0
    num_time_masks: int = 1
    max_frames: int = 10
    num_band_masks: int = 1
    max_bands: int = 8

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        _check_probability(self)
        for name in ("num_time_masks", "max_frames", "num_band_masks", "max_bands"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """All augmentations, in the order of their application.

    Attributes:
        combine: `one`: a sample has at most one of reverberation, noise, music and babble, as in Kaldi's
            and WeSpeaker's recipes, so that their probabilities add up to at most 1. `several`: each is
            drawn by itself. The other augmentations always are.
    """

    combine: Literal["one", "several"] = "one"
    reverberation: ReverberationConfig = field(default_factory=ReverberationConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    music: MusicConfig = field(default_factory=MusicConfig)
    babble: BabbleConfig = field(default_factory=BabbleConfig)
    gain: GainConfig = field(default_factory=GainConfig)
    gaussian: GaussianConfig = field(default_factory=GaussianConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        if self.combine not in ("one", "several"):
            raise ConfigError(f"combine is {self.combine!r}; expected one or several")
        total = sum(self.probability(kind) for kind in ENVIRONMENTS)
        # Probabilities written in decimal may add up to a little more than 1.
        if self.combine == "one" and total > 1 + 1e-9:
            raise ConfigError(
                f"the probabilities of {', '.join(ENVIRONMENTS)} add up to {total:g}; expected at most 1, "
                "or combine: several"
            )

    def probability(self, kind: str) -> float:
        """Share of the samples that have this augmentation."""
        probability: float = getattr(self, kind).probability
        return probability

    def recordings(self) -> dict[str, str]:
        """The feature sets that are added to speech, by kind, `noise` or `music`."""
        kinds = (("noise", self.noise), ("music", self.music))
        return {k: config.features for k, config in kinds if config.features and config.probability > 0}

    @property
    def is_on(self) -> bool:
        """Whether there is any augmentation."""
        others = ("gain", "gaussian", "spec_augment")
        return any(self.probability(kind) > 0 for kind in (*ENVIRONMENTS, *others))


def _check_probability(config: Any) -> None:
    if not 0 <= config.probability <= 1:
        raise ConfigError(f"probability is {config.probability}; expected 0 to 1")


def _check_interval(config: Any, name: str, least: float = -100.0, most: float = 100.0) -> None:
    low, high = getattr(config, name)
    if not least <= low <= high <= most:
        raise ConfigError(
            f"{name} is [{low}, {high}]; expected lower and upper end within {least:g} to {most:g}"
        )


def _check_recordings(config: NoiseConfig | MusicConfig) -> None:
    _check_probability(config)
    _check_interval(config, "snr_db")
    if config.probability > 0 and config.features is None:
        raise ConfigError(
            f"probability is {config.probability:g} but features is null; give the feature set to add, "
            "made with the same spec as the speech, or set probability to 0"
        )

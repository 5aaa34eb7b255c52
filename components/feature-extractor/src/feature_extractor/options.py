"""What an extraction is asked to do."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from voxsrc.errors import ConfigError
from voxsrc.feature_set.encoding import DEFAULT_STEP_NAT, Encoding
from voxsrc.features import FbankSpec, preset
from voxsrc.speeds import check_speeds


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions:
    """Everything that decides the bytes of a feature set, but for the list and the audio themselves.

    Attributes:
        audio_uris: Folders and archives, one at least; their order is that of the utterances.
        list_uri: Utterance list; None takes every audio file of `audio_uris`.
        one_speaker: Without a list, the speaker of all files, which may then lie anywhere; None tells the
            speakers by their folders.
        spec: The features.
        step_nat: Width of one level of the stored values.
        speeds: Speeds at which copies are added as new speakers, without 1.
        num_shards: Number of shards; None chooses by the number of utterances.
        min_duration_s: Shorter utterances are rejected.
        max_rejected: The run fails if more than this fraction of the utterances is rejected.
    """

    audio_uris: tuple[str, ...]
    list_uri: str | None = None
    one_speaker: str | None = None
    spec: FbankSpec = field(default_factory=FbankSpec)
    step_nat: float = DEFAULT_STEP_NAT
    speeds: tuple[Fraction, ...] = ()
    num_shards: int | None = None
    min_duration_s: float = 0.1
    max_rejected: float = 0.01

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the option, on a value that cannot be used."""
        if self.one_speaker is not None and self.list_uri is not None:
            raise ConfigError(
                f"--one-speaker {self.one_speaker} and --list {self.list_uri}, which names the speakers: "
                "give one of the two"
            )
        Encoding.for_spec(self.spec, self.step_nat)
        check_speeds(self.speeds)
        if self.num_shards is not None and self.num_shards < 1:
            raise ConfigError(f"--num-shards {self.num_shards}: expected at least 1")
        if not 0 <= self.min_duration_s < math.inf:
            raise ConfigError(f"--min-duration {self.min_duration_s:g}: expected seconds, 0 or more")
        if not 0 <= self.max_rejected <= 1:
            raise ConfigError(f"--max-rejected {self.max_rejected:g}: expected a fraction from 0 to 1")

    @property
    def encoding(self) -> Encoding:
        """How the values are stored."""
        return Encoding.for_spec(self.spec, self.step_nat)


def copy_name(name: str, speed: Fraction) -> str:
    """The id of a copy at another speed, utterance's or speaker's: `id10001` → `id10001-sp0.9`."""
    return f"{name}-sp{float(speed):g}"


def parse_spec(preset_name: str, assignments: Sequence[str]) -> FbankSpec:
    """A preset with some fields replaced, as `["num_mels=80"]` says.

    Raises:
        ConfigError: On an unknown preset or field, or a value that cannot be used.
    """
    fields = preset(preset_name).to_dict()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: expected FIELD=VALUE")
        fields[name.strip()] = _value(text.strip())
    try:
        return FbankSpec.from_dict(fields)
    except ConfigError as error:
        raise ConfigError(f"--set {error}") from error


def _value(text: str) -> Any:
    """A number or a truth value, else the text itself: as JSON has it, for this image has no YAML."""
    try:
        return json.loads(text.lower())
    except ValueError:
        return text

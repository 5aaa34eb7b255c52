"""What a recipe may ask of augmentation."""

from collections.abc import Sequence
from typing import Any

import pytest

from trainer.augment_config import (
    AugmentConfig,
)
from voxsrc.config import from_mapping
from voxsrc.errors import ConfigError


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"noise": {"probability": 0.1}}, "noise: probability is 0.1 but features is null"),
        ({"music": {"probability": -1}}, "music: probability is -1"),
        ({"gain": {"probability": 1.5}}, "gain: probability is 1.5; expected 0 to 1"),
        ({"babble": {"snr_db": [9, 3]}}, r"babble: snr_db is \[9.0, 3.0\]"),
        ({"babble": {"num_voices": [0, 3]}}, r"babble: num_voices is \[0, 3\]"),
        ({"reverberation": {"rt60_s": [0.0, 0.5]}}, r"rt60_s is \[0.0, 0.5\].*0.05 to 10"),
        ({"gaussian": {"std_nat": [-0.1, 0.5]}}, "std_nat"),
        ({"spec_augment": {"max_frames": -1}}, "max_frames is -1"),
        ({"combine": "all"}, "combine"),
        (
            {"babble": {"probability": 0.6}, "reverberation": {"probability": 0.5}},
            r"add up to 1.1; expected at most 1, or combine: several",
        ),
        ({"nois": {}}, "did you mean noise"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(AugmentConfig, mapping)


def test_thirds_add_up_to_one() -> None:
    probabilities: Sequence[float] = (0.1, 0.2, 0.3, 0.4)
    kinds = ("reverberation", "noise", "music", "babble")
    mapping: dict[str, dict[str, Any]] = {
        kind: {"probability": share} for kind, share in zip(kinds, probabilities, strict=True)
    }
    for kind in ("noise", "music"):
        mapping[kind]["features"] = "somewhere"
    assert from_mapping(AugmentConfig, mapping).is_on

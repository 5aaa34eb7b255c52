"""Speeds and steps that the feature extractor would refuse are refused before a run is submitted."""

import pytest

from voxsrc.errors import ConfigError
from voxsrc.pipelines.arguments import check_arguments
from voxsrc.speeds import parse_speeds


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("speed", "fast", "found 'fast'; expected speeds from 0.5 to 2, such as 0.9,1.1"),
        ("speed", "0.9;1.1", "found '0.9;1.1'; expected speeds"),
        ("speed", "0.9,3", "expected speeds"),
        ("speed", "1.1,1.1", "each once"),
        ("step", 0.01, "step 0.01 nat: expected 0.078 to 2"),
        ("step", 3.0, "expected 0.078 to 2"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: .*{words}"):
        check_arguments({name: value}, ours=True)
    check_arguments({name: value}, ours=False)


@pytest.mark.parametrize(
    "value",
    ["", " ", "0.9,1.1", "0.9, 1.1,", "1", "1,0.9", "9/10", "0.5,2", "1,1", "9e-1", "0.49", "2.1", "-1",
     "0.9,0.9", "0.9,0.90", "0.9001", "1/0", "fast", "0.9;1.1", "0.9 1.1", "nan", "inf", "-0.9"],
)  # fmt: skip
def test_speeds_are_those_of_the_feature_extractor(value: str) -> None:
    options = pytest.importorskip("feature_extractor.options")
    try:
        options.ExtractionOptions(audio_uris=("a",), speeds=parse_speeds(value))
    except ConfigError:
        with pytest.raises(ConfigError):
            check_arguments({"speed": value}, ours=True)
    else:
        check_arguments({"speed": value}, ours=True)

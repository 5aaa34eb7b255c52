import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from audio_files import tone, wav
from commands import Command, contents, extractor_options, identities
from corpora import Corpus, write_corpus
from feature_extractor.cli import main
from feature_extractor.options import parse_spec
from voxsrc.features import preset


def shard_identities(output: Path) -> dict[str, tuple[int, int]]:
    return {name: was for name, was in identities(output).items() if name.startswith("shard-")}


CHANGES = [
    (["--step", "0.1"], "step_nat is 0.2, now 0.1 is asked for"),
    (["--set", "num_mels=20"], "features: num_mels is 40, expected 20"),
    (["--preset", "kaldi80"], "features: lfb40, expected kaldi80"),
    (["--speed", "0.9"], "speeds is [], now ['0.9'] is asked for"),
    (["--num-shards", "3"], "num_shards is 6, now 3 is asked for"),
    (["--min-duration", "0.2"], "min_duration_s is 0.1, now 0.2 is asked for"),
    (
        ["--preset", "kaldi80", "--step", "0.1", "--num-shards", "3"],
        "features: lfb40, expected kaldi80; step_nat is 0.2, now 0.1 is asked for; "
        "num_shards is 6, now 3 is asked for",
    ),
]


@pytest.mark.parametrize(("change", "difference"), CHANGES)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_options_are_refused(
    corpus: Corpus,
    begun: Path,
    feature_extractor: Command,
    change: list[str],
    difference: str,
    state: str,
) -> None:
    if state == "unfinished":
        (begun / "manifest.json").unlink()
    before = identities(begun)
    for command in ("run", "plan"):
        outcome = feature_extractor(command, *extractor_options(corpus, begun), *change)
        holds = (
            "a feature set made with other options"
            if state == "finished"
            else "an unfinished extraction with other options"
        )
        assert outcome.code == 1
        assert outcome.error == (
            f"{begun} holds {holds} ({difference}); choose another --output, or give --overwrite"
        )
    assert identities(begun) == before


def test_another_list_and_other_audio_are_refused(
    corpus: Corpus, begun: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    shorter = tmp_path / "shorter.txt"
    shorter.write_text("".join(Path(corpus.list).read_text().splitlines(keepends=True)[:-1]))
    outcome = feature_extractor("run", *extractor_options(corpus, begun), "--list", shorter)
    assert "made with other options (made from another list); choose" in outcome.error
    _, _, *others = extractor_options(corpus, begun)
    outcome = feature_extractor("run", "--audio", tmp_path, *others)
    assert f"(audio is '{corpus.audio}', now '{tmp_path}' is asked for)" in outcome.error
    where = ["--audio", corpus.audio, "--output", begun, "--num-shards", 6]
    assert "(made from a list, now none is given)" in feature_extractor("run", *where).error


def test_a_list_given_afterwards_is_refused(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    where = ["--audio", corpus.audio, "--output", tmp_path / "set"]
    assert feature_extractor("plan", *where).code == 0
    outcome = feature_extractor("plan", *where, "--list", corpus.list)
    assert "(made without a list, now one is given)" in outcome.error


@pytest.mark.parametrize("speeds", ["1.1,0.9", "0.9"])
def test_copies_called_like_somebody_else_are_refused(
    tmp_path: Path, feature_extractor: Command, speeds: str
) -> None:
    names = ("anna", "anna-sp0.9", "anna-sp1.25")
    corpus = write_corpus(tmp_path, {f"{name}/s/1.wav": wav(tone(0.3)) for name in names})
    where = ["--audio", corpus.audio, "--list", corpus.list, "--output", tmp_path / "set"]
    for command in ("run", "plan"):
        outcome = feature_extractor(command, *where, "--speed", speeds)
        assert outcome.error == (
            "--speed 0.9: the copies of anna would be called anna-sp0.9, as another speaker is; "
            "rename one of the two, or leave out that speed"
        )
    assert not (tmp_path / "set").exists()
    assert feature_extractor("plan", *where, "--speed", "1.1").code == 0


@pytest.mark.parametrize("change", [change for change, _ in CHANGES], ids=[told for _, told in CHANGES])
def test_overwrite_replaces_a_set_as_if_it_had_not_been(
    corpus: Corpus, begun: Path, tmp_path: Path, feature_extractor: Command, change: list[str]
) -> None:
    (begun / "shard-notes.txt").write_text("the user's own")
    arguments = ["run", *extractor_options(corpus, begun), *change, "--num-workers", "1"]
    assert feature_extractor(*arguments, "--overwrite").code == 0
    fresh = tmp_path / "fresh"
    assert feature_extractor("run", *extractor_options(corpus, fresh), *change, "--num-workers", 1).code == 0
    assert contents(begun) == {**contents(fresh), "shard-notes.txt": b"the user's own"}


def test_overwrite_keeps_the_shards_that_are_as_asked_for(
    corpus: Corpus, begun: Path, feature_extractor: Command
) -> None:
    shards, bytes_before = shard_identities(begun), contents(begun)
    assert feature_extractor("run", *extractor_options(corpus, begun), "--overwrite").code == 0
    assert shard_identities(begun) == shards
    assert contents(begun) == bytes_before


def test_overwrite_takes_in_what_was_rejected_and_has_been_mended(
    tmp_path: Path, feature_extractor: Command
) -> None:
    good = {f"id{n}/s/{n}.wav": wav(tone(0.5)) for n in range(6)}
    corpus, fresh = write_corpus(tmp_path, {**good, "id5/s/5.wav": b""}), tmp_path / "fresh"
    more = ["--max-rejected", 1, "--num-shards", 3, "--num-workers", 1]
    arguments = [*extractor_options(corpus, tmp_path / "set"), *more]
    assert feature_extractor("run", *arguments).code == 0
    shards = shard_identities(tmp_path / "set")
    (tmp_path / "audio/id5/s/5.wav").write_bytes(good["id5/s/5.wav"])
    assert feature_extractor("run", *arguments, "--overwrite").code == 0
    now = shard_identities(tmp_path / "set")
    made_again = {name.split(".")[0] for name, was in shards.items() if now[name] != was}
    # The empty file moved a boundary between shards; what lies before it stays.
    assert "shard-00002" in made_again
    assert "shard-00000" not in made_again
    assert feature_extractor("run", *extractor_options(corpus, fresh), *more).code == 0
    assert contents(tmp_path / "set") == contents(fresh)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "3"], "--speed 3: expected speeds from 0.5 to 2 other than 1"),
        (["--speed", "0.9,0.9"], "--speed 0.9, 0.9: name each speed once"),
        (["--speed", "fast"], "--speed 'fast': expected numbers separated by commas, such as 0.9,1.1"),
        (["--speed", "0.9/0"], "--speed '0.9/0': expected numbers separated by commas, such as 0.9,1.1"),
        (["--speed", "2/3"], "--speed 0.6666666666666666: expected at most three decimals"),
        (["--num-shards", "-1"], "--num-shards -1: expected at least 1"),
        (["--num-workers", "0"], "--num-workers 0: expected at least 1"),
        (["--max-rejected", "1.5"], "--max-rejected 1.5: expected a fraction from 0 to 1"),
        (["--max-rejected", "nan"], "--max-rejected nan: expected a fraction from 0 to 1"),
        (["--min-duration", "-1"], "--min-duration -1: expected seconds, 0 or more"),
        (["--min-duration", "nan"], "--min-duration nan: expected seconds, 0 or more"),
        (["--step", "0.01"], "step 0.01 nat: expected 0.078 to 2; 0.2 and 0.1 are the measured ones"),
        (["--set", "num_mels"], "--set num_mels: expected FIELD=VALUE"),
        (["--set", "num_mels=many"], "--set num_mels: found 'many' (str), expected a whole number"),
        (["--set", "remove_dc=perhaps"], "--set remove_dc: found 'perhaps' (str), expected true or false"),
        (["--set", "centred=yes"], "--set centred: found 'yes' (str), expected true or false"),
        (["--set", "mel_triangles_in=k"], "--set mel_triangles_in: found 'k' (str), expected one of hz, mel"),
        (["--set", "num_mels=0"], "--set FbankSpec.num_mels is 0; expected a number above 0"),
    ],
)  # fmt: skip
def test_options_are_checked_before_anything_is_touched(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, arguments: list[str], message: str
) -> None:
    outcome = feature_extractor("run", *extractor_options(corpus, tmp_path / "set"), *arguments)
    assert outcome.code == 1
    assert outcome.errors == f"error: {message}\n"
    assert not (tmp_path / "set").exists()


def test_an_unknown_field_of_the_features_is_named(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    outcome = feature_extractor("run", *extractor_options(corpus, tmp_path / "set"), "--set", "num_mel=80")
    assert outcome.error.startswith("--set num_mel: unknown key, did you mean num_mels? (known: centred, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards", "6"], "--shards '6': the plan has shards 0 to 5"),
        (["--shards", "3-1"], "--shards '3-1': the plan has shards 0 to 5"),
        (["--shards", "0-999999999999"], "--shards '0-999999999999': the plan has shards 0 to 5"),
        (["--shards", "-1"], "--shards '-1': expected numbers and ranges such as 0-3,7"),
        (["--shards", "one"], "--shards 'one': expected numbers and ranges such as 0-3,7"),
        (["--part", "4/4"], "--part '4/4': expected I from 0 to N - 1"),
        (["--part", "0/0"], "--part '0/0': expected I from 0 to N - 1"),
        (["--part", "half"], "--part 'half': expected I/N such as 0/4"),
        (["--num-workers", "-2"], "--num-workers -2: expected at least 1"),
    ],
)
def test_which_shards_to_extract_is_checked(
    begun: Path, feature_extractor: Command, arguments: Sequence[str], message: str
) -> None:
    joined = [f"{arguments[0]}={arguments[1]}"]
    outcome = feature_extractor("extract", "--output", begun, *joined)
    assert (outcome.code, outcome.errors) == (1, f"error: {message}\n")


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "--audio", "a", "--output", "b", "--no-such"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: feature-extractor" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path: Path, feature_extractor: Command) -> None:
    arguments = ["run", "--audio", tmp_path / "gone", "--output", tmp_path / "set"]
    message = f"{tmp_path}/gone: cannot read: it does not exist; check the path"
    assert feature_extractor(*arguments).errors == f"error: {message}\n"
    outcome = feature_extractor(*arguments, "--debug")
    assert outcome.code == 1
    assert outcome.errors.startswith("Traceback (most recent call last):\n")
    assert outcome.error == message


def test_fields_of_the_features_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)  # as in the image
    monkeypatch.delitem(sys.modules, "voxsrc.yaml_text", raising=False)
    spec = parse_spec(
        "lfb40", ["num_mels=64", "hop_ms=12.5", "centred=TRUE", "window=povey", "log_offset=1E-8"]
    )
    assert spec == preset("lfb40", num_mels=64, hop_ms=12.5, centred=True, window="povey", log_offset=1e-8)
    assert parse_spec("lfb40", ["hop_ms=10", "power=2.0"]).hash == preset("lfb40").hash

"""The feature set: what is written is what is read, whole or not at all."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feature_sets import make_feature_set
from voxsrc import storage
from voxsrc.cli import main
from voxsrc.errors import ConfigError, FeatureSetError, NotFoundError, StorageError
from voxsrc.feature_set import Encoding, FeatureSet, Manifest, read_manifest
from voxsrc.feature_set.encoding import compress, decompress, time_delta, undo_time_delta
from voxsrc.feature_set.shard import ShardRecord, ShardWriter, decode_shard, read_valid_record
from voxsrc.feature_set.verification import verify
from voxsrc.features import PRESETS, FbankSpec, preset

LENGTHS = [[30, 200, 77], [1, 450], [98, 260, 310, 205]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXSRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@settings(max_examples=60)
@given(levels=hnp.arrays(np.uint8, st.tuples(st.integers(0, 40), st.integers(1, 12))))
def test_time_delta_is_undone_exactly(levels: np.ndarray) -> None:
    restored = np.empty_like(levels)
    undo_time_delta(time_delta(levels), restored)
    np.testing.assert_array_equal(restored, levels)


@settings(max_examples=60)
@given(
    values=hnp.arrays(np.float32, (7, 40), elements=st.floats(-13.8125, 11.5, width=32)),
    step_nat=st.sampled_from([0.1, 0.2, 0.5]),
)
def test_a_stored_value_is_off_by_half_a_step_at_most(values: np.ndarray, step_nat: float) -> None:
    encoding = Encoding.for_spec(FbankSpec(), step_nat)
    levels, num_limited = encoding.quantise(values)
    assert num_limited == 0
    assert np.abs(encoding.dequantise(levels) - values).max() <= step_nat / 2 + 1e-5


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("step_nat", [0.1, 0.2])
def test_loud_and_normal_speech_fit_every_presets_range(name: str, step_nat: float) -> None:
    from voxsrc.features.scipy_log_mel import LogMelExtractor

    spec = preset(name)
    encoding = Encoding.for_spec(spec, step_nat)
    time_s = np.arange(16_000) / 16_000
    sweep = np.sin(2 * np.pi * (100 * time_s + 3_700 * time_s**2)).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    others = [sweep, 0.01 * sweep, 0.003 * noise]
    if name == "kaldi80" and step_nat < 0.2:
        others = []  # Kaldi's floor is 47 nat below its ceiling, and 256 steps of 0.1 nat span 25.5
    for waveform in (0.1 * noise, *others):
        levels, num_limited = encoding.quantise(LogMelExtractor(spec)(waveform))
        assert num_limited == 0
        assert np.ptp(levels) > 10


def test_values_outside_the_range_are_limited_and_counted() -> None:
    encoding = Encoding(0.1, -10.0)
    levels, num_limited = encoding.quantise(np.array([[-10.2, -10.0, 15.5, 15.6, 90.0]], np.float32))
    assert levels.tolist() == [[0, 0, 255, 255, 255]]
    assert num_limited == 3


@pytest.mark.parametrize("step_nat", [0.0, -0.2, 0.05, 3.0, float("nan")])
def test_a_step_that_cannot_hold_speech_is_refused(step_nat: float) -> None:
    with pytest.raises(ConfigError, match="step"):
        Encoding.for_spec(FbankSpec(), step_nat)


@pytest.mark.parametrize("mode", ["by_shard", "ram", "mmap"])
def test_every_mode_reads_what_was_written(tmp_path: Path, cache: Path, mode: str) -> None:
    features = make_feature_set(tmp_path / "set", LENGTHS)
    opened = FeatureSet.open(str(tmp_path / "set"), mode=mode)
    assert len(opened) == len(features) == 9
    read = dict(opened)
    assert list(read) == list(features)
    for utterance_id, expected in features.items():
        assert read[utterance_id].dtype == np.float32
        np.testing.assert_allclose(read[utterance_id], expected, atol=0.1001)
        np.testing.assert_array_equal(opened.read(utterance_id), read[utterance_id])
    # Out of order, so that kept shards are dropped and decoded again.
    for utterance_id in [*list(features)[::-3], *list(features)[::2]]:
        np.testing.assert_array_equal(opened.read(utterance_id), read[utterance_id])


def test_the_modes_agree_and_the_index_points_into_the_frames(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    uri = str(tmp_path / "set")
    ram, mapped = FeatureSet.open(uri, mode="ram"), FeatureSet.open(uri, mode="mmap")
    np.testing.assert_array_equal(ram.frames, mapped.frames)
    assert ram.frames.shape == ram.shape == (sum(map(sum, LENGTHS)), 40)
    by_shard = FeatureSet.open(uri)
    for row, utterance_id in enumerate(ram.index.utterance_ids):
        first, count = ram.index.first_frames[row], ram.index.num_frames[row]
        expected = by_shard.manifest.encoding.dequantise(ram.frames[first : first + count])
        np.testing.assert_array_equal(by_shard.read(utterance_id), expected)
    assert ram.index.speaker_ids[:4] == ["id0", "id1", "id2", "id0"]
    assert ram.index.session_ids[:3] == ["s0", "s1", "s0"]


def test_crops_are_windows_of_the_frames(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    for mode in ("ram", "mmap"):
        opened = FeatureSet.open(str(tmp_path / "set"), mode=mode)
        starts = np.random.default_rng(0).integers(0, opened.shape[0] - 50 + 1, 100)
        crops = opened.crops(starts, 50)
        assert crops.shape == (100, 50, 40)
        for crop, start in zip(crops, starts, strict=True):
            np.testing.assert_array_equal(
                crop, opened.manifest.encoding.dequantise(opened.frames[start : start + 50])
            )
        reused = np.full((100, 50, 40), np.nan, np.float32)
        assert opened.crops(starts, 50, out=reused) is reused
        np.testing.assert_array_equal(reused, crops)
        assert opened.crops(np.array([], np.int64), 50).shape == (0, 50, 40)
        for outside in (-1, opened.shape[0] - 49):
            with pytest.raises(ConfigError, match="the set has"):
                opened.crops(np.array([0, outside]), 50)


def test_frames_become_a_torch_tensor(tmp_path: Path, cache: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
    make_feature_set(tmp_path / "set", LENGTHS)
    for mode in ("ram", "mmap"):
        opened = FeatureSet.open(str(tmp_path / "set"), mode=mode)
        tensor = opened.to_torch("cpu")
        assert tensor.dtype == torch.uint8
        np.testing.assert_array_equal(tensor.numpy(), opened.frames)


def test_windows_may_be_given_as_a_list(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    opened = FeatureSet.open(str(tmp_path / "set"), mode="mmap")
    starts = [0, 3, 1_500]
    opened.read_ahead(starts, 50)
    np.testing.assert_array_equal(opened.crops(starts, 50), opened.crops(np.array(starts), 50))
    assert opened.crops([], 50).shape == (0, 50, 40)


def test_by_shard_has_no_array_of_all_frames(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    opened = FeatureSet.open(str(tmp_path / "set"))
    with pytest.raises(ConfigError, match="mode='ram'"):
        opened.crops(np.array([0]), 10)


def resident_bytes(path: Path) -> int:
    """Of this process's mappings of a file: what it has touched of them."""
    smaps = Path("/proc/self/smaps").read_text()
    found = re.findall(
        rf"^\S+ \S+ \S+ \S+ \S+ +{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", smaps, re.M
    )
    return sum(map(int, found)) * 1024


def test_opening_a_cached_set_by_mmap_does_not_read_it(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "set", [[200_000], [200_000]])
    uri = str(tmp_path / "set")
    FeatureSet.open(uri, mode="mmap")
    [cached] = cache.iterdir()
    assert cached.stat().st_size == 16_000_000
    # A shard that is gone proves that nothing is decoded again.
    (tmp_path / "set" / "shard-00000.lfb.zst").rename(tmp_path / "gone")
    opened = FeatureSet.open(uri, mode="mmap")
    assert resident_bytes(cached) < 4_000_000
    opened.frames.sum()
    assert resident_bytes(cached) > 12_000_000


def test_a_cache_file_is_not_used_for_another_set(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "one", [[50], [60]])
    other = make_feature_set(tmp_path / "two", [[60], [50]])
    FeatureSet.open(str(tmp_path / "one"), mode="mmap")
    opened = FeatureSet.open(str(tmp_path / "two"), mode="mmap")
    assert len(list(cache.iterdir())) == 2
    np.testing.assert_allclose(opened.read("id0/s0/0-0.wav"), other["id0/s0/0-0.wav"], atol=0.1001)


def test_a_damaged_shard_leaves_no_cache_file(tmp_path: Path, cache: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    damage(tmp_path / "set" / "shard-00001.lfb.zst")
    with pytest.raises(FeatureSetError, match="shard-00001"):
        FeatureSet.open(str(tmp_path / "set"), mode="mmap")
    assert list(cache.iterdir()) == []


def test_a_disk_without_room_is_named_before_the_work(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="VOXSRC_CACHE"):
        FeatureSet.open(str(tmp_path / "set"), mode="mmap")


def test_another_spec_is_refused_and_the_fields_named(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    FeatureSet.open(str(tmp_path / "set"), spec=FbankSpec())
    with pytest.raises(FeatureSetError, match=r"num_mels is 40, expected 80"):
        FeatureSet.open(str(tmp_path / "set"), spec=FbankSpec(num_mels=80))


def test_an_unknown_utterance_is_named(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    with pytest.raises(FeatureSetError, match=r"no utterance 'nobody.wav'"):
        FeatureSet.open(str(tmp_path / "set")).read("nobody.wav")


def test_an_unfinished_set_is_not_opened(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="not a finished feature set"):
        FeatureSet.open(str(tmp_path / "set"))


def damage(path: Path, *, at: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["shard-00000.lfb.zst", "shard-00002.lfb.zst", "utterances.parquet"])
@pytest.mark.parametrize("how", ["flip", "truncate", "append", "delete"])
def test_verify_names_the_damaged_file(
    tmp_path: Path, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    assert main(["features", "verify", str(tmp_path / "set")]) == 0
    path = tmp_path / "set" / name
    content = path.read_bytes()
    if how == "flip":
        damage(path)
    elif how == "truncate":
        path.write_bytes(content[:-7])
    elif how == "append":
        path.write_bytes(content + b"\0")
    else:
        path.unlink()
    capsys.readouterr()
    assert main(["features", "verify", str(tmp_path / "set")]) == 1
    assert f"damaged: {name}" in capsys.readouterr().out


def test_verify_finds_a_manifest_that_miscounts(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    path = tmp_path / "set" / "manifest.json"
    path.write_text(path.read_text().replace('"num_speakers": 3', '"num_speakers": 4'))
    [problem] = verify(str(tmp_path / "set"))
    assert "num_speakers is 4, the files have 3" in problem


def test_info_prints_the_fixed_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    assert main(["features", "info", str(tmp_path / "set"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    num_samples = sum(160 * frames + 240 for shard in LENGTHS for frames in shard)
    stored = [path for path in (tmp_path / "set").iterdir() if not path.name.startswith("shard-")]
    stored += (tmp_path / "set").glob("*.zst")
    assert info["num_utterances"] == 9
    assert info["num_speakers"] == 3
    assert info["num_frames"] == sum(map(sum, LENGTHS))
    assert info["seconds"] == pytest.approx(num_samples / 16_000)
    assert info["bytes"] == sum(path.stat().st_size for path in stored)
    assert info["percent_of_pcm16"] == pytest.approx(100 * info["bytes"] / (2 * num_samples))
    assert main(["features", "info", str(tmp_path / "set")]) == 0
    assert "9 of 3 speakers" in capsys.readouterr().out


def test_info_of_nothing_is_one_clear_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "info", str(tmp_path / "nothing")]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path}/nothing does not exist; expected the folder of a feature set: check the name\n"
    )


def test_what_is_no_feature_set_is_called_what_it_is(place: str) -> None:
    """ "Not finished; run the same extraction again" would lead nowhere."""
    for path in ("audio/id1/s/1.wav", "flat/1.wav", "planned/plan/plan.json", "shards/shard-00003.json"):
        storage.write_bytes(storage.join(place, path), b"x")
    expected = {
        "nothing": " does not exist; expected the folder of a feature set: check the name",
        "flat/1.wav": " is a file; expected the folder of a feature set",
        **dict.fromkeys(
            ("audio", "audio/", "flat", "planned/plan"),
            " is a folder without a feature set (no manifest.json, no shards); expected the --output of an "
            "extraction: extract features of audio first",
        ),
        **dict.fromkeys(
            ("planned", "shards"),
            " is not a finished feature set: it has no manifest.json; run the same extraction again to "
            "finish it",
        ),
    }
    for path, message in expected.items():
        uri = storage.join(place, path)
        with pytest.raises(NotFoundError) as caught:
            read_manifest(uri)
        assert str(caught.value) == uri + message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a manifest .*; copy the set again, or delete the file"),
        (
            lambda text: text.replace('"format_version": 1', '"format_version": 9'),
            "format version 9.* extract the",
        ),
        (
            lambda text: text.replace('"num_mels": 40', '"num_mels": 41'),
            "fbank_spec_hash.*; copy the set again",
        ),
        (lambda text: text.replace('"compression": "zstd"', '"compression": "lzma"'), "encoding"),
        (lambda text: text.replace('"num_frames"', '"frames"'), "num_frames"),
        (
            lambda text: text.replace('"made_from": {}', '"made_from": {"speeds": ["fast"]}'),
            "made_from.speeds",
        ),
        (lambda text: text.replace('"made_from": {}', '"made_from": {"speeds": 0.9}'), "made_from.speeds"),
        (lambda text: text.replace('"made_from": {}', '"made_from": []'), "not a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path: Path, change: object, message: str) -> None:
    make_feature_set(tmp_path / "set", LENGTHS)
    path = tmp_path / "set" / "manifest.json"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(FeatureSetError, match=message) as caught:
        read_manifest(str(tmp_path / "set"))
    assert str(path) in str(caught.value)


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", LENGTHS, step_nat=0.1, spec=preset("kaldi80"))
    content = (tmp_path / "set" / "manifest.json").read_bytes()
    assert Manifest.from_json(content).to_json() == content


def test_a_record_survives_json() -> None:
    writer = ShardWriter(Encoding(0.2, -13.0), "key")
    writer.add('sp "é"/a b/c.wav', "sp é", "a b", np.zeros((3, 40), np.float32), 720)
    writer.reject("x/y.wav", "x", "silent", "a peak of 0")
    content = writer.record.to_json()
    assert ShardRecord.from_json(content).to_json() == content
    assert ShardRecord.from_json(content).utterances[0].utterance_id == 'sp "é"/a b/c.wav'


def test_a_shard_is_valid_only_whole_and_for_its_key(tmp_path: Path) -> None:
    make_feature_set(tmp_path, LENGTHS)
    assert read_valid_record(str(tmp_path), 1, "key-1") is not None
    assert read_valid_record(str(tmp_path), 1, "another key") is None
    assert read_valid_record(str(tmp_path), 7, "key-7") is None
    damage(tmp_path / "shard-00001.lfb.zst")
    assert read_valid_record(str(tmp_path), 1, "key-1") is None
    (tmp_path / "shard-00001.lfb.zst").unlink()
    assert read_valid_record(str(tmp_path), 1, "key-1") is None
    (tmp_path / "shard-00000.json").write_text("{")
    assert read_valid_record(str(tmp_path), 0, "key-0") is None


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", [[40], [], [50]])
    assert verify(str(tmp_path / "set")) == []
    assert FeatureSet.open(str(tmp_path / "set"), mode="ram").frames.shape == (90, 40)


def test_compressed_bytes_are_checked() -> None:
    content = compress(b"abc" * 100)
    assert decompress(content, 300) == b"abc" * 100
    with pytest.raises(FeatureSetError):
        decompress(content, 299)
    with pytest.raises(FeatureSetError):
        decompress(content[:-1], 300)
    with pytest.raises(FeatureSetError, match="decompress"):
        decode_shard(b"not zstd", np.array([1]), np.empty((1, 40), np.uint8))


def test_decoding_gives_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    make_feature_set(tmp_path / "set", [[100 + i] for i in range(12)])
    one = FeatureSet.open(str(tmp_path / "set"), mode="ram", num_threads=1)
    many = FeatureSet.open(str(tmp_path / "set"), mode="ram", num_threads=8)
    np.testing.assert_array_equal(one.frames, many.frames)

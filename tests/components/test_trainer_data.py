"""Crops on the device are the feature set's values, wherever the frames are held."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_sets import make_feature_set
from planned_crops import crops_of
from trainer.batches import BatchLoader
from trainer.data import DeviceFeatures
from trainer.placement import DataConfig, Room, available_ram_bytes, choose_placement
from trainer.sampler import BatchPlan, Sampler, SamplerConfig
from trainer.utterances import TrainingUtterances
from voxsrc.errors import ConfigError, FeatureSetError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec

LENGTHS = [[30, 200, 77], [1, 450, 120], [98, 260, 310, 205]]
GB = 10**9


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("set")
    make_feature_set(folder, LENGTHS)
    return str(folder)


@pytest.fixture(scope="module")
def stored(uri: str) -> FeatureSet:
    return FeatureSet.open(uri)


@pytest.fixture(scope="module", params=["ram", "mmap"])
def features(
    request: pytest.FixtureRequest, uri: str, tmp_path_factory: pytest.TempPathFactory
) -> DeviceFeatures:
    cache = str(tmp_path_factory.mktemp("cache"))
    return DeviceFeatures.open(uri, "cpu", DataConfig(placement=request.param, cache_dir=cache))


def looped(stored: FeatureSet, row: int, offset: int, num_frames: int) -> np.ndarray:
    """What a crop should hold: the utterance again and again from `offset` on."""
    utterance = stored.read(stored.index.utterance_ids[row])
    return np.take(utterance, np.arange(offset, offset + num_frames), axis=0, mode="wrap")


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), num_frames=st.sampled_from([1, 7, 60, 200, 500, 2500]))
def test_crops_are_the_stored_values_and_loop_within_their_utterance(
    features: DeviceFeatures, stored: FeatureSet, data: st.DataObject, num_frames: int
) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(stored) - 1), min_size=1, max_size=20)))
    offsets = np.array([data.draw(st.integers(0, int(stored.index.num_frames[row]) - 1)) for row in rows])
    plan = BatchPlan(0, rows, stored.index.first_frames[rows] + offsets, rows, num_frames, 1, len(rows))
    crops = crops_of(features, plan)
    assert crops.dtype == torch.float32 and crops.is_contiguous()
    expected = [looped(stored, row, offset, num_frames) for row, offset in zip(rows, offsets, strict=True)]
    np.testing.assert_array_equal(crops.numpy(), np.stack(expected))


def test_crops_that_need_not_loop_are_the_same(features: DeviceFeatures, stored: FeatureSet) -> None:
    rows = np.arange(len(stored))
    firsts = stored.index.first_frames[rows]
    whole = FeatureSet.open(stored.uri, "ram").crops(firsts, 1)
    np.testing.assert_array_equal(features.dequantise(features.levels(rows, firsts, 1)).numpy(), whole)
    assert features.levels(rows[:0], firsts[:0], 5).shape == (0, 5, 40)


def test_the_pages_of_later_batches_are_asked_for_in_advance(
    features: DeviceFeatures, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("os.posix_fadvise", lambda _, begin, size, advice: asked.append(begin))
    num_mels = features.manifest.spec.num_mels
    for step, _ in enumerate(BatchLoader(sampler, features).batches(0, 3)):
        wanted = sampler.batch(step + 2).first_frames * num_mels
        assert asked[-len(wanted) :] == (wanted.tolist() if features.placement == "mmap" else [])


def test_a_whole_utterance_is_read(features: DeviceFeatures, stored: FeatureSet) -> None:
    for row, utterance_id in enumerate(stored.index.utterance_ids):
        np.testing.assert_array_equal(features.utterance(row).numpy(), stored.read(utterance_id))


def test_training_on_some_speakers_reads_only_theirs(features: DeviceFeatures, stored: FeatureSet) -> None:
    utterances = TrainingUtterances.of(features.index, ["id0", "id2"])
    sampler = Sampler(utterances, SamplerConfig(crop_frames=50), batch_size=4, seed=0)
    for step in range(10):
        plan = sampler.batch(step)
        expected = [
            looped(stored, row, first - stored.index.first_frames[row], 50)
            for row, first in zip(plan.rows, plan.first_frames, strict=True)
        ]
        np.testing.assert_array_equal(crops_of(features, plan).numpy(), np.stack(expected))
        assert [stored.index.speaker_ids[row] for row in plan.rows] == [
            utterances.speaker_ids[label] for label in plan.labels
        ]


def test_where_the_frames_are_is_said(features: DeviceFeatures, uri: str) -> None:
    words = {"ram": "in RAM (as set)", "mmap": "in a memory map (as set)"}
    assert features.summary.startswith(f"{uri}: 10 utterances, ")
    assert features.summary.endswith(words[features.placement])
    assert DeviceFeatures.open(uri).placement == "ram"


def test_another_spec_is_refused(uri: str) -> None:
    with pytest.raises(FeatureSetError, match="num_mels is 40, expected 80"):
        DeviceFeatures.open(uri, spec=FbankSpec(num_mels=80))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said(uri: str) -> None:
    with pytest.raises(ConfigError, match="device is cuda, but torch finds no CUDA device"):
        DeviceFeatures.open(uri, "cuda")


@pytest.mark.parametrize(
    ("num_bytes", "device", "room", "expected", "words"),
    [
        (34 * GB, "cuda", Room(200 * GB, 79 * GB, 80 * GB), "gpu", "79.0 GB free on cuda, 32.0 GB kept"),
        (34 * GB, "cuda", Room(200 * GB, 60 * GB, 80 * GB), "ram", "cuda has 60.0 GB free and 32.0 GB"),
        (34 * GB, "cuda", Room(16 * GB, 23 * GB, 24 * GB), "mmap", "only 16.0 GB of RAM"),
        (34 * GB, "cuda", Room(16 * GB, 79 * GB, 80 * GB), "gpu", "79.0 GB free"),
        (34 * GB, "cpu", Room(35 * GB), "ram", "35.0 GB of RAM"),
        (34 * GB, "cpu", Room(33 * GB), "mmap", "only 33.0 GB of RAM"),
    ],
)  # fmt: skip
def test_frames_go_where_there_is_room(
    num_bytes: int, device: str, room: Room, expected: str, words: str
) -> None:
    placement, why = choose_placement(DataConfig(), num_bytes, torch.device(device), room)
    assert placement == expected
    assert words in why


@pytest.mark.parametrize(
    ("placement", "device", "message"),
    [
        ("gpu", "cpu", "placement is gpu, but the device is cpu"),
        ("gpu", "cuda", "placement is gpu, where 30.0 GB are free; the feature set needs 34.0 GB"),
        ("ram", "cpu", "placement is ram, where 20.0 GB are free"),
    ],
)
def test_a_forced_placement_without_room_is_refused(placement: str, device: str, message: str) -> None:
    config = DataConfig(placement=placement)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        choose_placement(config, 34 * GB, torch.device(device), Room(20 * GB, 30 * GB, 80 * GB))


def test_a_forced_placement_with_room_is_taken() -> None:
    room = Room(40 * GB, 35 * GB, 40 * GB)
    for placement in ("gpu", "ram", "mmap"):
        config = DataConfig(placement=placement)
        assert choose_placement(config, 34 * GB, torch.device("cuda"), room) == (placement, "as set")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"placement": "disk"}, "placement is 'disk'; expected auto, gpu, ram, mmap"),
        ({"gpu_reserve": 1.0}, "gpu_reserve is 1.0"),
        ({"prefetch_batches": -1}, "prefetch_batches is -1"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**fields)  # type: ignore[arg-type]


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_ram_bytes(tmp_path, tmp_path / "none") == 8_192_000
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("active_file 5\ninactive_file 200\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_ram_bytes(tmp_path, tmp_path) == 8_192_000
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_ram_bytes(tmp_path, tmp_path) == 500
    assert available_ram_bytes() > 0


@pytest.fixture
def sampler(features: DeviceFeatures) -> Sampler:
    config = SamplerConfig(crop_frames=60, utterances_per_speaker=2)
    return Sampler(TrainingUtterances.of(features.index), config, batch_size=4, seed=0)


@pytest.mark.parametrize("prefetch", [None, 0, 1, 3, 50])
def test_batches_prepared_ahead_are_those_asked_for_one_by_one(
    features: DeviceFeatures, sampler: Sampler, prefetch: int | None
) -> None:
    loader = BatchLoader(sampler, features, config=DataConfig(prefetch_batches=prefetch))
    batches = list(loader.batches(3, 20))
    assert [batch.plan.step for batch in batches] == list(range(3, 20))
    for batch in batches:
        plan = sampler.batch(batch.plan.step)
        assert batch.features.shape == (4, 40, 60)
        assert torch.equal(batch.features.transpose(1, 2), crops_of(features, plan))
        assert batch.labels.tolist() == plan.labels.tolist()


def test_an_iterator_that_is_left_early_ends_its_thread(features: DeviceFeatures, sampler: Sampler) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]

    batches = BatchLoader(sampler, features, config=DataConfig(prefetch_batches=2)).batches(0, 10**9)
    assert next(batches).plan.step == 0
    assert len(threads()) == 1
    batches.close()  # type: ignore[attr-defined]
    assert threads() == []


def test_an_error_while_preparing_arrives(features: DeviceFeatures, sampler: Sampler) -> None:
    batches = BatchLoader(sampler, features, config=DataConfig(prefetch_batches=2)).batches(-1, 5)
    with pytest.raises(ValueError, match="step -1"):
        next(batches)


def test_ranks_load_their_shares(features: DeviceFeatures, sampler: Sampler) -> None:
    whole = BatchLoader(sampler, features).batch(7)
    shares = [BatchLoader(sampler, features, rank=rank, world_size=2).batch(7) for rank in (0, 1)]
    assert torch.equal(torch.cat([share.features for share in shares]), whole.features)
    assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
    with pytest.raises(ConfigError, match="batch_size is 4; expected a multiple of 6: 3 processes"):
        BatchLoader(sampler, features, world_size=3)


@pytest.mark.gpu
@pytest.mark.parametrize("placement", ["auto", "gpu", "ram", "mmap"])
def test_a_gpu_gets_the_same_crops(uri: str, stored: FeatureSet, tmp_path: Path, placement: str) -> None:
    config = DataConfig(placement=placement, cache_dir=str(tmp_path))  # type: ignore[arg-type]
    features = DeviceFeatures.open(uri, "cuda", config)
    assert features.placement == (placement if placement != "auto" else "gpu")
    for crop_frames in (60, 400):
        sampler = Sampler(
            TrainingUtterances.of(features.index),
            SamplerConfig(crop_frames=crop_frames),
            batch_size=8,
            seed=0,
        )
        for batch in BatchLoader(sampler, features).batches(0, 50):
            expected = [
                looped(stored, row, first - stored.index.first_frames[row], crop_frames)
                for row, first in zip(batch.plan.rows, batch.plan.first_frames, strict=True)
            ]
            np.testing.assert_array_equal(batch.features.transpose(1, 2).cpu().numpy(), np.stack(expected))

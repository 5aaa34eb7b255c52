"""SIGKILL at any instant: the same bytes in the end, no finished shard made twice, no process left over."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio_files import noise, wav
from commands import contents, identities
from corpora import Corpus, write_corpus
from interruption import Extractions

SHARDS = 5
KILLS = 24
KILLS_OF_TWO_WORKERS = 5
# A killed writer's temporary file stays until the next writer in its folder takes it over.
TEMPORARY = ".voxsrc-tmp-"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    members = {
        f"id{speaker}/s/{number}.wav": wav(noise(0.3 + 0.1 * number, seed=10 * speaker + number))
        for speaker in range(3)
        for number in range(4)
    }
    return write_corpus(tmp_path_factory.mktemp("kills"), members)


@pytest.fixture(scope="module")
def extractions() -> Iterator[Extractions]:
    with Extractions() as started:
        yield started


def arguments(corpus: Corpus, output: Path, num_workers: int = 1) -> list[str]:
    return [
        "run", "--audio", corpus.audio, "--list", corpus.list, "--output", str(output),
        "--num-shards", str(SHARDS), "--num-workers", str(num_workers),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(
    corpus: Corpus, extractions: Extractions, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    ended = extractions.run(arguments(corpus, output))
    assert ended.succeeded, ended.text
    made = contents(output)
    assert len(made) == 2 * SHARDS + 5
    return made


def finished_shards(output: Path) -> dict[str, tuple[int, int]]:
    """The files of the shards that have a record, which is written last."""
    files = identities(output)
    shards = {path.split(".")[0] for path in files if path.startswith("shard") and path.endswith(".json")}
    return {path: identity for path, identity in files.items() if path.split(".")[0] in shards}


def permanent(output: Path) -> dict[str, bytes]:
    return {path: content for path, content in contents(output).items() if TEMPORARY not in path}


def test_killed_before_each_operation_on_a_file(
    corpus: Corpus, extractions: Extractions, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    operation, killed = 0, True
    finished_before = set()
    while killed:
        operation += 4
        output = tmp_path / str(operation)
        killed = extractions.run(arguments(corpus, output), kill_at_operation=operation, below=output).killed
        before = finished_shards(output) if output.exists() else {}
        finished_before.add(len(before) // 2)
        ended = extractions.run(arguments(corpus, output))
        assert ended.succeeded, ended.text
        assert contents(output) == undisturbed
        assert before.items() <= identities(output).items()
    assert operation > 6 * len(undisturbed)
    assert finished_before == set(range(SHARDS + 1))


@pytest.mark.parametrize(
    ("num_workers", "num_kills", "from_fraction"), [(1, KILLS, 0.0), (2, KILLS_OF_TWO_WORKERS, 0.3)]
)
def test_killed_at_random_instants_again_and_again(
    corpus: Corpus,
    extractions: Extractions,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    num_workers: int,
    num_kills: int,
    from_fraction: float,
) -> None:
    measured = extractions.run(arguments(corpus, tmp_path / "measured", num_workers))
    assert measured.succeeded, measured.text
    assert contents(tmp_path / "measured") == undisturbed
    chance, longest_s = random.Random(num_workers), measured.seconds
    kills, completed = 0, 0
    before: dict[str, tuple[int, int]] = {}
    while kills < num_kills or not completed:
        output = tmp_path / str(completed)
        delay_s = longest_s * chance.uniform(from_fraction, 1.0) if kills < num_kills else None
        ended = extractions.run(arguments(corpus, output, num_workers), kill_after_s=delay_s)
        assert not ended.left_over, ended.text
        finished = finished_shards(output) if output.exists() else {}
        assert before.items() <= finished.items()
        if ended.killed:
            kills, before = kills + 1, finished
        else:
            assert ended.succeeded, ended.text
            assert permanent(output) == undisturbed
            completed, before = completed + 1, {}
            longest_s *= 0.9  # the one measured may have been slow: kills must not miss for ever
    assert completed > 0

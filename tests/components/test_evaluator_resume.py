"""Killed at any instant and run again, an evaluation ends with the bytes of an uninterrupted one."""

import itertools
import os
import random
import signal
from pathlib import Path

import pytest

from evaluations import Trained, job
from forked import Ended
from training_runs import Trainings
from voxsrc import storage
from voxsrc.lease import LEASE_NAME

# CI raises it.
NUM_KILLS = int(os.environ.get("VOXSRC_KILLS", "10"))

# In the order in which one life after the other reaches them; of 30 utterances each part holds 4.
PLACES = [
    ("voxsrc.embedding.embedder:Embedder._forward", 1),
    ("voxsrc.embedding.embedder:Embedder._forward", 7),
    ("voxsrc.embedding.cache:EmbeddingCache.flush", 1),
    ("voxsrc.embedding.cache:EmbeddingCache.load", 1),
    ("voxsrc.embedding.cache:EmbeddingCache.flush", 3),
    ("evaluator.evaluation:write_scores", 1),
    ("evaluator.evaluation:write_scores", 2),
    ("evaluator.reporting:write_metrics", 1),
    ("evaluator.reporting:write_report", 1),
    ("evaluator.report.writing:render", 1),
    ("evaluator.evaluation:write_settings", 1),
]
# On files and buckets: of a whole evaluation, and of one that has all of its embeddings, about.
OPERATIONS, FEWEST_OPERATIONS = 360, 190
SMALL_PARTS = {"voxsrc.embedding.cache:PART_UTTERANCES": 4}


def arguments(trained: Trained, output: str) -> list[str]:
    more = ["--train-features", trained.train, "--scoring", "as-norm", "--num-resamples", 10]
    return [str(argument) for argument in job(trained, *more, "--output", output)]


@pytest.fixture(scope="module")
def undisturbed(
    trainings: Trainings, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = str(tmp_path_factory.mktemp("undisturbed"))
    ended = trainings.run(arguments(trained, output), program="evaluator.cli", constants=SMALL_PARTS)
    assert ended.succeeded, ended.text
    return results(output)


def results(output: str) -> dict[str, bytes]:
    """What a run leaves, but for its lease, and kept embeddings, which lie in parts as they were made."""
    infos = storage.list_files(output)
    return {
        storage.name(info.uri): storage.read_bytes(info.uri)
        for info in infos
        if storage.name(storage.parent(storage.parent(info.uri))) != "embeddings"
        and storage.name(info.uri) != LEASE_NAME
    }


def parts(output: str) -> list[str]:
    folder = Path(output) / "embeddings"
    return sorted(path.name for path in folder.rglob("part-*"))


def test_killed_at_every_stage(
    trainings: Trainings, trained: Trained, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output, kept = str(tmp_path / "output"), list[list[str]]()
    for place, number in PLACES:
        ended = trainings.run(
            arguments(trained, output),
            program="evaluator.cli",
            constants=SMALL_PARTS,
            signal_at_call=(place, number, signal.SIGKILL),
        )
        assert ended.killed, (place, number, ended.text)
        kept.append(parts(output))
    assert kept[0] == []
    assert 0 < len(kept[1]) < len(kept[-1])
    assert all(set(earlier) <= set(later) for earlier, later in itertools.pairwise(kept))
    last = trainings.run(
        arguments(trained, output),
        program="evaluator.cli",
        # Nothing is left to be embedded: the network would end it.
        signal_at_call=("voxsrc.embedding.embedder:Embedder._forward", 1, signal.SIGKILL),
    )
    assert last.succeeded, last.text
    assert results(output) == undisturbed
    assert {"scores.txt", "metrics.json", "report.html", "det.png", "evaluation.json"} <= undisturbed.keys()


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_killed_at_random_instants(
    where: str,
    trainings: Trainings,
    trained: Trained,
    undisturbed: dict[str, bytes],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    output = str(tmp_path) if where == "folder" else f"{request.getfixturevalue('bucket')}/output"
    chance, kills = random.Random(where), 0

    def run(kill_at_operation: int = 0) -> Ended:
        return trainings.run(
            arguments(trained, output),
            program="evaluator.cli",
            constants=SMALL_PARTS,
            kill_at_operation=kill_at_operation,
        )

    while kills < max(2, NUM_KILLS // 3):
        kills += run(chance.randrange(10, FEWEST_OPERATIONS if kills else OPERATIONS)).killed
    ended = run()
    assert ended.succeeded, ended.text
    assert results(output) == undisturbed

"""Folders on a disk: what a list's order costs, and links in a circle."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from corpora import contents_of, listed, write_files
from voxsrc.errors import NotFoundError
from voxsrc.sources import match_all_files, match_utterances, open_source

SPEAKERS = 300


def test_a_shuffled_list_costs_no_more_looks_into_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {f"{speaker:03d}/{n}.m4a": b"" for speaker in range(SPEAKERS) for n in range(2)})
    looks: Counter[str] = Counter()
    scandir: Callable[[Path], object] = os.scandir

    def spy(path: Path) -> object:
        looks[os.fspath(path)] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    paths = [f"{speaker:03d}/{n}.wav" for n in range(2) for speaker in range(SPEAKERS)]
    random.Random(0).shuffle(paths)
    matching = match_utterances(open_source(str(tmp_path)), listed(*paths))
    assert [(u.utterance_id, m.path) for u, m in matching.pairs] == [(p, f"{p[:-3]}m4a") for p in paths]
    assert (len(looks), max(looks.values())) == (SPEAKERS, 1)


@pytest.mark.parametrize("name", ["ann/loop.wav", "ann/loop", "loop"])
def test_a_link_in_a_circle_is_as_one_to_nothing(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {"ann/1.wav": b"1", "bob/2.wav": b"2"})
    (tmp_path / name).symlink_to(Path(name).name)
    source = open_source(str(tmp_path))
    assert contents_of(source, match_all_files(source)) == {"ann/1.wav": b"1", "bob/2.wav": b"2"}
    matching = match_utterances(source, listed("ann/1.wav", name, f"{name}/3.wav"))
    assert [utterance.utterance_id for utterance in matching.missing] == [name, f"{name}/3.wav"]
    assert source.find_prefixes(["2.wav"]) == ["bob/"]


def test_audio_that_is_a_link_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFoundError, match="loop: cannot read: its links lead in a circle; mend them"):
        open_source(str(tmp_path / "loop"))

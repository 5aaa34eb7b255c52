"""Files of embeddings: what is written is read again, damage is told, nothing is executed."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from voxsrc.embedding import Embeddings
from voxsrc.embedding.stored import (
    StoredEmbeddingsError,
    from_safetensors,
    read_embeddings,
    to_safetensors,
    write_embeddings,
)
from voxsrc.errors import ConfigError, NotFoundError


def embeddings(*shape: int) -> Embeddings:
    vectors = np.random.default_rng(1).standard_normal((3, *shape)).astype(np.float32)
    return Embeddings(["a/b.wav", "ä/ x.wav", "c"], vectors, np.array([7, 400, 1], np.int64))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("shape", [(5,), (10, 4)])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    written = embeddings(*shape)
    path = tmp_path / f"out{suffix}"
    write_embeddings(str(path), written, {"model": "m"})
    read = read_embeddings(str(path))
    assert read.utterance_ids == written.utterance_ids
    np.testing.assert_array_equal(read.vectors, written.vectors)
    np.testing.assert_array_equal(read.num_frames, written.num_frames)
    assert read.vectors.dtype == np.float32 and read.num_frames.dtype == np.int64
    content = path.read_bytes()
    write_embeddings(str(path), written, {"model": "m"})
    assert path.read_bytes() == content


def test_none_are_written_and_read(tmp_path: Path) -> None:
    none = Embeddings([], np.empty((0, 8), np.float32), np.empty(0, np.int64))
    for name in ("a.npz", "a.safetensors"):
        write_embeddings(str(tmp_path / name), none)
        assert read_embeddings(str(tmp_path / name)).vectors.shape == (0, 8)


def test_an_npz_needs_no_pickle(tmp_path: Path) -> None:
    write_embeddings(str(tmp_path / "a.npz"), embeddings(5), {"model": "m"})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"utterance_ids", "vectors", "num_frames", "made_from"}
        assert str(arrays["made_from"]) == '{"model": "m"}'


def test_every_changed_byte_of_a_safetensors_file_is_noticed() -> None:
    content = to_safetensors(embeddings(2), {"model": "m"})
    intact, made_from = from_safetensors(content)
    assert made_from == {"model": "m"}
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        try:
            read, facts = from_safetensors(bytes(damaged))
        except StoredEmbeddingsError:
            continue
        # Blanks between the fields of the header may change and mean the same.
        assert (read.utterance_ids, facts) == (intact.utterance_ids, made_from)
        np.testing.assert_array_equal(read.vectors, intact.vectors)
        np.testing.assert_array_equal(read.num_frames, intact.num_frames)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_cut_or_foreign_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_embeddings(str(path), embeddings(5))
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[:-1], b"\xff" * 200, pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(StoredEmbeddingsError, match=rf"{name}: no embeddings, or damaged.*make it again"):
            read_embeddings(str(path))


def test_a_single_array_under_the_name_of_several(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros((3, 5), np.float32))
    message = (
        r"a\.npz: no embeddings: one array \(3, 5\), a file in \.npy; expected several in \.npz; make it"
    )
    with pytest.raises(StoredEmbeddingsError, match=message):
        read_embeddings(str(tmp_path / "a.npz"))


def test_a_name_that_tells_no_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out.pkl: expected a name that ends in .npz or .safetensors"):
        write_embeddings(str(tmp_path / "out.pkl"), embeddings(5))
    with pytest.raises(NotFoundError):
        read_embeddings(str(tmp_path / "none.npz"))

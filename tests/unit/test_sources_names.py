"""Names in zip archives, which need not say how they are encoded."""

import io
import zipfile
from pathlib import Path

import pytest

from corpora import contents_of, listed, store_corpus, zip_bytes
from voxsrc.sources import match_all_files, match_utterances, open_source

MEMBERS = {"Jürgen/s/1.wav": b"1", "Renée/s/2.wav": b"2", "日本/s/3.wav": b"3", "plain/s/4.wav": b"4"}


class _Unmarked(zipfile.ZipInfo):
    """An entry with its name's bytes as they are, and no word on their encoding."""

    encoding = "utf-8"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


class _Unmarked437(_Unmarked):
    encoding = "cp437"


def unmarked_zip(members: dict[str, bytes], kind: type[_Unmarked] = _Unmarked) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in members.items():
            archive.writestr(kind(path), content)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["folder", "marked", "unmarked"])
def test_speakers_are_called_the_same_in_a_folder_and_in_any_zip(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        uri = store_corpus(str(tmp_path), "folder", MEMBERS)
    else:
        uri = str(tmp_path / "a.zip")
        Path(uri).write_bytes(unmarked_zip(MEMBERS) if kind == "unmarked" else zip_bytes(MEMBERS))
        with zipfile.ZipFile(uri) as archive:
            marks = [entry.flag_bits & 0x800 for entry in archive.infolist()]
        assert any(marks) == (kind == "marked")
    source = open_source(uri)
    matching = match_all_files(source)
    assert contents_of(source, matching) == MEMBERS
    assert {u.speaker_id for u, _ in matching.pairs} == {"Jürgen", "Renée", "日本", "plain"}
    found = match_utterances(source, listed(*MEMBERS))
    assert not found.missing
    source.close()


def test_a_name_in_the_formats_own_code_page_is_read_so(tmp_path: Path) -> None:
    members = {path: content for path, content in MEMBERS.items() if "日" not in path}
    (tmp_path / "a.zip").write_bytes(unmarked_zip(members, _Unmarked437))
    source = open_source(str(tmp_path / "a.zip"))
    assert contents_of(source, match_all_files(source)) == members
    source.close()

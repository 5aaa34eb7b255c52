"""Accents may be one character (NFC) or a letter and a mark (NFD): they look the same."""

import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from corpora import FORMS, contents_of, listed, store_corpus
from voxsrc.errors import CorpusError
from voxsrc.sources import match_utterances, open_source, open_sources

# The first ones alone are looked for to find the folder; here all of them have accents.
NAMES = [f"renée/sess {take // 3}/ä{take}.wav" for take in range(6)]
Form = Literal["NFC", "NFD"]
OTHER: dict[Form, Form] = {"NFC": "NFD", "NFD": "NFC"}


def spelt(form: Form, names: list[str]) -> list[str]:
    return [unicodedata.normalize(form, name) for name in names]


@pytest.mark.parametrize("list_form", ["NFC", "NFD"])
@pytest.mark.parametrize("prefix", ["", "wav/"])
@pytest.mark.parametrize("form", FORMS)
def test_a_name_is_found_in_another_unicode_form(
    tmp_path: Path, form: str, prefix: str, list_form: Form
) -> None:
    in_archive = [f"{prefix}{name}" for name in spelt(OTHER[list_form], NAMES)] + [f"{prefix}b/s/1.wav"]
    names = [*spelt(list_form, NAMES), "b/s/1.wav"]
    source = open_source(store_corpus(str(tmp_path), form, {name: name.encode() for name in in_archive}))
    matching = match_utterances(source, listed(*names))
    assert [u.utterance_id for u, _ in matching.pairs] == names
    assert [member.path for _, member in matching.pairs] == in_archive
    assert (matching.missing, matching.prefix, matching.num_other_suffix) == ([], prefix, 0)
    assert matching.notes[-1] == (
        "the list has accents in another Unicode form than the files, which looks the same (NFC, NFD): "
        "6 utterances matched all the same"
    )
    assert list(contents_of(source, matching).values()) == [name.encode() for name in in_archive]
    source.close()


def test_the_form_and_the_suffix_may_both_be_others(tmp_path: Path) -> None:
    source = open_source(store_corpus(str(tmp_path), "tar", {"a/s/u\u0308.m4a": b"1", "a/s/2.m4a": b"2"}))
    matching = match_utterances(source, listed("a/s/ü.wav", "a/s/2.wav"))
    assert not matching.missing
    assert [note.partition(":")[0] for note in matching.notes] == [
        "the list says .wav where the file is .m4a",
        "the list has accents in another Unicode form than the files, which looks the same (NFC, NFD)",
    ]
    assert matching.num_other_suffix == 2
    source.close()


def test_files_in_both_forms_are_two(tmp_path: Path) -> None:
    names = ["a/s/ü.wav", "a/s/u\u0308.wav"]
    source = open_source(store_corpus(str(tmp_path), "tar", {name: name.encode() for name in names}))
    matching = match_utterances(source, listed(*names))
    assert contents_of(source, matching) == {name: name.encode() for name in names}
    assert matching.notes == []
    source.close()


def test_one_file_listed_in_both_forms_is_refused(tmp_path: Path) -> None:
    source = open_source(store_corpus(str(tmp_path), "tar", {"a/s/ü.wav": b"1"}))
    with pytest.raises(CorpusError, match="Unicode form of accents alone list one"):
        match_utterances(source, listed("a/s/ü.wav", "a/s/u\u0308.wav"))
    source.close()


def test_several_sources_each_in_its_form(tmp_path: Path) -> None:
    folders = ["first/wav", "second"]
    for folder, form, names in zip(folders, OTHER, (NAMES[:3], NAMES[3:]), strict=True):
        store_corpus(str(tmp_path / folder), "folder", {n: n.encode() for n in spelt(form, names)})
    source = open_sources([str(tmp_path / folder / "corpus") for folder in folders])
    names = spelt("NFC", NAMES)
    matching = match_utterances(source, listed(*names))
    assert [u.utterance_id for u, _ in matching.pairs] == names
    assert [note for note in matching.notes if "3 utterances matched all the same" in note]
    source.close()

import json
import os
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_files import m4a, noise, tone, wav
from commands import Command, contents, identities
from corpora import Corpus, tar_bytes, write_corpus, zip_bytes
from feature_extractor import extraction
from voxsrc import storage
from voxsrc.feature_set import FeatureSet, read_manifest
from voxsrc.feature_set.verification import verify
from voxsrc.features.scipy_log_mel import LogMelExtractor

GOOD = {f"id{n % 2}/s/good {n}.wav": wav(noise(0.3, seed=n)) for n in range(6)}

REJECTED = {
    "id0/s/empty.wav": (b"", "empty"),
    "id0/s/truncated.wav": (wav(noise(0.5))[:9_000], "truncated"),
    "id0/s/truncated.m4a": (m4a(noise(0.5))[:-2_000], "truncated"),
    "id0/s/truncated, moov first.m4a": (m4a(noise(0.5), moov_first=True)[:-2_000], "truncated"),
    "id1/s/text.wav": (b"Dear sir or madam,\n" * 99, "undecodable"),
    "id1/s/zeros.wav": (wav(np.zeros(8_000, np.float32)), "silent"),
    "id1/s/nan.wav": (wav(np.full(8_000, np.nan, np.float32), subtype="FLOAT"), "non_finite"),
    "id1/s/50 ms.wav": (wav(noise(0.05)), "too_short"),
}
ACCEPTED = {
    "id0/s/8 kHz.wav": wav(tone(0.5, 8_000), 8_000),
    "id0/s/44.1 kHz stereo.wav": wav(np.stack([tone(0.5, 44_100)] * 2, axis=1), 44_100),
    "id0/s/24 bit.wav": wav(tone(0.5), subtype="PCM_24"),
    "id1/s/float.wav": wav(tone(0.5), subtype="FLOAT"),
    "id1/ein Tag im März/Größe „5“ 日本.wav": wav(tone(0.5)),
}


def rejections(output: Path) -> dict[str, str]:
    lines = (output / "rejected.jsonl").read_text().splitlines()
    return {fields["utterance_id"]: fields["reason"] for fields in map(json.loads, lines)}


def options(corpus: Corpus, output: Path) -> list[str]:
    return ["--audio", corpus.audio, "--list", corpus.list, "--output", str(output), "--num-workers", "1"]


def test_every_kind_of_bad_recording_is_rejected_and_every_odd_one_taken(
    tmp_path: Path, feature_extractor: Command
) -> None:
    bad = {path: content for path, (content, _) in REJECTED.items()}
    corpus = write_corpus(tmp_path, GOOD | bad | ACCEPTED)
    with Path(corpus.list).open("a") as file:
        file.write("id0\tid0/s/path missing.wav\nid1\tid1/s\n")
    output = tmp_path / "set"
    outcome = feature_extractor("run", *options(corpus, output), "--max-rejected", 0.5)
    assert outcome.code == 0
    assert outcome.output.endswith(" % of 16-bit PCM), 10 rejected\n")
    assert rejections(output) == {
        "id0/s/path missing.wav": "missing",
        "id1/s": "missing",
        **{path: reason for path, (_, reason) in REJECTED.items()},
    }
    assert verify(str(output)) == []
    features = FeatureSet.open(str(output))
    assert features.index.utterance_ids == [*GOOD, *ACCEPTED]
    manifest = features.manifest
    assert manifest.num_rejected == {
        "empty": 1, "missing": 2, "non_finite": 1, "silent": 1,
        "too_short": 1, "truncated": 3, "undecodable": 1,
    }  # fmt: skip
    assert manifest.counts["resampled_utterances"] == 2
    assert manifest.counts["downmixed_utterances"] == 1
    for path in ACCEPTED:
        assert features.read(path).shape == (48, 40)
    assert features.index.session_ids[-1] == "ein Tag im März"


# 6 good ones, and so many bad ones.
@pytest.mark.parametrize(
    ("num_bad", "allowed", "code"), [(2, 0.25, 0), (2, 0.249, 1), (0, 0.0, 0), (1, 0.0, 1)]
)
def test_too_many_rejected_utterances_are_an_error(
    tmp_path: Path, feature_extractor: Command, num_bad: int, allowed: float, code: int
) -> None:
    bad = {path: content for path, (content, _) in list(REJECTED.items())[:num_bad]}
    corpus = write_corpus(tmp_path, GOOD | bad)
    output = tmp_path / "set"
    outcome = feature_extractor("run", *options(corpus, output), "--max-rejected", allowed)
    assert outcome.code == code
    assert rejections(output) == {path: REJECTED[path][1] for path in bad}
    assert (output / "manifest.json").exists() == (code == 0)
    if code:
        reasons = "1 empty, 1 truncated" if num_bad == 2 else "1 empty"
        assert outcome.error == (
            f"{num_bad} of {6 + num_bad} utterances were rejected ({reasons}), the first is "
            f"id0/s/empty.wav (the file has no bytes); they are listed in {output}/rejected.jsonl. "
            "Mend or unlist them and run again with --overwrite, or allow them with --max-rejected "
            f"(now {allowed:g}); what was extracted is kept"
        )


def test_a_fraction_of_just_so_many_is_allowed(tmp_path: Path, feature_extractor: Command) -> None:
    # 0.07 · 100 is a little above 7 in floating point, 0.29 · 100 a little below 29.
    lines = [f"a a/{n}.wav\n" for n in range(71)] + [f"b b/{n}.wav\n" for n in range(29)]
    (tmp_path / "list.txt").write_text("".join(lines))
    members = {f"a/{n}.wav": GOOD["id0/s/good 0.wav"] for n in range(71)}
    (tmp_path / "audio.tar").write_bytes(tar_bytes(members))
    arguments = [
        "--audio",
        tmp_path / "audio.tar",
        "--list",
        tmp_path / "list.txt",
        "--output",
        tmp_path / "set",
    ]
    outcome = feature_extractor("run", *arguments, "--max-rejected", 0.29, "--num-workers", 1)
    assert outcome.code == 0
    outcome = feature_extractor(
        "plan", *arguments[:4], "--output", tmp_path / "other", "--max-rejected", 0.28
    )
    assert outcome.error == (
        f"29 of 100 listed utterances are not in {tmp_path}/audio.tar, the first is b/0.wav; complete the "
        "audio or the list, or raise --max-rejected (now 0.28)"
    )
    assert not (tmp_path / "other").exists()


def test_allowing_more_afterwards_keeps_what_was_extracted(
    tmp_path: Path, feature_extractor: Command
) -> None:
    corpus = write_corpus(tmp_path, GOOD | {"id0/s/empty.wav": b""})
    output = tmp_path / "set"
    assert feature_extractor("run", *options(corpus, output), "--num-shards", 4).code == 1
    before = {path: identity for path, identity in identities(output).items() if path.startswith("shard")}
    assert len(before) == 8
    arguments = ["run", *options(corpus, output), "--num-shards", "4", "--max-rejected", "0.2"]
    assert feature_extractor(*arguments).code == 0
    assert before.items() <= identities(output).items()
    assert read_manifest(str(output)).num_utterances == 6


def test_nothing_left_is_an_error_whatever_is_allowed(tmp_path: Path, feature_extractor: Command) -> None:
    corpus = write_corpus(tmp_path, {"id0/empty.wav": b"", "id1/text.wav": b"text"})
    outcome = feature_extractor("run", *options(corpus, tmp_path / "set"), "--max-rejected", 1)
    assert outcome.code == 1
    assert outcome.error.startswith("2 of 2 utterances were rejected (1 empty, 1 undecodable), the first is ")


@pytest.mark.parametrize("step", ["change_speed", "log_mel"])
def test_an_utterance_for_which_there_is_not_enough_memory_is_rejected(
    tmp_path: Path, feature_extractor: Command, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    corpus, output = write_corpus(tmp_path, GOOD | {"id1/s/long.wav": wav(noise(2.0))}), tmp_path / "set"

    def refused(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if any(isinstance(a, np.ndarray) and len(a) > 16_000 for a in arguments):
                raise MemoryError
            return original(*arguments, **named)

        return call

    if step == "change_speed":
        monkeypatch.setattr(extraction, "change_speed", refused(extraction.change_speed))
    else:
        monkeypatch.setattr(LogMelExtractor, "__call__", refused(LogMelExtractor.__call__))
    arguments = [*options(corpus, output), "--speed", "0.9", "--max-rejected", "0.2"]
    assert feature_extractor("run", *arguments).code == 0
    assert rejections(output) == {"id1/s/long.wav": "too_large"}
    assert "not enough memory for its features" in (output / "rejected.jsonl").read_text()
    assert FeatureSet.open(str(output)).index.utterance_ids == [
        name for path in GOOD for name in (path, f"{path}-sp0.9")
    ]
    if step == "log_mel":
        outcome = feature_extractor("run", *options(corpus, tmp_path / "other"), "--dry-run")
        assert "of 7 utterances tried, rejected: 1 too_large" in outcome.output


@pytest.mark.parametrize("num_workers", [1, 2])
def test_files_gone_since_planning_are_rejected(
    tmp_path: Path, feature_extractor: Command, num_workers: int
) -> None:
    corpus = write_corpus(tmp_path, GOOD)
    output = tmp_path / "set"
    arguments = [*options(corpus, output), "--num-shards", "3", "--max-rejected", "0.2"]
    assert feature_extractor("plan", *arguments[:6], *arguments[8:]).code == 0
    (tmp_path / "audio/id1/s/good 3.wav").unlink()
    assert feature_extractor("extract", "--output", output, "--num-workers", num_workers).code == 0
    assert feature_extractor("finish", "--output", output).code == 0
    assert rejections(output) == {"id1/s/good 3.wav": "missing"}
    assert read_manifest(str(output)).num_utterances == 5


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_audio_gone_since_planning_is_an_error(tmp_path: Path, feature_extractor: Command, form: str) -> None:
    corpus = write_corpus(tmp_path, GOOD)
    audio = tmp_path / "audio" if form == "folder" else tmp_path / "audio.tar"
    (tmp_path / "audio.tar").write_bytes(tar_bytes(GOOD))
    arguments = ["--audio", audio, "--list", corpus.list, "--output", tmp_path / "set"]
    assert feature_extractor("plan", *arguments).code == 0
    audio.rename(tmp_path / "moved")
    outcome = feature_extractor("extract", "--output", tmp_path / "set", "--num-workers", 1)
    assert outcome.error == f"{audio}: cannot read: it does not exist; check the path"


def test_paths_that_leave_a_tar_are_reported_and_never_read(
    tmp_path: Path, feature_extractor: Command
) -> None:
    members = {"../outside.wav": wav(tone(0.3)), "/absolute.wav": wav(tone(0.3)), **GOOD}
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar", "w") as archive:
        link = tarfile.TarInfo("id0/s/link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    linked = (tmp_path / "in/a.tar").read_bytes()[:512]
    (tmp_path / "in/a.tar").write_bytes(linked + tar_bytes(members))
    output = tmp_path / "in/set"
    arguments = ["--audio", tmp_path / "in/a.tar", "--output", output, "--num-workers", 1]
    outcome = feature_extractor("run", *arguments, "--max-rejected", 0)
    assert outcome.code == 0
    assert outcome.output.splitlines()[1:4] == [
        "note: 1 entries skipped: not_a_file",
        "note: 2 entries skipped: unsafe_path",
        "note: 2 listed utterances or archive entries cannot be read; rejected.jsonl will name them",
    ]
    assert rejections(output) == {"../outside.wav": "unsafe_path", "/absolute.wav": "unsafe_path"}
    assert sorted(FeatureSet.open(str(output)).index.utterance_ids) == sorted(GOOD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert not Path("/absolute.wav").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id0 s/1.wav\nid0 s/1.wav\n", ":2: 's/1.wav' is listed already at line 1; list it once"),
        (b"id0 id0/s/1.wav\nid0\n", ":2: 1 column(s), expected `speaker path`"),
        (
            b"1 id0/1.wav id0/2.wav\n",
            ":1: a trial (`label path path`), expected `speaker path`; is this a trial list?",
        ),
        (b"id0 Andr\xe9.wav\n", ":1: not UTF-8 (byte 0xe9); convert the list"),
        (b"id0 ../a.wav\n", ":1: '../a.wav' leaves the audio folder; expected a path relative to it"),
        (b"", " lists no utterances; expected lines `speaker path`"),
    ],
    ids=["duplicate-ids", "malformed-line", "trial-list", "latin-1", "leaves-the-folder", "empty"],
)  # fmt: skip
def test_a_bad_list_is_one_line_of_error(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, content: bytes, message: str
) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    for command in ("run", "plan"):
        arguments = ["--audio", corpus.audio, "--list", tmp_path / "bad.txt", "--output", tmp_path / "set"]
        outcome = feature_extractor(command, *arguments)
        assert (outcome.code, outcome.errors) == (1, f"error: {tmp_path}/bad.txt{message}\n")
        assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b""], ids=["byte-order-mark", "none"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_from_another_system(
    tmp_path: Path, feature_extractor: Command, content: bytes, line_end: str
) -> None:
    corpus = write_corpus(tmp_path, GOOD)
    Path(corpus.list).write_bytes(content + Path(corpus.list).read_bytes().replace(b"\n", line_end.encode()))
    assert feature_extractor("run", *options(corpus, tmp_path / "set"), "--max-rejected", 0).code == 0
    assert FeatureSet.open(str(tmp_path / "set")).index.utterance_ids == list(GOOD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audio", "{tmp}/gone"], "{tmp}/gone: cannot read: it does not exist; check the path"),
        (["--list", "{tmp}/gone.txt"], "{tmp}/gone.txt: cannot read: it does not exist; check the path"),
        (["--list", "{tmp}"], "{tmp}: cannot read: it is a folder; expected a file"),
        (
            ["--audio", "s3://bucket/a"],
            "s3://bucket/a: unknown scheme s3://; expected a local path or one of",
        ),
        (["--audio", "gs://No_Bucket/a"], "gs://No_Bucket/a: 'No_Bucket' is no bucket name; expected"),
        (["--audio", ""], "empty path or URI; expected a local path or gs://bucket/key"),
        (["--output", ""], "empty path or URI; expected a local path or gs://bucket/key"),
    ],
)
def test_a_path_that_is_not_there(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, arguments: list[str], message: str
) -> None:
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    outcome = feature_extractor("run", *options(corpus, tmp_path / "set"), *given)
    assert outcome.code == 1
    assert outcome.errors.startswith("error: " + message.replace("{tmp}", str(tmp_path)))
    assert outcome.errors.count("\n") == 1
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("flag", ["--audio", "--list", "--output"])
def test_a_bucket_that_does_not_exist(
    corpus: Corpus, tmp_path: Path, bucket: str, feature_extractor: Command, flag: str
) -> None:
    uri = "gs://there-is-no-such-bucket/folder"
    outcome = feature_extractor("run", *options(corpus, tmp_path / "set"), flag, uri)
    assert outcome.code == 1
    assert outcome.error.startswith("gs://there-is-no-such-bucket: no such bucket (needed for ")
    assert outcome.errors.count("\n") == 1


@pytest.mark.parametrize("flag", ["--audio", "--list", "--output"])
def test_no_credentials(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")  # where nobody answers
    outcome = feature_extractor("run", *options(corpus, tmp_path / "set"), flag, "gs://a-bucket/folder")
    assert outcome.code == 1
    assert outcome.error.startswith("no Google Cloud credentials: neither a file nor a metadata server was")
    assert "gcloud auth application-default login" in outcome.error
    assert outcome.errors.count("\n") == 1


def test_a_cut_archive_is_one_line_of_error(tmp_path: Path, feature_extractor: Command) -> None:
    for name, content in (
        ("a.tar", tar_bytes(GOOD)),
        ("b.tar.gz", tar_bytes(GOOD, "gz")),
        ("c.zip", zip_bytes(GOOD)),
    ):
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        outcome = feature_extractor("run", "--audio", tmp_path / name, "--output", tmp_path / "set")
        assert outcome.code == 1
        assert outcome.errors.startswith(f"error: {tmp_path / name} is not a whole ")
        assert outcome.errors.count("\n") == 1
        assert not (tmp_path / "set").exists()


def test_a_damaged_zip_entry_is_rejected(tmp_path: Path, feature_extractor: Command) -> None:
    content = bytearray(zip_bytes(GOOD, zipfile.ZIP_DEFLATED))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(content)
    arguments = ["--audio", tmp_path / "a.zip", "--output", tmp_path / "set", "--max-rejected", 0.2]
    assert feature_extractor("run", *arguments, "--num-workers", 1).code == 0
    assert list(rejections(tmp_path / "set").values()) == ["damaged"]


def test_an_output_that_may_not_be_written(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", path)
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    outcome = feature_extractor("run", *options(corpus, tmp_path / "set"))
    assert outcome.code == 1
    assert outcome.error == (
        f"{tmp_path}/set/plan/plan.parquet: cannot write: user {os.getuid()} may not; "
        "check its owner and mode, and its folders'"
    )


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Makes the kernel refuse to write more into one file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_of_error_and_finished_shards_are_kept(
    tmp_path: Path, feature_extractor: Command
) -> None:
    long = {f"id9/s/{n}.wav": wav(noise(20.0, seed=n)) for n in range(2)}
    corpus = write_corpus(tmp_path, GOOD | long)
    output, undisturbed = tmp_path / "set", tmp_path / "undisturbed"
    assert feature_extractor("run", *options(corpus, undisturbed), "--num-shards", 5).code == 0
    with largest_file(30_000):
        outcome = feature_extractor("run", *options(corpus, output), "--num-shards", 5)
    assert outcome.code == 1
    [failed] = [shard for shard in range(5) if f"shard-{shard:05d}.lfb.zst: " in outcome.error]
    assert outcome.error == f"{output}/shard-{failed:05d}.lfb.zst: cannot write: File too large"
    assert "Traceback" not in outcome.errors
    kept = identities(output)
    assert failed > 0
    assert sorted(kept) == sorted(
        ["plan/plan.json", "plan/plan.parquet"]
        + [f"shard-{shard:05d}.{kind}" for shard in range(failed) for kind in ("json", "lfb.zst")]
    )
    assert feature_extractor("run", *options(corpus, output), "--num-shards", 5).code == 0
    assert contents(output) == contents(undisturbed)
    assert kept.items() <= identities(output).items()


def test_a_folder_of_the_audio_is_not_changed(tmp_path: Path, feature_extractor: Command) -> None:
    corpus = write_corpus(tmp_path, GOOD)
    before = identities(Path(corpus.audio))
    assert feature_extractor("run", *options(corpus, tmp_path / "set")).code == 0
    assert identities(Path(corpus.audio)) == before


def test_a_list_in_a_bucket_and_audio_on_a_disk(
    tmp_path: Path, bucket: str, feature_extractor: Command
) -> None:
    corpus = write_corpus(tmp_path, GOOD)
    storage.upload(corpus.list, f"{bucket}/list.txt")
    arguments = options(corpus, tmp_path / "set")
    assert feature_extractor("run", *arguments, "--list", f"{bucket}/list.txt").code == 0
    assert FeatureSet.open(str(tmp_path / "set")).index.utterance_ids == list(GOOD)

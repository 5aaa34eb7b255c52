"""The command `voxceleb-data`, from the parts in a bucket to a small copy."""

import hashlib
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import voxceleb_data
import voxsrc
from voxceleb_data import cli, inspection
from voxceleb_data.official import ARCHIVES, LISTS, Archive, OfficialFile


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two parts of a tiny `vox2-dev` and its joined zip."""
    folder = tmp_path / "origin"
    folder.mkdir()
    whole = folder / "tiny.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for speaker in range(4):
            for file in range(speaker + 1):
                archive.writestr(f"dev/aac/id{speaker}/s/{file}.m4a", random.Random(file).randbytes(50))
    content = whole.read_bytes()
    (folder / "tiny_partaa").write_bytes(content[:400])
    (folder / "tiny_partab").write_bytes(content[400:])
    files = [
        OfficialFile(name, hashlib.md5((folder / name).read_bytes()).hexdigest())
        for name in ("tiny_partaa", "tiny_partab", "tiny.zip")
    ]
    tiny = {"vox2-dev": Archive("vox2-dev", (files[0], files[1]), files[2], speakers=4, utterances=10)}
    monkeypatch.setattr(cli, "ARCHIVES", tiny)
    monkeypatch.setattr(inspection, "ARCHIVES", tiny)
    return folder


def test_from_parts_to_a_small_copy(origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert cli.main(["download", "vox2-dev", "--from", str(origin), "--output", str(data)]) == 0
    audio = f"{data}/tiny_part*"
    assert f"read it as --audio '{audio}'" in capsys.readouterr().out
    assert sorted(path.name for path in data.iterdir()) == [
        "tiny_partaa",
        "tiny_partaa.md5",
        "tiny_partab",
        "tiny_partab.md5",
    ]
    assert cli.main(["verify", str(data)]) == 0
    assert "2 ok, 0 missing or damaged" in capsys.readouterr().out
    assert cli.main(["prepare", "--audio", audio, "--output", f"{data}/list.txt"]) == 0
    assert "4 speakers, 4 sessions, 10 utterances" in capsys.readouterr().out
    command = ["copy-subset", "--audio", audio, "--list", f"{data}/list.txt", "--seed", "1"]
    assert cli.main([*command, "--speakers", "2", "--utterances", "3", "--output", f"{tmp_path}/small"]) == 0
    assert "passed over 2 speakers, with fewer than 3: id0, id1" in capsys.readouterr().out
    assert (tmp_path / "small" / "list.txt").read_text().count("\n") == 6
    (data / "tiny_partab").write_bytes(b"damaged")
    assert cli.main(["verify", str(data)]) == 1
    assert "damaged  tiny_partab: MD5" in capsys.readouterr().out


def test_single_parts_and_the_joined_zip(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["download", "vox2-dev", "--from", str(origin), "--output"]
    assert cli.main([*command, f"{tmp_path}/1", "--parts-only", "partab"]) == 0
    assert (tmp_path / "1" / "tiny_partab").exists()
    assert not (tmp_path / "1" / "tiny_partaa").exists()
    assert cli.main([*command, f"{tmp_path}/2", "--joined"]) == 0
    assert f"--audio '{tmp_path}/2/tiny.zip'" in capsys.readouterr().out
    assert cli.main([*command, f"{tmp_path}/3", "--parts-only", "partxx"]) == 1
    assert "the parts are tiny_partaa, tiny_partab" in capsys.readouterr().err


def test_errors_are_one_line_and_code_1(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["download", "vox2-dev", "--from", str(tmp_path / "nowhere"), "--output", str(tmp_path / "o")]
    assert cli.main(command) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert "nowhere" in shown
    assert cli.main([*command, "--debug"]) == 1
    assert capsys.readouterr().err.startswith("Traceback")
    # Not an error of ours, but of the machine.
    (tmp_path / "file").touch()
    assert cli.main([*command[:3], str(origin), "--output", str(tmp_path / "file" / "below")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_is_one_line_and_code_130(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **more: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Transfer, "download", interrupted)
    assert cli.main(["download", "vox2-dev", "--from", str(origin), "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted; what is finished is kept\n"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"voxsrc {voxsrc.__version__}\n"


def test_an_unset_variable_is_named_and_nothing_is_fetched(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOX_KEY", raising=False)
    command = ["download", "vox2-dev", "--from", "https://localhost/{key}/{name}", "--output", str(tmp_path)]
    assert cli.main([*command, "--key-env", "VOX_KEY"]) == 1
    assert "VOX_KEY is not set" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_counts_must_be_positive(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["copy-subset", "--utterances", "1", f"--speakers={number}"])
    assert "is not a positive number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ([], ["download", "verify", "trials", "prepare", "copy-subset", "from nothing to a feature set"]),
        (["download"], ["--from", "--user-env", "--key-env", "--parts-only", *ARCHIVES]),
        (["verify"], ["--archive"]),
        (["trials"], ["--base-url", "cleaned", *LISTS]),
        (["prepare"], ["--audio", "--trials"]),
        (["copy-subset"], ["--speakers", "--utterances", "--seed"]),
    ],
)
def test_help_names_every_option(
    command: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [word for word in expected if word not in shown] == []


def test_the_command_needs_neither_torch_nor_a_decoder() -> None:
    folders = [str(Path(module.__file__ or "").parents[1]) for module in (voxceleb_data, voxsrc)]
    code = (
        f"import sys; sys.path[:0] = {folders!r}\nimport voxceleb_data.cli\n"
        "print([name for name in ('torch', 'av', 'scipy', 'soundfile') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"

"""`voxsrc embed` of several sources of audio."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audio_files import noise, wav
from commands import Outcome
from corpora import write_files, zip_bytes
from tiny_models import make_model
from voxsrc.command import run_command
from voxsrc.commands import embed
from voxsrc.embedding.stored import from_safetensors

Run = Callable[..., Outcome]
MEMBERS = {f"{speaker}/s/1.wav": wav(noise(1.0, seed=n)) for n, speaker in enumerate(("ann", "bob", "cho"))}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    make_model(tmp_path / "model")
    (tmp_path / "list.txt").write_text("".join(f"{path.split('/')[0]} {path}\n" for path in MEMBERS))

    def command(*arguments: str | Path) -> Outcome:
        parser = argparse.ArgumentParser()
        embed.add_commands(parser.add_subparsers(required=True))
        common = ["embed", tmp_path / "list.txt", "--model", tmp_path / "model", *arguments]
        parsed = parser.parse_args([*map(str, common)])
        code = run_command(parsed.function, parsed)
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.mark.parametrize("apart", [True, False])
def test_several_sources_give_what_one_gives(run: Run, tmp_path: Path, apart: bool) -> None:
    first, *others = MEMBERS
    write_files(tmp_path / "whole", MEMBERS)
    write_files(tmp_path / "folder/wav", {path: MEMBERS[path] for path in others})
    (tmp_path / "a.zip").write_bytes(zip_bytes({first: MEMBERS[first]}))
    sources = [str(tmp_path / "folder"), str(tmp_path / "a.zip")]
    named = [f"--audio={uri}" for uri in sources] if apart else ["--audio", "; ".join(sources)]
    assert run("--audio", tmp_path / "whole", "--output", tmp_path / "whole.safetensors").code == 0
    assert run(*named, "--output", tmp_path / "several.safetensors").code == 0
    (of_one, _), (of_several, made_from) = (
        from_safetensors((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("whole", "several")
    )
    assert made_from["audio"] == sources
    assert of_several.utterance_ids == of_one.utterance_ids == list(MEMBERS)
    np.testing.assert_array_equal(of_several.vectors, of_one.vectors)


def test_a_source_named_twice_is_refused_before_the_model_is_loaded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model/model.yaml").unlink()
    twice = ["--audio", tmp_path, "--audio", tmp_path]
    assert run(*twice, "--output", tmp_path / "out.npz").error.startswith(f"--audio names {tmp_path} and ")

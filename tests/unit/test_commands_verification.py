"""`voxsrc verify`, `embed` and `identify`, as a user runs them."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_files import noise, wav
from commands import Outcome
from feature_sets import make_feature_set
from tiny_models import EMBEDDING_DIM, make_model
from voxsrc.command import run_command
from voxsrc.commands import embed, identify, verify
from voxsrc.embedding import CROPS
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.stored import read_embeddings
from voxsrc.feature_set import FeatureSet
from voxsrc.models.stored import load_model
from voxsrc.scoring import LogisticCalibration

Run = Callable[..., Outcome]

CALIBRATION = LogisticCalibration(
    ("score",),
    (20.0,),
    -8.0,
    fitted_on={"scoring": "cosine of whole utterances", "trials": 12_000, "speakers": 34},
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str | Path) -> Outcome:
        parser = argparse.ArgumentParser()
        groups = parser.add_subparsers(required=True)
        for module in (verify, embed, identify):
            module.add_commands(groups)
        parsed = parser.parse_args([*map(str, arguments)])
        code = run_command(parsed.function, parsed)
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", calibration=CALIBRATION.to_dict())
    return tmp_path / "model"


@pytest.fixture
def bare_model(tmp_path: Path) -> Path:
    make_model(tmp_path / "bare")
    return tmp_path / "bare"


def recording(path: Path, seed: int = 0, rate_hz: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(noise(1.0, rate_hz, seed=seed), rate_hz))
    return path


def test_verify_says_score_probability_decision_and_why(run: Run, model: Path, tmp_path: Path) -> None:
    a, b = recording(tmp_path / "a.wav"), recording(tmp_path / "b.wav")
    outcome = run("verify", a, b, "--model", model)
    assert (outcome.code, outcome.errors) == (0, "")
    score, probability, decision, why, change = outcome.output.splitlines()
    assert score.split()[:2] == ["score", "1.0000"]
    assert probability.split()[:3] == ["probability", "100.00", "%"]
    assert "same speaker: the score is at least the threshold, 0.4000" in decision
    assert "Bayes' for prior 0.5 and equal costs" in why and "log-likelihood ratio is 0.00" in why
    assert "12,000 trials of 34 held-out training speakers" in why
    assert "--prior" in change and "--threshold" in change
    rare = run("verify", a, b, "--model", model, "--prior", "0.01", "--c-fa", "10").output
    assert "prior 0.01 and costs 1 (miss) and 10" in rare and "ratio is 6.90" in rare
    given = run("verify", a, b, "--model", model, "--threshold", "0.75").output
    assert "at least the threshold, 0.7500" in given and "the one that was given" in given


def test_verify_says_when_no_score_can_be_accepted(run: Run, model: Path, tmp_path: Path) -> None:
    a, b = recording(tmp_path / "a.wav"), recording(tmp_path / "b.wav")
    common = ["verify", a, b, "--model", model]
    output = run(*common, "--prior", "1e-6").output
    assert "different speakers" in output
    assert (
        "With prior 1e-06 and equal costs nothing can be accepted, as no cosine reaches 1.0908.\n" in output
    )
    output = run(*common, "--prior", "0.999999999999999").output
    assert "equal costs everything is accepted, as every cosine is above -1.32" in output
    assert "can be accepted" not in run(*common, "--prior", "0.001").output


def test_verify_as_json(run: Run, model: Path, tmp_path: Path) -> None:
    a, b = recording(tmp_path / "a.wav", 1), recording(tmp_path / "8k.wav", 2, 8_000)
    outcome = run("verify", a, b, "--model", model, "--json", "--prior", "0.1")
    found = json.loads(outcome.output)
    assert found["threshold"] == pytest.approx((np.log(9) + 8) / 20)
    assert found["llr"] == pytest.approx(20 * found["score"] - 8)
    assert found["accepted"] is (found["score"] >= found["threshold"])
    assert 0 <= found["probability"] <= 1 and found["prior"] == 0.1
    assert found["calibration"] == dict(CALIBRATION.fitted_on)
    [warning] = found["warnings"]
    assert outcome.errors == f"warning: {warning}\n"


def test_verify_warns_of_telephone_audio(run: Run, model: Path, tmp_path: Path) -> None:
    a, b = recording(tmp_path / "8k.wav", 1, 8_000), recording(tmp_path / "b.wav", 2)
    outcome = run("verify", a, b, "--model", model)
    assert outcome.code == 0 and outcome.output.split()[0] == "score"
    assert outcome.errors.startswith(
        f"warning: {a} has a sample rate of 8000 Hz and thus no energy above 4000"
    )
    assert len(outcome.errors.splitlines()) == 1


def test_verify_without_calibration_gives_a_score_and_no_decision(
    run: Run, bare_model: Path, tmp_path: Path
) -> None:
    a, b = recording(tmp_path / "a.wav", 1), recording(tmp_path / "b.wav", 2)
    output = run("verify", a, b, "--model", bare_model).output
    assert "probability" not in output and "decision  none" in output
    assert "has no calibration" in output and "--threshold S" in output
    decided = run("verify", a, b, "--model", bare_model, "--threshold", "-1").output
    assert "decision  same speaker" in decided
    found = json.loads(run("verify", a, b, "--model", bare_model, "--json").output)
    assert found["llr"] is found["probability"] is found["accepted"] is found["calibration"] is None


def test_what_verify_cannot_use(run: Run, model: Path, tmp_path: Path) -> None:
    a = recording(tmp_path / "a.wav")
    for arguments, message in (
        ((a, tmp_path / "none.wav", "--model", model), "none.wav"),
        ((a, a, "--model", tmp_path / "none"), "model.yaml"),
        ((a, a, "--model", model, "--prior", "1"), "--prior is 1; expected a probability between 0 and 1"),
        ((a, a, "--model", model, "--device", "tpu"), "device is 'tpu'; expected auto, cpu, cuda or cuda:N"),
    ):
        outcome = run("verify", *arguments)
        assert outcome.code == 1 and outcome.output == ""
        assert message in outcome.error


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_embed_writes_the_embeddings_of_a_feature_set(
    run: Run, bare_model: Path, tmp_path: Path, suffix: str
) -> None:
    make_feature_set(tmp_path / "set", [[60, 80], [60]])
    features = FeatureSet.open(str(tmp_path / "set"))
    ids = features.index.utterance_ids[::-1]
    (tmp_path / "list.txt").write_text("".join(f"spk {utterance_id}\n" for utterance_id in ids))
    output = tmp_path / f"out{suffix}"
    common = ["embed", tmp_path / "list.txt", "--features", tmp_path / "set", "--model", bare_model]
    outcome = run(*common, "--output", output, "--cache", tmp_path / "cache", "--device", "cpu")
    assert outcome.code == 0
    assert outcome.output == f"{output}: 3 utterances, {EMBEDDING_DIM} values each\n"
    found, loaded = read_embeddings(str(output)), load_model(str(bare_model))
    np.testing.assert_array_equal(found.vectors, Embedder(loaded).embed_set(features, ids).vectors)
    assert found.utterance_ids == ids
    assert list((tmp_path / "cache").rglob("part-*"))
    assert run(*common, "--output", output, "--crops").output.endswith(
        f"3 utterances, 10 × {EMBEDDING_DIM} values each\n"
    )
    crops = Embedder(loaded, mode=CROPS).embed_set(features, ids).vectors
    np.testing.assert_array_equal(read_embeddings(str(output)).vectors, crops)


def test_embed_opens_the_set_as_the_device_wants(
    run: Run, bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_feature_set(tmp_path / "set", [[60, 80], [60]])
    utterance_id = FeatureSet.open(str(tmp_path / "set")).index.utterance_ids[0]
    (tmp_path / "list.txt").write_text(f"spk {utterance_id}\n")
    monkeypatch.setenv("VOXSRC_CACHE", str(tmp_path / "cache"))
    where = ["embed", tmp_path / "list.txt", "--features", tmp_path / "set", "--model", bare_model]
    for kind, mapped in (("cpu", 0), ("cuda", 1)):
        monkeypatch.setattr("voxsrc.embedding.opening.chosen_device", lambda _, kind=kind: torch.device(kind))
        assert run(*where, "--output", tmp_path / "out.npz", "--device", "cpu").code == 0
        assert len(list((tmp_path / "cache").glob("*.u8"))) == mapped


def test_embed_reads_audio_too(run: Run, bare_model: Path, tmp_path: Path) -> None:
    recording(tmp_path / "audio/ann/s/1.wav", 1)
    recording(tmp_path / "audio/bob/s/2.wav", 2, 8_000)
    (tmp_path / "list.txt").write_text("ann ann/s/1.wav\nbob bob/s/2.wav\n")
    output = tmp_path / "out.npz"
    common = [
        "embed",
        tmp_path / "list.txt",
        "--audio",
        tmp_path / "audio",
        "--model",
        bare_model,
        "--output",
        output,
    ]
    outcome = run(*common)
    assert outcome.code == 0
    assert "warning: 1 utterances resampled from 8000 to 16000 Hz" in outcome.errors
    assert read_embeddings(str(output)).num_frames.tolist() == [98, 98]
    output.unlink()
    (tmp_path / "audio/ann/s/1.wav").write_bytes(b"x" * 100)
    (tmp_path / "audio/bob/s/2.wav").unlink()
    recording(tmp_path / "audio/bob/s/3.wav")
    failed = run(*common)
    assert failed.code == 1 and "1 of 2 utterances" in failed.error and "1 missing" in failed.error
    assert not output.exists()


def test_embed_finds_a_wrong_name_before_it_works(run: Run, tmp_path: Path) -> None:
    common = ["embed", "none.txt", "--features", "none", "--model", "none", "--output"]
    assert "expected a name that ends in .npz or .safetensors" in run(*common, tmp_path / "out.pt").error
    with pytest.raises(SystemExit):
        run("embed", "list", "--model", "m", "--output", "o.npz")
    with pytest.raises(SystemExit):
        run("embed", "list", "--audio", "a", "--features", "f", "--model", "m", "--output", "o.npz")


def identified(run: Run, *arguments: str | Path) -> dict[str, Any]:
    outcome = run("identify", *arguments, "--json")
    assert outcome.code == 0, outcome.errors
    found: dict[str, Any] = json.loads(outcome.output)
    return found


def test_identify_names_the_speaker_or_none_of_these(run: Run, model: Path, tmp_path: Path) -> None:
    for seed, speaker in enumerate(("ann", "bob", "eve")):
        recording(tmp_path / f"known/{speaker}/session/1.wav", seed)
    probes = [recording(tmp_path / "p.wav", 1), recording(tmp_path / "q.wav", 2)]
    common = [*probes, "--enrolled", tmp_path / "known", "--model", model, "--device", "cpu"]
    # The same recording has a cosine of 1, and others of this untrained model are close to it.
    found = identified(run, *common, "--threshold", "0.999999", "--top", "2")
    assert [probe["speaker_id"] for probe in found["probes"]] == ["bob", "eve"]
    assert [len(probe["candidates"]) for probe in found["probes"]] == [2, 2]
    assert (found["num_speakers"], found["num_utterances"], found["warnings"]) == (3, 3, [])
    assert found["probes"][0]["probe"] == str(probes[0])
    text = run("identify", *common).output
    assert f"{probes[0]}: bob\n  bob " in text
    assert f"{probes[1]}: eve\n  eve " in text
    assert (
        "Bayes' threshold if the speaker is enrolled with probability 0.5 and each of 3 is as likely" in text
    )
    assert "12,000 trials of 34 held-out training speakers" in text
    (tmp_path / "stranger.wav").write_bytes(wav(noise(1.0, seed=5)))
    unknown = run(
        "identify",
        tmp_path / "stranger.wav",
        "--enrolled",
        tmp_path / "known",
        "--model",
        model,
        "--threshold",
        "0.9999999",
    ).output
    assert "stranger.wav: none of these\n" in unknown and "as given" in unknown


def test_one_bad_probe_does_not_lose_the_answers(run: Run, model: Path, tmp_path: Path) -> None:
    for seed, speaker in enumerate(("ann", "bob")):
        recording(tmp_path / f"known/{speaker}/1.wav", seed)
    good, other = recording(tmp_path / "p.wav", 1), recording(tmp_path / "q.wav", 0)
    (tmp_path / "silent.wav").write_bytes(wav(np.zeros(16_000, np.float32)))
    probes: list[str | Path] = [good, tmp_path / "silent.wav", other, tmp_path / "none.wav", good]
    common = [*probes, "--enrolled", tmp_path / "known", "--model", model, "--device", "cpu"]
    outcome = run("identify", *common)
    assert outcome.code == 1
    heads = [line for line in outcome.output.splitlines() if line.startswith(str(tmp_path))]
    assert heads == [
        f"{good}: bob",
        f"{tmp_path / 'silent.wav'}: cannot be used",
        f"{other}: ann",
        f"{tmp_path / 'none.wav'}: cannot be used",
        f"{good}: bob",
    ]
    silent, missing = [line for line in outcome.errors.splitlines() if line.startswith("error: ")]
    assert "silent.wav cannot be used: silent: " in silent and "none.wav" in missing
    in_json = run("identify", *common, "--json")
    assert in_json.code == 1
    found = json.loads(in_json.output)["probes"]
    assert [one["probe"] for one in found] == [str(probe) for probe in probes]
    assert [one.get("speaker_id") for one in found] == ["bob", None, "ann", None, "bob"]
    assert [one["error"] is None for one in found] == [True, False, True, False, True]
    assert "cannot be used: silent: " in found[1]["error"] and "speaker_id" not in found[1]


def test_identify_where_no_probe_can_be_used(run: Run, model: Path, tmp_path: Path) -> None:
    recording(tmp_path / "known/ann/1.wav")
    (tmp_path / "text.wav").write_bytes(b"no audio")
    outcome = run("identify", tmp_path / "text.wav", "--enrolled", tmp_path / "known", "--model", model)
    assert outcome.code == 1
    assert outcome.output == f"{tmp_path / 'text.wav'}: cannot be used\n"
    assert "undecodable" in outcome.error


def test_identify_says_when_nobody_can_be_accepted(run: Run, model: Path, tmp_path: Path) -> None:
    probe = recording(tmp_path / "known/ann/1.wav")
    common = ["identify", probe, "--enrolled", tmp_path / "known", "--model", model]
    text = run(*common, "--prior", "1e-6").output
    assert f"{probe}: none of these" in text
    assert (
        "with prior 1e-06 and 1 enrolled nothing can be accepted, as no cosine reaches 1.0908: Bayes'" in text
    )
    assert "accepted from" not in text
    assert "accepted from 0.4000" in run(*common).output


def test_identify_without_calibration_makes_no_decision(run: Run, bare_model: Path, tmp_path: Path) -> None:
    probe = recording(tmp_path / "known/ann/1.wav")
    text = run("identify", probe, "--enrolled", tmp_path / "known", "--model", bare_model).output
    assert f"{probe}: no decision\n  ann " in text and "has no calibration" in text
    assert "%" not in text


def test_what_identify_cannot_use(run: Run, model: Path, tmp_path: Path) -> None:
    probe = recording(tmp_path / "p.wav")
    (tmp_path / "empty").mkdir()
    outcome = run("identify", probe, "--enrolled", tmp_path / "empty", "--model", model)
    assert outcome.code == 1
    assert (
        "empty has no recordings to enroll; give a folder with at least one usable recording" in outcome.error
    )
    recording(tmp_path / "known/ann/1.wav")
    assert (
        "top is 0"
        in run("identify", probe, "--enrolled", tmp_path / "known", "--model", model, "--top", "0").error
    )

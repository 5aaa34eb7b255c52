"""`voxsrc.kfp_output`: the file that a Kubeflow Pipelines task leaves for its launcher."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from voxsrc.errors import ConfigError
from voxsrc.kfp_output import write_executor_output


def executor_input(output_file: Path, **outputs: Any) -> str:
    artifact = {
        "name": "projects/1/metrics",
        "uri": "gs://bucket/run/metrics",
        "type": {"schemaTitle": "system.Metrics", "schemaVersion": "0.0.1"},
        "metadata": {"from_backend": "kept"},
    }
    return json.dumps(
        {
            "inputs": {"parameterValues": {"audio": "gs://bucket/audio"}},
            "outputs": {
                "artifacts": {"metrics": {"artifacts": [artifact]}},
                "parameters": {"feature_set": {"outputFile": "/tmp/kfp/feature_set"}},
                "outputFile": str(output_file),
                **outputs,
            },
        }
    )


def test_metrics_become_the_metadata_of_their_artifact(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "executor_output.json"
    written = write_executor_output(
        executor_input(path), metrics={"metrics": {"num_utterances": 12, "percent_of_pcm16": 7.1}}
    )
    assert written == path
    assert json.loads(path.read_text()) == {
        "artifacts": {
            "metrics": {
                "artifacts": [
                    {
                        "name": "projects/1/metrics",
                        "uri": "gs://bucket/run/metrics",
                        "metadata": {"from_backend": "kept", "num_utterances": 12, "percent_of_pcm16": 7.1},
                    }
                ]
            }
        }
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["executor_output.json"]


def test_other_artifacts(tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    text = executor_input(path, artifacts={"report": {"artifacts": [{"name": "r", "uri": "gs://b/report"}]}})
    write_executor_output(text, artifacts={"report": {"trials": 37720}})
    assert json.loads(path.read_text()) == {
        "artifacts": {
            "report": {"artifacts": [{"name": "r", "uri": "gs://b/report", "metadata": {"trials": 37720}}]}
        }
    }


def test_nothing_to_say_writes_an_empty_message(tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    write_executor_output(json.dumps({"outputs": {"outputFile": str(path)}}))
    assert json.loads(path.read_text()) == {}


def test_an_earlier_file_is_replaced_whole_or_left(tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    path.write_text("x" * 10_000)
    with pytest.raises(ConfigError):
        write_executor_output(executor_input(path), metrics={"metrics": {"eer": math.nan}})
    assert path.read_text() == "x" * 10_000
    write_executor_output(executor_input(path), metrics={"metrics": {"eer": 0.5}})
    assert json.loads(path.read_text())["artifacts"]["metrics"]["artifacts"][0]["metadata"]["eer"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{{$}}", "not JSON"),
        ("[]", "no object `outputs`"),
        ('{"inputs": {}}', "no object `outputs`"),
        ('{"outputs": []}', "no object `outputs`"),
        ('{"outputs": {}}', "`outputs.outputFile` is None"),
        ('{"outputs": {"outputFile": ""}}', "`outputs.outputFile` is ''"),
        ('{"outputs": {"outputFile": 3}}', "`outputs.outputFile` is 3"),
        ('{"outputs": {"outputFile": "unused", "artifacts": []}}', "`outputs.artifacts` is '\\[\\]'"),
    ],
)
def test_malformed_input(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_executor_output(text, metrics={"metrics": {"eer": 0.1}})


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"artifacts": []},
        {"artifacts": [{"name": "m"}]},
        {"artifacts": [{"uri": "", "name": "m"}]},
        {"artifacts": [{"uri": "gs://b/m", "metadata": 3}]},
        "text",
    ],
)
def test_malformed_artifact(tmp_path: Path, entry: object) -> None:
    text = executor_input(tmp_path / "output.json", artifacts={"metrics": entry})
    with pytest.raises(ConfigError, match=r"`outputs\.artifacts\.metrics` is"):
        write_executor_output(text, metrics={"metrics": {"eer": 0.1}})
    assert not (tmp_path / "output.json").exists()


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    text = executor_input(tmp_path / "output.json")
    with pytest.raises(ConfigError, match=r"no output artifact 'scores' \(it has: metrics\)"):
        write_executor_output(text, metrics={"scores": {"eer": 0.1}})
    with pytest.raises(ConfigError, match="both as metrics and as an artifact"):
        write_executor_output(text, metrics={"metrics": {"eer": 0.1}}, artifacts={"metrics": {}})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(ConfigError, match=r"metric metrics\.eer is"):
        write_executor_output(executor_input(tmp_path / "o.json"), metrics={"metrics": {"eer": value}})


def test_values_outside_json_are_refused(tmp_path: Path) -> None:
    text = executor_input(tmp_path / "o.json")
    with pytest.raises(ConfigError, match="cannot be stored in JSON"):
        write_executor_output(text, artifacts={"metrics": {"value": object()}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="cannot be stored in JSON"):
        write_executor_output(text, artifacts={"metrics": {"values": [math.nan]}})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"`outputs\.outputFile` .*cannot be written"):
        write_executor_output(executor_input(tmp_path / "file" / "output.json"))


def test_kfp_is_not_imported() -> None:
    script = (
        "import sys, voxsrc.kfp_output; sys.exit(any(name.split('.')[0] == 'kfp' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

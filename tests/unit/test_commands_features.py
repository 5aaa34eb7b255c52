"""`voxsrc features info`: sizes that say what they count."""

import json
from pathlib import Path

import pytest

from feature_sets import make_feature_set
from voxsrc.cli import main
from voxsrc.feature_set import read_manifest


def test_sizes_of_the_set_and_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_feature_set(tmp_path / "set", [[60, 80], [60]])
    (tmp_path / "set/shard-00000.json").write_bytes(b"x" * 1_000_000)
    manifest = read_manifest(str(tmp_path / "set"))
    set_bytes = manifest.stored_bytes + (tmp_path / "set/manifest.json").stat().st_size
    assert main(["features", "info", str(tmp_path / "set"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["bytes"] == set_bytes
    assert info["folder_bytes"] == sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    assert info["folder_bytes"] > set_bytes + 999_999
    assert "stored_bytes" not in info  # the manifest's, without the manifest itself
    assert main(["features", "info", str(tmp_path / "set")]) == 0
    shown = capsys.readouterr().out
    assert info["percent_of_pcm16"] == pytest.approx(100 * set_bytes / info["pcm16_bytes"])
    percent = f"{info['percent_of_pcm16']:.2f} %"
    assert f"{set_bytes / 1e6:.2f} MB in 2 shards, index and manifest, {percent}" in shown

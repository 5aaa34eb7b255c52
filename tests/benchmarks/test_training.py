"""The training benchmark runs to its end and measures every row; its timings are not judged here."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = Path(__file__).with_name("training.py")
_NEEDS_PEER = {"crops_ram", "crops_mmap", "step", "step_contiguous"}
_ROWS = _NEEDS_PEER | {
    "step_compile",
    "step_bf16",
    "first_step",
    "loading",
    "loading_augmented",
    "save_waiting",
    "save_whole",
    "save_write",
    "model_ResNet_mini_eager",
    "model_ResNet_mini_augmented",
    "data_wait",
}
_PEER = {
    "SpeakerNet.py": """
        import torch
        class SpeakerNet(torch.nn.Module):
            def __init__(self, model, nPerSpeaker, nOut, n_mels, **other):
                super().__init__()
                assert (model, nPerSpeaker, n_mels) == ("ResNetSE34L", 2, 40)
                self.__S__ = torch.nn.Linear(160, 8)
                self.__S__.torchfb = lambda wave: wave.unfold(1, 400, 160).square().mean(2)
            def forward(self, data, label):
                frames = data.reshape(-1, data.shape[-1]).unfold(1, 160, 160)
                return self.__S__(frames).square().mean(), torch.tensor(0.0)
        class WrappedModel(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.module = model
            def forward(self, x, label=None):
                return self.module(x, label)
    """,
    "DatasetLoader.py": """
        import pathlib, soundfile, torch
        class train_dataset_loader(torch.utils.data.Dataset):
            def __init__(self, train_list, augment, musan_path, rir_path, max_frames, train_path, **other):
                assert not augment and not list(pathlib.Path(musan_path).iterdir())
                self.length = max_frames * 160 + 240
                listed = pathlib.Path(train_list).read_text().splitlines()
                self.files = [f"{train_path}/{line.split()[1]}" for line in listed]
            def __getitem__(self, indices):
                waves = [torch.from_numpy(soundfile.read(self.files[i], dtype="float32")[0]) for i in indices]
                return torch.stack([wave.repeat(9)[: self.length] for wave in waves]), 0
            def __len__(self):
                return len(self.files)
    """,
    "optimizer/adam.py": """
        import torch
        def Optimizer(parameters, lr, weight_decay):
            return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    """,
}


def run(json_file: Path, *flags: str) -> dict[str, Any]:
    """Runs the benchmark; its rows by name."""
    command = [sys.executable, str(_PROGRAM), "--quick", "--json", str(json_file), *flags]
    subprocess.run(command, check=True)
    return {row["name"]: row for row in json.loads(json_file.read_text())["rows"]}


@pytest.mark.benchmark
def test_every_row_has_finite_figures_or_a_reason(tmp_path: Path) -> None:
    groups = ("crops", "steps", "loading", "checkpoints", "models")
    rows = run(tmp_path / "rows.json", "--device", "cpu", "--peak-tflops", "0.1", "--only", *groups)
    assert set(rows) == _ROWS
    for name, row in rows.items():
        if row["skipped"]:
            assert name in {"step_compile", "step_bf16"}
            continue
        assert math.isfinite(row["ours"]) and row["ours"] >= 0, name
    for name in _NEEDS_PEER:
        assert "not given" in rows[name]["title"]
        assert rows[name]["ratio"] is rows[name]["passed"] is None
    saves = rows["save_waiting"]["details"]
    assert 0 < saves["waiting_ms"] < 1e3 * rows["save_waiting"]["details"]["interval_s"]
    assert saves["num_saves"] >= 2
    model = rows["model_ResNet_mini_eager"]
    gflop = model["details"]["training_gflop_per_crop"]
    assert model["details"]["mfu_percent"] == pytest.approx(model["ours"] * gflop / 1e3 / 0.1 * 100)
    assert model["details"]["voxceleb2_epoch_s"] == pytest.approx(1_092_009 / model["ours"])


@pytest.mark.benchmark
def test_a_peer_is_run_on_the_same_utterances_and_compared(tmp_path: Path) -> None:
    for name, text in _PEER.items():
        path = tmp_path / "peer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in text.splitlines()))
    flags = ["--voxceleb-trainer", str(tmp_path / "peer"), "--device", "cpu", "--only", "crops", "steps"]
    rows = run(tmp_path / "rows.json", *flags)
    for name in _NEEDS_PEER:
        row = rows[name]
        assert row["reference"] > 0 and row["ratio"] > 0, name
        assert row["ratio"] == pytest.approx(row["ours"] / row["reference"]), name
        assert "voxceleb_trainer" in row["reference_is"]


@pytest.mark.benchmark
def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(_PROGRAM), "--quick", "--voxceleb-trainer", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "SpeakerNet.py" in done.stderr

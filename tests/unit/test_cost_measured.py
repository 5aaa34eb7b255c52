"""What a training has recorded, as numbers for `voxsrc cost`: by hand, and what cannot be known."""

from pathlib import Path

import pytest

from recorded_runs import attempt, run_of
from voxsrc.cost.measured import gpu_type_of, measured_run
from voxsrc.cost.prices import load_prices
from voxsrc.errors import ConfigError
from voxsrc.run_timings import TIMINGS_NAME, RunTimings, read_timings


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    attempts = (attempt(), attempt(uptime_s=None, finished=True))
    timings = read_timings(run_of(tmp_path, *attempts))
    assert timings == RunTimings(num_steps=1000, num_frames=200_000, attempts=attempts)


class TestMeasuredRun:
    def test_means_are_by_hand(self, tmp_path: Path) -> None:
        run = measured_run(
            run_of(
                tmp_path,
                attempt(),
                attempt(boot_id="two", uptime_s=200.0, first_step=50, restore_s=30.0, setup_s=14.0),
                attempt(
                    boot_id="two", uptime_s=900.0, first_step=90, restore_s=40.0, num_saves=0, save_s=0.0
                ),
            )
        )
        assert run.values["save_seconds"].value == pytest.approx(3.0)
        assert run.values["save_seconds"].basis == "mean of 4 saves of 145 MB"
        assert run.values["restore_seconds"].value == pytest.approx(35.0)
        # The third process began on a machine that was there already.
        assert run.values["start_seconds"].value == pytest.approx((30 + 34 + 30) / 3 + (100 + 200) / 2)
        # 0.01 s for a frame of a crop; 0.1 s of validation for a step.
        assert run.work_hours == pytest.approx((0.01 * 200_000 + 0.1 * 1000) / 3600)
        assert (run.interruptions, run.held_hours, run.finished) == (2, 3.0, False)
        assert ", 2 interruptions, not finished; " in run.describe()

    def test_a_run_that_ended_at_once_was_not_interrupted(self, tmp_path: Path) -> None:
        run = measured_run(run_of(tmp_path, attempt(finished=True)))
        assert run.interruptions == 0
        assert "restore_seconds" not in run.values
        assert "preemptions" not in run.describe()
        assert "not finished" not in run.describe()

    def test_a_machine_that_was_up_before_leaves_its_start_assumed(self, tmp_path: Path) -> None:
        run = measured_run(run_of(tmp_path, attempt(uptime_s=5000.0), attempt(boot_id="", uptime_s=10.0)))
        start = run.values["start_seconds"]
        assert start.value == pytest.approx(350 + 30)
        assert "350 s assumed" in start.basis

    def test_leaves_out_other_machines(self, tmp_path: Path) -> None:
        slow = attempt(device="Tesla T4", training_s=900.0, save_s=60.0, first_step=1, restore_s=99.0)
        run = measured_run(run_of(tmp_path, slow, attempt()))
        assert run.machine == "NVIDIA L4"
        assert run.values["save_seconds"].value == pytest.approx(3.0)
        assert "restore_seconds" not in run.values
        assert run.work_hours == pytest.approx((2000 + 100) / 3600)
        assert run.interruptions == 1

    def test_a_process_without_a_step_says_nothing_of_starts_or_work(self, tmp_path: Path) -> None:
        """It was killed between the last checkpoint and the model."""
        idle = attempt(first_step=1000, first_step_s=0.0, num_steps=0, num_frames=0, training_s=0.0)
        run = measured_run(run_of(tmp_path, idle))
        assert run.work_hours is None
        assert "start_seconds" not in run.values
        assert "h of work" not in run.describe()

    def test_tells_how_sure_the_rate_of_interruptions_is(self, tmp_path: Path) -> None:
        """Exact 90 % limits of a count of 3 are 0.818 and 7.754, of 10 hours 1.29 and 12.2 h."""
        attempts = [attempt(held_s=9000.0)] * 4
        text = measured_run(run_of(tmp_path, *attempts[:3], attempt(held_s=9000.0, finished=True))).describe()
        assert "10 h on NVIDIA L4, 3 interruptions" in text
        assert "--mean-hours-between-preemptions 3.33 says so (90 % interval 1.3 to 12 h)" in text

    def test_of_a_run_that_recorded_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--from-run .*no times are recorded .*has saved a checkpoint"):
            measured_run(str(tmp_path / "nowhere"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "timings.json: not JSON"),
            (b"[]", "found format None, expected 1"),
            (b'{"format": 2}', "found format 2, expected 1"),
            (b'{"format": 1, "num_steps": 1, "num_frames": 1, "attempts": [{}]}', "attempts.0.*missing"),
            (b'{"format": 1, "num_steps": 1, "num_frames": 1, "attempts": []}', "lists no process"),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / TIMINGS_NAME).write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            measured_run(str(tmp_path))


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 3090", None),
        ("cpu", None),
    ],
)
def test_the_name_of_a_device_tells_its_type(device: str, gpu: str | None) -> None:
    assert gpu_type_of(device, load_prices().region("us-central1").gpus) == gpu

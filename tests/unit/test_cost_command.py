"""`voxsrc cost`: the estimate by hand and by simulation; the table, JSON, Markdown and errors it prints."""

import argparse
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from cost_prices import own_prices
from recorded_runs import attempt, run_of
from voxsrc.command import run_command
from voxsrc.commands import cost
from voxsrc.config import write_yaml
from voxsrc.cost.assumptions import DEFAULTS
from voxsrc.cost.estimate import Estimator, Request, compare_gpus
from voxsrc.cost.prices import Prices, load_prices
from voxsrc.cost.report import as_markdown
from voxsrc.errors import ConfigError

GPUS = ["T4", "L4", "V100", "A100-40", "A100-80", "H100"]


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file in use, and an environment without settings."""
    for name in os.environ:
        if name.startswith("VOXSRC_"):
            monkeypatch.delenv(name)
    file = tmp_path / "cloud.env"
    file.touch()
    monkeypatch.setenv("VOXSRC_CLOUD_ENV", str(file))
    return file


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(write_yaml(own_prices()))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `voxsrc cost` with these arguments."""
    parser = argparse.ArgumentParser()
    cost.add_commands(parser.add_subparsers())
    parsed = parser.parse_args(["cost", *arguments])
    code = run_command(parsed.function, parsed)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def request(**changed: Any) -> Request:
    fields: dict[str, Any] = {
        "region": "here",
        "gpu": "L4",
        "num_gpus": 1,
        "work_hours": 10.0,
        "checkpoint_interval_s": None,
        "given": {},
    }
    return Request(**{**fields, **changed})


class TestEstimate:
    @pytest.fixture
    def prices(self, price_file: Path) -> Prices:
        return load_prices(str(price_file))

    def test_of_a_machine_that_is_never_taken_is_by_hand(self, prices: Prices) -> None:
        given = {key: 0.0 for key in DEFAULTS if key != "mean_hours_between_preemptions"}
        given |= {
            "mean_hours_between_preemptions": math.inf,
            "extract_core_hours": 8.0,
            "storage_gb": 10.0,
            "boot_disk_gb": 100.0,
            "pool_machines": 3.0,
            "pool_disk_gb": 50.0,
        }
        estimate = Estimator(request(num_gpus=2, given=given), prices).estimate()
        assert estimate.on_demand.lines == pytest.approx(
            {
                "GPU machine": 2 * 4 * 10,
                "its disk": 10 * 1.0,
                "extraction": 8 * 4 / 4,
                "control plane": 10 * 0.5,
                "default pool": 10 * 3 * (4 + 0.5),
                "bucket": 10 * 0.1,
            }
        )
        assert estimate.spot.lines["GPU machine"] == pytest.approx(20)
        assert estimate.spot.lines["extraction"] == pytest.approx(8 / 4)
        assert estimate.machine_ratio == pytest.approx(0.25)
        assert estimate.spot.wall_hours == estimate.on_demand.wall_hours == 10

    def test_ratio_is_price_times_time_and_grows_with_the_rate(self, prices: Prices) -> None:
        estimate = Estimator(request(), prices).estimate()
        machine_usd = [each.lines["GPU machine"] for each in (estimate.spot, estimate.on_demand)]
        assert estimate.machine_ratio == pytest.approx(machine_usd[0] / machine_usd[1])
        assert estimate.price_ratio == 0.25 < estimate.machine_ratio < estimate.total_ratio
        half, double = estimate.sensitivity
        assert half.machine_ratio < estimate.machine_ratio < double.machine_ratio
        assert half.wall_hours < estimate.spot.wall_hours < double.wall_hours

    def test_simulation_agrees_with_it(self, prices: Prices) -> None:
        estimator = Estimator(request(given={"fallback_probability": 0.3}), prices)
        estimate, simulated = estimator.estimate(), estimator.simulate(20_000, seed=4)
        for scenario in (estimate.spot, estimate.fallback):
            summary = simulated[scenario.name]
            assert summary["usd_mean"] == pytest.approx(scenario.total_usd, abs=4 * summary["usd_error"])
            assert summary["wall_hours_mean"] == pytest.approx(
                scenario.wall_hours, abs=4 * summary["wall_hours_error"]
            )
            assert summary["usd_median"] < summary["usd_p90"]

    def test_says_what_to_do_when_a_run_has_no_end(self, prices: Prices) -> None:
        given = {"mean_hours_between_preemptions": 0.01}
        with pytest.raises(ConfigError, match=r"not expected to end: .* take 545 s .* every 36 s .* Shorten"):
            Estimator(request(given=given), prices).estimate()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("mean_hours_between_preemptions", 0.0),
            ("save_seconds", -1.0),
            ("start_seconds", math.nan),
            ("storage_gb", math.inf),
            ("fallback_probability", 1.1),
        ],
    )
    def test_names_the_flag_that_cannot_be_used(self, prices: Prices, key: str, value: float) -> None:
        with pytest.raises(ConfigError, match=f"^--{key.replace('_', '-')} is {value:g}; expected"):
            Estimator(request(given={key: value}), prices)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"work_hours": 0.0}, "the work is 0 h"),
            ({"work_hours": math.nan}, "the work is nan h"),
            ({"checkpoint_interval_s": 0.0}, "--checkpoint-interval is 0"),
        ],
    )
    def test_refuses_other_numbers(self, prices: Prices, changed: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Estimator(request(**changed), prices)

    def test_gives_the_origin_of_each_number(self, prices: Prices) -> None:
        asked = request(given={"save_seconds": 7.0}, checkpoint_interval_s=100.0)
        found = {each.key: each for each in Estimator(asked, prices).estimate().assumptions}
        assert found["save_seconds"].origin == found["checkpoint_interval_seconds"].origin == "flag"
        assert found["start_seconds"].origin == "default" and found["start_seconds"].basis
        gpu = found["gpus.L4.spot_usd_per_hour"]
        assert (gpu.value, gpu.origin) == (1.0, "price file")
        assert gpu.basis == "one; list, 2026-01-02, not verified; by hand"
        assert "not verified" not in found["control_plane_hour.usd"].basis

    def test_compares_the_types_that_have_so_many_gpus(self) -> None:
        asked = request(region="us-central1", num_gpus=8)
        assert [each.request.gpu for each in compare_gpus(asked, load_prices())] == [
            gpu for gpu in GPUS if gpu != "T4"
        ]
        with pytest.raises(ConfigError, match=r"no GPU type of us-central1 .* 5"):
            compare_gpus(request(region="us-central1", num_gpus=5), load_prices())


class TestCommand:
    def test_prints_the_table_and_what_it_rests_on(
        self, capsys: pytest.CaptureFixture[str], price_file: Path
    ) -> None:
        code, output, _ = run(
            capsys,
            "--work-hours=10",
            "--region=here",
            f"--prices={price_file}",
            "--simulate=500",
            "--save-seconds=3",
        )
        assert code == 0
        assert re.search(r"on demand +Spot +Spot, else on demand +Spot / on demand", output)
        assert re.search(r"(?m)^GPU machine, \$ +\d", output)
        assert "extraction, $" not in output, "a line of zeros"
        assert re.search(r"(?m)^Spot +finished after, h( +[\d.]+){3} ± [\d.]+ +[\d.]+$", output)
        assert re.search(r"(?m)^  save_seconds +3 +flag$", output)
        assert re.search(r"(?m)^  start_seconds +450 +default +assumed", output)
        words = " ".join(output.split())
        assert "the Spot price is 0.25 of the on-demand price (read 2026-01-02, not verified)" in words
        assert "claims costs of about 1/3" in words
        assert "list: https://example.com/prices" in words

    def test_prints_json_without_infinities(
        self, capsys: pytest.CaptureFixture[str], price_file: Path
    ) -> None:
        code, output, _ = run(
            capsys,
            "--work-hours=10",
            "--region=here",
            f"--prices={price_file}",
            "--json",
            "--mean-hours-between-preemptions=inf",
            "--simulate=10",
        )
        assert code == 0
        printed = json.loads(output, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert printed["spot"]["preemptions"] == 0
        assert printed["machine_ratio"] == pytest.approx(0.25)
        assert printed["spot"]["total_usd"] == pytest.approx(sum(printed["spot"]["lines"].values()))
        assert set(printed["simulated"]) == {"Spot", "Spot, else on demand"}
        assert printed["request"]["given"]["mean_hours_between_preemptions"] is None

    def test_prints_a_table_for_a_readme(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, output, _ = run(capsys, "--work-hours=48", "--markdown")
        assert code == 0
        table = [line for line in output.splitlines() if line.startswith("|")]
        assert [line.split("|")[1].strip() for line in table[2:]] == GPUS
        assert len({line.count("|") for line in table}) == 1
        asked = request(region="us-central1", gpu="T4", work_hours=48.0)
        assert output.strip() == as_markdown(compare_gpus(asked, load_prices()))
        _, one, _ = run(capsys, "--work-hours=48", "--markdown", "--gpu=H100", "--gpus=8")
        assert [line.split("|")[1] for line in one.splitlines() if line.startswith("|")][2:] == [" 8 × H100 "]

    def test_the_table_says_what_is_assumed(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, output, _ = run(capsys, "--work-hours=48", "--markdown", "--save-seconds=2", "--wait-seconds=0")
        words = " ".join(output.split())
        assert words.endswith(
            "Assumed, not measured: mean hours between preemptions, restore seconds, start seconds."
        )

    def test_takes_the_region_of_the_settings(
        self, capsys: pytest.CaptureFixture[str], settings: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.write_text("VOXSRC_REGION=europe-west4\n")
        arguments = ["--work-hours=1", "--json"]
        assert json.loads(run(capsys, *arguments)[1])["request"]["region"] == "europe-west4"
        flag = run(capsys, *arguments, "--region=us-central1")
        assert json.loads(flag[1])["request"]["region"] == "us-central1"
        monkeypatch.setenv("VOXSRC_REGION", "mars")
        code, _, errors = run(capsys, *arguments)
        assert code == 1
        assert errors.startswith("error: VOXSRC_REGION: prices.yaml has no region 'mars'")
        assert "or another region with --region" in errors

    def test_takes_the_work_from_a_recipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--recipe=demo", "--utterances=200", "--crops-per-second=10", "--json"]
        code, output, _ = run(capsys, *arguments)
        assert code == 0
        assert json.loads(output)["request"]["work_hours"] == pytest.approx(1000 * 64 / 10 / 3600)

    def test_takes_what_a_run_has_recorded(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        folder = run_of(tmp_path, attempt(), attempt(first_step=50, restore_s=33.0, finished=True))
        code, output, _ = run(capsys, f"--from-run={folder}", "--json", "--save-seconds=7")
        assert code == 0
        estimate = json.loads(output)
        assert (estimate["request"]["gpu"], estimate["request"]["num_gpus"]) == ("L4", 1)
        assert estimate["request"]["work_hours"] == pytest.approx(2100 / 3600)
        assumed = {each["key"]: (each["value"], each["origin"]) for each in estimate["assumptions"]}
        assert assumed["save_seconds"] == (7, "flag")
        assert assumed["restore_seconds"] == (33, "run")
        assert assumed["start_seconds"] == (130, "run")
        assert assumed["wait_seconds"] == (300, "default")
        _, text, _ = run(capsys, f"--from-run={folder}")
        assert text.startswith("The run: 2 h on NVIDIA L4, 1 interruption; 0.5833 h of work, from 198 timed")
        _, table, _ = run(capsys, f"--from-run={folder}", "--markdown")
        assert [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:] == [" L4 "]
        words = " ".join(table.split())
        assert words.endswith("Assumed, not measured: mean hours between preemptions, wait seconds.")

    def test_takes_hours_from_a_run_on_that_machine_alone(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        arguments = [f"--from-run={run_of(tmp_path, attempt(num_processes=2))}", "--json"]
        assert json.loads(run(capsys, *arguments)[1])["request"]["num_gpus"] == 2
        for other in (["--gpu=T4"], ["--gpus=1"]):
            code, output, errors = run(capsys, *arguments, *other)
            assert (code, output) == (1, "")
            assert errors.startswith("error: the run was timed on 2 × NVIDIA L4, which says nothing of")
            given = json.loads(run(capsys, *arguments, *other, "--work-hours=5")[1])
            assert given["request"]["work_hours"] == 5
            assert {each["origin"] for each in given["assumptions"]} >= {"run"}

    def test_takes_times_alone_from_a_run_without_gpu(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        folder = run_of(tmp_path, attempt(device="cpu", num_processes=2))
        code, _, errors = run(capsys, f"--from-run={folder}")
        assert code == 1
        assert "timed on 2 × cpu" in errors
        estimate = json.loads(run(capsys, f"--from-run={folder}", "--work-hours=5", "--json")[1])
        assert (estimate["request"]["gpu"], estimate["request"]["num_gpus"]) == ("L4", 1)
        assert estimate["request"]["measured"]["save_seconds"]["value"] == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "error: no work is given; expected --work-hours, --recipe or --from-run"),
            (["--from-run=nowhere"], "error: --from-run nowhere: no times are recorded there"),
            (["--work-hours=1", "--gpu=H200"], "error: prices.yaml has no GPU 'H200' in us-central1"),
            (["--work-hours=1", "--region=mars"], "error: prices.yaml has no region 'mars'"),
            (["--work-hours=1", "--checkpoint-interval=often"], "error: --checkpoint-interval is 'often'"),
            (["--work-hours=1", "--utterances=3"], "error: --utterances: only with --recipe"),
            (["--work-hours=1", "--markdown", "--simulate=9"], "error: --simulate: not with --markdown"),
            (["--work-hours=1", "--simulate=0"], "error: --simulate is 0; expected 1 to 1,000,000"),
            (["--work-hours=1", "--simulate=9", "--seed=-1"], "error: --seed is -1; expected 0 or more"),
            (["--recipe=demo", "--utterances=3"], "error: --recipe needs --crops-per-second, too"),
        ],
    )
    def test_reports_errors_in_one_line(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        code, output, errors = run(capsys, *arguments)
        assert (code, output) == (1, "")
        assert errors.startswith(message)
        assert errors.count("\n") == 1

    def test_has_an_option_for_every_default(self) -> None:
        parser = argparse.ArgumentParser()
        cost.add_commands(parser.add_subparsers())
        parsed = vars(parser.parse_args(["cost", "--work-hours=1"]))
        assert DEFAULTS.keys() <= parsed.keys()

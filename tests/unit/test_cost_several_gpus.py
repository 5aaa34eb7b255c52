"""Machines with several GPUs cost what Google asks for them, not always as many times one with one."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from cost_prices import own_prices
from voxsrc.command import run_command
from voxsrc.commands import cost
from voxsrc.config import write_yaml
from voxsrc.cost.prices import load_prices
from voxsrc.errors import ConfigError

# US dollars an hour, on demand and on Spot, of machines with that many GPUs, without local SSDs; then of one
# SSD of 375 GB. From the file that prices.yaml calls billing_copy.
MACHINES = {
    ("us-central1", "L4"): {
        1: (0.853624271, 0.479872),
        2: (2.000832574, 1.124816),
        4: (4.001665148, 2.249632),
        8: (8.003330296, 4.499264),
    },
    ("europe-west4", "L4"): {
        1: (0.897201806, 0.47082),
        2: (2.102975132, 1.10356),
        4: (4.205950264, 2.20712),
        8: (8.411900528, 4.41424),
    },
    ("us-central1", "A100-40"): {
        1: (3.673385, 1.92802),
        2: (7.34677, 3.85604),
        8: (29.38708, 15.42416),
        16: (55.739504, 29.25568),
    },
    ("europe-west4", "A100-40"): {
        1: (3.747972, 1.692835),
        2: (7.495944, 3.38567),
        8: (29.983776, 13.54268),
        16: (56.62656, 25.57624),
    },
}
SSD = {
    "us-central1": (0.08 * 375 / 730, 0.0428 * 375 / 730),
    "europe-west4": (0.088 * 375 / 730, 0.0494 * 375 / 730),
}


@pytest.mark.parametrize(("region", "gpu"), MACHINES)
def test_a_machine_costs_what_its_parts_do(region: str, gpu: str) -> None:
    for num_gpus, machine in MACHINES[region, gpu].items():
        price = load_prices().gpu(region, gpu, num_gpus)
        # Compute Engine takes no more than eight for 16 A100
        on_demand, spot = (
            usd + min(num_gpus, 8) * ssd for usd, ssd in zip(machine, SSD[region], strict=True)
        )
        assert num_gpus * price.on_demand_usd_per_hour == pytest.approx(on_demand, abs=2e-5), num_gpus
        assert num_gpus * price.spot_usd_per_hour == pytest.approx(spot, abs=2e-5), num_gpus


def with_larger(**fields: Any) -> dict[str, Any]:
    mapping = own_prices()
    larger = {
        "num_gpus": [2],
        "machine": "half",
        "vcpus": 6,
        "on_demand_usd_per_hour": 5.0,
        "spot_usd_per_hour": 2.0,
    }
    mapping["regions"]["here"]["gpus"]["L4"]["larger"] = [larger | fields]
    return mapping


def test_a_price_file_may_have_prices_of_larger_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXSRC_CLOUD_ENV", "")
    file = tmp_path / "own.yaml"
    file.write_text(write_yaml(with_larger()))

    def estimate(*flags: str) -> tuple[str, dict[str, Any]]:
        parser = argparse.ArgumentParser()
        cost.add_commands(parser.add_subparsers())
        words = ["cost", "--work-hours=10", "--region=here", f"--prices={file}", *flags]
        printed = []
        for shape in ([], ["--json"]):
            parsed = parser.parse_args([*words, *shape])
            assert run_command(parsed.function, parsed) == 0
            printed.append(capsys.readouterr().out)
        return printed[0], json.loads(printed[1])

    text, one = estimate()
    assert "h of work on one in here" in text
    assert one["price_ratio"] == pytest.approx(0.25)
    text, two = estimate("--gpus=2")
    assert "h of work on 2 × half in here" in text
    assert "half; list, 2026-01-02, not verified; by hand" in text
    assert two["price_ratio"] == pytest.approx(0.4)
    hours = one["on_demand"]["billed_hours"]
    assert one["on_demand"]["lines"]["GPU machine"] == pytest.approx(4.0 * hours)
    assert two["on_demand"]["lines"]["GPU machine"] == pytest.approx(2 * 5.0 * hours)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_gpus": [4]}, r": larger: num_gpus is \[4\]; expected some of \[1, 2\]"),
        ({"num_gpus": []}, r": larger: num_gpus is \[\]; expected some of \[1, 2\]"),
        ({"num_gpus": [2, 2]}, r": larger: 2 GPUs are in it twice"),
        ({"spot_usd_per_hour": 6.0}, r"\.larger\.0: .* are they swapped\?"),
        ({"vcpus": 0}, r"\.larger\.0: vcpus is 0"),
        ({"source": "list"}, r"\.larger\.0\.source: unknown key"),
    ],
)
def test_an_error_in_it_names_the_field(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(write_yaml(with_larger(**fields)))
    with pytest.raises(ConfigError, match=rf"regions\.here\.gpus\.L4{message}"):
        load_prices(str(file))

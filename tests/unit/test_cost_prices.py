"""The price file and the work of a recipe: what is read, and errors that name file and field."""

from pathlib import Path

import pytest

from cost_prices import own_prices
from voxsrc.config import write_yaml
from voxsrc.cost.prices import load_prices
from voxsrc.cost.workload import work_hours
from voxsrc.errors import ConfigError, NotFoundError

GPUS = ["T4", "L4", "V100", "A100-40", "A100-80", "H100"]


class TestPackagedPrices:
    def test_have_every_gpu_in_every_region(self) -> None:
        prices = load_prices()
        assert {"us-central1", "europe-west4"} <= set(prices.regions)
        assert all(list(region.gpus) == GPUS for region in prices.regions.values())

    def test_claim_no_verification_of_spot_prices(self) -> None:
        """They are from copies of the catalogue; whoever reads them on Google's page changes this."""
        for region in load_prices().regions.values():
            assert not any(price.verified for price in region.gpus.values())
            assert region.control_plane_hour.verified


class TestPriceFile:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (
                "gpus.L4.spot_usd_per_hour",
                -1.0,
                r"regions\.here\.gpus\.L4: spot_usd_per_hour is -1; expected",
            ),
            ("gpus.L4.spot_usd_per_hour", 5.0, r"regions\.here\.gpus\.L4: .* are they swapped\?"),
            ("gpus.L4.spot_usd_per_hour", "cheap", r"gpus\.L4\.spot_usd_per_hour: found 'cheap'"),
            ("gpus.L4.vcpus", 0, r"regions\.here\.gpus\.L4: vcpus is 0"),
            ("gpus.L4.num_gpus", [], r"gpus\.L4\.num_gpus: missing"),
            ("gpus.L4.num_gpus", [0], r"gpus\.L4: num_gpus is \[0\]"),
            ("gpus.L4.read", "yesterday", r"gpus\.L4: read is 'yesterday'; expected a date"),
            ("gpus.L4.spot_price", 1.0, r"gpus\.L4\.spot_price: unknown key"),
            (
                "extraction.source",
                "lost",
                r"regions\.here\.extraction\.source is 'lost', which `sources` lacks",
            ),
            ("control_plane_hour.usd", -0.1, r"regions\.here\.control_plane_hour: usd is -0\.1"),
        ],
    )
    def test_error_names_file_and_field(self, tmp_path: Path, path: str, value: object, message: str) -> None:
        mapping = own_prices()
        *parents, last = path.split(".")
        target = mapping["regions"]["here"]
        for key in parents:
            target = target[key]
        target[last] = value
        file = tmp_path / "bad.yaml"
        file.write_text(write_yaml(mapping))
        with pytest.raises(ConfigError, match=message) as caught:
            load_prices(str(file))
        assert str(caught.value).startswith(f"{file}: ")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"regions: {}\nsources: {}", "regions: found none"),
            (b"sources: {}", "regions: missing"),
            (b"name: x\nsources: {}\nregions: {}", "name: unknown key"),
            (b"\xff\xfe", "not YAML, not even text"),
        ],
    )
    def test_that_is_none_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        file = tmp_path / "bad.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load_prices(str(file))

    def test_that_is_absent_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            load_prices(str(tmp_path / "none.yaml"))

    @pytest.mark.parametrize("name", ["A100-40", "a100-40", "a100-40gb"])
    def test_knows_a_gpu_by_the_node_pools_name(self, name: str) -> None:
        assert load_prices().gpu_type("us-central1", name) == "A100-40"

    def test_lists_what_there_is(self) -> None:
        prices = load_prices()
        with pytest.raises(ConfigError, match=r"no GPU 'H200' in us-central1: .*A100-40, .*T4, V100"):
            prices.gpu("us-central1", "H200", 1)
        with pytest.raises(ConfigError, match=r"no region 'us-centra1': did you mean us-central1\?"):
            prices.gpu("us-centra1", "T4", 1)
        with pytest.raises(ConfigError, match=r"has 1, 2, 4 GPUs of type T4; found --gpus 3"):
            prices.gpu("us-central1", "T4", 3)


class TestWorkHours:
    def test_of_a_recipe_follow_its_steps(self) -> None:
        """734,500 steps and 4,000 of twice the length: the trainer's README says 734,000 and 4,000."""
        hours = work_hours(
            "fast_resnet34_angleproto", num_utterances=1_092_009, num_speakers=5994, crops_per_second=1000
        )
        assert hours == pytest.approx((734_500 + 2 * 4_000) * 400 / 1000 / 3600)

    def test_of_a_file_count_its_steps(self, tmp_path: Path) -> None:
        file = tmp_path / "recipe.yaml"
        file.write_text("{batch_size: 100, num_steps: 360, encoder: {name: any}}")
        assert work_hours(str(file), num_utterances=1, crops_per_second=10) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{batch_size: 10}", "both or neither of num_steps and num_epochs"),
            ("{batch_size: 10, num_steps: 1, num_epochs: 1}", "both or neither"),
            ("{num_steps: 1, validation: {fraction: much}}", "validation.fraction: found 'much'"),
            ("{batch_size: 10, num_steps: 1, sampler: 3}", "sampler: found 3, expected a mapping"),
            ("{batch_size: ten, num_steps: 1}", "batch_size: found 'ten'"),
        ],
    )
    def test_of_a_bad_recipe_name_its_field(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            work_hours(str(file), num_utterances=10, crops_per_second=10)

    def test_need_known_names_and_numbers(self) -> None:
        with pytest.raises(ConfigError, match=r"no recipe 'resnet34_aan': did you mean resnet34_aam\?"):
            work_hours("resnet34_aan", num_utterances=10, crops_per_second=10)
        with pytest.raises(ConfigError, match="give --speakers"):
            work_hours("fast_resnet34_angleproto", num_utterances=10, crops_per_second=10)
        with pytest.raises(ConfigError, match="--utterances is 0"):
            work_hours("demo", num_utterances=0, crops_per_second=10)
        with pytest.raises(ConfigError, match="--crops-per-second is 0"):
            work_hours("demo", num_utterances=10, crops_per_second=0)

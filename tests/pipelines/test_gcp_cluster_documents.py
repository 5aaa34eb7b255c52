"""What the documents say about the cluster and its costs, beside what the programs say."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from cloud_scripts import ROOT, SCRIPTS
from voxsrc.cli import main
from voxsrc.cost.assumptions import DEFAULTS
from voxsrc.cost.estimate import Estimate, Request, compare_gpus
from voxsrc.cost.prices import load_prices

README = (ROOT / "README.md").read_text()
CLUSTER_README = (SCRIPTS / "README.md").read_text()
REGION = "us-central1"
HOURS_A_MONTH = 730
# Dollars an hour, from cloud.google.com/vpc/network-pricing (an external address in use) and nat/pricing.
ADDRESS, NAT_OF_A_NODE = 0.005, 0.0014


def section(text: str, heading: str) -> str:
    """From a heading to the next of the same level, lines joined where a paragraph goes on."""
    level = heading.split()[0]
    return text.partition(f"\n{heading}\n")[2].partition(f"\n{level} ")[0]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def estimates() -> dict[str, Estimate]:
    request = Request(
        region=REGION, gpu="L4", num_gpus=1, work_hours=48, checkpoint_interval_s=None, given={}
    )
    return {each.request.gpu: each for each in compare_gpus(request, load_prices(None))}


def test_the_cost_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--work-hours", "48", "--region", REGION, "--markdown"]) == 0
    assert capsys.readouterr().out in README


def test_the_ratios_in_words_are_those_of_the_table(estimates: dict[str, Estimate]) -> None:
    def span(ratio: str, leaving_out: set[str], form: str = "{:.2f}") -> str:
        ratios = [round(getattr(each, ratio), 2) for gpu, each in estimates.items() if gpu not in leaving_out]
        if form != "{:.2f}":
            ratios = [100 * (1 - value) for value in ratios]
        return f"{form.format(min(ratios))} to {form.format(max(ratios))}"

    text = words(section(README, "## What it costs"))
    default = estimates["L4"]
    assert f"**The machine** costs {span('machine_ratio', set())} of" in text
    assert f"disks and bucket, {span('total_ratio', set())};" in text
    assert f"an L4, {default.machine_ratio:.2f} and {default.total_ratio:.2f}." in text
    unusual = {"V100", "H100"}
    assert f"the machine costs {span('machine_ratio', unusual)} and the whole run" in text
    assert f"the whole run {span('total_ratio', unusual)}." in text
    beginning = words(README[:1500])
    percent = "{:.0f}"
    assert f"for {span('machine_ratio', unusual, percent)} % less than the same machines" in beginning
    assert f"or {span('total_ratio', unusual, percent)} % less with all" in beginning
    added = [round(100 * (each.spot.billed_hours / each.on_demand.billed_hours - 1)) for each in [default]]
    assert f"add {added[0]} % to what is billed" in text
    assert f"{100 * (default.spot.wall_hours / default.on_demand.wall_hours - 1):.0f} % to the time" in text


def test_pool_prices_are_those_of_the_price_file() -> None:
    prices = load_prices(None)
    region = prices.region(REGION)
    machines = {"cpu-…": region.extraction}
    for row in re.findall(r"^\| `(gpu-[\w…-]+)` ", section(CLUSTER_README, "### What they cost"), re.M):
        machines[row] = region.gpus[prices.gpu_type(REGION, row.split("-", 2)[2])]
    assert len(machines) == 7
    for pool, machine in machines.items():
        row = next(line for line in CLUSTER_README.splitlines() if line.startswith(f"| `{pool}` "))
        on_demand, spot = (cell.strip(" ()") for cell in row.strip("|").split("|")[-2:])
        assert on_demand == f"{machine.on_demand_usd_per_hour:.2f}", pool
        assert spot == f"{machine.spot_usd_per_hour:.2f}", pool
        assert ("SSD" in machine.machine) == (pool != "cpu-…"), "the text says that they are included"
    a_node = DEFAULTS["boot_disk_gb"].value * region.boot_disk_gb_month.usd / HOURS_A_MONTH
    assert f"boot disk of {DEFAULTS['boot_disk_gb'].value:g} GB, {a_node:.3f} an hour" in CLUSTER_README


def test_what_remains_idle_is_what_the_cost_command_assumes() -> None:
    region = load_prices(None).region(REGION)
    machines = DEFAULTS["pool_machines"].value
    rows = section(CLUSTER_README, "### What remains when nothing runs")
    assert machines == 2
    a_month = HOURS_A_MONTH * region.default_pool.on_demand_usd_per_hour
    assert (
        f"two e2-standard-4, as `voxsrc cost` assumes; the autoscaler keeps one to three | {2 * a_month:.0f};"
        in rows
    )
    assert f"each more or less {a_month:.0f} |" in rows
    disks = machines * DEFAULTS["pool_disk_gb"].value * region.boot_disk_gb_month.usd
    assert f"disks of {DEFAULTS['pool_disk_gb'].value:g} GB, Kubeflow" in rows
    addresses = machines * ADDRESS * HOURS_A_MONTH
    claims = 2 * 20 * region.boot_disk_gb_month.usd
    assert f"| {disks:.0f} + {claims:.0f} + {addresses:.0f} |" in rows
    assert f"[about {2 * a_month + disks + claims + addresses:.0f} dollars a month]" in README
    nat = (machines * NAT_OF_A_NODE + ADDRESS) * HOURS_A_MONTH
    text = words(section(CLUSTER_README, "## Who may do what"))
    assert f"{NAT_OF_A_NODE} dollars an hour for each node up to 32, {ADDRESS} for its own address," in text
    assert f"for two permanent nodes {nat:.0f} dollars a month and their traffic" in text
    assert f"where their addresses would cost {addresses:.0f}." in text
    assert f"an external address, {ADDRESS}, on Spot" in CLUSTER_README
    stored = re.search(r"features, (\d+) GB", DEFAULTS["storage_gb"].basis)
    assert stored is not None
    cost = f"{int(stored[1]) * region.bucket_gb_month.usd:.1f}"
    assert f"VoxCeleb2's features {stored[1]} GB {cost};" in rows
    assert f"VoxCeleb2's features, {stored[1]} GB in the bucket" in words(CLUSTER_README)


def steps(text: str) -> list[list[str]]:
    """The commands of the bash blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [command for line in lines if (command := shlex.split(line, comments=True))]


def test_both_documents_have_the_same_steps_and_each_is_a_command_that_is_here() -> None:
    long = steps(section(CLUSTER_README, "## From an empty project to a model"))
    short = steps(section(README, "## On Kubernetes"))
    assert short == [*long, ["gcp-cluster/delete_cluster.sh"]]
    targets = (ROOT / "Makefile").read_text()
    for command in short:
        program = command[0]
        if program == "make":
            assert f"\n{command[1]}:" in targets
        elif program == ".venv/bin/voxsrc":
            with pytest.raises(SystemExit) as end:
                main([*command[1:4], "--help"])
            assert end.value.code == 0
        elif "/" in program:
            assert (ROOT / program).stat().st_mode & 0o100, program
        else:
            assert program in {"cp", "gcloud", "mkdir"}


def test_every_option_in_the_steps_is_one_that_the_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    for command in steps(section(README, "## On Kubernetes")):
        if command[0] != ".venv/bin/voxsrc":
            continue
        with pytest.raises(SystemExit):
            main([*command[1:3], "--help"])
        known = capsys.readouterr().out
        assert all(word in known for word in command if word.startswith("--")), command


def test_the_steps_write_only_what_git_ignores_and_each_file_once() -> None:
    """A file that git does not know would make every image that is built then a dirty one."""
    commands = steps(section(README, "## On Kubernetes"))
    assert ["mkdir", "-p", "env/run"] in commands
    assert "env/run/" in (ROOT / ".gitignore").read_text().splitlines()
    targets = [word[1:] for command in commands for word in command if word.startswith(">")]
    assert targets == ["env/run/data.yaml", "env/run/images.yaml"], "written anew by every repetition"
    for verb in ("preflight", "submit"):
        (command,) = [command for command in commands if verb in command]
        assert [file for flag, file in pairwise(command) if flag == "--arguments"] == targets


def test_make_clean_leaves_what_the_steps_write() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nclean:")[2].partition("\n\n")[0]
    removed = set(re.findall(r"[\w./]+", recipe.partition("rm -rf ")[2]))
    assert "build" in removed
    for command in steps(section(README, "## On Kubernetes")):
        for target in (word[1:] for word in command if word.startswith(">")):
            folders = {str(folder) for folder in Path(target).parents} | {target}
            assert not folders - {"."} & removed


def test_the_readme_shows_the_parameters_that_the_scripts_print() -> None:
    shown = re.search(r"```yaml\n# env/run/data\.yaml.*?```", README, re.DOTALL)
    assert shown is not None
    upload = (SCRIPTS / "upload_voxceleb.sh").read_text().partition("<<YAML\n")[2].partition("\nYAML")[0]
    names = re.findall(r"^(\w+):", shown[0], re.M)
    images = [name for name in names if name.endswith("_image")]
    assert names == [*re.findall(r"^(\w+):", upload, re.M), *images]
    assert len(images) == 3


def test_every_script_of_the_folder_is_documented() -> None:
    for script in SCRIPTS.glob("*.sh"):
        assert script.name in CLUSTER_README, script.name

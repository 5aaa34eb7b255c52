"""gcp-cluster's settings, help and files: what is refused, in which words."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "gcp-cluster").glob("*.sh"))
EXAMPLE = ROOT / "env" / "cloud.env.example"
VALID = {
    "VOXSRC_PROJECT": "some-project",
    "VOXSRC_REGION": "europe-west4",
    "VOXSRC_ZONE": "europe-west4-a",
    "VOXSRC_REGISTRY": "europe-west4-docker.pkg.dev/some-project/images",
    "VOXSRC_BUCKET": "some-bucket",
    "VOXSRC_CLUSTER": "some-cluster",
    "VOXSRC_SERVICE_ACCOUNT": "pipeline@some-project.iam.gserviceaccount.com",
}


def dry_run(
    settings: str, folder: Path, *arguments: str, script: str = "create_cluster", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a script with `settings` as its file."""
    path = folder / "cloud.env"
    path.write_text(settings)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOXSRC_")}
    command: list[str | Path] = [
        ROOT / "gcp-cluster" / f"{script}.sh",
        "--dry-run",
        "--env",
        path,
        *arguments,
    ]
    return subprocess.run(
        command, env=clean | environment, cwd=folder, capture_output=True, text=True, check=False
    )


def lines(**changes: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in (VALID | changes).items())


def test_the_settings_of_the_tests_are_accepted(tmp_path: Path) -> None:
    done = dry_run(lines(), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "gcloud container clusters create some-cluster \\\n    --project=some-project"
    )


@pytest.mark.parametrize("name", VALID)
def test_a_missing_setting_is_named(tmp_path: Path, name: str) -> None:
    done = dry_run(lines(**{name: ""}), tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^{name}: found nothing; expected \w", done.stderr, re.MULTILINE), done.stderr
    assert f"correct {tmp_path}/cloud.env" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VOXSRC_PROJECT", "My_Project"),
        ("VOXSRC_REGION", "europe-west4-a"),
        ("VOXSRC_ZONE", "europe-west4"),
        ("VOXSRC_ZONE", "us-central1-a"),
        ("VOXSRC_NODE_ZONES", "europe-west4-a,europe-west1-b"),
        ("VOXSRC_REGISTRY", "gcr.io/some-project"),
        ("VOXSRC_REGISTRY", "us-central1-docker.pkg.dev/some-project/images"),
        ("VOXSRC_REGISTRY", "europe-west4-docker.pkg.dev/another-project/images"),
        ("VOXSRC_BUCKET", "gs://some-bucket"),
        ("VOXSRC_SOFT_DELETE_DAYS", "3"),
        ("VOXSRC_SOFT_DELETE_DAYS", "91"),
        ("VOXSRC_CLUSTER", "Cluster"),
        ("VOXSRC_CLUSTER", "c" * 41),
        ("VOXSRC_SERVICE_ACCOUNT", "pipeline"),
        ("VOXSRC_SERVICE_ACCOUNT", "pipeline@another-project.iam.gserviceaccount.com"),
        ("VOXSRC_NODE_SERVICE_ACCOUNT", "node@some-project.iam.gserviceaccount.com"),
        ("VOXSRC_AUTHORIZED_NETWORKS", "192.0.2.1"),
        ("VOXSRC_GPU_TYPES", "l4,k80"),
        ("VOXSRC_GPU_MAX_NODES", "0"),
        ("VOXSRC_CPU_MAX_NODES", "many"),
        ("VOXSRC_KFP_VERSION", "latest"),
        ("VOXSRC_KFP_ENDPOINT", "localhost:8080"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_was_expected(
    tmp_path: Path, name: str, value: str
) -> None:
    done = dry_run(lines(**{name: value}), tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^.*{name}.*: found .*; expected ", done.stderr, re.MULTILINE), done.stderr
    assert value.split(",")[-1] in done.stderr
    assert done.stdout == ""


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    done = dry_run(lines(VOXSRC_ZONE="", VOXSRC_BUCKET="B", VOXSRC_GPU_TYPES="gpu"), tmp_path)
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[1:]] == [
        "VOXSRC_ZONE",
        "VOXSRC_BUCKET",
        "VOXSRC_GPU_TYPES",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("VOXSRC_BUKET=b", "found VOXSRC_BUKET, which no script reads"),
        ("export VOXSRC_BUCKET=b", "expected NAME=VALUE without spaces, or a comment"),
        ("VOXSRC_BUCKET = b", "expected NAME=VALUE without spaces, or a comment"),
        ("VOXSRC_BUCKET=$(touch hacked)", "expected NAME=VALUE without spaces"),
        ('VOXSRC_BUCKET="$(touch hacked)"', "VOXSRC_BUCKET holds $, ` or \\"),
        ("VOXSRC_BUCKET=`id`", "VOXSRC_BUCKET holds $, ` or \\"),
    ],
)
def test_a_line_that_is_no_setting_is_refused_and_never_executed(
    tmp_path: Path, line: str, message: str
) -> None:
    done = dry_run(f"{lines()}\n# comment\n{line}\n", tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/cloud.env:{len(VALID) + 3}: " in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "hacked").exists()


def test_quotes_comments_and_a_last_line_without_an_end_are_read(tmp_path: Path) -> None:
    text = "# mine\n\n" + lines(VOXSRC_CLUSTER='"quoted"') + "VOXSRC_KFP_EXPERIMENT='two words'"
    done = dry_run(text, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "clusters create quoted " in done.stdout


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    done = dry_run(lines(), tmp_path, VOXSRC_CLUSTER="from-environment")
    assert "clusters create from-environment " in done.stdout


def test_without_a_settings_file_the_remedy_is_told(tmp_path: Path) -> None:
    done = dry_run(lines(), tmp_path, "--env", str(tmp_path / "none.env"))
    assert done.returncode == 1
    assert f"no settings file {tmp_path}/none.env" in done.stderr
    assert "cp env/cloud.env.example env/cloud.env" in done.stderr


def test_another_namespace_is_refused_where_kfps_manifests_decide_it(tmp_path: Path) -> None:
    done = dry_run(lines(VOXSRC_KFP_NAMESPACE="pipelines"), tmp_path, script="install_kfp")
    assert done.returncode == 1
    assert "VOXSRC_KFP_NAMESPACE: found pipelines; expected kubeflow" in done.stderr


def test_another_account_is_refused_where_kfps_manifests_decide_it(tmp_path: Path) -> None:
    done = dry_run(lines(VOXSRC_KUBERNETES_SERVICE_ACCOUNT="runner"), tmp_path, script="bind_identities")
    assert done.returncode == 1
    assert "VOXSRC_KUBERNETES_SERVICE_ACCOUNT: found runner; expected pipeline-runner" in done.stderr


@pytest.mark.parametrize(
    ("setting", "script"),
    [("VOXSRC_CPU_MACHINE_TYPE", "create_node_pools"), ("VOXSRC_SYSTEM_MACHINE_TYPE", "create_cluster")],
)
def test_machines_that_the_cluster_cannot_have_are_refused_with_the_reason(
    setting: str, script: str, tmp_path: Path
) -> None:
    for machine, reason in {
        "c4-standard-8": "Hyperdisk alone",
        "c4d-highmem-8": "Hyperdisk alone",
        "n4-custom-8-16384": "Hyperdisk alone",
        "c4a-standard-8": "ARM processors",
        "t2a-standard-8": "ARM processors",
        "g2-standard-8": "GPUs",
    }.items():
        done = dry_run(lines(**{setting: machine}), tmp_path, script=script)
        assert done.returncode == 1
        assert f"{setting}: found {machine}, a machine with {reason}" in done.stderr
    for machine in ("c3-standard-8", "n2-custom-8-16384", "e2-medium", "custom-8-16384"):
        assert dry_run(lines(**{setting: machine}), tmp_path, script=script).returncode == 0, machine


def test_setup_refuses_other_machines_before_it_makes_anything(tmp_path: Path) -> None:
    done = dry_run(lines(VOXSRC_CPU_MACHINE_TYPE="c4-standard-8"), tmp_path, script="setup")
    assert (done.returncode, done.stdout) == (1, "")
    assert "VOXSRC_CPU_MACHINE_TYPE: found c4-standard-8" in done.stderr
    assert "create_node_pools.sh cannot be run (its message is above); nothing was made" in done.stderr


@pytest.mark.parametrize("script", ["status", "connect", "delete_cluster"])
def test_what_makes_no_machines_does_not_mind_their_type(script: str, tmp_path: Path) -> None:
    other = lines(VOXSRC_CPU_MACHINE_TYPE="n4-standard-8", VOXSRC_SYSTEM_MACHINE_TYPE="t2a-standard-4")
    done = dry_run(other, tmp_path, script=script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_help_and_refuses_what_it_does_not_know(script: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOXSRC_")}
    done = subprocess.run([script, "--help"], cwd="/", env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: gcp-cluster/{script.name}")
    assert "--dry-run" in done.stdout
    wrong = dry_run(lines(), tmp_path, "--bogus", script=script.stem)
    assert wrong.returncode == 1
    assert "unexpected argument --bogus; see --help" in wrong.stderr


def test_the_example_lists_every_setting_with_its_default() -> None:
    library = (ROOT / "gcp-cluster/lib/settings.sh").read_text()
    table = library.partition("<<TABLE\n")[2].partition("\nTABLE")[0]
    known = {line.split(";")[0]: line.split(";")[-1] for line in table.splitlines()}
    example = dict(re.findall(r"^#?(VOXSRC_[A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))
    assert example.keys() == known.keys()
    for name, default in known.items():
        assert example[name] == ("" if default in ("-", "optional") or "$" in default else default), name


def test_the_example_as_it_is_names_each_required_setting_once(tmp_path: Path) -> None:
    done = dry_run(EXAMPLE.read_text(), tmp_path)
    found = re.findall(r"^(VOXSRC_\w+): found nothing", done.stderr, re.MULTILINE)
    assert sorted(found) == sorted(VALID)


def test_no_file_names_a_project_a_bucket_or_a_key() -> None:
    files = [path for path in (ROOT / "gcp-cluster").rglob("*") if path.is_file()]
    assert len(files) > 12
    secret = re.compile(r"AIza|ya29\.|BEGIN [A-Z ]*PRIVATE|\"private_key|[0-9a-f]{40}|AKIA[0-9A-Z]{16}")
    for path in [*files, EXAMPLE]:
        text = path.read_text()
        assert not secret.search(text), path
        for bucket in re.findall(r"gs://([^/\s\"'`,;)]+)", text):
            assert bucket in {"BUCKET", "."} or bucket.startswith(("$", "my-")), (path, bucket)
        for account in re.findall(r"@([\w$\\{}.-]+)\.iam\.gserviceaccount", text):
            assert account.lstrip("\\").startswith(("$", "PROJECT", "my-", "[a-z")), (path, account)

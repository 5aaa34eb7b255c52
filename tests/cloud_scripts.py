"""Runs the scripts of gcp-cluster/ on a project of `cloud_cli`."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from cloud_cli import CloudCli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "gcp-cluster"
# All that the scripts use besides the cloud's own programs.
TOOLS = [
    "awk",
    "bash",
    "cat",
    "cut",
    "dirname",
    "env",
    "grep",
    "head",
    "mktemp",
    "rm",
    "sed",
    "sleep",
    "sort",
    "tail",
    "tr",
]
SETTINGS = {
    "VOXSRC_PROJECT": "some-project",
    "VOXSRC_REGION": "europe-west4",
    "VOXSRC_ZONE": "europe-west4-a",
    "VOXSRC_REGISTRY": "europe-west4-docker.pkg.dev/some-project/images",
    "VOXSRC_BUCKET": "some-bucket",
    "VOXSRC_CLUSTER": "some-cluster",
    "VOXSRC_SERVICE_ACCOUNT": "pipeline@some-project.iam.gserviceaccount.com",
}


class Cloud:
    """A project, empty at first, and a user's settings file."""

    def __init__(self, folder: Path, cli: CloudCli) -> None:
        self.cli = cli
        self.env_file = folder / "my cloud.env"
        self.write(SETTINGS)
        self.programs = folder / "bin"
        self.programs.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.programs / tool).symlink_to(found)
        cli.install(self.programs)

    def write(self, settings: dict[str, str]) -> None:
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def run(
        self, script: str, *arguments: str, answer: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "VOXSRC_CLOUD_ENV": str(self.env_file)}
        return subprocess.run(
            [SCRIPTS / f"{script}.sh", *arguments],
            env=environment | {"VOXSRC_RETRY_WAIT_S": "0"} | settings,
            cwd="/",
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, script: str, *arguments: str, **options: str) -> str:
        done = self.run(script, *arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def printed(self, script: str, *arguments: str) -> list[list[str]]:
        """The commands of a dry run, which must not call anything."""
        before = len(self.cli.calls)
        output = self.succeed(script, *arguments, "--dry-run")
        assert len(self.cli.calls) == before
        lines = output.replace("\\\n", "").splitlines()
        return [shlex.split(line) for line in lines if line and not line.startswith("#")]

    def changing_calls(self) -> list[list[str]]:
        return [call.command for call in self.cli.calls if call.changes]

    def changed(self) -> list[list[str]]:
        """The changing calls, those that were tried again once."""
        calls = self.changing_calls()
        return [call for number, call in enumerate(calls) if calls[number - 1 : number] != [call]]

    @property
    def state(self) -> dict[str, Any]:
        return self.cli.state

    def pools(self) -> dict[str, dict[str, str]]:
        return {name: pool["flags"] for name, pool in self.state["pools"].items()}

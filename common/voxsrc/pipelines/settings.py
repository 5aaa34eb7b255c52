"""Settings of project, cluster and Kubeflow Pipelines: the environment's, else those of env/cloud.env.

env/cloud.env.example documents each; the scripts of gcp-cluster read the same file by the same rules.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxsrc.errors import ConfigError

# voxsrc/pipelines/settings.py lies three folders below the root
ROOT = Path(__file__).resolve().parents[3]
_EXAMPLE = "env/cloud.env.example"
_LINE = re.compile(r"""([A-Z][A-Z0-9_]*)=("[^"]*"|'[^']*'|[^\s"']*)""")
# As gcp-cluster/lib/settings.sh has them.
_DEFAULTS = {
    "VOXSRC_KUBERNETES_SERVICE_ACCOUNT": "pipeline-runner",
    "VOXSRC_KFP_NAMESPACE": "kubeflow",
    "VOXSRC_KFP_EXPERIMENT": "voxsrc",
}


@dataclass(frozen=True)
class Settings:
    """Values by name.

    Attributes:
        values: Those that are not empty.
        origin: Where they were looked for, for messages.
    """

    values: Mapping[str, str]
    origin: str

    def get(self, name: str, flag: str | None = None) -> str | None:
        """`flag` if given, else the setting, else its default, else None."""
        return flag or self.values.get(name) or _DEFAULTS.get(name)

    def require(self, name: str, flag: str | None, option: str) -> str:
        """As `get`; raises ConfigError, naming flag and setting, if there is nothing."""
        value = self.get(name, flag)
        if value is None:
            raise ConfigError(
                f"{name} is not set; give {option}, or set it in the environment or in {self.origin} "
                f"(see {_EXAMPLE})"
            )
        return value

    def cluster_context(self) -> str | None:
        """The kubeconfig context of the cluster that the settings name, as gcloud calls it."""
        parts = [self.values.get(f"VOXSRC_{name}") for name in ("PROJECT", "ZONE", "CLUSTER")]
        return "_".join(["gke", *(part for part in parts if part)]) if all(parts) else None


def load_settings(file: str | None = None) -> Settings:
    """Reads the settings.

    Args:
        file: The settings file; default $VOXSRC_CLOUD_ENV, else env/cloud.env, which may be absent.

    Raises:
        ConfigError: A file that was named is missing, or a line is not NAME=VALUE.
    """
    named = file or os.environ.get("VOXSRC_CLOUD_ENV")
    path = Path(named) if named else ROOT / "env" / "cloud.env"
    values: dict[str, str] = {}
    if path.is_file():
        values = _parse(path)
    elif named:
        raise ConfigError(f"no settings file {path}; make it: cp {_EXAMPLE} env/cloud.env, and fill it in")
    values |= {name: value for name, value in os.environ.items() if name.startswith("VOXSRC_")}
    return Settings({name: value for name, value in values.items() if value}, named or "env/cloud.env")


def _parse(path: Path) -> dict[str, str]:
    values = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{path}:{number}: found {line}; expected NAME=VALUE without spaces, or a comment"
            )
        values[match[1]] = match[2].strip("\"'")
    return values

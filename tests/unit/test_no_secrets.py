"""Nothing in the repository is a secret, or names somebody's project, bucket or registry."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parents[2]
# Random-looking text is left out: every pinned requirement has a hash, and those are no secrets.
LEFT_OUT = {"Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector"}
# Names that stand for anybody's, and those that tests give on purpose wrongly; then a variable or nothing.
PLACEHOLDERS = re.compile(
    r"((my|your|example|some|other|another|test|no|voxsrc)-|there-is-no-such-bucket|No_Bucket|nowhere|other\b|"
    r"bucket|BUCKET|name\b|ümlaut|_x\b|[a-zA-Z]\b|key\b|[$<{\[(*'\"`…/.,;:)|\\]|\s|$)"
)
NAMED_BUCKET = re.compile(r"gs://(?P<name>[^\s'\"`]*)")
REGISTRY = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev/(?P<name>[^\s'\"`/]*)|\bgcr\.io/(?P<old>[^\s'\"`/]*)")


def tracked_files() -> list[Path]:
    """Text files that git knows, recordings left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    binary = {".m4a", ".flac", ".png"}
    return [ROOT / name for name in listed.split("\0") if name and Path(name).suffix not in binary]


def detectors() -> list[dict[str, str]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    classes = get_mapping_from_secret_type_to_class().values()
    return [{"name": kind.__name__} for kind in classes if kind.__name__ not in LEFT_OUT]


def secrets_in(path: Path) -> list[str]:
    with transient_settings({"plugins_used": detectors()}):
        found = SecretsCollection()
        found.scan_file(str(path))
        return [f"{name}:{secret.line_number}: {secret.type}" for name, secret in found]


def names_in(text: str) -> Iterator[str]:
    for match in NAMED_BUCKET.finditer(text):
        if not PLACEHOLDERS.match(match["name"]):
            yield match[0]
    for match in REGISTRY.finditer(text):
        if not PLACEHOLDERS.match(match["name"] or match["old"] or ""):
            yield match[0]


def test_no_file_has_a_secret() -> None:
    assert [found for path in tracked_files() for found in secrets_in(path)] == []


def test_no_file_names_a_bucket_or_a_registry() -> None:
    named = []
    for path in tracked_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        named += [f"{path.relative_to(ROOT)}: {name}" for name in names_in(text)]
    assert named == []


@pytest.mark.parametrize(
    "text",
    [
        "key = AKIA" + "IOSFODNN7EXAMPLQ",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "token: ghp_" + "a1B2" * 9,
    ],
)
def test_a_secret_would_be_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.yaml").write_text(text + "\n")
    assert secrets_in(tmp_path / "settings.yaml")


def test_a_named_bucket_would_be_found() -> None:
    assert list(names_in("gs://" + "acme-speech/runs and europe-west4-docker.pkg.dev/" + "acme/voxsrc"))

"""Nothing in the repository is a secret, or names somebody's project, bucket or registry."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parents[2]
# Random-looking text is left out: every pinned requirement has a hash, and those are no secrets. What looks
# like a key and is given to something is found by `ASSIGNED`.
LEFT_OUT = {"Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"}
ASSIGNED = re.compile(
    r"(?i)(api_?key|private_key(_id)?|passw(or)?d|secret|token)[\"']?\s*[:=]\s*[\"'][\w/+.-]{12,}[\"']"
    r"|AIza[\w-]{35}|wandb[\w]*\s*[:=]\s*[\"']?[0-9a-f]{40}"
)
# Names that stand for anybody's, or that tests give wrongly on purpose.
PLACEHOLDERS = {
    "", "A", "B", "BUCKET", "No_Bucket", "_x", "a-bucket", "another-project", "b", "bucket", "my-bucket",
    "my-project", "name", "no-such-bucket", "no-such-bucket-here", "other-bucket", "p", "some-bucket",
    "some-project", "there-is-no-such-bucket", "voxsrc-no-such-bucket", "voxsrc-test", "x", "ümlaut", "…",
}  # fmt: skip
VARIABLE = re.compile(r"[${}<(\[*^]")
NAMED_BUCKET = re.compile(r"gs://(?P<name>[^\s'\"`/]*)")
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


def anything_looks_like_a_secret(path: str) -> bool:
    """Whether a detector matches anywhere; the filters that then decide take most of the time of a scan."""
    from detect_secrets.core.scan import _get_lines_from_file, get_plugins

    plugins = get_plugins()
    return any(
        plugin.analyze_line(filename=path, line=line.rstrip(), line_number=number)
        for lines in _get_lines_from_file(path)
        for number, line in enumerate(lines, start=1)
        for plugin in plugins
    )


def secrets_in(path: Path) -> list[str]:
    with transient_settings({"plugins_used": detectors()}):
        found = SecretsCollection()
        if anything_looks_like_a_secret(str(path)):
            found.scan_file(str(path))
        known = [f"{name}:{secret.line_number}: {secret.type}" for name, secret in found]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return known + [
        f"{path}:{number}: looks like a key"
        for number, line in enumerate(lines, start=1)
        if ASSIGNED.search(line) and "pragma: allowlist secret" not in line
    ]


def names_in(text: str) -> Iterator[str]:
    """Buckets and projects that are somebody's."""
    for match in [*NAMED_BUCKET.finditer(text), *REGISTRY.finditer(text)]:
        name = next((found for found in match.groups() if found), "").rstrip(".,:;-)|\\")
        if name not in PLACEHOLDERS and not VARIABLE.search(name):
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
        'WANDB_API_KEY: "' + "0a1b2c3d4e" * 4 + '"',
        "wandb_key = " + "0a1b2c3d4e" * 4,
        'api_key: "' + "x7Kq" * 8 + '"',
        'password = "' + "hunter2-hunter2" + '"',
        '"private_key_id": "' + "0a1b2c3d4e" * 4 + '"',
        "key=AIza" + "SyA-1234567890abcdefghijklmnopqrstu",
    ],
)
def test_a_secret_would_be_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.yaml").write_text(text + "\n")
    assert secrets_in(tmp_path / "settings.yaml")


def test_a_named_bucket_would_be_found() -> None:
    for name in ("acme-speech", "voxsrc-prod", "bucketofbob", "my-bucket-2"):
        assert list(names_in("gs://" + f"{name}/runs")), name
        assert list(names_in("europe-west4-docker.pkg.dev/" + f"{name}/voxsrc")), name

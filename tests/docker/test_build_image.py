"""build_image.sh's own decisions, with a recording stand-in for the Docker client."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from voxsrc.pipelines.package import load_package, package_path

ROOT = Path(__file__).resolve().parents[2]

# Records its arguments; knows one image, if KNOWN_IMAGES names it, and any that it built. They are for
# the processors KNOWN_FOR and BUILT_FOR; Debian's is for DEBIAN_FOR until it is pulled.
# Fails at calls with FAIL_AT in their arguments.
CLIENT = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
[[ -z "${FAIL_AT:-}" || "$*" != *"$FAIL_AT"* ]] || exit 1
case "$1 $2" in
  'version --format') echo "${CLIENT_VERSION:-20.10.24}" ;;
  'buildx version') exit "${BUILDX_EXIT:-0}" ;;
  'image inspect')
    case "$4" in
      '{{.Architecture}}')
        case "$5" in
          debian*)
            if grep --quiet '^pull ' "$CALLS"; then echo amd64
            elif [[ -n "${DEBIAN_ID=sha256:9}" ]]; then echo "${DEBIAN_FOR:-amd64}"
            else exit 1; fi ;;
          *:content-*) [[ "$5" == "${KNOWN_IMAGES:-}" ]] && echo "${KNOWN_FOR:-amd64}" ;;
          *) echo "${BUILT_FOR:-amd64}" ;;
        esac ;;
      '{{.Id}}')
        if [[ "$5" == debian* ]]; then echo "${DEBIAN_ID:-sha256:8}"; else echo sha256:1234; fi ;;
      '{{.Size}}') echo 123456789 ;;
      '{{join .RepoDigests "\\n"}}') echo "${DIGESTS-${5%:*}@sha256:abcd}" ;;
    esac ;;
esac
"""
PULL = "pull --platform linux/amd64 debian:bookworm-slim"
PYTHON = "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\n"
DOCKERFILE = "ARG PYTHON_IMAGE\nARG WHEELS_IMAGE=scratch\nFROM ${PYTHON_IMAGE}\n"
# A base image on a base image, with variants, wheels, and a file from outside its folder.
ENGINE = """ARG PYTHON_IMAGE
ARG WHEELS_IMAGE=scratch
ARG VARIANT=large
FROM ${PYTHON_IMAGE}
COPY env/pins.txt env/more.txt /src/env/
"""


class Checkout:
    """A small repository with the shared script, one base image and one component."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"
        self.calls = folder / "calls"
        self.client = folder / "client"
        self.client.write_text(CLIENT)
        self.client.chmod(0o755)
        for image in ("common/containers/python", "components/thing"):
            (self.root / image).mkdir(parents=True)
        for script in ("build_image.sh", "build_images.sh"):
            shutil.copy(ROOT / "common/containers" / script, self.root / "common/containers")
        (self.root / "gcp-cluster/lib").mkdir(parents=True)
        shutil.copy(ROOT / "gcp-cluster/lib/settings.sh", self.root / "gcp-cluster/lib")
        (self.root / "common/containers/python/Dockerfile").write_text(PYTHON)
        (self.root / "components/thing/Dockerfile").write_text(DOCKERFILE)
        (self.root / "pyproject.toml").write_text('[project]\nname = "voxsrc"\nversion = "1.2.3"\n')
        (self.root / ".gitignore").write_text("env/cloud.env\n")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
        command = ["git", "-C", str(self.root), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> str:
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Begin")
        return self.git("rev-parse", "--short=12", "HEAD")

    def build(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.call("build_image.sh", *arguments, **environment)

    def call(
        self, script: str, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VOXSRC_")}
        return subprocess.run(
            [self.root / "common/containers" / script, *arguments],
            env={**inherited, "DOCKER": str(self.client), "CALLS": str(self.calls), **environment},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def printed(self, *arguments: str | Path, **environment: str) -> dict[str, str]:
        done = self.build(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())

    def recorded(self, verb: str) -> list[str]:
        return [call for call in self.calls.read_text().splitlines() if call.startswith(f"{verb} ")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_tag_is_the_commit(checkout: Checkout) -> None:
    commit = checkout.commit()
    assert checkout.printed("thing") == {
        "image": "voxsrc-thing",
        "tag": commit,
        "id": "sha256:1234",
        "digest": "none (not pushed)",
        "size": "123 MB",
    }
    _, build = checkout.recorded("build")
    assert f"--label org.opencontainers.image.revision={commit} " in build
    assert "--label org.opencontainers.image.version=1.2.3 " in build
    assert "--label org.opencontainers.image.title=voxsrc-thing " in build
    assert f"--tag voxsrc-thing:{commit} --tag voxsrc-thing:1.2.3 " in build
    assert f"--build-arg VOXSRC_COMMIT={commit} " in build
    assert build.endswith(str(checkout.root)), "the context is the root"


@pytest.mark.parametrize("change", ["components/thing/Dockerfile", "new file"])
def test_a_tree_that_differs_is_dirty(checkout: Checkout, change: str) -> None:
    commit = checkout.commit()
    with (checkout.root / change).open("a") as file:
        file.write("# more\n")
    assert checkout.printed("thing")["tag"] == f"{commit}-dirty"


def test_a_file_that_git_ignores_does_not_make_it_dirty(checkout: Checkout) -> None:
    commit = checkout.commit()
    (checkout.root / "env").mkdir()
    (checkout.root / "env/cloud.env").write_text("VOXSRC_SOURCE_URL=https://example.org/source\n")
    assert checkout.printed("thing")["tag"] == commit
    assert "image.source=https://example.org/source" in checkout.recorded("build")[-1]


def test_without_git_the_tag_says_so(checkout: Checkout) -> None:
    assert checkout.printed("thing")["tag"] == "1.2.3-nogit"
    assert checkout.printed("thing", "--tag", "mine")["tag"] == "mine"


def test_the_base_is_built_once_and_named_by_its_content(checkout: Checkout) -> None:
    checkout.printed("thing")
    base, build = checkout.recorded("build")
    name = base.partition("--tag ")[2].split()[0]
    assert name.startswith("voxsrc-python:content-")
    assert f"--build-arg PYTHON_IMAGE={name}" in build

    checkout.calls.unlink()
    checkout.printed("thing", KNOWN_IMAGES=name)
    (build,) = checkout.recorded("build")
    assert f"--build-arg PYTHON_IMAGE={name}" in build

    checkout.calls.unlink()
    checkout.printed("thing", "--no-cache", KNOWN_IMAGES=name)
    assert len(checkout.recorded("build")) == 2

    (checkout.root / "common/containers/python/Dockerfile").write_text(f"{PYTHON}USER 1\n")
    checkout.calls.unlink()
    checkout.printed("thing", KNOWN_IMAGES=name)
    assert len(checkout.recorded("build")) == 2
    assert f"PYTHON_IMAGE={name}" not in checkout.recorded("build")[-1]


def test_the_base_is_built_anew_on_another_debian(checkout: Checkout) -> None:
    def base_of(*arguments: str, **environment: str) -> str:
        checkout.calls.unlink(missing_ok=True)
        checkout.printed("thing", *arguments, **environment)
        return checkout.recorded("build")[-1].partition("--build-arg PYTHON_IMAGE=")[2].split()[0]

    before = base_of()
    assert base_of() == before
    assert base_of(DEBIAN_ID="sha256:10") != before
    assert base_of("--build-arg", "BASE_IMAGE=debian@sha256:77") != before
    assert base_of("--pull") == before, "there is no newer one"
    assert PULL in checkout.calls.read_text().splitlines()


def test_debian_is_pulled_if_it_is_not_there(checkout: Checkout) -> None:
    checkout.printed("thing")
    assert "pull " not in checkout.calls.read_text()
    checkout.calls.unlink()
    checkout.printed("thing", DEBIAN_ID="")
    assert checkout.recorded("pull") == [PULL]
    done = checkout.build("thing", "--pull", FAIL_AT=PULL)
    assert done.returncode == 1
    assert "debian:bookworm-slim cannot be pulled for linux/amd64" in done.stderr


def test_images_are_for_the_clusters_machines_whatever_builds_them(
    checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").touch()
    for environment, platform in ({}, "linux/amd64"), ({"VOXSRC_PLATFORM": "linux/arm64"}, "linux/arm64"):
        checkout.calls.unlink(missing_ok=True)
        checkout.printed("thing", "--wheels", tmp_path / "wheels", **environment)
        builds = checkout.recorded("build")
        assert len(builds) == 3
        assert all(build.startswith(f"build --platform {platform} ") for build in builds)
    done = checkout.build("thing", VOXSRC_PLATFORM="arm64")
    assert done.returncode == 1
    assert "VOXSRC_PLATFORM: found arm64; expected linux/amd64" in done.stderr


def test_an_image_for_other_machines_is_not_built_upon(checkout: Checkout) -> None:
    checkout.printed("thing", DEBIAN_FOR="arm64")
    assert checkout.recorded("pull") == [PULL]
    base = checkout.recorded("build")[0].partition("--tag ")[2].split()[0]
    checkout.calls.unlink()
    checkout.printed("thing", KNOWN_IMAGES=base, KNOWN_FOR="arm64")
    assert f"--tag {base}" in checkout.recorded("build")[0]


def test_an_image_that_is_shown_for_other_machines_is_used_where_none_can_be_pulled(
    checkout: Checkout,
) -> None:
    done = checkout.build("thing", DEBIAN_FOR="arm64", FAIL_AT=PULL)
    assert done.returncode == 0, done.stderr
    assert "warning: debian:bookworm-slim cannot be pulled for linux/amd64" in done.stderr
    assert "what is here may be for arm64 alone" in done.stderr
    checkout.calls.unlink()
    done = checkout.build("thing", DEBIAN_ID="", FAIL_AT=PULL)
    assert done.returncode == 1
    assert "debian:bookworm-slim cannot be pulled for linux/amd64 (see above)" in done.stderr


def test_an_image_for_other_machines_is_not_pushed(checkout: Checkout) -> None:
    push = ["thing", "--push", "--registry", "r.example/r"]
    done = checkout.build(*push, VOXSRC_PLATFORM="linux/arm64")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--push: VOXSRC_PLATFORM is linux/arm64; expected linux/amd64" in done.stderr
    assert not checkout.calls.exists()
    done = checkout.build(*push, BUILT_FOR="arm64")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is for arm64; expected amd64, as the cluster's nodes are: not pushed" in done.stderr
    assert checkout.recorded("push") == []


def test_labels_name_debian_and_its_digest(checkout: Checkout) -> None:
    checkout.printed("thing", DIGESTS="debian@sha256:abcd")
    for build in checkout.recorded("build"):
        assert "--label org.opencontainers.image.base.name=debian:bookworm-slim " in build
        assert "--label org.opencontainers.image.base.digest=sha256:abcd " in build
    checkout.calls.unlink()
    checkout.printed("thing", DIGESTS="")
    assert "base.digest" not in checkout.calls.read_text(), "it did not come from a registry"


def test_push_goes_to_the_registry_of_flag_environment_or_file(checkout: Checkout) -> None:
    (checkout.root / "env").mkdir()
    (checkout.root / "env/cloud.env").write_text("VOXSRC_REGISTRY=file.example/r\n")
    commit = checkout.commit()
    for arguments, environment, registry in [
        (["--registry", "flag.example/r"], {"VOXSRC_REGISTRY": "environment.example/r"}, "flag.example/r"),
        ([], {"VOXSRC_REGISTRY": "environment.example/r"}, "environment.example/r"),
        ([], {}, "file.example/r"),
    ]:
        printed = checkout.printed("thing", "--push", *arguments, **environment)
        assert printed["image"] == f"{registry}/voxsrc-thing"
        assert printed["digest"] == f"{registry}/voxsrc-thing@sha256:abcd"
        assert checkout.recorded("push")[-1] == f"push {registry}/voxsrc-thing:{commit}"


def test_another_settings_file_is_named_by_flag_or_environment(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.root / "env").mkdir()
    for name, registry in (("flag", "flag.example/r"), ("environment", "environment.example/r")):
        (tmp_path / f"{name}.env").write_text(f"# mine\nVOXSRC_REGISTRY='{registry}'\n")
    (checkout.root / "env/cloud.env").write_text("VOXSRC_REGISTRY=default.example/r\n")
    variable = {"VOXSRC_CLOUD_ENV": str(tmp_path / "environment.env")}
    for arguments in (["--env", str(tmp_path / "flag.env")], [f"--env={tmp_path}/flag.env"]):
        assert checkout.printed("thing", "--push", *arguments, **variable)["image"].startswith(
            "flag.example/"
        )
    assert checkout.printed("thing", "--push", **variable)["image"].startswith("environment.example/")
    assert checkout.printed("thing", "--push")["image"].startswith("default.example/")
    missing = checkout.build("thing", VOXSRC_CLOUD_ENV=str(tmp_path / "none.env"))
    assert missing.returncode == 1
    assert f"no settings file {tmp_path}/none.env" in missing.stderr


@pytest.mark.parametrize(
    "line", ["VOXSRC_REGISTRY=$(touch hacked)", "touch hacked", 'VOXSRC_SOURCE_URL="`touch hacked`"']
)
def test_the_settings_file_is_read_and_never_executed(checkout: Checkout, line: str) -> None:
    (checkout.root / "env").mkdir()
    (checkout.root / "env/cloud.env").write_text(f"cd {checkout.root}\n{line}\n")
    done = checkout.build("thing")
    assert done.returncode == 1
    assert f"{checkout.root}/env/cloud.env:2: " in done.stderr
    assert not list(checkout.root.rglob("hacked"))
    assert not checkout.calls.exists()


@pytest.mark.parametrize("failing", ["build ", "push ", "{{.Id}}", "{{.Size}}", "RepoDigests"])
def test_nothing_is_printed_unless_all_succeeded(checkout: Checkout, failing: str) -> None:
    done = checkout.build("thing", "--push", "--registry", "r.example/r", FAIL_AT=failing)
    assert done.returncode != 0
    assert done.stdout == ""


def test_a_pushed_image_without_a_digest_there_is_an_error(checkout: Checkout) -> None:
    done = checkout.build("thing", "--push", "--registry", "r.example/r", DIGESTS="other.example/r@sha256:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "names no digest of it there; found: other.example/r@sha256:1" in done.stderr


@pytest.fixture
def with_components(checkout: Checkout) -> Checkout:
    """The three components, each with a Dockerfile and its own build_image.sh."""
    for name in ("feature-extractor", "train", "evaluate"):
        folder = checkout.root / "components" / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(DOCKERFILE)
        shutil.copy(ROOT / "components" / name / "build_image.sh", folder)
    return checkout


def test_all_images_are_printed_for_local_runs_and_as_parameters(with_components: Checkout) -> None:
    commit = with_components.commit()
    local = with_components.call("build_images.sh")
    assert local.stdout.splitlines() == [
        f"{name}=voxsrc-{name}:{commit}" for name in ("feature-extractor", "train", "evaluate")
    ]
    pushed = with_components.call("build_images.sh", "--push", "--yaml", "--registry", "r.example/r")
    assert yaml.safe_load(pushed.stdout) == {
        f"{name.replace('-', '_')}_image": f"r.example/r/voxsrc-{name}@sha256:abcd"
        for name in ("feature-extractor", "train", "evaluate")
    }
    parameters = load_package(package_path("train")).parameters
    assert yaml.safe_load(pushed.stdout).keys() == {name for name in parameters if name.endswith("_image")}


@pytest.mark.parametrize("failing", ["voxsrc-feature-extractor:", "voxsrc-evaluate:"])
def test_of_images_nothing_is_printed_if_one_fails(with_components: Checkout, failing: str) -> None:
    done = with_components.call("build_images.sh", "--yaml", FAIL_AT=f"--tag {failing}")
    assert done.returncode != 0
    assert done.stdout == ""


def test_wheels_travel_as_an_image_and_cut_the_network(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    done = checkout.build("thing", "--wheels", tmp_path / "wheels")
    assert done.returncode == 1
    assert "no wheel there" in done.stderr
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").touch()
    checkout.calls.unlink()
    checkout.printed("thing", "--wheels", tmp_path / "wheels")
    wheels, _, build = checkout.recorded("build")
    name = wheels.partition("--tag ")[2].split()[0]
    assert wheels.endswith(str(tmp_path / "wheels"))
    assert f"--build-arg WHEELS_IMAGE={name} --network none" in build
    assert checkout.recorded("image")[-1] == f"image rm --force {name}"


@pytest.fixture
def with_engine(checkout: Checkout) -> Checkout:
    """`thing` on a base image `engine` that has variants."""
    (checkout.root / "common/containers/engine").mkdir()
    (checkout.root / "common/containers/engine/Dockerfile").write_text(ENGINE)
    (checkout.root / "components/thing/Dockerfile").write_text(DOCKERFILE.replace("PYTHON_", "ENGINE_"))
    (checkout.root / "env").mkdir()
    for name in ("pins.txt", "more.txt"):
        (checkout.root / "env" / name).write_text("a==1\n")
    return checkout


def engine_of(checkout: Checkout, *arguments: str | Path) -> str:
    """Name of the base image `engine` that a build of `thing` takes."""
    checkout.calls.unlink(missing_ok=True)
    checkout.printed("thing", *arguments)
    return checkout.recorded("build")[-1].partition("--build-arg ENGINE_IMAGE=")[2].split()[0]


def test_a_variant_goes_where_it_is_declared_and_into_the_tags(with_engine: Checkout) -> None:
    commit = with_engine.commit()
    assert with_engine.printed("thing", "--variant", "small")["tag"] == f"{commit}-small"
    python, engine, build = with_engine.recorded("build")
    assert "--build-arg VARIANT=small" in engine
    assert "VARIANT" not in python + build
    assert f"--tag voxsrc-thing:{commit}-small --tag voxsrc-thing:1.2.3-small " in build
    assert engine_of(with_engine, "--variant", "small") != engine_of(with_engine)
    assert "VARIANT" not in with_engine.calls.read_text()


def test_a_base_is_named_by_the_files_that_it_copies(with_engine: Checkout) -> None:
    before = engine_of(with_engine)
    (with_engine.root / "env/other.txt").write_text("not copied\n")
    assert engine_of(with_engine) == before
    (with_engine.root / "env/more.txt").write_text("a==2\n")
    assert engine_of(with_engine) != before


def test_a_base_takes_the_wheels_and_keeps_the_network(with_engine: Checkout, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"1")
    before = engine_of(with_engine, "--wheels", tmp_path / "wheels")
    wheels, python, engine, build = with_engine.recorded("build")
    name = wheels.partition("--tag ")[2].split()[0]
    assert f"--build-arg WHEELS_IMAGE={name}" in engine
    assert f"--build-arg WHEELS_IMAGE={name}" in build
    assert "WHEELS_IMAGE" not in python
    assert ["--network none" in call for call in (python, engine, build)] == [False, False, True]
    assert engine_of(with_engine, "--wheels", tmp_path / "wheels") == before, "whatever the wheels' image"
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").rename(tmp_path / "wheels" / "a-2-py3-none-any.whl")
    assert engine_of(with_engine, "--wheels", tmp_path / "wheels") != before
    assert engine_of(with_engine) != before


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "no image named"),
        (["thing", "--fast"], {}, "unknown option --fast"),
        (["thing", "other"], {}, "unexpected argument other"),
        (["other"], {}, "no image other: neither common/containers/other/Dockerfile nor"),
        (["thing", "--push"], {}, "--push needs a registry"),
        (["thing"], {"CLIENT_VERSION": "28.2.2", "BUILDX_EXIT": "1"}, "lacks its buildx plugin"),
        (["thing"], {"DOCKER": "/nowhere/docker"}, "no Docker client named /nowhere/docker"),
    ],
)
def test_what_cannot_be_built_is_said(
    checkout: Checkout, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = checkout.build(*arguments, **environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert not checkout.calls.exists() or not checkout.recorded("build")


def test_a_component_calls_the_shared_script_with_its_name() -> None:
    for script in ROOT.glob("components/*/build_image.sh"):
        done = subprocess.run([script, "--help"], cwd="/", capture_output=True, text=True, check=True)
        assert done.stdout.startswith("Usage: build_image.sh NAME")
        assert f'build_image.sh" {script.parent.name} "$@"' in script.read_text()

"""Downloads over HTTP and from folders: resumed, verified, and never wrong under the final name."""

import base64
import fcntl
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import voxceleb_data
import voxsrc
from file_server import CONTENT, FILE, Rig, Server, names
from voxceleb_data.origins import Credentials, HttpOrigin, StorageOrigin, open_origin
from voxceleb_data.transfer import Transfer
from voxsrc import storage
from voxsrc.errors import (
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    StorageError,
)

pytestmark = pytest.mark.usefixtures("no_netrc")


def test_download_leaves_the_file_and_its_record(file_server: Server, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert Rig(file_server.url, output).download() == 1
    assert (output / FILE.name).read_bytes() == CONTENT
    assert (output / f"{FILE.name}.md5").read_text() == f"{FILE.md5}  {FILE.name}\n"
    assert names(output) == [FILE.name, f"{FILE.name}.md5"]


def test_a_recorded_file_is_neither_fetched_nor_hashed(file_server: Server, tmp_path: Path) -> None:
    Rig(file_server.url, tmp_path).download()
    num_requests = len(file_server.requests)
    (tmp_path / FILE.name).write_bytes(b"altered")
    assert Rig(file_server.url, tmp_path).download() == 0
    assert len(file_server.requests) == num_requests
    assert Rig(file_server.url, tmp_path).download(rehash=True) == 1
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_whole_file_of_other_origin_is_hashed_and_kept(file_server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(CONTENT)
    assert Rig(file_server.url, tmp_path).download() == 0
    assert file_server.requests == []
    assert names(tmp_path) == [FILE.name, f"{FILE.name}.md5"]


@pytest.mark.parametrize("left_by", [f"{FILE.name}.partial", FILE.name])
def test_only_what_is_missing_is_fetched(file_server: Server, tmp_path: Path, left_by: str) -> None:
    (tmp_path / left_by).write_bytes(CONTENT[:1_234_567])
    assert Rig(file_server.url, tmp_path).download() == 1
    assert [request.byte_range for request in file_server.downloads] == ["bytes=1234567-"]
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_whole_partial_file_needs_nothing(file_server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT)
    Rig(file_server.url, tmp_path).download()
    assert file_server.downloads == []
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"\0" * 1000, b"\0" * len(CONTENT)])
def test_a_damaged_partial_file_is_fetched_anew(file_server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / f"{FILE.name}.partial").write_bytes(left)
    Rig(file_server.url, tmp_path).download()
    assert file_server.downloads[-1].byte_range is None
    assert (tmp_path / FILE.name).read_bytes() == CONTENT
    assert names(tmp_path) == [FILE.name, f"{FILE.name}.md5"]


def test_a_cut_connection_is_continued(file_server: Server, tmp_path: Path) -> None:
    file_server.cuts = [1_000_000, 0, 700_000]
    rig = Rig(file_server.url, tmp_path)
    rig.download()
    ranges = [request.byte_range for request in file_server.downloads]
    assert ranges == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1700000-"]
    # The wait grows only while nothing comes.
    assert rig.pauses == [1.0, 2.0, 1.0]
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(file_server: Server, tmp_path: Path) -> None:
    file_server.ranges = False
    file_server.cuts = [2_000_000]
    Rig(file_server.url, tmp_path).download()
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_server_that_starts_over_and_never_gets_further_is_given_up(
    file_server: Server, tmp_path: Path
) -> None:
    file_server.ranges = False
    file_server.cuts = [1_000_000] * 99
    rig = Rig(file_server.url, tmp_path)
    with pytest.raises(StorageError, match="gave up after 9 attempts"):
        rig.download()
    assert (tmp_path / f"{FILE.name}.partial").read_bytes() == CONTENT[:1_000_000]


def test_unavailable_servers_are_asked_again(file_server: Server, tmp_path: Path) -> None:
    file_server.refusals = [503, 429]
    rig = Rig(file_server.url, tmp_path)
    assert rig.download() == 1
    assert rig.pauses == [1.0, 2.0]


def test_a_dead_server_is_given_up_and_what_came_is_kept(file_server: Server, tmp_path: Path) -> None:
    file_server.cuts = [500_000]
    pauses: list[float] = []

    def pause_of_a_dead_server(seconds: float) -> None:
        pauses.append(seconds)
        file_server.refusals = [503]

    origin = open_origin(file_server.url, Credentials())
    transfer_ = Transfer(origin, str(tmp_path), tmp_path, report=print, pause=pause_of_a_dead_server)
    with pytest.raises(StorageError, match=r"HTTP 503.*gave up after 9 attempts, run again"):
        transfer_.download([FILE])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert names(tmp_path) == [f"{FILE.name}.partial"]
    assert (tmp_path / f"{FILE.name}.partial").stat().st_size == 500_000


def test_no_connection_is_an_error_without_a_trace(tmp_path: Path, file_server: Server) -> None:
    url = file_server.url
    file_server.close()
    with pytest.raises(StorageError, match=r"Connection refused.*gave up after 9 attempts"):
        Rig(url, tmp_path).download()


def test_wrong_content_names_both_sums_and_leaves_nothing(file_server: Server, tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    file_server.files[FILE.name] = wrong
    with pytest.raises(StorageError) as caught:
        Rig(file_server.url, tmp_path).download()
    assert FILE.md5 in str(caught.value)
    assert hashlib.md5(wrong).hexdigest() in str(caught.value)
    assert names(tmp_path) == []


def test_a_missing_file_fails_at_once(file_server: Server, tmp_path: Path) -> None:
    file_server.files.clear()
    rig = Rig(file_server.url, tmp_path)
    with pytest.raises(NotFoundError, match=FILE.name):
        rig.download()
    assert rig.pauses == []


def test_credentials_are_asked_for_then_used_then_never_shown(
    file_server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file_server.authorization = "Basic " + base64.b64encode(b"anna:s3cret").decode()
    with pytest.raises(PermissionDeniedError, match=r"asks for credentials.*--user-env"):
        Rig(file_server.url, tmp_path).download()
    wrong = Rig(file_server.url, tmp_path, Credentials("anna", "wr0ng"))
    with pytest.raises(PermissionDeniedError, match="refused the credentials") as caught:
        wrong.download()
    assert "wr0ng" not in f"{caught.value} {wrong.reports}"
    right = Rig(file_server.url, tmp_path, Credentials("anna", "s3cret"))
    right.download()
    assert "s3cret" not in f"{right.reports} {capfd.readouterr()} {Credentials('anna', 's3cret')}"


def test_credentials_come_from_netrc(
    file_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.authorization = "Basic " + base64.b64encode(b"anna:s3cret").decode()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login anna password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert Rig(file_server.url, tmp_path / "out").download() == 1
    netrc.write_text("machine 127.0.0.1 login anna pa s3cret\n")
    with pytest.raises(ConfigError, match="netrc cannot be used") as caught:
        Rig(file_server.url, tmp_path / "out")
    assert "s3cret" not in str(caught.value)


def test_credentials_do_not_follow_a_redirect(file_server: Server, tmp_path: Path) -> None:
    other = Server()
    try:
        file_server.redirect_to = other.url
        Rig(file_server.url, tmp_path, Credentials("anna", "s3cret")).download()
        assert {request.authorization for request in other.requests} == {None}
        assert None not in {request.authorization for request in file_server.requests}
        assert (tmp_path / FILE.name).read_bytes() == CONTENT
    finally:
        other.close()


def test_a_key_goes_into_the_address_and_not_into_messages(file_server: Server, tmp_path: Path) -> None:
    base = file_server.url + "/get?key={key}&file={name}"
    Rig(base, tmp_path, Credentials(key="k&y")).download()
    assert file_server.requests[0].path == f"/get?key=k%26y&file={FILE.name}"
    file_server.files.clear()
    with pytest.raises(NotFoundError, match=r"key=\{key\}") as caught:
        Rig(base, tmp_path / "other", Credentials(key="k&y")).download()
    assert "k%26y" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(ConfigError, match="--key-env"):
        HttpOrigin(base, Credentials())


def test_credentials_in_an_address_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError, match=r"example\.org has credentials in it") as caught:
        HttpOrigin("https://anna:s3cret@example.org/vox", Credentials())  # pragma: allowlist secret
    assert "s3cret" not in str(caught.value)


def test_credentials_from_the_environment() -> None:
    environment = {"U": "anna", "P": "s3cret", "EMPTY": ""}
    given = Credentials.from_environment(environment, user_variable="U", password_variable="P")
    assert (given.user, given.password, given.key) == ("anna", "s3cret", None)
    with pytest.raises(ConfigError, match="EMPTY is not set"):
        Credentials.from_environment(environment, key_variable="EMPTY")
    with pytest.raises(ConfigError, match="go together"):
        Credentials.from_environment(environment, user_variable="U")


def test_a_full_disk_is_noticed_before_the_first_byte(
    file_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT[:1_000_000])

    def free(num_bytes: int) -> None:
        usage = types.SimpleNamespace(free=num_bytes)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    free(1_999_999)
    with pytest.raises(StorageError, match=r"0\.0 GB free, 0\.0 GB are needed.*another --output"):
        Rig(file_server.url, tmp_path).download()
    assert file_server.downloads == []
    free(2_000_000)
    assert Rig(file_server.url, tmp_path).download() == 1


def test_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / FILE.name).write_bytes(CONTENT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{FILE.name}.partial").write_bytes(CONTENT[:10])
    assert isinstance(open_origin(str(tmp_path / "own"), Credentials()), StorageOrigin)
    assert Rig(str(tmp_path / "own"), tmp_path / "out").download() == 1
    assert (tmp_path / "out" / FILE.name).read_bytes() == CONTENT
    with pytest.raises(ConfigError, match="use `verify`"):
        Rig(str(tmp_path / "own"), tmp_path / "own").download()


def to_bucket(file_server: Server, uri: str, staging: Path) -> Transfer:
    origin = open_origin(file_server.url, Credentials())
    return Transfer(origin, uri, staging, report=lambda _: None, show_progress=False)


def test_to_a_bucket_by_way_of_a_staging_folder(file_server: Server, tmp_path: Path, bucket: str) -> None:
    staging = tmp_path / "staging"
    uri = f"{bucket}/vox"
    assert to_bucket(file_server, uri, staging).download([FILE]) == 1
    assert storage.read_bytes(f"{uri}/{FILE.name}") == CONTENT
    assert storage.read_bytes(f"{uri}/{FILE.name}.md5") == f"{FILE.md5}  {FILE.name}\n".encode()
    assert names(staging) == []
    num_requests = len(file_server.requests)
    assert to_bucket(file_server, uri, staging).download([FILE]) == 0
    assert len(file_server.requests) == num_requests
    # Replaced by somebody: hashed, removed and uploaded again.
    storage.write_bytes(f"{uri}/{FILE.name}", b"other")
    assert to_bucket(file_server, uri, staging).download([FILE], rehash=True) == 1
    assert storage.read_bytes(f"{uri}/{FILE.name}") == CONTENT
    # And from the bucket, going on with what is there.
    (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT[:123])
    assert Rig(uri, tmp_path).download() == 1
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_failed_upload_is_repeated_without_a_second_download(
    file_server: Server, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(local_path: str, uri: str) -> None:
        raise StorageError("the bucket is away")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "upload", fail)
        with pytest.raises(StorageError, match="away"):
            to_bucket(file_server, bucket, tmp_path).download([FILE])
    num_requests = len(file_server.requests)
    assert to_bucket(file_server, bucket, tmp_path).download([FILE]) == 1
    assert len(file_server.requests) == num_requests
    assert storage.read_bytes(f"{bucket}/{FILE.name}") == CONTENT


def test_two_downloads_of_one_file_do_not_mix(file_server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.partial").touch()
    with (tmp_path / f"{FILE.name}.partial").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="written by another download"):
            Rig(file_server.url, tmp_path).download()


# The kernel holds little of what was sent and is not read yet.
DOWNLOADER = """
import http.client, socket, sys
from pathlib import Path
from voxceleb_data.official import OfficialFile
from voxceleb_data.origins import Credentials, open_origin
from voxceleb_data.transfer import Transfer
url, output, md5 = sys.argv[1:]
connect = http.client.HTTPConnection.connect
def connect_with_a_small_buffer(self):
    connect(self)
    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
http.client.HTTPConnection.connect = connect_with_a_small_buffer
Transfer(open_origin(url, Credentials()), output, Path(output)).download([OfficialFile("vox_partaa", md5)])
"""


def test_killed_at_any_instant_it_still_ends_well(file_server: Server, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(12_000_000)
    md5 = hashlib.md5(content).hexdigest()
    file_server.files[FILE.name] = content
    source_folders = [str(Path(module.__file__ or "").parents[1]) for module in (voxceleb_data, voxsrc)]
    code = f"import sys; sys.path[:0] = {source_folders!r}\n{DOWNLOADER}"
    command = [sys.executable, "-c", code, file_server.url, str(tmp_path), md5]
    chance = random.Random(3)
    num_killed = num_finished = 0
    final = tmp_path / FILE.name
    for turn in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if turn % 2:
            # Up to more than one block, so that some is on the disk.
            file_server.kill_after = (file_server.num_sent + chance.randrange(1, 9_000_000), process)
            process.wait()
        else:
            try:
                process.wait(chance.uniform(0.1, 0.25))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        file_server.kill_after = None
        assert process.returncode in (0, -signal.SIGKILL)
        assert not final.exists() or final.read_bytes() == content
        num_killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            assert final.exists()
            assert not (tmp_path / f"{FILE.name}.partial").exists()
            num_finished += 1
            shutil.rmtree(tmp_path)
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert final.read_bytes() == content
    assert num_killed >= 8
    # A kill loses at most the block in hand, and what the server had sent ahead.
    assert file_server.num_sent <= (num_finished + 1) * len(content) + num_killed * 2_000_000
    assert any(request.byte_range for request in file_server.downloads)

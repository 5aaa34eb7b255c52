"""Where official files come from: a folder or bucket of the user's own, or an http(s) server.

An `Origin` tells a file's size and streams it from any byte on; it neither retries nor checks sums.
Addresses are shown as the user gave them: credentials are put in only on the wire.
"""

import base64
import http.client
import netrc
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from voxsrc import storage
from voxsrc.errors import ConfigError, NotFoundError, PermissionDeniedError, StorageError

CHUNK_BYTES = 1 << 20
# Connecting, and the longest silence of a server in the middle of a file.
TIMEOUT_S = 60.0
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)$")


class BrokenTransferError(StorageError):
    """The connection failed or ended early; the same request may succeed when repeated."""


@dataclass(frozen=True)
class Stream:
    """Bytes of a file from `offset` on.

    Attributes:
        offset: Where the bytes begin: the offset asked for, or 0 where the server cannot begin there.
        num_bytes: Size of the whole file, None if the server does not say.
        chunks: The bytes; raises `BrokenTransferError` if they end before `num_bytes`.
    """

    offset: int
    num_bytes: int | None
    chunks: Iterator[bytes]


class Origin(Protocol):
    """A place that has official files by name."""

    def address(self, name: str) -> str:
        """The file's address for messages, without secrets."""

    def open(self, name: str, offset: int) -> Stream:
        """Streams a file from byte `offset` on, which must lie inside the file.

        Raises:
            NotFoundError: If there is no such file.
            PermissionDeniedError: If credentials are missing or refused.
            BrokenTransferError: If trying again is worth it.
            StorageError: On any other failure.
        """

    def num_bytes(self, name: str) -> int | None:
        """Size of a file, None if the server does not say; raises what `open` raises."""


@dataclass(frozen=True)
class Credentials:
    """What a server asks for. Not shown in messages or `repr`.

    Attributes:
        user: User name for HTTP basic authentication, with `password`; None to look into netrc.
        password: Its password.
        key: What replaces `{key}` in a base address.
    """

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    @staticmethod
    def from_environment(
        environment: Mapping[str, str],
        *,
        user_variable: str | None = None,
        password_variable: str | None = None,
        key_variable: str | None = None,
    ) -> "Credentials":
        """Reads the variables named; a name of None leaves that value out.

        Raises:
            ConfigError: If a variable named is not set, or only one of user and password is named.
        """
        if (user_variable is None) != (password_variable is None):
            raise ConfigError("--user-env and --password-env go together: name both variables or neither")

        def value(variable: str | None) -> str | None:
            if variable is None:
                return None
            if not environment.get(variable):
                raise ConfigError(f"the environment variable {variable} is not set; export it first")
            return environment[variable]

        return Credentials(value(user_variable), value(password_variable), value(key_variable))


def open_origin(base: str, credentials: Credentials) -> Origin:
    """The origin behind a base address: http(s)://…, gs://… or a local folder."""
    if base.startswith(("http://", "https://")):
        return HttpOrigin(base, credentials)
    return StorageOrigin(base)


class StorageOrigin:
    """A local folder or a bucket, read through `voxsrc.storage` (which retries by itself)."""

    def __init__(self, base: str) -> None:
        self._base = base

    def address(self, name: str) -> str:
        """See `Origin.address`."""
        return storage.join(self._base, name)

    def num_bytes(self, name: str) -> int | None:
        """See `Origin.num_bytes`."""
        return storage.stat(self.address(name)).size

    def open(self, name: str, offset: int) -> Stream:
        """See `Origin.open`."""
        uri = self.address(name)

        def chunks() -> Iterator[bytes]:
            with storage.open_binary(uri) as opened:
                opened.seek(offset)
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk

        return Stream(offset, storage.stat(uri).size, chunks())


class HttpOrigin:
    """An http(s) server: `BASE/NAME`, or a base with `{name}` (and `{key}`) in it.

    Basic authentication goes to the base's own host alone, not to where a redirect leads.
    """

    def __init__(self, base: str, credentials: Credentials) -> None:
        if "{key}" in base and credentials.key is None:
            raise ConfigError(f"{base} has a {{key}}; name the variable that holds it with --key-env")
        parts = urllib.parse.urlsplit(base)
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"the address for {parts.hostname} has credentials in it, where others can read them; "
                "put them into ~/.netrc, or into variables named with --user-env and --password-env"
            )
        self._base = base if "{name}" in base else f"{base.rstrip('/')}/{{name}}"
        self._key = credentials.key
        self._authorization = _basic_authorization(parts.hostname or "", credentials)

    def address(self, name: str) -> str:
        """See `Origin.address`."""
        return self._base.replace("{name}", urllib.parse.quote(name))

    def num_bytes(self, name: str) -> int | None:
        """See `Origin.num_bytes`. Asks for one byte, since some servers refuse HEAD."""
        with self._request(name, "bytes=0-0") as response:
            return _num_bytes(response)

    def open(self, name: str, offset: int) -> Stream:
        """See `Origin.open`."""
        response = self._request(name, f"bytes={offset}-" if offset else None)
        num_bytes = _num_bytes(response)
        start = _first_byte(response)
        if start is None or start not in (0, offset):
            found = response.headers.get("Content-Range", "none")
            response.close()
            raise StorageError(
                f"{self.address(name)} answered with Content-Range {found!r}, asked for bytes from {offset}; "
                "the server's ranges are wrong: delete the .partial file and download it in one go"
            )
        return Stream(start, num_bytes, self._chunks(name, response, start, num_bytes))

    def _chunks(
        self, name: str, response: http.client.HTTPResponse, start: int, num_bytes: int | None
    ) -> Iterator[bytes]:
        position = start
        with response:
            while True:
                try:
                    chunk = response.read(CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise BrokenTransferError(
                        f"{self.address(name)}: the connection broke at byte {position:,} ({_plain(error)})"
                    ) from None
                if not chunk:
                    break
                position += len(chunk)
                yield chunk
        # http.client ends silently when a server closes early.
        if num_bytes is not None and position < num_bytes:
            raise BrokenTransferError(
                f"{self.address(name)} ended at byte {position:,} of {num_bytes:,}; the server closed early"
            )

    def _request(self, name: str, byte_range: str | None) -> http.client.HTTPResponse:
        # A compressed answer would shift the ranges.
        request = urllib.request.Request(  # noqa: S310 - the constructor's caller checked the scheme
            self.address(name).replace("{key}", urllib.parse.quote(self._key or "", safe="")),
            headers={"Accept-Encoding": "identity", "User-Agent": "voxceleb-data"},
        )
        if byte_range is not None:
            request.add_header("Range", byte_range)
        if self._authorization is not None:
            request.add_unredirected_header("Authorization", self._authorization)
        # `from None` throughout: the causes may show the address with its key.
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(name, error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenTransferError(f"{self.address(name)}: no connection ({_plain(error)})") from None
        return response

    def _refusal(self, name: str, status: int) -> StorageError:
        address = self.address(name)
        if status in (401, 403, 407):
            sent = "refused the credentials" if self._authorization or self._key else "asks for credentials"
            return PermissionDeniedError(
                f"{address} {sent} (HTTP {status}); register for VoxCeleb, then put user and password into "
                "~/.netrc or into variables named with --user-env and --password-env"
            )
        if status in (404, 410):
            return NotFoundError(f"{address} does not exist (HTTP {status}); check the base address")
        if status in _WORTH_RETRYING:
            return BrokenTransferError(f"{address} is unavailable (HTTP {status})")
        return StorageError(f"{address} answered HTTP {status}; expected 200 or 206")


def _basic_authorization(host: str, credentials: Credentials) -> str | None:
    user, password = credentials.user, credentials.password
    if user is None or password is None:
        user, password = _from_netrc(host) or (None, None)
    if user is None or password is None:
        return None
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _from_netrc(host: str) -> tuple[str, str] | None:
    """User and password of a host in $NETRC or ~/.netrc, None without an entry of its own or a file."""
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except FileNotFoundError:
        return None
    except (netrc.NetrcParseError, OSError) as error:
        raise ConfigError(
            f"netrc cannot be used ({_plain(error)}); correct it, or pass --user-env and --password-env"
        ) from None
    return (entry[0], entry[2]) if entry and entry[0] and entry[2] else None


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    if response.status != 206:
        return 0
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[1]) if match and match[1] else None


def _num_bytes(response: http.client.HTTPResponse) -> int | None:
    if response.status == 206:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        return int(match[2]) if match and match[2] != "*" else None
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdecimal() else None


def _plain(error: BaseException) -> str:
    """An error's reason without an address in it."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__ if isinstance(reason, BaseException) else str(reason)

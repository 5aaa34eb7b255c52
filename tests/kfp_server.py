"""A Kubeflow Pipelines API server on a loopback port: remembers experiments and runs, records each request.

It answers what `kfp.Client` asks of the v2beta1 API, in the form of backend/api/v2beta1/*.proto, and refuses
what the real one refuses. `task_details` writes a run's task details as the real server derives them from an
Argo workflow (`toApiPipelineTaskDetail` of kubeflow/pipelines).
"""

import email
import itertools
import json
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

# What the real server says of a time that is none: Go's zero time in seconds.
NO_TIME = "0001-01-01T00:00:00Z"
_API = "/apis/v2beta1"
_PREDICATE_EQUALS = {1, "EQUALS"}


@dataclass(frozen=True)
class Request:
    """One request: method, path, query (single values), and body: JSON, or the bytes of an uploaded file."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]


@dataclass
class KfpServer:
    """The server; `with KfpServer() as server` runs it.

    Attributes:
        multi_user: As `healthz` says.
        requests: All so far.
        experiments: By id.
        runs: By id, in the order of creation.
        answers: Run id → what the next GetRun calls answer instead; the last one stays.
        faults: (method, path's end, status, body) for the next such requests, each used once.
    """

    multi_user: bool = False
    requests: list[Request] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[tuple[str, str, int, bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_run(self, name: str, state: str | None, **fields: Any) -> str:
        """Adds a run as if submitted earlier; returns its id."""
        identity = str(uuid.uuid4())
        self.runs[identity] = {
            "run_id": identity,
            "display_name": name,
            "state": state,
            "created_at": f"2026-11-{len(self.runs) // 24 + 1:02}T{len(self.runs) % 24:02}:00:00Z",
            "runtime_config": {"parameters": {}},
            **fields,
        }
        return identity

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests of a method to a path below the API."""
        return [r for r in self.requests if r.method == method and r.path == _API + path]

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON for a request."""
        for fault in self.faults:
            if fault[0] == request.method and request.path.endswith(fault[1]):
                self.faults.remove(fault)
                return fault[2], fault[3]
        path = request.path.removeprefix(_API)
        match request.method, path.split("/")[1:]:
            case "GET", ["healthz"]:
                return 200, {"multi_user": self.multi_user}
            case "GET", ["experiments"]:
                return 200, {"experiments": self._named(self.experiments, request)}
            case "POST", ["experiments"]:
                return self._create(self.experiments, "experiment_id", request.body)
            case "POST", ["pipelines", "upload"]:
                return 200, {"pipeline_id": str(uuid.uuid4()), "display_name": request.query["name"]}
            case "GET", ["runs"]:
                return 200, self._page(list(reversed(self._named(self.runs, request))), request)
            case "POST", ["runs"]:
                return self._create_run(request.body)
            case "GET", ["runs", identity] if identity in self.runs:
                scripted = self.answers.get(identity, [])
                changed = scripted.pop(0) if len(scripted) > 1 else (scripted or [{}])[0]
                return 200, self.runs[identity] | changed
            case "DELETE", ["runs", identity] if identity in self.runs:
                del self.runs[identity]
                return 200, {}
        return 404, {"code": 5, "message": f"{path} not found"}

    def _named(self, objects: Mapping[str, dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        found = list(objects.values())
        if "filter" in request.query:
            for predicate in json.loads(request.query["filter"])["predicates"]:
                assert predicate["operation"] in _PREDICATE_EQUALS, predicate
                found = [o for o in found if o[predicate["key"]] == predicate["stringValue"]]
        return found

    def _page(self, runs: list[dict[str, Any]], request: Request) -> dict[str, Any]:
        assert request.query.get("sort_by") == "created_at desc", request
        first, size = int(request.query.get("page_token") or 0), int(request.query["page_size"])
        more = {"next_page_token": str(first + size)} if first + size < len(runs) else {}
        return {"runs": runs[first : first + size], **more}

    def _create(self, objects: dict[str, Any], key: str, body: Any) -> tuple[int, Any]:
        if not body.get("display_name"):
            return 400, {"code": 3, "message": "display name is empty"}
        created = {**body, key: str(uuid.uuid4())}
        objects[created[key]] = created
        return 200, created

    def _create_run(self, body: Any) -> tuple[int, Any]:
        if body.get("experiment_id") not in self.experiments:
            return 400, {"code": 3, "message": "experiment not found"}
        spec = body["pipeline_spec"].get("pipeline_spec", body["pipeline_spec"])
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body["runtime_config"]["parameters"]
        missing = [n for n, p in declared.items() if not p.get("isOptional") and n not in given]
        if missing or given.keys() - declared.keys():
            return 400, {"code": 3, "message": f"parameters: missing {missing}, given {sorted(given)}"}
        status, created = self._create(self.runs, "run_id", body)
        if status == 200:
            created |= {"state": "PENDING", "created_at": "2026-11-23T09:00:00Z"}
        return status, created


def _handler(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, url.path, query, self._body(raw), dict(self.headers))
            server.requests.append(request)
            status, answer = server.answer(request)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _respond  # noqa: N815 - names that http.server calls

        def _body(self, raw: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
                (part,) = message.get_payload()
                return part.get_payload(decode=True)
            return json.loads(raw) if raw else None

        def log_message(self, *arguments: object) -> None:
            """Says nothing: what was asked is in `requests`."""

    return Handler


def argo_id(path: str) -> str:
    """The id of an Argo node: workflow's name and FNV-1a of the node's name (`NodeID` of argo-workflows)."""
    basis = 2166136261
    for byte in path.encode():
        basis = (basis ^ byte) * 16777619 % 2**32
    return f"{path.partition('.')[0].partition('(')[0]}-{basis}"


def task_details(nodes: Mapping[str, tuple[str, str, str]]) -> dict[str, Any]:
    """`run_details` of a run whose Argo nodes have these paths → (state, start, end).

    A node is the child of the one that it waited for, as Argo has it: of its driver or the driver's last
    attempt, of the DAG that it is first in, or of the node whose attempts it is one of.
    """

    def last(path: str) -> str:
        attempts = itertools.takewhile(nodes.__contains__, (f"{path}({n})" for n in itertools.count()))
        return ([path, *attempts])[-1]

    children: dict[str, list[str]] = {path: [] for path in nodes}
    for path in nodes:
        scope, dot, name = path.rpartition(".")
        retried = re.sub(r"\(\d+\)$", "", path)
        if not dot and retried == path:
            continue
        parent = scope
        if retried != path:
            parent = retried
        elif f"{path}-driver" in nodes:
            parent = last(f"{path}-driver")
        elif name.startswith("iteration-iterations("):
            parent = f"{scope}.iteration-iterations"
        elif name == "iteration-iterations":
            parent = last(f"{scope}.iteration-driver")
        children[parent].append(argo_id(path))
    return {
        "task_details": [
            {
                "run_id": "set by the server",
                "task_id": str(uuid.uuid4()),
                "display_name": path.rpartition(".")[2],
                "create_time": start,
                "start_time": start,
                "end_time": end or NO_TIME,
                "state": state,
                "child_tasks": [{"pod_name": child} for child in children[path]],
            }
            for path, (state, start, end) in nodes.items()
        ]
    }

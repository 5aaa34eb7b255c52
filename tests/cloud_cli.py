"""A stand-in for gcloud and kubectl: refuses what the real ones refuse and records calls.

The programs are shell scripts that ask a server in the test's process, on a loopback port. Commands, flags
and the flags' values are those of Google's client: see `cloud_cli_flags.json`. What exists: `cloud_project`.
"""

import copy
import json
import socketserver
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cloud_kubectl import kubectl
from cloud_project import Gcloud
from cloud_rules import Flags, RefusedError, State, expect, fail

TABLE = json.loads(Path(__file__).with_name("cloud_cli_flags.json").read_text())["commands"]
READS = {"describe", "get", "list", "get-iam-policy", "wait"}


# Sends its arguments, each ended by a NUL, and one more NUL; receives exit status, output, errors. Starts no
# other program, as the tests make hundreds of calls.
CLIENT = """#!/usr/bin/env bash
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\0' {program} "$@" '' >&3
IFS= read -r -d $'\\1' status <&3
IFS= read -r -d $'\\1' output <&3
IFS= read -r -d $'\\1' errors <&3
printf '%s' "$output"
printf '%s' "$errors" >&2
exit "$status"
"""


def parse_gcloud(arguments: list[str]) -> tuple[str, list[str], Flags]:
    """Command, positional arguments and flags, as gcloud would read them; abbreviations are not accepted."""
    command = next((c for n in (4, 3, 2) if (c := " ".join(arguments[:n])) in TABLE), None)
    if command is None:
        fail(f"(gcloud) Invalid choice: {' '.join(arguments[:3])}")
    known = TABLE[command]
    booleans, values = set(known["booleans"].split()), set(known["values"].split())
    positionals: list[str] = []
    flags: Flags = {}
    rest = arguments[len(command.split()) :]
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            positionals.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        expect(word.startswith("--"), f"(gcloud.{command}) unrecognized arguments: {word}")
        if name in booleans:
            expect(not equals, f"(gcloud.{command}) argument --{name}: ignored explicit argument")
        else:
            expect(
                name in values | known["choices"].keys(), f"(gcloud.{command}) unrecognized arguments: {word}"
            )
            if not equals:
                expect(bool(rest), f"(gcloud.{command}) argument --{name}: expected one argument")
                value = rest.pop(0)
            allowed = known["choices"].get(name, [value])
            expect(value in allowed, f"(gcloud.{command}) argument --{name}: Invalid choice: '{value}'")
        expect(name not in flags, f"--{name} is given twice")
        flags[name] = value
    least, most = known["arguments"]
    expect(least <= len(positionals) <= (most or 99), f"(gcloud.{command}) {len(positionals)} arguments")
    missing = set(known["required"].split()) - flags.keys()
    expect(not missing, f"(gcloud.{command}) must be specified: {sorted(missing)}")
    return command, positionals, flags


@dataclass(frozen=True)
class Call:
    """One call of a program: its words, and whether it was to change something."""

    command: list[str]
    changes: bool


class CloudCli:
    """A project with its cluster, and the programs that reach it.

    Attributes:
        state: What exists; starts empty. `quotas` are lists of metric, limit and usage, by `region` and
            `project`; `forwards` is how many forwarded ports are opened before none is.
        calls: All calls that named a known command.
        fail_at: The changing call of this number (from 1) fails before it changes anything.
        kill_at: The changing call of this number ends as soon as it has begun.
        denied: Permission is denied to commands that hold these words.
    """

    def __init__(self) -> None:
        kinds = [
            "services",
            "buckets",
            "repositories",
            "accounts",
            "clusters",
            "pools",
            "operations",
            "routers",
        ]
        self.state: State = {kind: {} for kind in [*kinds, "kubernetes", "disks", "quotas"]}
        self.state |= {"bindings": [], "forwards": 1, "networks": ["default"]}
        self.calls: list[Call] = []
        self.fail_at = self.kill_at = 0
        self.denied = ""
        cli = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                received = b""
                while not received.endswith(b"\0\0"):
                    received += self.request.recv(65536)
                status, output, errors = cli.call(received[:-2].decode().split("\0"))
                self.wfile.write(f"{status}\1{output}\1{errors}\1".encode())

        self.server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def install(self, folder: Path) -> None:
        """Writes the programs into a folder."""
        for name in ("gcloud", "kubectl", "git", "gke-gcloud-auth-plugin"):
            program = folder / name
            program.write_text(CLIENT.format(port=self.server.server_address[1], program=name))
            program.chmod(0o755)

    def call(self, command: list[str]) -> tuple[int, str, str]:
        """Runs one command; returns exit status, standard output, standard error."""
        before = copy.deepcopy(self.state)
        try:
            return self._run(command[0], command[1:])
        except RefusedError as error:
            # What is refused changes nothing, but time passes.
            for email, account in self.state["accounts"].items():
                if email in before["accounts"]:
                    before["accounts"][email] = account
            self.state = before
            return 1, "", str(error)

    def _run(self, program: str, arguments: list[str]) -> tuple[int, str, str]:
        if program not in ("gcloud", "kubectl"):
            fail(f"{program} is not to be called")
        name, positionals, flags = parse_gcloud(arguments) if program == "gcloud" else ("", [], {})
        changes = arguments[0] != "get" if program == "kubectl" else name.split()[-1] not in READS
        self.calls.append(Call([program, *arguments], changes))
        number = sum(call.changes for call in self.calls)
        if self.denied and self.denied in name:
            fail("ResponseError: code=403, message=PERMISSION_DENIED: not found or permission denied.")
        if changes and number == self.fail_at:
            fail("RESOURCE_EXHAUSTED: quota exceeded")
        if program == "kubectl":
            return 0, kubectl(self.state, arguments), ""
        gcloud = Gcloud(self.state, positionals, flags)
        getattr(gcloud, name.replace(" ", "_").replace("-", "_"))()
        if changes and number == self.kill_at:
            kind = {"clusters": "clusters", "node-pools": "pools"}[name.split()[1]]
            self.state[kind][positionals[0]]["status"] = "PROVISIONING"
            self.state["operations"] = {"operation-1": {}}
            return 137, "", "Killed\n"
        return 0, gcloud.output, ""

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, Clock, at, run_of, step, tree
from voxsrc.pipelines.attempts import Attempt
from voxsrc.pipelines.cluster import ClusterError
from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.report import duration, snapshot_lines
from voxsrc.pipelines.watching import GIVE_UP_S, Snapshot, Watcher, find_run

Watch = tuple[str, Watcher, Clock, list[str]]
pytestmark = pytest.mark.usefixtures("both_shapes")


def test_follows_until_the_run_ends(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, warnings = watch
    train = f"{ROOT}.train"
    kfp_server.answers[identity] = [
        run_of(tree()),
        run_of(tree(step(train, "RUNNING", 1, None))),
        run_of(tree(step(train, "RUNNING", 1, None, failed_attempts=1))),
        run_of(tree(step(train, "SUCCEEDED", 1, 9, failed_attempts=1)), state="SUCCEEDED", finished_at=at(9)),
    ]
    snapshots = list(watcher.follow())
    assert [[s.attempts for s in snapshot.progress.steps] for snapshot in snapshots] == [[], [1], [2], [2]]
    assert snapshots[-1].has_ended
    assert snapshots[-1].progress.seconds(clock.now) == 540
    assert len(clock.pauses) == 3
    assert warnings == []


def test_waits_longer_and_longer_for_an_api_that_fails(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, warnings = watch
    kfp_server.answers[identity] = [
        run_of(tree(), state="FAILED", error={"code": 2, "message": "step train"})
    ]
    kfp_server.faults = [
        ("GET", identity, status, b'{"message": "busy"}') for status in (503, 500, 429, 502, 504, 503, 503)
    ]
    (snapshot,) = watcher.follow()
    assert snapshot.progress.error == "step train"
    assert clock.pauses == [2, 4, 8, 16, 32, 60, 60]
    assert len(warnings) == 7
    assert "HTTP 503, busy" in warnings[0]


def test_survives_a_server_that_goes_away(kfp_server: KfpServer, watch: Watch) -> None:
    with KfpServer() as server:
        identity = server.add_run("r", "RUNNING")
        api = KubeflowApi(server.url, "kubeflow")
    _, watcher, clock, warnings = watch

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        if len(clock.pauses) == 3:
            # the port-forward is back, at another port as nobody keeps one free for us
            kfp_server.runs[identity] = server.runs[identity] | run_of(tree(), state="SUCCEEDED")
            api.endpoint = kfp_server.url
            api.connect()

    watcher.api, watcher.run_id, watcher.pause = api, identity, pause
    (snapshot,) = watcher.follow()
    assert snapshot.has_ended
    assert "refused" in warnings[0]


def test_gives_up_after_an_hour(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, _ = watch
    kfp_server.faults = [("GET", identity, 503, b"")] * 200
    with pytest.raises(KubeflowError, match="HTTP 503"):
        watcher.look()
    assert GIVE_UP_S <= sum(clock.pauses) < GIVE_UP_S + 120


def test_an_expired_token_is_renewed_once(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, _ = watch
    expired = ("GET", identity, 401, b'{"message": "expired"}')
    kfp_server.faults = [expired]
    health = len(kfp_server.sent("GET", "/healthz"))
    watcher.look()
    assert len(kfp_server.sent("GET", "/healthz")) > health
    kfp_server.faults = [expired, expired]
    with pytest.raises(KubeflowError, match="HTTP 401, expired; log in"):
        watcher.look()
    assert clock.pauses == []


def test_a_run_that_is_gone_is_no_hiccup(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, _ = watch
    del kfp_server.runs[identity]
    with pytest.raises(KubeflowError, match="HTTP 404"):
        watcher.look()
    assert clock.pauses == []


def test_preemptions_come_from_the_workflow_and_outlive_it(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, _, warnings = watch
    shutdown = "Pod was terminated in response to imminent node shutdown."
    attempts = [
        Attempt(f"{ROOT}.train.executor(0)", "Failed", shutdown),
        Attempt(f"{ROOT}.train.executor(1)", "Failed", "Error (exit code 1)"),
        Attempt(f"{ROOT}.train.executor(2)", "Error", "pod deleted"),
        Attempt(f"{ROOT}.train.executor(3)", "Running", "node shutdown"),
        Attempt("w.root-driver", "Succeeded", ""),
    ]
    answers = iter([attempts, [], None])

    def ask(run_id: str) -> list[Attempt]:
        assert run_id == identity
        answer = next(answers)
        if answer is None:
            raise ClusterError("forbidden")
        return answer

    watcher.attempts = ask
    for _ in range(2):
        snapshot = watcher.look()
        assert snapshot.preemptions == {"train": 1}
        # with its machine or by hand, Argo does not tell
        assert snapshot.deletions == {"train": 1}
    assert watcher.look().preemptions is None
    assert warnings == ["forbidden"]


def test_runs_are_found_by_name_then_by_id(kfp_server: KfpServer, api: KubeflowApi) -> None:
    older, newer = kfp_server.add_run("r", "FAILED"), kfp_server.add_run("r", "RUNNING")
    assert find_run(api, "r") == newer
    assert find_run(api, older) == older
    with pytest.raises(KubeflowError, match="no run is named 's'"):
        find_run(api, "s")


def test_lines_come_when_something_changed_or_after_ten_minutes(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, _ = watch
    kfp_server.answers[identity] = [run_of(tree(step(f"{ROOT}.train", "RUNNING", 6, None)))]
    first = watcher.look()
    assert len(list(snapshot_lines(first, None))) == 2
    clock.pause(500)
    assert list(snapshot_lines(watcher.look(), first)) == []
    clock.pause(100)
    later: Snapshot = watcher.look()
    (line,) = snapshot_lines(later, first)
    assert "RUNNING  10 min" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h 00 min"), (172_800, "2 d 00 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

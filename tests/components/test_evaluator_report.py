"""The report's files: whole, self-contained, escaped, bounded, and honest about what it lacks."""

import base64
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.report import (
    Comparison,
    Condition,
    Estimate,
    ReportData,
    ReportError,
    System,
    write_report,
)
from report_data import clip_of, clips_of, small_report
from voxsrc import storage

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"meta", "br", "img", "input", "hr", "link", "source"}


class Page(HTMLParser):
    """What a test asks of a page: balanced tags, ids, text, attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@dataclass(frozen=True)
class Written:
    """A report on disk, as text and taken apart."""

    folder: Path
    data: ReportData
    text: str
    page: Page


def written(folder: Path, data: ReportData) -> Written:
    write_report(str(folder), data)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return Written(folder, data, text, Page(text))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One system, without clips."""
    return written(tmp_path_factory.mktemp("plain"), small_report())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Three systems, the last without log-likelihood ratios, with clips."""
    return written(tmp_path_factory.mktemp("full"), small_report(num_systems=3, clips=clips_of))


def test_files(plain: Written) -> None:
    found = {path.name: path.read_bytes() for path in plain.folder.iterdir()}
    assert set(found) == {
        "report.html", "det.png", "scores.png", "calibration.png", "condition-1.png", "condition-2.png",
    }  # fmt: skip
    assert all(data.startswith(b"\x89PNG") for name, data in found.items() if name.endswith(".png"))


def test_bucket_and_order(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page comes last: where it is, its plots are."""
    order: list[str] = []
    write_bytes = storage.write_bytes

    def noting(uri: str, data: bytes) -> Any:
        order.append(storage.name(uri))
        return write_bytes(uri, data)

    monkeypatch.setattr(storage, "write_bytes", noting)
    write_report(f"{bucket}/run", small_report(num_trials=60, conditions=[]))
    assert order == ["det.png", "scores.png", "calibration.png", "report.html"]
    assert {storage.name(info.uri) for info in storage.list_files(f"{bucket}/run")} == set(order)
    assert b"</html>" in storage.read_bytes(f"{bucket}/run/report.html")


def test_same_data_same_bytes(full: Written, tmp_path: Path) -> None:
    write_report(str(tmp_path), full.data)
    for path in full.folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_self_contained(full: Written) -> None:
    text, page = full.text, full.page
    without_clips = re.sub(r"base64,[^\"]*", "", text)
    assert "//" not in re.sub(r"^\s*//.*$", "", without_clips, flags=re.MULTILINE)
    assert not re.search(r"https?:", without_clips)
    assert not page.of("link")
    assert "@import" not in text
    sources = [value for _, each in page.tags for key in ("src", "href") if (value := each.get(key))]
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert {source[1:] for source in sources if source.startswith("#")} <= set(page.ids)


def test_ids_are_unique(full: Written) -> None:
    assert len(full.page.ids) == len(set(full.page.ids))


def test_only_the_pages_own_script_may_run(plain: Written) -> None:
    [script] = re.findall(r"<script>(.*?)</script>", plain.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [each["content"] for each in plain.page.of("meta") if "http-equiv" in each]
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    hostile = small_report(
        num_systems=2,
        clips=clips_of,
        speakers=(f"a{HOSTILE}", f"b{HOSTILE}", f"c{HOSTILE}"),
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
        conditions=[
            Condition(f"1{HOSTILE}", [f"{n % 2}{HOSTILE}" for n in range(400)]),
            Condition("room", ["x", "y"] * 200),
        ],
    )
    systems = [
        System(f"{system.name}{HOSTILE}$\\frac{{1}}$", system.scores, system.llrs, system.estimates)
        for system in hostile.systems
    ]
    names = [system.name for system in systems]
    hostile = dataclasses.replace(
        hostile,
        systems=systems,
        comparisons=[Comparison(names[0], names[1], "eer", Estimate(0.1, 0.0, 0.2), 0.5)],
    )
    found = written(tmp_path, hostile)
    after = found.page
    assert HOSTILE not in found.text
    assert len(after.of("script")) == 1
    assert not after.of("img")
    assert not [name for _, each in after.tags for name in each if name.startswith("on")]
    assert "".join(after.text).count(HOSTILE) > 20


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"systems": []}, r"systems: none"),
        ({"labels": np.array([0, 1, 1])}, r"enrollments: 4 values; expected one for each of 3"),
        ({"labels": np.array([0, 1, 2, 1])}, r"labels: found \[0, 1, 2\]"),
        ({"labels": np.ones(4)}, r"4 target and 0 non-target"),
        ({"p_target": 1.0}, r"p_target: 1\.0"),
        (
            {"systems": [System("x", np.array([0, 1, np.nan, 2.0]))]},
            r"scores of system 'x': 1 of 4 .* number 2",
        ),
        (
            {"systems": [System("x", np.arange(4.0), np.array([0, np.inf, 0, 0]))]},
            r"llrs of system 'x': 1 of 4",
        ),
        ({"systems": [System("x", np.arange(4.0))] * 2}, r"systems: \['x'\] are given more than once"),
        (
            {"systems": [System("x", np.arange(4.0), None, {"auc": Estimate(1)})]},
            r"unknown metrics \['auc'\]; expected some of \['eer'",
        ),
        ({"conditions": [Condition("c", ["a"])]}, r"condition 'c': 1 values"),
        ({"comparisons": [Comparison("system 0", "y", "eer", Estimate(0), 1)]}, r"system 'y' is not in"),
    ],
)
def test_unusable_data(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ReportError, match=expected):
        small_report(num_trials=4, **({"conditions": []} | changes))


def test_unknown_clip_format(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"clip of .*wav: begins with b'MThd'; expected WAV"):
        write_report(
            str(tmp_path),
            small_report(num_trials=60, conditions=[], clips=lambda ids: dict.fromkeys(ids, b"MThd...")),
        )
    assert not list(tmp_path.iterdir())


def test_players(full: Written) -> None:
    players = full.page.of("audio")
    assert len(players) == 40
    for player in players:
        assert "controls" in player
        assert player["preload"] == "none"
        assert player["aria-label"]
        name = (player["aria-label"] or "").rsplit(": ", 1)[1]
        content = base64.b64decode((player["src"] or "").removeprefix("data:audio/wav;base64,"))
        assert content == clip_of(name)


def test_without_clips(plain: Written) -> None:
    assert not plain.page.of("audio")
    assert "No recordings are at hand" in plain.text


def test_clips_are_asked_for_once(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def but_the_first(utterance_ids: Sequence[str]) -> dict[str, bytes]:
        asked.append(utterance_ids)
        return clips_of(utterance_ids[1:])

    data = small_report(conditions=[], clips=but_the_first)
    # The same recording in all trials: it is in every wrong one.
    data = dataclasses.replace(data, tests=["x.wav"] * len(data.tests))
    players = written(tmp_path, data).page.of("audio")
    [ids] = asked
    assert len(ids) == len(set(ids)) == 21
    assert len(players) == 39
    played = {(player["aria-label"] or "").rsplit(": ", 1)[1] for player in players}
    assert played == set(ids[1:])


def test_clips_are_bounded(tmp_path: Path) -> None:
    def of_a_megabyte(utterance_ids: Sequence[str]) -> dict[str, bytes]:
        return dict.fromkeys(utterance_ids, b"RIFF" + bytes(999_996))

    found = written(tmp_path, small_report(conditions=[], clips=of_a_megabyte))
    assert len(found.page.of("audio")) == 8
    assert "32 recordings are left out" in found.text


def test_without_llrs(tmp_path: Path) -> None:
    text = written(tmp_path, small_report(with_llrs=False, conditions=[])).text
    assert "No system gives log-likelihood ratios" in text
    assert "Bayes threshold (" not in text
    assert not (tmp_path / "calibration.png").exists()


def test_llrs_of_some_systems(full: Written) -> None:
    assert {"calibration-actual-0", "calibration-actual-1"} <= set(full.page.ids)
    assert "calibration-actual-2" not in full.page.ids


def test_unknown_speakers(tmp_path: Path) -> None:
    data = dataclasses.replace(small_report(), speakers=None)
    found = written(tmp_path, data)
    text, page = found.text, found.page
    assert "Who speaks in the recordings is not known" in text
    assert "draws of its speakers" not in text
    assert "det-band" not in page.ids
    assert "det-curve-0" in page.ids


def test_without_estimates_facts_and_conditions(tmp_path: Path) -> None:
    data = small_report(facts={}, conditions=[])
    bare = System("bare", data.main.scores)
    found = written(tmp_path, small_report(facts={}, conditions=[], systems=[bare]))
    assert not {"facts", "conditions", "glossary"} & set(found.page.ids)
    assert "95 % intervals over the" not in found.text


def test_other_target_share(tmp_path: Path) -> None:
    text = written(tmp_path, small_report(p_target=0.001, conditions=[])).text
    assert "minDCF (0.1\N{NO-BREAK SPACE}%)" in text
    assert "Bayes threshold (0.1\N{NO-BREAK SPACE}%)" in text
    assert "(5\N{NO-BREAK SPACE}%)" not in text


def test_the_second_target_share_is_not_shown_twice(tmp_path: Path) -> None:
    """Where the first is 1 % as well."""

    def report_at(p_target: float) -> tuple[str, int]:
        data = small_report(num_systems=2, p_target=p_target, conditions=[])
        estimates = {"min_dcf": Estimate(7.171), "min_dcf_p01": Estimate(7.272)}
        systems = [dataclasses.replace(system, estimates=estimates) for system in data.systems]
        comparisons = [
            Comparison("system 0", "system 1", key, Estimate(-7.373), 0.5)
            for key in ("min_dcf", "min_dcf_p01")
        ]
        data = dataclasses.replace(data, systems=systems, comparisons=comparisons)
        text = written(tmp_path / str(p_target), data).text
        return text, text.count("−7.373")

    both, num_compared = report_at(0.05)
    assert num_compared == 2
    assert "7.272" in both
    one, num_compared = report_at(0.01)
    assert num_compared == 1
    assert "7.272" not in one
    assert "7.171" in one


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_perfect_and_useless_systems(tmp_path: Path, spread: float) -> None:
    """Everything apart, and everything equal."""
    labels = np.arange(400) % 2
    scores = labels * 1.0 if spread else np.zeros(400)
    scores = scores + spread * np.random.default_rng(0).standard_normal(400)
    found = written(tmp_path, small_report(conditions=[], systems=[System("x", scores, scores)]))
    assert "det-curve-0" in found.page.ids


def test_large_lists_make_bounded_pages(tmp_path: Path) -> None:
    """The page grows by no more than names and digits: every curve is thinned."""
    sizes = [
        len(written(tmp_path, small_report(num_trials=num_trials, conditions=[])).text)
        for num_trials in (5_000, 50_000)
    ]
    assert sizes[1] < sizes[0] + 30_000
    assert sizes[1] < 300_000


def test_headline_is_what_was_given(full: Written) -> None:
    text = full.text
    assert "10.00\N{NO-BREAK SPACE}%" in text
    assert "[5.00,\N{NO-BREAK SPACE}20.00]" in text
    assert "−1.00\N{NO-BREAK SPACE}%" in text
    assert "[−2.00,\N{NO-BREAK SPACE}+0.10]" in text
    assert "400 pairs of recordings: 200 of the same speaker, 200 of different speakers" in text


def test_accessible_structure(full: Written) -> None:
    page = full.page
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(page.of("table")) == len(page.of("caption"))
    images = [each for _, each in page.tags if each.get("role") == "img"]
    assert len(images) == len(page.of("svg")) == 5
    assert all(len(each["aria-label"] or "") > 30 for each in images)
    assert page.of("html")[0]["lang"] == "en"

"""Wrong decisions of the main system: by speakers, and the worst trials with their recordings."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.report.analysis import Analysis
from evaluator.report.clips import Clips
from evaluator.report.confusion import (
    SpeakerErrors,
    confused_pairs,
    rejected_speakers,
    worst_false_accepts,
    worst_false_rejects,
)
from evaluator.report.data import ReportData
from evaluator.report.tables import Cell, Column, Table, count, number_text, percent, percentage

_LISTED = 10


@dataclass(frozen=True)
class Side:
    """One recording of a trial.

    Attributes:
        role: "enrolled" or "test".
        utterance_id: Its id.
        speaker: Its speaker; empty if the id names it anyway.
        clip: Data URI of its sound, empty if there is none.
    """

    role: str
    utterance_id: str
    speaker: str
    clip: str


@dataclass(frozen=True)
class WrongTrial:
    """One trial that was decided wrongly."""

    rank: int
    score: str
    sides: tuple[Side, Side]


@dataclass(frozen=True)
class Wrong:
    """What the two sections show.

    Attributes:
        explanation: At which threshold decisions are wrong, and how many are.
        speakers_are_known: Whether the tables by speaker say anything.
        confused: Pairs of speakers.
        confused_share: How much of all false accepts they make.
        rejected: Speakers.
        rejected_share: How much of all false rejects they make.
        false_accepts: The worst ones.
        false_rejects: The worst ones.
        clips: What can be listened to.
    """

    explanation: str
    speakers_are_known: bool
    confused: Table
    confused_share: str
    rejected: Table
    rejected_share: str
    false_accepts: Sequence[WrongTrial]
    false_rejects: Sequence[WrongTrial]
    clips: str


def wrong_decisions(analysis: Analysis) -> Wrong:
    """Looks at the errors of the main system at its threshold of equal error."""
    data, target, accepted = analysis.data, analysis.is_target, analysis.is_accepted
    scores = data.main.scores
    num_accepts, num_rejects = int((~target & accepted).sum()), int((target & ~accepted).sum())
    confused = confused_pairs(analysis.speakers, target, accepted, _LISTED)
    rejected = rejected_speakers(analysis.speakers, target, accepted, _LISTED)
    accepts = worst_false_accepts(scores, target, accepted, _LISTED)
    rejects = worst_false_rejects(scores, target, accepted, _LISTED)
    sides = (side[trial] for trial in (*accepts, *rejects) for side in (data.enrollments, data.tests))
    # All at once: a compressed archive takes a pass for each request.
    clips = Clips(data.clips(list(dict.fromkeys(sides))))
    return Wrong(
        explanation=(
            f"Of {data.main.name}, at its threshold of equal error (score "
            f"{number_text(analysis.equal_error.threshold)}): {num_accepts:,} of {analysis.num_others:,} "
            f"trials of different speakers are accepted, {num_rejects:,} of {analysis.num_targets:,} of "
            "the same speaker rejected."
        ),
        speakers_are_known=analysis.speakers_are_known,
        confused=confused_pairs_table(confused),
        confused_share=_share(confused, num_accepts, "wrongly accepted trials"),
        rejected=rejected_speakers_table(rejected),
        rejected_share=_share(rejected, num_rejects, "wrongly rejected trials"),
        false_accepts=wrong_trials(data, accepts, clips),
        false_rejects=wrong_trials(data, rejects, clips),
        clips=_clips_mean(clips),
    )


def confused_pairs_table(pairs: Sequence[SpeakerErrors]) -> Table:
    """A row a pair of speakers."""
    columns = (
        Column("speaker", is_number=False),
        Column("and", is_number=False),
        Column("accepted"),
        Column("of trials"),
        Column("rate"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(pair.speakers[0]),
            Cell(pair.speakers[1]),
            count(pair.errors),
            count(pair.trials),
            percent(pair.rate),
        )
        for pair in pairs
    ]
    return Table("Pairs of speakers most often taken for one", columns, rows)


def rejected_speakers_table(speakers: Sequence[SpeakerErrors]) -> Table:
    """A row a speaker."""
    columns = (Column("speaker", is_number=False), Column("rejected"), Column("of trials"), Column("rate"))
    rows: list[tuple[Cell, ...]] = [
        (Cell(each.speakers[0]), count(each.errors), count(each.trials), percent(each.rate))
        for each in speakers
    ]
    return Table("Speakers most often not recognised", columns, rows)


def wrong_trials(data: ReportData, trials: Sequence[int], clips: Clips) -> list[WrongTrial]:
    """Trials of the main system by their numbers, in that order, with the sound of both sides."""
    shown = []
    for rank, trial in enumerate(trials, 1):
        ids = (data.enrollments[trial], data.tests[trial])
        speakers = data.speakers[trial] if data.speakers is not None else ("", "")
        first, second = (
            Side(role, each, "" if speaker in each else speaker, clips.uri(each))
            for role, each, speaker in zip(("enrolled", "test"), ids, speakers, strict=True)
        )
        shown.append(WrongTrial(rank, number_text(float(data.main.scores[trial])), (first, second)))
    return shown


def _share(listed: Sequence[SpeakerErrors], total: int, what: str) -> str:
    return (
        f"Together {percentage(sum(each.errors for each in listed) / total)} of all {what}." if total else ""
    )


def _clips_mean(clips: Clips) -> str:
    if clips.num_left_out:
        return f"{clips.num_left_out} recordings are left out to keep the page small."
    return "" if clips.num_given else "No recordings are at hand to listen to."

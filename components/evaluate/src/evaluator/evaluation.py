"""A whole evaluation: embeddings, scores, calibration, metrics, report.

Letters: N trials.
"""

import logging
from collections.abc import Mapping, Sequence, Set

from evaluator.clips import Clips
from evaluator.conditions import conditions_of, conditions_of_metadata
from evaluator.options import EvaluationOptions
from evaluator.outputs import (
    LLRS_NAME,
    SUBMISSION_NAME,
    Settings,
    check_replaceable,
    delete_outputs,
    settings_of,
    write_settings,
)
from evaluator.report import Condition
from evaluator.reporting import report
from evaluator.scored import Evaluation, Scores
from evaluator.scoring import calibration_of, embedder_of, scorer_of
from evaluator.training_set import TrainingSet
from evaluator.utterances import RecordedUtterances, StoredUtterances, TrialUtterances, embedded
from voxsrc import storage
from voxsrc.corpus import TrialList, read_trials, write_trials
from voxsrc.errors import CorpusError
from voxsrc.lease import Lease
from voxsrc.models.stored import StoredModel, load_model
from voxsrc.scores import SCORES_NAME, MatchedScores, matched, read_scores, write_scores
from voxsrc.scoring import duplicated_trials, pairs_of
from voxsrc.scoring.fusion import HELD_OUT_SCORES_NAME, HELD_OUT_TRIALS_NAME
from voxsrc.submission import path_problem, write_submission
from voxsrc.trial_lists import Recognition, contradictions, recognise, speaker_pairs

_CACHE_NAME = "embeddings"
_log = logging.getLogger("evaluator")


def evaluate(options: EvaluationOptions) -> None:
    """Scores the trials and writes all that follows; prints the numbers and where the report is.

    Raises:
        VoxsrcError: With a message that names the file or flag; embeddings made so far are kept.
    """
    # Before an hour of embedding, all that is cheap to find wrong.
    trials = read_trials(options.trials)
    _require_both_kinds(trials, options.trials)
    others = {name: matched(read_scores(uri), trials) for name, uri in options.systems}
    model = load_model(options.model)
    settings = settings_of(options, model.model_hash, trials)
    _check_replaceable(options, settings)
    if trials.labels is None and (problem := path_problem(trials)):
        _log.warning("there will be no submission: %s", problem)
    audio = options.audio if trials.labels is not None else ()
    with Clips(audio, trials.utterance_ids()) as clips, Lease(options.output, _run_name(options)) as lease:
        # Once more: before the lease was taken another evaluation may have ended.
        _check_replaceable(options, settings)
        _evaluate(options, model, trials, others, clips, lease)
        lease.confirm()
        write_settings(options.output, settings)


def _check_replaceable(options: EvaluationOptions, settings: Settings) -> None:
    if not options.overwrite:
        check_replaceable(options.output, settings)


def _run_name(options: EvaluationOptions) -> str:
    """For the message to another run."""
    return f"{options.system_name} of {options.trials} by {options.model}"


def _evaluate(
    options: EvaluationOptions,
    model: StoredModel,
    trials: TrialList,
    others: Mapping[str, MatchedScores],
    clips: Clips,
    lease: Lease,
) -> None:
    evaluation = _scored(options, model, trials)
    lease.confirm()
    # Of an earlier run, with other options maybe: nobody could tell what belongs to what.
    delete_outputs(options.output)
    write_scores(evaluation.uri(SCORES_NAME), trials, evaluation.scores)
    if evaluation.llrs is not None:
        write_scores(evaluation.uri(LLRS_NAME), trials, evaluation.llrs)
    if (held_out := evaluation.calibration.held_out) is not None:
        write_trials(evaluation.uri(HELD_OUT_TRIALS_NAME), held_out.trials)
        write_scores(evaluation.uri(HELD_OUT_SCORES_NAME), held_out.trials, held_out.scores)
    print(f"scores: {evaluation.uri(SCORES_NAME)}")
    if trials.labels is None:
        _submit(evaluation)
    else:
        report(evaluation, trials.labels, _systems(evaluation, others), clips)
    for warning in evaluation.warnings:
        _log.warning("%s", warning)


def _require_both_kinds(trials: TrialList, uri: str) -> None:
    if trials.labels is not None and len(set(trials.labels.tolist())) < 2:
        raise CorpusError(
            f"{uri}: all {len(trials):,} trials have the label {trials.labels[0]}; expected trials of both "
            "kinds, or lines `path path` without labels for scores alone"
        )


def _scored(options: EvaluationOptions, model: StoredModel, trials: TrialList) -> Evaluation:
    recognition = recognise(options.trials)
    utterances: TrialUtterances
    if options.features is not None:
        utterances = StoredUtterances(options.features, model.description.spec, options.device)
    else:
        utterances = RecordedUtterances(options.audio, trials)
    speaker_of = utterances.speaker_of
    conditions, warnings = list[Condition](), list[str]()
    if options.metadata is not None and trials.labels is not None:
        conditions, warnings = conditions_of_metadata(options.metadata, trials, speaker_of)
    training = None
    if options.train_features:
        training = TrainingSet.open(options.train_features, model, options.device)
    tested = (
        {speaker_of[name] for name in trials.utterance_ids() if name in speaker_of} if speaker_of else set()
    )
    strangers = training.without(tested) if training is not None else None

    embedder = embedder_of(options, model, options.cache or storage.join(options.output, _CACHE_NAME))
    embeddings = embedded(utterances, embedder, trials, options.trials, options.output)
    first, second = pairs_of(trials, embeddings.utterance_ids)
    scorer = scorer_of(options, embedder, strangers)
    raw = scorer.scores(embeddings, first, second)
    calibration = calibration_of(options, scorer, embedder, strangers)
    llrs = calibration.llrs(scorer, raw, embeddings, first, second)
    speakers = speaker_pairs(trials, speaker_of) if speaker_of is not None else None
    return Evaluation(
        options=options,
        model=model,
        trials=trials,
        recognition=recognition,
        utterances=utterances,
        embeddings=embeddings,
        description=scorer.description,
        calibration=calibration,
        # Quality measures change the order of trials, not only the scale of scores.
        scores=llrs if llrs is not None and calibration.quality else raw,
        llrs=llrs,
        speakers=speakers,
        conditions=[*conditions_of(model.description.spec, trials, embeddings, speaker_of), *conditions],
        warnings=[
            *utterances.warnings,
            *_warnings_of_trials(trials, recognition, speakers),
            *_warnings_of_training(options, tested, training),
            *([calibration.source] if calibration.map is None else []),
            *warnings,
        ],
    )


def _systems(evaluation: Evaluation, others: Mapping[str, MatchedScores]) -> dict[str, Scores]:
    """The evaluated system and those to compare it with; what is odd about these is added to the warnings."""
    systems = {evaluation.options.system_name: Scores(evaluation.scores, evaluation.llrs)}
    for name, found in others.items():
        counts = ((found.num_swapped, "pairs swapped"), (found.num_extra, "scores of no trial"))
        evaluation.warnings.extend(f"{name}: {count:,} {what}" for count, what in counts if count)
        systems[name] = Scores(found.scores, None)
    return systems


def _warnings_of_trials(
    trials: TrialList, recognition: Recognition, speakers: Sequence[tuple[str, str]] | None
) -> list[str]:
    found = [recognition.caution] if recognition.caution else []
    if duplicated := duplicated_trials(trials):
        found.append(
            f"{len(duplicated):,} trials are listed more than once, the first is "
            f"{duplicated[0].enrollment} {duplicated[0].test}; each counts as often as it is listed"
        )
    if denied := [trial for trial in duplicated if len(trial.labels) > 1]:
        found.append(
            f"{len(denied):,} trials are listed with both labels, the first is {denied[0].enrollment} "
            f"{denied[0].test}"
        )
    if speakers is not None and (wrong := contradictions(trials, speakers)):
        place = wrong[0]
        found.append(
            f"{len(wrong):,} labels contradict the speakers, the first is that of "
            f"{trials.enrollments[place]} {trials.tests[place]}: of {' and '.join(speakers[place])}"
        )
    return found


def _warnings_of_training(
    options: EvaluationOptions, tested: Set[str], training: TrainingSet | None
) -> list[str]:
    if training is None:
        return []
    found = []
    if not training.matches:
        found.append(
            f"{options.train_features} is not the feature set that the model says it was trained on: the "
            "speakers used to calibrate may be others than those held out of its training"
        )
    if seen := tested & training.cohort_speakers:
        found.append(
            f"{len(seen):,} of {len(tested):,} test speakers are in the training features, too, the "
            f"first is {min(seen)}: the results say little about strangers"
        )
    return found


def _submit(evaluation: Evaluation) -> None:
    """For a blind list: what the challenge wants to be sent, if its form can hold the paths."""
    print(f"{evaluation.options.trials} has no labels: no metrics, no report, no comparison")
    if problem := path_problem(evaluation.trials):
        print(f"no submission: {problem}")
        return
    scores, calibrated = evaluation.scores, evaluation.llrs is not None
    if evaluation.llrs is not None:
        scores = evaluation.llrs
    written = write_submission(
        evaluation.uri(SUBMISSION_NAME),
        evaluation.trials,
        scores,
        calibrated=calibrated,
        prior=evaluation.options.p_target,
    )
    print(f"submission: {written.uri} ({written.how})")

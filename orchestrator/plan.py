"""What a sweep will run: every trial with its identity, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from corpora.act_labels import learns_acts
from corpora.dialogue import Corpus
from corpora.read import read_corpus
from evaluators.metric_versions import ACT_VERSIONS, METRIC_VERSIONS
from orchestrator.preflight import check_specs
from orchestrator.scale import ChosenScale
from orchestrator.storage import SweepFolder
from orchestrator.winner import Winner, choose_winner
from search_spaces.early_stop import can_be_stopped
from search_spaces.errors import InputError, Problem, SearchSpaceError, one_problem
from search_spaces.expand import expand_stage
from search_spaces.identity import trial_id, trial_name
from search_spaces.space import SearchSpace, Stage
from search_spaces.spec import CorpusSpec, Method, TrialSpec
from trainers.inputs import method_inputs
from trainers.pretrained import Pretrained, find_model


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial and its identity."""

    id: str
    name: str
    spec: TrialSpec
    model: Pretrained
    inputs: Mapping[str, str]
    """Content of what else the method reads; see `trainers/inputs.py`."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage and its trials."""

    stage: Stage
    trials: tuple[PlannedTrial, ...]
    """Empty while the stage waits for the winner of an earlier one."""
    winner: Winner | None = None
    """Of the stage that this one builds on, once that is decided."""

    @property
    def waits(self) -> bool:
        """Whether the trials depend on a winner that is not known yet."""
        return not self.trials

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of its trials."""
        return frozenset(trial.id for trial in self.trials)


@dataclass(frozen=True)
class Plan:
    """Everything a sweep will do, as far as it can be known now."""

    space: SearchSpace
    scale: ChosenScale
    corpus: Corpus
    stages: tuple[PlannedStage, ...]
    command: str

    @cached_property
    def trials(self) -> tuple[PlannedTrial, ...]:
        """Every known trial once, in the order of stages; a trial in two stages is one trial."""
        return tuple(self.by_id.values())

    @cached_property
    def by_id(self) -> Mapping[str, PlannedTrial]:
        """Every known trial by its id."""
        return {trial.id: trial for stage in self.stages for trial in stage.trials}

    def stages_of(self, trial: str) -> tuple[str, ...]:
        """Names of the stages that a trial stands in."""
        return tuple(s.stage.name for s in self.stages if trial in s.ids)


class Planner:
    """Makes plans; remembers what is slow to find out (corpora, model fingerprints)."""

    def __init__(
        self, space: SearchSpace, scale: ChosenScale, corpus: str | None, command: str
    ) -> None:
        self.space = space
        self.scale = scale
        self.corpus_option = corpus
        self.command = command
        self.corpora: dict[CorpusSpec, Corpus] = {}
        self.models: dict[tuple[str, Any], Pretrained] = {}
        self.inputs: dict[Method, dict[str, str]] = {}
        self.checked: set[tuple[Any, ...]] = set()

    def plan(self, folder: SweepFolder) -> Plan:
        """The plan as far as the results in the sweep's folder let it be known.

        Args:
            folder: the sweep's; only read.

        Raises:
            InputError: search space, corpus, models or metrics cannot do what is asked.
        """
        # A model without files may have been fetched or made since the last plan.
        self.models = {key: model for key, model in self.models.items() if model.folder}
        self.inputs = {}
        planned: list[PlannedStage] = []
        problems: list[Problem] = []
        for stage in self.space.stages:
            try:
                planned.append(self._stage(stage, planned, folder))
            except InputError as error:
                problems += error.problems
                planned.append(PlannedStage(stage, ()))
        problems += _privacy_problems(self.space.name, planned)
        problems += _early_stop_problems(self.space.name, planned)
        if problems:
            raise SearchSpaceError(dict.fromkeys(problems))
        planned = _with_own_names(planned)
        first = next(trial for stage in planned for trial in stage.trials)
        return Plan(
            space=self.space,
            scale=self.scale,
            corpus=self.corpus(first.spec.corpus),
            stages=tuple(planned),
            command=self.command,
        )

    def corpus(self, spec: CorpusSpec) -> Corpus:
        """A corpus, read once."""
        if spec not in self.corpora:
            self.corpora[spec] = read_corpus(spec)
        return self.corpora[spec]

    def _stage(
        self, stage: Stage, earlier: list[PlannedStage], folder: SweepFolder
    ) -> PlannedStage:
        if stage.winner_of is None:
            return PlannedStage(stage, self._trials(stage, None))
        source = next(s for s in earlier if s.stage.name == stage.winner_of.stage)
        winner = choose_winner(stage.winner_of, source.trials, folder)
        if winner is None:
            # Any trial of the source stands in for the winner, so that what is wrong with this
            # stage is found now and not after hours of training.
            if source.trials:
                self._trials(stage, source.trials[0].spec)
            return PlannedStage(stage, ())
        return PlannedStage(stage, self._trials(stage, winner.spec), winner)

    def _trials(self, stage: Stage, winner: TrialSpec | None) -> tuple[PlannedTrial, ...]:
        """A stage's trials, each with its identity; every problem of all of them at once."""
        specs = expand_stage(self.space, stage, self.scale.scale, self.corpus_option, winner)
        problems: list[Problem] = []
        for spec in specs:
            key = (spec.model, spec.split)
            if key in self.models:
                continue
            try:
                self.models[key] = find_model(spec.model, spec.split)
            except InputError as error:
                problems += error.problems
                self.models[key] = Pretrained(spec.model, None, "missing")
        problems += check_specs(
            self.space,
            stage,
            [(spec, self.models[spec.model, spec.split]) for spec in specs],
            self.corpus,
            self.checked,
        )
        if problems:
            raise SearchSpaceError(dict.fromkeys(problems))
        return tuple(self._trial(spec) for spec in specs)

    def _trial(self, spec: TrialSpec) -> PlannedTrial:
        model = self.models[spec.model, spec.split]
        inputs = self.inputs.get(spec.method)
        if inputs is None:
            inputs = self.inputs[spec.method] = method_inputs(spec)
        return PlannedTrial(
            id=trial_id(
                spec,
                corpus_hash=self.corpus(spec.corpus).content_hash,
                model_fingerprint=model.fingerprint,
                metric_versions=metric_versions(spec),
                inputs=inputs,
            ),
            name=trial_name(spec),
            spec=spec,
            model=model,
            inputs=inputs,
        )


def _privacy_problems(space: str, stages: Sequence[PlannedStage]) -> list[Problem]:
    """Trials that are to be shown in two ways: which of them would be a matter of chance."""
    settings: dict[str, dict[str, str]] = {}
    if len({trial.spec.corpus.privacy for stage in stages for trial in stage.trials}) < 2:
        return []
    for stage in stages:
        for trial in stage.trials:
            found = settings.setdefault(trial.id, {})
            found.setdefault(trial.spec.corpus.privacy, trial.name)
    return [
        Problem(
            space,
            "privacy",
            f"a corpus must have one setting, but trial {next(iter(found.values()))} has several "
            "(it is no axis: trials do not differ by it)",
            ", ".join(found),
        )
        for found in settings.values()
        if len(found) > 1
    ][:1]


def _early_stop_problems(space: str, stages: Sequence[PlannedStage]) -> list[Problem]:
    """Early stopping that can stop nothing: whoever asked for it should know."""
    asked = [stage for stage in stages if stage.stage.early_stop is not None]
    if any(stage.waits for stage in asked):
        return []  # The settings of its trials are not known yet.
    comparable = [
        sum(can_be_stopped(trial.spec, rule) for trial in stage.trials)
        for stage in asked
        if (rule := stage.stage.early_stop) is not None
    ]
    if not asked or max(comparable) > 1:
        return []
    return [
        Problem(
            space,
            "early_stop",
            "there must be trials to stop: several of a stage that train for `epochs > grace_epochs`, "
            "with sft, delta or dialogue_act",
            "",
            "early_stop: off, or more epochs",
        )
    ]


def _with_own_names(stages: Sequence[PlannedStage]) -> list[PlannedStage]:
    """The stages with a name of its own for each trial: where names are alike, the id tells."""
    ids: dict[str, set[str]] = {}
    for stage in stages:
        for trial in stage.trials:
            ids.setdefault(trial.name, set()).add(trial.id)
    if len(ids) == len(set().union(*ids.values())):
        return list(stages)
    return [
        replace(
            stage,
            trials=tuple(
                replace(trial, name=f"{trial.name}_{trial.id[:6]}")
                if len(ids[trial.name]) > 1
                else trial
                for trial in stage.trials
            ),
        )
        for stage in stages
    ]


def sweep_folder(out: Path, space: SearchSpace) -> SweepFolder:
    """Where a sweep's results lie.

    Args:
        out: the folder of all sweeps.
        space: its name names the folder.

    Raises:
        SearchSpaceError: something that is no folder is in the way, or a link leads elsewhere.
    """
    for place in (out / space.name, out, *out.parents):
        if place.exists():
            if not place.is_dir():
                raise SearchSpaceError(one_problem("--out", "", "must be a folder", str(place)))
            break
    folder = out / space.name
    for place in (folder, folder / "trials", folder / "report", *(folder / "trials").glob("*")):
        if place.is_symlink() and not place.resolve().is_relative_to(out.resolve()):
            message = "results must stay under --out, but this is a link to elsewhere"
            raise SearchSpaceError(one_problem("--out", str(place), message, str(place.resolve())))
    return SweepFolder(folder)


def metric_versions(spec: TrialSpec) -> dict[str, str]:
    """Versions of the metrics that score a trial: of those alone that are computed.

    Args:
        spec: the trial.
    """
    versions = {
        name: number
        for name, number in METRIC_VERSIONS.items()
        if name != "bertscore" or spec.metrics.bertscore_model is not None
    }
    return versions | ACT_VERSIONS if learns_acts(spec) else versions

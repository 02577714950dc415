"""What would fail later is found now: every trial is held against its corpus, model and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from corpora.act_labels import learns_acts, require_acts
from corpora.dialogue import Corpus
from corpora.loaders import build_pairs
from corpora.question_answers import read_questions
from corpora.question_splits import split_questions
from evaluators.chatmgl_protocol import CHATMGL_MAX_NEW_TOKENS
from evaluators.encoders import check_encoder
from evaluators.wordnet import require_wordnet
from orchestrator.resources import read_config, read_shape
from search_spaces.errors import InputError, Problem, SearchSpaceError
from search_spaces.space import SearchSpace, Stage
from search_spaces.spec import (
    ChatMglSettings,
    CorpusSpec,
    DeltaSettings,
    ReaderSettings,
    RlSettings,
    TrialSpec,
)
from trainers.act_tokens import uses_acts
from trainers.errors import ModelError
from trainers.inputs import data_file, method_inputs
from trainers.laptop_models import LAPTOP_MODELS
from trainers.model_files import find_dangers
from trainers.pretrained import Pretrained
from trainers.rloo import rloo_problems


def check_specs(
    space: SearchSpace,
    stage: Stage,
    trials: Iterable[tuple[TrialSpec, Pretrained]],
    corpus: Callable[[CorpusSpec], Corpus],
    checked: set[tuple[Any, ...]],
) -> list[Problem]:
    """Everything that is wrong with a stage's trials, each told once.

    Args:
        space: for messages.
        stage: the trials' stage.
        trials: specifications and what is known of their models.
        corpus: reads a corpus.
        checked: what was found good before; grows.
    """
    problems: dict[Problem, None] = {}

    def once(key: tuple[Any, ...], check: Callable[[], Any]) -> None:
        if key in checked:
            return
        try:
            check()
        except InputError as error:
            problems.update(dict.fromkeys(error.problems))
        else:
            checked.add(key)

    once(("wordnet",), require_wordnet)
    # Trials that differ in nothing that a check reads are one trial here.
    different = {_checked_parts(spec): (spec, model) for spec, model in trials}
    for spec, model in different.values():
        data = (spec.corpus, spec.loader, spec.split)
        once(("pairs", *data), partial(_check_pairs, corpus, spec))
        if learns_acts(spec):
            once(("acts", *data), partial(_check_acts, corpus, spec))
        once(("inputs", spec.method), partial(_check_inputs, spec))
        if model.folder is not None:
            once(("files", model.folder), partial(_check_files, model.folder))
            once(("shape", model.folder), partial(read_shape, model.folder))
        if spec.metrics.bertscore_model is not None:
            once(("bertscore", spec.metrics), partial(check_encoder, spec.metrics))
        try:
            problems.update(dict.fromkeys(_length_problems(space, stage, spec, model.folder)))
        except InputError as error:
            problems.update(dict.fromkeys(error.problems))
    return list(problems)


def _checked_parts(spec: TrialSpec) -> tuple[Any, ...]:
    """All of a trial that a check reads."""
    data = (spec.model, spec.corpus, spec.loader, spec.split)
    return (*data, spec.method, spec.decoding, spec.metrics, spec.training.max_length)


def _check_pairs(corpus: Callable[[CorpusSpec], Corpus], spec: TrialSpec) -> None:
    build_pairs(corpus(spec.corpus), spec.loader, spec.split)


def _check_acts(corpus: Callable[[CorpusSpec], Corpus], spec: TrialSpec) -> None:
    require_acts(spec.corpus.corpus, build_pairs(corpus(spec.corpus), spec.loader, spec.split))


def _check_inputs(spec: TrialSpec) -> None:
    method_inputs(spec)
    if isinstance(spec.method, ChatMglSettings):
        questions = read_questions(data_file(spec.method.qa_data, "qa_data"))
        split_questions(questions, spec.split.split_seed)


def _check_files(folder: Path) -> None:
    if dangers := find_dangers(folder, known_code=True):
        raise ModelError(dangers)


def _length_problems(
    space: SearchSpace, stage: Stage, spec: TrialSpec, folder: Path | None
) -> list[Problem]:
    """Settings that cannot hold together: lengths against each other and the model's positions."""
    place = f"stage {stage.name}"
    virtual = (
        spec.method.num_virtual_tokens
        if isinstance(spec.method, DeltaSettings)
        and spec.method.peft_type in ("prefix", "prompt", "p-tuning")
        else 0
    )
    problems = []
    new_tokens, longest = spec.decoding.max_new_tokens, spec.training.max_length
    if spec.decoding.protocol == "chatmgl":
        if longest <= CHATMGL_MAX_NEW_TOKENS:
            problems.append(
                Problem(
                    space.name,
                    place,
                    f"`max_length > {CHATMGL_MAX_NEW_TOKENS}` must hold under `protocol: chatmgl`, "
                    f"whose replies have {CHATMGL_MAX_NEW_TOKENS} tokens, so that a prompt has room",
                    f"max_length={longest}",
                    f"max_length={2 * CHATMGL_MAX_NEW_TOKENS}",
                )
            )
    elif uses_acts(spec) and new_tokens + 1 >= longest:
        problems.append(
            Problem(
                space.name,
                place,
                "`max_new_tokens + 1 < max_length` must hold, so that a prompt and its act have room",
                f"max_new_tokens={new_tokens}, max_length={longest}",
                f"max_new_tokens={longest // 2}",
            )
        )
    elif new_tokens >= longest:
        problems.append(
            Problem(
                space.name,
                place,
                "`max_new_tokens < max_length` must hold, so that a prompt has room",
                f"max_new_tokens={new_tokens}, max_length={longest}",
                f"max_new_tokens={longest // 2}",
            )
        )
    if isinstance(spec.method, RlSettings) and spec.method.rl != "none":
        sampled = spec.method.rl_max_new_tokens
        if sampled >= longest:
            problems.append(
                Problem(
                    space.name,
                    place,
                    "`rl_max_new_tokens < max_length` must hold, so that a prompt has room",
                    f"rl_max_new_tokens={sampled}, max_length={longest}",
                    f"rl_max_new_tokens={longest // 2}",
                )
            )
        if (
            isinstance(spec.method, ReaderSettings)
            and spec.method.bertscore_weight
            and spec.metrics.bertscore_model is None
        ):
            problems.append(
                Problem(
                    space.name,
                    place,
                    "`bertscore_model` must be set where `bertscore_weight` is not 0",
                    f"bertscore_weight={spec.method.bertscore_weight}",
                    "bertscore_weight=0",
                )
            )
        if spec.method.rl == "rloo":
            problems += [
                replace(problem, file=space.name, place=f"{place}: {problem.place}")
                for problem in rloo_problems(
                    spec.method.rl_batch_size,
                    spec.method.rl_mini_batch_size,
                    spec.method.num_generations,
                )
            ]
    positions = _positions(spec.model, folder)
    if positions is not None and longest + virtual > positions:
        problems.append(
            Problem(
                space.name,
                place,
                f"`max_length + virtual tokens <= {positions}` must hold, the positions of {spec.model}",
                f"max_length={longest}, virtual tokens={virtual}",
                f"max_length={positions - virtual}"
                if not virtual or longest >= positions
                else f"num_virtual_tokens={positions - longest}",
            )
        )
    for later in space.stages:
        rule = later.winner_of
        if rule is None or rule.stage != stage.name:
            continue
        if "_beam" in rule.best:
            beam = int(rule.best.rpartition("_beam")[2])
            if beam not in spec.decoding.valid_beams:
                problems.append(
                    Problem(
                        space.name,
                        f"stage {later.name}.from.best",
                        f"`valid_beams` must hold beam {beam} for {rule.best}",
                        str(list(spec.decoding.valid_beams)),
                        f"valid_beams={[*spec.decoding.valid_beams, beam]}",
                    )
                )
        if "bertscore" in rule.best and spec.metrics.bertscore_model is None:
            problems.append(
                Problem(
                    space.name,
                    f"stage {later.name}.from.best",
                    "`bertscore_model` must be set",
                    rule.best,
                    "valid/rouge1_beam1",
                )
            )
    return problems


def _positions(model: str, folder: Path | None) -> int | None:
    if model in LAPTOP_MODELS:
        return LAPTOP_MODELS[model].n_positions
    if folder is None:
        return None  # Known once the model is fetched; the trainer checks it again.
    config = read_config(folder)
    value = config.get("n_positions", config.get("max_position_embeddings"))
    return value if isinstance(value, int) else None


def check_device(space: SearchSpace, trials: Iterable[TrialSpec], has_gpu: bool) -> None:
    """See that trials can run on the device there is.

    Args:
        space: for messages.
        trials: to be run.
        has_gpu: here, or on the cluster that trials go to.

    Raises:
        SearchSpaceError: half precision without a GPU.
    """
    if not has_gpu and any(spec.training.precision == "fp16" for spec in trials):
        message = "fp16 needs a GPU, and none was found"
        raise SearchSpaceError([Problem(space.name, "precision", message, "'fp16'", "fp32")])

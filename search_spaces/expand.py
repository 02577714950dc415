"""From a stage to its trials: every combination once, none that a method makes equal twice."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from search_spaces.errors import SearchSpaceError, one_problem
from search_spaces.fields import PARTS, method_fields, trial_fields
from search_spaces.space import MethodEntry, SearchSpace, Stage
from search_spaces.spec import (
    BaseSettings,
    DeltaSettings,
    DialogueActSettings,
    Method,
    Protocol,
    RlSettings,
    Scale,
    TrainingSpec,
    TrialSpec,
)

MOST_COMBINATIONS = 100_000
"""Over all stages, before `exclude`."""

_MODEL_AT_SCALE: dict[str, dict[Scale, str]] = {
    "medium": {"paper": "gpt2-medium", "laptop": "laptop-medium"},
    "large": {"paper": "gpt2-large", "laptop": "laptop-large"},
}
PEFT_READS = {
    "lora": {"rank", "alpha", "dropout", "target_modules"},
    "ia3": {"target_modules"},
    "prefix": {"num_virtual_tokens"},
    "prompt": {"num_virtual_tokens"},
    "p-tuning": {"num_virtual_tokens"},
    "ln-tuning": set[str](),
    "bitfit": set[str](),
    "houlsby": {"bottleneck", "non_linearity"},
    "parallel": {"bottleneck", "non_linearity", "adapter_scale"},
}
"""Settings of delta tuning that each of its kinds reads."""


_PPO_ALONE = {
    "kl_target",
    "kl_horizon",
    "gamma",
    "gae_lambda",
    "value_clip_range",
    "value_coef",
    "value_model",
    "whiten_rewards",
}
_REWARDS = {
    "chatmgl": {
        "preference_data",
        "reward_model",
        "reward_epochs",
        "reward_learning_rate",
        "reward_batch_size",
    },
    "reader": {
        "act_reward_weight",
        "similarity_weight",
        "similarity_model",
        "bleu1_weight",
        "rouge1_weight",
        "rouge2_weight",
        "rouge_l_weight",
        "bertscore_weight",
        "reward_shift",
    },
}
"""Settings of the reward, by the method that has one."""


def unread_by_rl(kind: str, settings: Mapping[str, Any]) -> set[str]:
    """A method's settings that nothing reads with its kind of reinforcement learning.

    Args:
        kind: the method's; one without reinforcement learning has none.
        settings: its own, by name.
    """
    if kind not in _REWARDS:
        return set()
    unread = {"similarity_model"} if not settings.get("similarity_weight", 1) else set()
    match settings["rl"]:
        case "none":
            rl = {f.name for f in dataclasses.fields(RlSettings)} - {"rl"}
            return rl | _REWARDS[kind]
        case "rloo":
            return unread | _PPO_ALONE
        case _:
            unread |= {"num_generations"}
            return unread | ({"kl_horizon"} if settings["kl_target"] is None else set())


def expand_stage(
    space: SearchSpace, stage: Stage, scale: Scale, corpus: str | None, winner: TrialSpec | None
) -> tuple[TrialSpec, ...]:
    """The trials of a stage, in the order its file names them, each once.

    Args:
        space: the search space, for its defaults, scales and settings.
        stage: one of its stages.
        scale: which of the space's scale settings apply, and what `medium` and `large` mean.
        corpus: overrides the space's corpus where given.
        winner: the trial that the stage builds on, where it builds on one.

    Raises:
        SearchSpaceError: the stage has no model, or leaves no trial, or the space is far too large.
    """
    _check_size(space)
    trials: dict[TrialSpec, None] = {}
    settings = _settings(space, scale, winner)
    parts = _Parts()
    for entry, point in itertools.product(stage.methods, _points(stage)):
        values = settings | dict(point)
        if corpus is not None:
            values["corpus"] = corpus
        written = _trial(space, entry, values, scale, parts)
        read = parts.as_read(written)
        has_seed = "seed" not in _ignored(written)
        for seed in stage.seeds:
            excluded = stage.exclude and _is_excluded(_with_seed(written, seed), stage, scale)
            if not excluded:
                trials.setdefault(_with_seed(read, seed if has_seed else 0))
    if not trials:
        raise SearchSpaceError(
            one_problem(space.name, f"stage {stage.name}", "`exclude` leaves no trial to run")
        )
    return tuple(trials)


def _check_size(space: SearchSpace) -> None:
    """Refuse what could not be expanded in sensible time and memory, before it is."""
    count = sum(
        len(stage.methods)
        * len(stage.seeds)
        * math.prod(map(len, stage.grid.values()))
        * max(map(len, stage.zipped.values()), default=1)
        for stage in space.stages
    )
    if count > MOST_COMBINATIONS:
        message = f"a search space may have at most {MOST_COMBINATIONS:,} combinations"
        raise SearchSpaceError(one_problem(space.name, "", message, count))


def field_value(spec: TrialSpec, name: str) -> Any:
    """A trial's field by its bare name; None where its method has no such setting.

    Args:
        spec: the trial.
        name: e.g. `learning_rate`, `rank`, `kind`.
    """
    if name == "kind":
        return spec.method.kind
    part = trial_fields()[name].part
    return getattr(getattr(spec, part) if part else spec, name, None)


def model_at_scale(name: str, scale: Scale) -> str:
    """What a model's name means at a scale; names other than `medium` and `large` are themselves."""
    return _MODEL_AT_SCALE.get(name, {}).get(scale, name)


def _settings(space: SearchSpace, scale: Scale, winner: TrialSpec | None) -> dict[str, Any]:
    """What holds for a whole stage: the space's own settings, under everything its winner read.

    A field that the winner's method ignored says nothing about what is best: the space's word for
    it stands.
    """
    settings = {**space.defaults, **space.scales.get(scale, {}), **space.fixed}
    if winner is None:
        return settings
    read = trial_fields().keys() - _ignored(winner) - {"seed"}
    read -= {name for name in read if trial_fields()[name].part == "method"} - method_fields(
        winner.method.kind
    )
    return settings | {name: field_value(winner, name) for name in sorted(read)}


def _points(stage: Stage) -> Iterator[Mapping[str, Any]]:
    zipped = [
        dict(zip(stage.zipped, values, strict=True))
        for values in zip(*stage.zipped.values(), strict=True)
    ]
    for values in itertools.product(*stage.grid.values()):
        for pairs in zipped or [{}]:
            yield dict(zip(stage.grid, values, strict=True)) | pairs


class _Parts:
    """Parts of specifications, each made and checked once however many trials share it."""

    def __init__(self) -> None:
        self.made: dict[tuple[Any, ...], Any] = {}
        self.reduced: dict[tuple[int, frozenset[str]], Any] = {}
        """By identity: whatever is in `made` stays."""

    def make(self, cls: type, values: Mapping[str, Any]) -> Any:
        """A part with these values, defaults for the rest."""
        key = (cls, *values.items())
        if key not in self.made:
            self.made[key] = cls(**values)
        return self.made[key]

    def settings(self, entry: MethodEntry, values: Mapping[str, Any]) -> Method:
        """A method's settings with these of its own fields changed."""
        key = (entry.settings, *values.items())
        if key not in self.made:
            self.made[key] = dataclasses.replace(entry.settings, **values)
        method: Method = self.made[key]
        return method

    def as_read(self, spec: TrialSpec) -> TrialSpec:
        """A trial of these parts with what nothing reads at its default: equal trials are equal."""
        ignored = _ignored(spec)
        kept = {name: self._kept(getattr(spec, name), ignored) for name in (*PARTS, "method")}
        return TrialSpec(model=spec.model, loader=spec.loader, seed=spec.seed, **kept)

    def _kept(self, part: Any, ignored: frozenset[str]) -> Any:
        key = (id(part), ignored)
        if key not in self.reduced:
            names = [f.name for f in dataclasses.fields(part) if f.name not in ignored]
            self.reduced[key] = type(part)(**{name: getattr(part, name) for name in names})
        return self.reduced[key]


def _trial(
    space: SearchSpace,
    entry: MethodEntry,
    values: dict[str, Any],
    scale: Scale,
    parts: _Parts,
) -> TrialSpec:
    known = method_fields(entry.settings.kind)
    own = {
        name: value for name, value in values.items() if name in known and name not in entry.written
    }
    values = values | dict(entry.overrides)
    if "model" not in values:
        raise SearchSpaceError(
            one_problem(space.name, "", "no `model` is named in `grid`, `defaults` or `methods`")
        )
    by_part: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    fields = trial_fields()
    for name, value in values.items():
        if (part := fields[name].part) in by_part:
            by_part[part][name] = value
    return TrialSpec(
        model=model_at_scale(str(values["model"]), scale),
        method=parts.settings(entry, own),
        loader=values.get("loader", "v1"),
        **{part: parts.make(cls, by_part[part]) for part, cls in PARTS.items()},
    )


def _with_seed(spec: TrialSpec, seed: int) -> TrialSpec:
    return spec if seed == spec.seed else TrialSpec(**(vars(spec) | {"seed": seed}))


def _is_excluded(spec: TrialSpec, stage: Stage, scale: Scale) -> bool:
    return any(_matches(spec, rule, scale) for rule in stage.exclude)


def _matches(spec: TrialSpec, rule: Mapping[str, Any], scale: Scale) -> bool:
    return all(
        field_value(spec, name) == (model_at_scale(value, scale) if name == "model" else value)
        for name, value in rule.items()
    )


def _ignored(spec: TrialSpec) -> frozenset[str]:
    """Bare names of the fields that nothing reads when this trial runs."""
    return _unread(
        spec.method, spec.decoding.protocol, with_bertscore=spec.metrics.bertscore_model is not None
    )


@lru_cache(maxsize=1024)
def _unread(method: Method, protocol: Protocol, *, with_bertscore: bool) -> frozenset[str]:
    ignored: set[str] = set()
    if isinstance(method, DeltaSettings):
        ignored |= method_fields("delta") - PEFT_READS[method.peft_type] - {"peft_type"}
    if isinstance(method, DialogueActSettings) and method.tuning == "full":
        ignored |= {"rank", "alpha"}
    if isinstance(method, RlSettings):
        ignored |= unread_by_rl(method.kind, vars(method))
    if protocol == "chatmgl":
        ignored |= {"max_new_tokens", "length_penalty"}
    if not with_bertscore:
        ignored.add("bertscore_layer")
    if isinstance(method, BaseSettings):
        training = {f.name for f in dataclasses.fields(TrainingSpec)}
        ignored |= training - {"max_length", "loss_on"}
        if protocol == "clean":
            ignored.add("seed")  # Beam search draws nothing at random.
    return frozenset(ignored)

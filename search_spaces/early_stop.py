"""Early stopping as a search space asks for it: trials that fall behind their siblings end early."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from search_spaces.errors import Problem
from search_spaces.fields import problems_of, unknown_name
from search_spaces.spec import BaseSettings, PositiveInt, RlSettings, TrialSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class EarlyStop:
    """Asynchronous successive halving (ASHA): at each rung only the best share goes on.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    kind: Literal["asha"] = "asha"
    metric: Literal["valid/loss"] = "valid/loss"
    """Compared at the end of an epoch, the lower the better."""
    grace_epochs: PositiveInt = 1
    """Epochs that every trial gets; the first rung."""
    reduction_factor: Annotated[float, Field(gt=1, le=1000)] = 4.0
    """One in so many goes on at a rung, and the next rung is at so many times the epochs."""


_ADAPTER = TypeAdapter(EarlyStop)


def read_early_stop(value: object, file: str, place: str) -> tuple[EarlyStop | None, list[Problem]]:
    """What `early_stop:` says; None where it is off.

    Args:
        value: as the file has it: `asha`, `off`, or a mapping of the fields of `EarlyStop`.
        file: for messages.
        place: for messages.
    """
    if value is None or value is False or value == "off":
        return None, []  # YAML 1.1 reads `off` as a truth value.
    if value == "asha":
        return EarlyStop(), []
    if not isinstance(value, dict):
        message = (
            "must be `asha`, `off`, or a mapping of kind, metric, grace_epochs, reduction_factor"
        )
        return None, [Problem(file, place, message, repr(value), "asha")]
    known = [field.name for field in dataclasses.fields(EarlyStop)]
    unknown = [key for key in value if key not in known]
    if unknown:
        what = "setting of early_stop"
        return None, [unknown_name(key, known, what, file, place) for key in unknown]
    try:
        return _ADAPTER.validate_python(value), []
    except ValidationError as error:
        return None, problems_of(error, file, place, value)


def can_be_stopped(spec: TrialSpec, rule: EarlyStop) -> bool:
    """Whether a trial may end early: one that trains for longer than the grace, by itself.

    Phases of a method with reinforcement learning are shared by trials, and say nothing of one alone.

    Args:
        spec: the trial.
        rule: the search space's.
    """
    if isinstance(spec.method, BaseSettings | RlSettings):
        return False
    return spec.training.epochs > rule.grace_epochs

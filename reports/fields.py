"""A trial's specification as flat fields under bare names, and how their values are shown."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from reports.json_files import Json
from search_spaces.expand import PEFT_READS, unread_by_rl
from search_spaces.fields import method_fields
from search_spaces.spec import TrainingSpec

TRAINING_FIELDS = frozenset(field.name for field in dataclasses.fields(TrainingSpec))
"""Fields that a method which does not train ignores."""

_DELTA_FIELDS = frozenset(method_fields("delta"))

DASH = "\u2013"
"""What stands where a row has no such value."""

_PARTS = ("corpus", "split", "training", "decoding", "metrics")
_UNTRAINED = ("base",)
_REINFORCED = ("chatmgl", "reader")
"""Methods with a phase of reinforcement learning, which can be left out."""


def flatten_spec(spec: Json) -> dict[str, Any]:
    """Every field by its bare name; `method` is the method's kind.

    Args:
        spec: a trial's specification as nested objects. Its `privacy` is left out: it says what of
            a result is shown, and no two results differ by it.
    """
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        if name == "method":
            settings = dict(value)
            flat["method"] = settings.pop("kind")
            flat.update(settings)
        elif name in _PARTS and isinstance(value, Mapping):
            flat.update(value)
        else:
            flat[name] = value
    flat.pop("privacy", None)
    return flat


def effective_fields(spec: Json) -> dict[str, Any]:
    """The flat fields that the method reads: an untrained model has no learning rate."""
    flat = flatten_spec(spec)
    if not is_trained(spec):
        return {name: value for name, value in flat.items() if name not in TRAINING_FIELDS}
    reads = PEFT_READS.get(str(flat.get("peft_type")))
    if flat["method"] == "delta" and reads is not None:
        ignored = set(_DELTA_FIELDS - reads - {"peft_type"})
    elif flat["method"] in _REINFORCED and {"rl", "kl_target"} <= flat.keys():
        ignored = unread_by_rl(flat["method"], flat)
    else:
        return flat
    return {name: value for name, value in flat.items() if name not in ignored}


def is_trained(spec: Json) -> bool:
    """Whether the trial's method trains anything."""
    return spec["method"]["kind"] not in _UNTRAINED


def method_label(spec: Json) -> str:
    """The method's kind, with what tells its variants apart: `delta (lora)`."""
    settings = spec["method"]
    kind = str(settings["kind"])
    if kind == "dialogue_act":
        lora = ", lora" if settings.get("tuning") == "lora" else ""
        return f"{kind} ({settings.get('acts', 'predicted')}{lora})"
    if kind in _REINFORCED:
        rl = settings.get("rl", "ppo")
        return f"{kind} ({'no RL' if rl == 'none' else rl})"
    return f"{kind} ({settings['peft_type']})" if settings.get("peft_type") else kind


def without_seed(spec: Json) -> str:
    """Text that is equal for replicates of one another, and for nothing else."""
    return json.dumps({k: v for k, v in spec.items() if k != "seed"}, sort_keys=True)


def protocol_of(spec: Json) -> str:
    """`clean`, or `chatmgl` for replies that were sampled and scored with their prompt."""
    return str((spec.get("decoding") or {}).get("protocol") or "clean")


def model_size(model: str) -> str | None:
    """Size of a GPT-2 or of its laptop stand-in: `small`, `medium`, `large` or `xl`.

    Args:
        model: Hugging Face name, folder, or `laptop-medium`.

    Returns:
        Nothing for a model of another family: the study's numbers do not stand beside it.
    """
    match = re.fullmatch(
        r"(?:gpt2(?:-(medium|large|xl))?|laptop-(medium|large))", shown_model(model)
    )
    if match is None:
        return None
    return match[1] or match[2] or "small"


def shown_model(model: str) -> str:
    """The model's name: the last part of a local path; a hub name without GPT-2's owner."""
    name = re.sub(r"^openai-community/", "", model)
    if re.match(r"^(?:[/~.\\]|[A-Za-z]:[/\\])", name) or name.count("/") > 1:
        return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name
    return name


def shown_value(value: object) -> str:
    """A field's value in a table: `1e-4`, `0.5`, `yes`, `1, 2, 4`; a dash where there is none."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return shown_float(value)
    if isinstance(value, list | tuple):
        return ", ".join(shown_value(item) for item in value)
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return shown_model(str(value))


def shown_float(value: float) -> str:
    """`1e-4` rather than `0.0001`, `2.5e-5` rather than `2.5e-05`, `16` rather than `16.0`."""
    if value != 0 and abs(value) < 0.01:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.10g}"

"""A trial's identity: the same for the same work, whoever names it and wherever it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import TypeAdapter

from search_spaces.fields import PARTS
from search_spaces.spec import (
    BaseSettings,
    DeltaSettings,
    DialogueActSettings,
    RlSettings,
    TrialSpec,
)

_ID_DIGITS = 16
_PARTS_KEPT = 4096
"""Parts of specifications whose text is remembered: trials of one grid share most of theirs."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_PARTS = (*PARTS, "method")
_OWN = {
    field.name: field.default for field in dataclasses.fields(TrialSpec) if field.name not in _PARTS
}
"""A specification's own fields and their defaults."""

_NAMES_LEFT_OUT = {"corpus": ("corpus", "privacy")}
"""Fields of a part that an id does not depend on."""


def trial_id(
    spec: TrialSpec,
    *,
    corpus_hash: str,
    model_fingerprint: str,
    metric_versions: Mapping[str, str],
    inputs: Mapping[str, str] | None = None,
) -> str:
    """The first 16 hexadecimal digits (64 bits) of the SHA-256 of what a trial's result depends on.

    Fields at their default are left out, so that a new optional field keeps old ids. Names of
    corpus and model are left out too: their contents count. So is `privacy`, which decides what of
    a result is shown and not what the result is: another setting runs nothing again.

    Args:
        spec: the trial.
        corpus_hash: content hash of the corpus.
        model_fingerprint: of the model's weights and tokenizer.
        metric_versions: version of each metric that scores it.
        inputs: content hash of each further thing that the method reads, by the field that names
            it; those names are left out too.
    """
    left_out = {**_NAMES_LEFT_OUT, "method": tuple(inputs or ())}
    fields = {
        part: text
        for part in _PARTS
        if (text := _part_identity(getattr(spec, part), left_out.get(part, ())))
    }
    for name, default in _OWN.items():
        if name != "model" and (one := getattr(spec, name)) != default:
            fields[name] = _CANONICAL.encode(one)
    identity = {
        "spec": _joined(fields),
        "corpus": _CANONICAL.encode(corpus_hash),
        "model": _CANONICAL.encode(model_fingerprint),
        "metrics": _CANONICAL.encode(dict(metric_versions)),
    }
    if inputs:
        identity["inputs"] = _CANONICAL.encode(dict(inputs))
    return hashlib.sha256(_joined(identity).encode()).hexdigest()[:_ID_DIGITS]


def trial_name(spec: TrialSpec) -> str:
    """A name that reads: `gpt2-medium_sft_v1_lr1e-4_bs1_s0`.

    Args:
        spec: the trial.
    """
    model = spec.model.rstrip("/").rsplit("/", 1)[-1]
    parts = [model, _method_name(spec), spec.loader]
    if not isinstance(spec.method, BaseSettings):
        batch = spec.training.batch_size * spec.training.gradient_accumulation_steps
        parts += [f"lr{short_number(spec.training.learning_rate)}", f"bs{batch}", f"s{spec.seed}"]
    if spec.decoding.protocol != "clean":
        parts.append(spec.decoding.protocol)
    return "_".join(parts)


def spec_to_dict(spec: TrialSpec) -> dict[str, Any]:
    """A specification as plain JSON data, defaults included.

    Args:
        spec: the trial.
    """
    data: dict[str, Any] = _adapter().dump_python(spec, mode="json")
    return data


def spec_to_json(spec: TrialSpec) -> str:
    """What `spec_to_dict` says as JSON text on one line; quick where many trials share parts.

    Args:
        spec: the trial.
    """
    values = [f'"{name}": {_COMPACT.encode(getattr(spec, name))}' for name in _OWN]
    values += [f'"{part}": {_part_text(getattr(spec, part))}' for part in _PARTS]
    return "{" + ", ".join(values) + "}"


def spec_from_dict(data: Mapping[str, Any]) -> TrialSpec:
    """The specification that `spec_to_dict` wrote.

    Args:
        data: plain JSON data.

    Raises:
        pydantic.ValidationError: not such data.
    """
    return _adapter().validate_python(dict(data))


@cache
def _adapter() -> TypeAdapter[TrialSpec]:
    return TypeAdapter(TrialSpec)


def short_number(value: float) -> str:
    """A number as people write it: 1e-4, 0.5, 3."""
    text = f"{value:g}"
    mantissa, e, exponent = text.partition("e")
    if e:
        return f"{mantissa}e{int(exponent)}"
    if value != 0 and abs(value) < 0.01:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text


def _method_name(spec: TrialSpec) -> str:
    method = spec.method
    if isinstance(method, RlSettings):
        return f"{method.kind}-{'sft' if method.rl == 'none' else method.rl}"
    if isinstance(method, DialogueActSettings):
        lora = f"-lora-r{method.rank}" if method.tuning == "lora" else ""
        return f"{method.kind}-{method.acts}{lora}"
    if not isinstance(method, DeltaSettings):
        return method.kind
    if method.peft_type == "lora":
        return f"lora-r{method.rank}"
    if method.peft_type in ("prefix", "prompt", "p-tuning"):
        return f"{method.peft_type}-n{method.num_virtual_tokens}"
    if method.peft_type in ("houlsby", "parallel"):
        return f"{method.peft_type}-b{method.bottleneck}"
    return method.peft_type


@lru_cache(maxsize=_PARTS_KEPT)
def _part_text(part: Any) -> str:
    """A part of a specification as JSON text."""
    return _COMPACT.encode(TypeAdapter(type(part)).dump_python(part, mode="json"))


@lru_cache(maxsize=_PARTS_KEPT)
def _part_identity(part: Any, left_out: tuple[str, ...]) -> str:
    """What a part adds to the text that an id is the hash of; empty where all is at its default."""
    fields = _without_defaults(part)
    kept = {name: value for name, value in fields.items() if name not in left_out}
    return _CANONICAL.encode(kept) if kept else ""


def _joined(fields: Mapping[str, str]) -> str:
    """A JSON object of values that are JSON text already, in the order of its keys."""
    return "{" + ",".join(f'"{name}":{fields[name]}' for name in sorted(fields)) + "}"


def _without_defaults(value: Any) -> dict[str, Any]:
    """A dataclass as JSON data, fields at their default left out; `kind` always stays."""
    kept: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        one = getattr(value, field.name)
        if dataclasses.is_dataclass(one):
            nested = _without_defaults(one)
            if nested:
                kept[field.name] = nested
        elif field.name == "kind" or one != field.default:
            # -0.0 equals 0.0 and is written otherwise; adding zero makes it 0.0.
            kept[field.name] = one + 0.0 if isinstance(one, float) else one
    return kept

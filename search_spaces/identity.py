"""A trial's identity: the same for the same work, whoever names it and wherever it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from search_spaces.spec import (
    BaseSettings,
    CorpusSpec,
    DeltaSettings,
    DialogueActSettings,
    RlSettings,
    TrialSpec,
)

_ID_DIGITS = 16


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
    usual = CorpusSpec()
    nameless = dataclasses.replace(spec.corpus, corpus=usual.corpus, privacy=usual.privacy)
    fields = _without_defaults(dataclasses.replace(spec, corpus=nameless))
    fields.pop("model")
    for name in inputs or ():
        fields["method"].pop(name, None)
    identity: dict[str, Any] = {
        "spec": fields,
        "corpus": corpus_hash,
        "model": model_fingerprint,
        "metrics": dict(metric_versions),
    }
    if inputs:
        identity["inputs"] = dict(inputs)
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


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
    data: dict[str, Any] = TypeAdapter(TrialSpec).dump_python(spec, mode="json")
    return data


def spec_from_dict(data: Mapping[str, Any]) -> TrialSpec:
    """The specification that `spec_to_dict` wrote.

    Args:
        data: plain JSON data.

    Raises:
        pydantic.ValidationError: not such data.
    """
    return TypeAdapter(TrialSpec).validate_python(dict(data))


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

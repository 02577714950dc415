"""A tuned model on disk, as Hugging Face users expect it: weights, tokenizer, settings, card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.secrets import hide_secrets
from search_spaces.spec import (
    BaseSettings,
    DeltaSettings,
    DialogueActSettings,
    ReaderSettings,
    TrialSpec,
)
from trainers.act_tokens import ACT_CODE, ACT_TEXT, uses_acts

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_WHOLE_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)"""

_PEFT_CODE = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, GenerationConfig

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)"""


def save_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    folder: Path,
) -> None:
    """Write safetensors (or an adapter), tokenizer, generation settings and a model card.

    The generation settings are those of the beam-1 replies, so that a plain `generate` repeats
    them. An act head that is a part of the model goes into files of its own: those of the model
    are what they would be without it.

    Args:
        model: the tuned model.
        tokenizer: its tokenizer.
        spec: what it was tuned by.
        folder: made where it is missing.
    """
    from trainers.act_head import attach_head, detach_head, find_head, save_head
    from trainers.bottleneck import find_bottlenecks
    from trainers.bottleneck_files import save_bottlenecks

    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = generation_settings(tokenizer, spec)
    if find_head(model) is not None:
        head = detach_head(model)
        try:
            model.save_pretrained(folder)
        finally:
            attach_head(model, head)
        save_head(head, folder)
    elif find_bottlenecks(model):
        save_bottlenecks(model, folder)
    elif isinstance(spec.method, DialogueActSettings) and spec.method.tuning == "lora":
        # The trained rows alone: with new tokens, PEFT would save all V rows, frozen as they are.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(tokenizer, spec, folder)


def write_settings(tokenizer: PreTrainedTokenizerBase, spec: TrialSpec, folder: Path) -> None:
    """Write what says how a saved model is used: generation settings and a model card.

    Args:
        tokenizer: its tokenizer.
        spec: what it was tuned by.
        folder: the model's.
    """
    generation_settings(tokenizer, spec).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(spec), encoding="utf-8")


def generation_settings(tokenizer: PreTrainedTokenizerBase, spec: TrialSpec) -> GenerationConfig:
    """Settings of the trial's beam-1 replies.

    Args:
        tokenizer: the model's.
        spec: the trial.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=spec.decoding.max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def model_card(spec: TrialSpec) -> str:
    """The card of a tuned model: what it is, how to load it, its specification.

    Args:
        spec: what it was tuned by; secrets in it are left out.
    """
    package, loading, adapter = _loading(spec)
    method = "untrained" if isinstance(spec.method, BaseSettings) else f"tuned ({spec.method.kind})"
    settings = ", generation_config=GenerationConfig.from_pretrained(FOLDER)" if adapter else ""
    example = spec.decoding.prompt_template.replace("{prompt}", "I cannot sleep.")
    act_code, act_text = _of_acts(spec)
    room = spec.training.max_length - spec.decoding.max_new_tokens - uses_acts(spec)
    fields = json.dumps(dataclasses.asdict(spec), indent=2, sort_keys=True, default=list)
    front = {"library_name": package, "pipeline_tag": "text-generation", "base_model": spec.model}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    return hide_secrets(f"""---
{header}
---
# {spec.model}, {method}

A dialogue model {method} by a sweep; not a substitute for professional help, and not checked for
safe use with people in distress.

```python
{loading}
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
inputs = tokenizer({example!r}, return_tensors="pt")
{act_code}reply = model.generate(**inputs{settings})[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(reply, skip_special_tokens=True).strip())
```
{act_text}
It was tuned on texts of at most {spec.training.max_length} tokens. A prompt of more than
{room} loses its oldest words, the template stays; in the sweep's `replies.jsonl`,
`model_input` is the prompt after that cut.

## Specification

```json
{fields}
```
""")


def _loading(spec: TrialSpec) -> tuple[str, str, bool]:
    """The package and the code that load the model, and whether it is an adapter.

    An adapter's base brings generation settings of its own, so the example names the tuned ones.
    """
    match spec.method:
        case DeltaSettings(peft_type="houlsby" | "parallel"):
            from trainers.bottleneck_files import LOADING_CODE

            return "transformers", LOADING_CODE, True
        case DialogueActSettings(tuning="lora"):
            return "peft", _PEFT_CODE, True
        case DeltaSettings(peft_type=kind) if kind != "bitfit":
            return "peft", _PEFT_CODE, True
        case ReaderSettings():
            from trainers.act_head import HEAD_IMPORTS

            return "transformers", HEAD_IMPORTS + _WHOLE_CODE, False
        case _:
            return "transformers", _WHOLE_CODE, False


def _of_acts(spec: TrialSpec) -> tuple[str, str]:
    """Code and text on how the model's dialogue acts are had; empty where it has none."""
    if isinstance(spec.method, ReaderSettings):
        from trainers.act_head import HEAD_CODE, HEAD_TEXT

        return HEAD_CODE, HEAD_TEXT
    return (ACT_CODE, ACT_TEXT) if uses_acts(spec) else ("", "")

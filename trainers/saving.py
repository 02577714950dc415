"""A tuned model on disk, as Hugging Face users expect it: weights, tokenizer, settings, card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.secrets import hide_secrets
from search_spaces.spec import BaseSettings, DeltaSettings, TrialSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    folder: Path,
) -> None:
    """Write safetensors (or a PEFT adapter), tokenizer, generation settings and a model card.

    The generation settings are those of the beam-1 replies, so that a plain `generate` repeats
    them.

    Args:
        model: the tuned model.
        tokenizer: its tokenizer.
        spec: what it was tuned by.
        folder: made where it is missing.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=spec.decoding.max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = settings
    model.save_pretrained(folder)
    settings.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(spec), encoding="utf-8")


def model_card(spec: TrialSpec) -> str:
    """The card of a tuned model: what it is, how to load it, its specification.

    Args:
        spec: what it was tuned by; secrets in it are left out.
    """
    adapter = isinstance(spec.method, DeltaSettings) and spec.method.peft_type != "bitfit"
    loader = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    package = "peft" if adapter else "transformers"
    method = "untrained" if isinstance(spec.method, BaseSettings) else f"tuned ({spec.method.kind})"
    settings = ", generation_config=GenerationConfig.from_pretrained(FOLDER)" if adapter else ""
    names = "AutoTokenizer, GenerationConfig" if adapter else "AutoTokenizer"
    example = spec.decoding.prompt_template.replace("{prompt}", "I cannot sleep.")
    room = spec.training.max_length - spec.decoding.max_new_tokens
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
from {package} import {loader}
from transformers import {names}

model = {loader}.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
inputs = tokenizer({example!r}, return_tensors="pt")
reply = model.generate(**inputs{settings})[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(reply, skip_special_tokens=True).strip())
```

It was tuned on texts of at most {spec.training.max_length} tokens. A prompt of more than
{room} loses its oldest words, the template stays; in the sweep's `replies.jsonl`,
`model_input` is the prompt after that cut.

## Specification

```json
{fields}
```
""")

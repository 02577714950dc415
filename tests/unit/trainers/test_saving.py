from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from transformers import GenerationConfig

from search_spaces.identity import spec_from_dict
from search_spaces.spec import DecodingSpec, DeltaSettings, PeftType, SftSettings, TrialSpec
from trainers.loading import load_model
from trainers.saving import save_model

WHOLE_MODELS = [SftSettings(), DeltaSettings(peft_type="bitfit")]
OWN = ("bitfit", "houlsby", "parallel")
ADAPTERS = [DeltaSettings(peft_type=t) for t in get_args(PeftType) if t not in OWN]
BOTTLENECKS = [DeltaSettings(peft_type="houlsby"), DeltaSettings(peft_type="parallel")]


def saved(source: Path, folder: Path, method: SftSettings | DeltaSettings) -> TrialSpec:
    """As `method` would be saved; what the weights are does not matter to the card."""
    spec = TrialSpec(
        model="owner/name: 'x'",
        method=method,
        decoding=DecodingSpec(max_new_tokens=7, prompt_template='He said "{prompt}"\nShe said'),
    )
    save_model(*load_model(source), spec, folder)
    return spec


def test_a_folder_is_whole(tiny_gpt2: Path, tmp_path: Path) -> None:
    saved(tiny_gpt2, tmp_path / "deep/model", SftSettings())
    assert {f.name for f in (tmp_path / "deep/model").iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_generating_repeats_the_greedy_replies(tiny_gpt2: Path, tmp_path: Path) -> None:
    saved(tiny_gpt2, tmp_path, SftSettings())
    settings = GenerationConfig.from_pretrained(tmp_path)
    _, tokenizer = load_model(tiny_gpt2)
    assert settings.max_new_tokens == 7
    assert not settings.do_sample
    assert settings.num_beams in (None, 1)
    assert settings.eos_token_id == settings.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("method", WHOLE_MODELS + ADAPTERS + BOTTLENECKS)
def test_the_card_is_read_by_machines(
    tiny_gpt2: Path, tmp_path: Path, method: SftSettings | DeltaSettings
) -> None:
    spec = saved(tiny_gpt2, tmp_path, method)
    _, front, card = (tmp_path / "README.md").read_text().split("---\n", 2)
    adapter = method in ADAPTERS
    assert yaml.safe_load(front) == {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": spec.model,
    }
    found = re.search(r"```json\n(.*?)```", card, re.DOTALL)
    assert found
    assert spec_from_dict(json.loads(found[1])) == spec
    python = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert python
    compile(python[1], "README.md", "exec")  # It is run by tests/contracts/test_trainers.py.
    assert ("AutoPeftModelForCausalLM" in card) is adapter
    assert ("register_forward_hook" in card) is (method in BOTTLENECKS)
    assert "not a substitute for professional help" in card

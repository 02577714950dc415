from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.spec import DeltaSettings, PeftType
from tests.tiny import POSITIONS, tiny_pairs, tiny_spec
from trainers.errors import ModelError
from trainers.select import train


def fails(source: Path, workdir: Path, settings: DeltaSettings, match: str, **training: int) -> str:
    spec = tiny_spec(source, settings, **training)
    with pytest.raises(ModelError, match=match) as caught:
        train(spec, source, tiny_pairs(), workdir, pytest.fail)
    assert not (workdir / "model").exists()
    return caught.value.problems[0].place


@pytest.mark.parametrize("peft_type", ["lora", "ia3"])
def test_unknown_targets_are_the_users(
    tiny_gpt2: Path, tmp_path: Path, peft_type: PeftType
) -> None:
    settings = DeltaSettings(peft_type=peft_type, target_modules=("no_such_layer",))
    assert fails(tiny_gpt2, tmp_path, settings, "no_such_layer") == "target_modules"


def test_the_output_layer_is_no_target(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = DeltaSettings(peft_type="lora", target_modules=("lm_head",))
    assert fails(tiny_gpt2, tmp_path, settings, "output layer") == "target_modules"


def test_targets_can_be_chosen(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = DeltaSettings(peft_type="lora", rank=2, target_modules=("c_fc",))
    tuned = train(tiny_spec(tiny_gpt2, settings), tiny_gpt2, tiny_pairs(), tmp_path, lambda _: None)
    assert tuned.trainable_parameters == 2 * 2 * (32 + 128)


def test_bitfit_needs_biases(tiny_llama: Path, tmp_path: Path) -> None:
    settings = DeltaSettings(peft_type="bitfit")
    assert fails(tiny_llama, tmp_path, settings, "llama model has none") == "peft_type"


def test_a_prefix_cannot_be_checkpointed(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = DeltaSettings(peft_type="prefix")
    place = fails(tiny_gpt2, tmp_path, settings, "prefix tuning", gradient_checkpointing=True)
    assert place == "gradient_checkpointing"


@pytest.mark.parametrize("peft_type", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_take_positions(
    tiny_gpt2: Path, tmp_path: Path, peft_type: PeftType
) -> None:
    settings = DeltaSettings(peft_type=peft_type, num_virtual_tokens=8)
    fails(tiny_gpt2, tmp_path, settings, "8 virtual tokens", max_length=POSITIONS - 7)
    spec = tiny_spec(tiny_gpt2, settings, max_length=POSITIONS - 8)
    train(spec, tiny_gpt2, tiny_pairs(), tmp_path, lambda _: None)

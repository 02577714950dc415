from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from search_spaces.spec import BaseSettings, SftSettings
from tests.tiny import POSITIONS, make_tiny_tokenizer, tiny_pairs, tiny_spec
from trainers.errors import ModelError
from trainers.loading import load_model
from trainers.select import train


@pytest.fixture
def copy(tiny_gpt2: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_gpt2, tmp_path / "copy")


def rewrite(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))


def test_weights_are_loaded_in_fp32(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    halved = {name: w.to(torch.bfloat16) for name, w in weights.items()}
    save_file(halved, copy / "model.safetensors", metadata={"format": "pt"})
    rewrite(copy / "config.json", dtype="bfloat16")
    model, _ = load_model(copy)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_lost_file_is_a_model_error(copy: Path, lost: str) -> None:
    (copy / lost).unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_a_broken_file_is_a_model_error(copy: Path, broken: str) -> None:
    (copy / broken).write_bytes((copy / broken).read_bytes()[:-20])
    with pytest.raises(ModelError, match=f"{broken}: must be"):
        load_model(copy)


def test_lost_tensors_are_not_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.bias"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing.*c_fc\.bias"):
        load_model(copy)


def test_tensors_of_another_shape_are_a_model_error(copy: Path) -> None:
    rewrite(copy / "config.json", n_positions=POSITIONS * 2)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)


def test_a_text_must_be_able_to_end(copy: Path) -> None:
    rewrite(copy / "tokenizer_config.json", eos_token=None, bos_token=None)
    with pytest.raises(ModelError, match="end-of-text"):
        load_model(copy)


def test_a_missing_padding_token_is_the_end_of_text(copy: Path) -> None:
    rewrite(copy / "tokenizer_config.json", pad_token=None)
    _, tokenizer = load_model(copy)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_tokenizer_must_fit_its_model(copy: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<patient>", "<therapist>"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ModelError, match="402 tokens must fit the model's 400 embeddings"):
        load_model(copy)


@pytest.mark.parametrize("method", [BaseSettings(), SftSettings()])
def test_examples_must_fit_the_model(tiny_gpt2: Path, tmp_path: Path, method: Any) -> None:
    spec = tiny_spec(tiny_gpt2, method, max_length=POSITIONS + 1)
    with pytest.raises(ModelError) as caught:
        train(spec, tiny_gpt2, tiny_pairs(), tmp_path, pytest.fail)
    assert caught.value.problems[0].nearest == str(POSITIONS)
    assert caught.value.problems[0].place == "max_length"

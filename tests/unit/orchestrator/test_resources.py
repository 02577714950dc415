"""Shares of a GPU by estimated memory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from orchestrator.resources import (
    ModelShape,
    TrialResources,
    estimate_disk_gib,
    estimate_memory_gib,
    read_shape,
    trial_resources,
)
from search_spaces.errors import InputError
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    DecodingSpec,
    DeltaSettings,
    PeftType,
    ReaderSettings,
    SftSettings,
    TrialSpec,
)
from tests.unit.orchestrator.trials import spec

GPT2 = ModelShape(124_000_000, 12, 768, 50257)
MEDIUM = ModelShape(355_000_000, 24, 1024, 50257)
LARGE = ModelShape(774_000_000, 36, 1280, 50257)


def model_folder(folder: Path, config: dict[str, Any] | str) -> Path:
    """A folder with a configuration and 3 x 5 + 7 parameters in two files."""
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text, encoding="utf-8")
    for number, size in enumerate(((3, 5), (7,))):
        save_file({"w": np.zeros(size, np.float32)}, folder / f"model-{number}.safetensors")
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {"n_embd": 64, "n_layer": 2, "vocab_size": 100},
        {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100},
        {"d_model": 64, "n_layers": 2, "vocab_size": 100},
        {"text_config": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}},
    ],
)
def test_shapes_of_families_are_read(tmp_path: Path, config: dict[str, Any]) -> None:
    assert read_shape(model_folder(tmp_path, config)) == ModelShape(22, 2, 64, 100)


def test_a_shape_in_words_of_its_own_is_taken_for_a_gpts(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"size": 3})
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with (folder / "pytorch_model.bin").open("wb") as stream:
        stream.truncate(4 * LARGE.parameters)
    shape = read_shape(folder)
    assert shape.parameters == LARGE.parameters
    assert 0.5 < shape.layers * shape.width / (LARGE.layers * LARGE.width) < 2


@pytest.mark.parametrize("config", ["", "[]", "{", '"gpt2"'])
def test_a_broken_configuration_is_the_users_to_mend(tmp_path: Path, config: str) -> None:
    with pytest.raises(InputError, match=r"config\.json: must"):
        read_shape(model_folder(tmp_path, config))


def test_torn_weights_are_the_users_to_mend(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"n_embd": 64, "n_layer": 2, "vocab_size": 100})
    file = folder / "model-0.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"model-0\.safetensors: must be whole"):
        read_shape(folder)


def test_full_training_of_gpt2_large_gets_a_sensible_share_of_80_gib() -> None:
    one = spec(max_length=512, batch_size=4, precision="bf16")
    need = estimate_memory_gib([one], LARGE, True)
    # fp32 weights, gradients and Adam's moments alone take 16 bytes a parameter: 11.5 GiB.
    assert 12 < need < 60
    assert trial_resources(need, 80).gpus in (1 / 5, 1 / 4, 1 / 3, 1 / 2)


@pytest.mark.parametrize("method", [BaseSettings(), SftSettings(), DeltaSettings()])
def test_shares_grow_with_the_model(method: Any) -> None:
    shares = [
        trial_resources(estimate_memory_gib([spec(method=method)], shape, True), 80).gpus
        for shape in (GPT2, MEDIUM, LARGE)
    ]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_needs_grow_with_what_takes_memory() -> None:
    little = dataclasses.replace(
        spec(batch_size=1, max_length=512), decoding=DecodingSpec(beams=(1,), eval_batch_size=1)
    )

    def need(**training: Any) -> float:
        one = dataclasses.replace(little, training=dataclasses.replace(little.training, **training))
        return estimate_memory_gib([one], LARGE, True)

    assert need() < need(batch_size=4) < need(batch_size=16)
    assert need(batch_size=16, max_length=128) < need(batch_size=16, max_length=512)
    assert need(batch_size=16, precision="bf16") < need(batch_size=16, precision="fp32")
    assert need(batch_size=16, gradient_checkpointing=True) < need(batch_size=16)
    needs = [
        estimate_memory_gib([dataclasses.replace(little, method=method)], LARGE, True)
        for method in (BaseSettings(), DeltaSettings(), SftSettings())
    ]
    assert needs == sorted(needs)
    wide = dataclasses.replace(little, decoding=DecodingSpec(beams=(1, 8), eval_batch_size=64))
    assert estimate_memory_gib([wide], LARGE, True) > estimate_memory_gib([little], LARGE, True)
    assert estimate_memory_gib([wide], LARGE, False) < estimate_memory_gib([wide], LARGE, True)


def test_every_copy_of_the_model_in_reinforcement_learning_is_counted() -> None:
    little = dataclasses.replace(
        spec(batch_size=4, max_length=512), decoding=DecodingSpec(beams=(1,), eval_batch_size=1)
    )

    def need(kind: type[ChatMglSettings | ReaderSettings], **own: Any) -> float:
        method = kind(**{"rl_mini_batch_size": 4, "value_model": "shared", **own})
        return estimate_memory_gib([dataclasses.replace(little, method=method)], LARGE, True)

    alone = need(ReaderSettings, rl="none")
    assert alone == need(ChatMglSettings, rl="none")
    # The frozen reference; reader's frozen judge; the values' backbone, its gradients and moments.
    copy = 1.25 * 4 * LARGE.parameters / 2**30
    assert need(ChatMglSettings) == pytest.approx(alone + copy)
    assert need(ReaderSettings) == pytest.approx(alone + 2 * copy)
    assert need(ReaderSettings, rl="rloo", value_model="own") == need(ReaderSettings)
    assert need(ReaderSettings, value_model="own") == pytest.approx(alone + 6 * copy)


def test_bottleneck_adapters_are_counted() -> None:
    little = dataclasses.replace(
        spec(batch_size=1, max_length=512), decoding=DecodingSpec(beams=(1,), eval_batch_size=1)
    )

    def one(peft_type: PeftType, bottleneck: int = 64) -> TrialSpec:
        method = DeltaSettings(peft_type=peft_type, bottleneck=bottleneck)
        return dataclasses.replace(little, method=method)

    def need(peft_type: PeftType, bottleneck: int = 64) -> float:
        return estimate_memory_gib([one(peft_type, bottleneck)], LARGE, True)

    assert need("parallel") < need("houlsby") < need("houlsby", 256) < need("houlsby", 2048)
    base = estimate_memory_gib([dataclasses.replace(little, method=BaseSettings())], LARGE, True)
    assert base < need("parallel", 1)
    # As wide as the model itself, twice a block: 4 of its 12 squares of the width, in fp32.
    kept, meanwhile = estimate_disk_gib(one("houlsby", 1280), LARGE)
    assert kept == pytest.approx(4 * 36 * 4 * 1280**2 / 2**30, rel=2e-3)
    assert meanwhile == 6 * kept
    assert estimate_disk_gib(one("lora"), LARGE)[0] == pytest.approx(
        0.05 * 4 * LARGE.parameters / 2**30
    )


@given(st.floats(0, 500), st.floats(1, 200))
def test_a_share_holds_the_trial_or_is_the_whole_gpu(need: float, memory: float) -> None:
    share = trial_resources(need, memory).gpus
    assert 0 < share <= 1
    assert (1 / share) == round(1 / share), "shares that divide one GPU pack without remainder"
    assert need <= share * memory or share == 1


@given(st.floats(0, 500), st.floats(0, 500), st.floats(1, 200))
def test_more_need_is_no_smaller_share(one: float, other: float, memory: float) -> None:
    less, more = sorted((one, other))
    assert trial_resources(less, memory).gpus <= trial_resources(more, memory).gpus


def test_without_a_gpu_a_trial_takes_a_core_and_its_memory() -> None:
    assert trial_resources(5.5, None) == TrialResources(cpus=1, gpus=0, memory_gib=5.5)


def test_a_group_holds_its_weights_once() -> None:
    lora = dataclasses.replace(spec(), method=DeltaSettings(peft_type="lora"))
    needs = [estimate_memory_gib([lora] * members, LARGE, True) for members in (1, 2, 3)]
    assert needs[1] - needs[0] == pytest.approx(needs[2] - needs[1])
    weights = 1.25 * 4 * LARGE.parameters / 2**30
    assert needs[1] < 2 * needs[0] - weights

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    GPTNeoXConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen3Config,
)

from search_spaces.spec import DeltaSettings, NonLinearity, PeftType
from tests.unit.evaluators.tiny_models import make_model
from trainers.bottleneck import add_bottlenecks, find_bottlenecks
from trainers.bottleneck_files import load_bottlenecks, save_bottlenecks
from trainers.errors import ModelError

HOULSBY = DeltaSettings(peft_type="houlsby", bottleneck=6)
PARALLEL = DeltaSettings(peft_type="parallel", bottleneck=6)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
FAMILIES: dict[str, Any] = {
    "qwen3": Qwen3Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    ),
    "opt": OPTConfig(
        vocab_size=40,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
    ),
    "bloom": BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4),
}


def model_of(family: str) -> PreTrainedModel:
    if family not in FAMILIES:
        return make_model(family)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(FAMILIES[family])
    return model.eval()


def scores(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """As training would leave it: no adapter is near the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for adapter in find_bottlenecks(model).values():
            for parameter in adapter.parameters():
                parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("settings", [HOULSBY, PARALLEL], ids=lambda one: one.peft_type)
def test_it_begins_as_its_base(family: str, settings: DeltaSettings) -> None:
    base = scores(model_of(family))
    model = add_bottlenecks(model_of(family), settings)
    begun = scores(model)
    if settings.peft_type == "parallel":
        assert torch.equal(begun, base)
    else:
        assert not torch.equal(begun, base)
        torch.testing.assert_close(begun, base, atol=0.02, rtol=0.02)
    adapters = find_bottlenecks(model)
    assert len(adapters) == (4 if settings.peft_type == "houlsby" else 2)
    inside = {p for adapter in adapters.values() for p in adapter.parameters()}
    assert {p for p in model.parameters() if p.requires_grad} == inside
    assert not torch.allclose(scores(shaken(model)), base, atol=0.1)


def test_houlsbys_weights_are_cut_at_two_deviations() -> None:
    model = add_bottlenecks(make_model("gpt2"), DeltaSettings(peft_type="houlsby", bottleneck=64))
    adapters = find_bottlenecks(model).values()
    drawn = torch.cat([one.weight.detach().flatten() for a in adapters for one in (a.down, a.up)])
    assert 0.0199 < float(drawn.abs().max()) <= 0.02
    # Of a normal cut at two standard deviations, the deviation is 0.88 of the uncut one's.
    assert float(drawn.std()) == pytest.approx(0.0088, rel=0.03)
    assert all(not one.bias.any() for a in adapters for one in (a.down, a.up))


def test_they_are_where_the_papers_put_them() -> None:
    """A GPT-2 block, once more by hand."""
    for settings in (HOULSBY, PARALLEL):
        model: Any = shaken(add_bottlenecks(make_model("gpt2"), settings))
        block = model.transformer.h[0]
        torch.manual_seed(2)
        x = torch.randn(1, 5, 32)
        with torch.inference_mode():
            given = block(x)
            attended = plain(block.attn, block.ln_1(x))[0]
            if settings is HOULSBY:
                attended = attended + by_hand(block.attn.bottleneck, attended, "gelu")
            middle = x + attended
            read = block.ln_2(middle)
            made = plain(block.mlp, read)
            if settings is HOULSBY:
                made = made + by_hand(block.mlp.bottleneck, made, "gelu")
            else:
                made = made + 4.0 * by_hand(block.mlp.bottleneck, read, "relu")
        given = given[0] if isinstance(given, tuple) else given
        torch.testing.assert_close(given, middle + made)


def plain(module: Any, x: torch.Tensor) -> Any:
    """A module's output without its adapter."""
    return type(module).forward(module, x)


def by_hand(adapter: Any, x: torch.Tensor, non_linearity: str) -> torch.Tensor:
    down = x @ adapter.down.weight.T + adapter.down.bias
    between: torch.Tensor = getattr(torch.nn.functional, non_linearity)(down)
    return between @ adapter.up.weight.T + adapter.up.bias


@pytest.mark.parametrize("peft_type", ["houlsby", "parallel"])
@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "silu", "tanh"])
def test_settings_are_kept_in_the_folder(
    tmp_path: Path, peft_type: PeftType, non_linearity: NonLinearity
) -> None:
    settings = DeltaSettings(
        peft_type=peft_type, bottleneck=5, non_linearity=non_linearity, adapter_scale=0.5
    )
    model = shaken(add_bottlenecks(make_model("llama"), settings))
    save_bottlenecks(model, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    loaded = load_bottlenecks(make_model("llama"), tmp_path)
    assert torch.equal(scores(loaded), scores(model))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["non_linearity"] == non_linearity
    assert config["adapter_scale"] == (0.5 if peft_type == "parallel" else 1.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "`format`"),
        ({"format_version": 2}, "`format_version`"),
        ({"modules": []}, "`modules`"),
        ({"modules": ["model.layers.0.mlp"] * 2}, "`modules`"),
        ({"modules": ["model.layers.9.mlp"]}, "cannot be loaded"),
        ({"modules": ["model.layers.0.mlp"]}, "do not agree on model.layers.0.self_attn"),
        ({"bottleneck": True}, "`bottleneck`"),
        ({"bottleneck": 7}, r"\(6, 32\), not \(7, 32\)"),
        ({"non_linearity": "dropout"}, "`non_linearity`"),
        ({"adapter_scale": "4"}, "`adapter_scale`"),
        ({"serial": 1}, "`serial`"),
    ],
)
def test_a_folder_that_does_not_fit_says_why(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    save_bottlenecks(add_bottlenecks(make_model("llama"), HOULSBY), tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=match):
        load_bottlenecks(make_model("llama"), tmp_path)


def test_adapters_of_another_family_are_refused(tmp_path: Path) -> None:
    save_bottlenecks(add_bottlenecks(make_model("llama"), HOULSBY), tmp_path)
    with pytest.raises(ModelError, match=r"adapter_config\.json: bottleneck adapters cannot"):
        load_bottlenecks(make_model("gpt2"), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_bottlenecks(make_model("llama"), tmp_path)


@pytest.mark.parametrize(
    ("family", "held"),
    [
        ("opt", "of a opt model hold self_attn, activation_fn"),
        # Its modules add the residual themselves.
        ("bloom", "of a bloom model hold input_layernorm, self_attention"),
    ],
)
def test_an_unknown_family_is_told_with_what_it_holds(family: str, held: str) -> None:
    model = model_of(family)
    with pytest.raises(ModelError, match=held) as caught:
        add_bottlenecks(model, HOULSBY)
    assert caught.value.problems[0].place == "peft_type"
    assert caught.value.problems[0].nearest == "lora"
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_without_blocks_is_told() -> None:
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", vocab_size=40, hidden_size=16, num_hidden_layers=2)
    )
    with pytest.raises(ModelError, match="of a mamba model hold norm, mixer"):
        add_bottlenecks(model, PARALLEL)

"""Bottleneck adapters on disk: beside the model they change, in two files like PEFT's.

`adapter_config.json` is one JSON object:

- `format`: `bottleneck-adapter`, and `format_version`: 1;
- `peft_type`: `HOULSBY` or `PARALLEL`; `task_type`: `CAUSAL_LM`;
- `base_model_name_or_path`: the model that they belong to;
- `modules`: names of the modules whose outputs they change;
- `bottleneck`, `non_linearity` (a name in `torch.nn.functional`), `adapter_scale`;
- `serial`: whether an adapter reads its module's output; else the module's input.

`adapter_model.safetensors` holds, for each module `M`, `M.bottleneck.down.weight` (size, D) and
`.bias` (size), `M.bottleneck.up.weight` (D, size) and `.bias` (D); the module's output y becomes
y + adapter_scale * (up @ non_linearity(down @ x + bias) + bias), x being y or the module's input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from search_spaces.errors import one_problem
from trainers.bottleneck import CHILD, attach, find_bottlenecks, known_non_linearity
from trainers.errors import ModelError
from trainers.model_files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMAT, _VERSION = "bottleneck-adapter", 1
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

LOADING_CODE = """\
import json

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

with open(f"{FOLDER}/adapter_config.json", encoding="utf-8") as file:
    adapter = json.load(file)
weights = load_file(f"{FOLDER}/adapter_model.safetensors")
model = AutoModelForCausalLM.from_pretrained(
    adapter["base_model_name_or_path"], dtype=torch.float32
)


def add_adapter(module, name):
    down, up = (
        [weights[f"{name}.bottleneck.{layer}.{part}"] for part in ("weight", "bias")]
        for layer in ("down", "up")
    )
    activate = getattr(functional, adapter["non_linearity"])

    def change(module, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        read = first if adapter["serial"] else inputs[0]
        added = functional.linear(activate(functional.linear(read, *down)), *up)
        changed = first + adapter["adapter_scale"] * added
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    module.register_forward_hook(change)


for name in adapter["modules"]:
    add_adapter(model.get_submodule(name), name)"""
"""Python that loads base and adapters from `FOLDER` with nothing but transformers."""


def save_bottlenecks(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's adapters, and not the model.

    Args:
        model: with adapters, all of one kind.
        folder: where the files go.
    """
    adapters = find_bottlenecks(model)
    one = next(iter(adapters.values()))
    config = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "peft_type": "HOULSBY" if one.serial else "PARALLEL",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name_or_path,
        "modules": list(adapters),
        "bottleneck": one.size,
        "non_linearity": one.non_linearity,
        "adapter_scale": one.scale,
        "serial": one.serial,
    }
    weights = {
        f"{name}.{CHILD}.{key}": tensor.detach().contiguous()
        for name, adapter in adapters.items()
        for key, tensor in adapter.state_dict().items()
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def load_bottlenecks(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Put saved adapters into the model that they belong to; everything is frozen.

    Args:
        base: changed in place, and in evaluation mode afterwards.
        folder: as `save_bottlenecks` wrote it.

    Raises:
        ModelError: the folder holds no such adapters, or those of another model.
    """
    file = folder / _CONFIG
    try:
        config = read_object(file)
        _check(config)
        for name in config["modules"]:
            attach(
                base,
                name,
                config["bottleneck"],
                config["non_linearity"],
                float(config["adapter_scale"]),
                config["serial"],
            )
        weights = load_file(folder / _WEIGHTS)
        expected = {
            f"{name}.{CHILD}.{key}": tensor
            for name, adapter in find_bottlenecks(base).items()
            for key, tensor in adapter.state_dict().items()
        }
        if weights.keys() != expected.keys():
            odd = min(weights.keys() ^ expected.keys())
            raise ValueError(f"{_WEIGHTS} and its modules do not agree on {odd}")
        with torch.no_grad():
            for name, tensor in expected.items():
                if tensor.shape != weights[name].shape:
                    shapes = f"{tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
                    raise ValueError(f"{name} is {shapes}, as this model would have it")
                tensor.copy_(weights[name])
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        message = f"bottleneck adapters cannot be loaded: {error}"
        raise ModelError(one_problem(str(file), "", message)) from error
    base.requires_grad_(False)
    base.eval()
    return base


def _check(config: dict[str, Any]) -> None:
    """See that a configuration is one; else say which word of it is not."""
    modules, size, scale = (config.get(k) for k in ("modules", "bottleneck", "adapter_scale"))
    right = {
        "format": config.get("format") == _FORMAT,
        "format_version": config.get("format_version") == _VERSION,
        "modules": isinstance(modules, list)
        and all(isinstance(name, str) and name for name in modules)
        and len(set(modules)) == len(modules) > 0,
        "bottleneck": isinstance(size, int) and not isinstance(size, bool) and size > 0,
        "non_linearity": known_non_linearity(config.get("non_linearity")),
        "adapter_scale": isinstance(scale, int | float) and not isinstance(scale, bool),
        "serial": isinstance(config.get("serial"), bool),
    }
    if wrong := [name for name, holds in right.items() if not holds]:
        raise ValueError(f"`{wrong[0]}` is not what it must be (got {config.get(wrong[0])!r:.80})")

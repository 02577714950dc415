"""How much of a machine one trial takes: a CPU core, and a share of a GPU or of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from search_spaces.errors import InputError, one_problem
from search_spaces.spec import (
    BaseSettings,
    DeltaSettings,
    DialogueActSettings,
    ReaderSettings,
    RlSettings,
    TrialSpec,
)
from trainers.model_files import read_object

_SHARES = (1 / 8, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2)
"""Shares that divide one GPU, so that trials pack without remainder."""

_LAYERS = ("n_layer", "n_layers", "num_hidden_layers", "num_layers")
_WIDTHS = ("n_embd", "n_embed", "d_model", "hidden_size")
"""What the families call their shape in `config.json`."""

_CONTEXT_GIB = 1.0
"""CUDA context, kernels and allocator slack."""

_MARGIN = 1.25
"""Room for what an estimate does not see."""


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on."""

    parameters: int
    layers: int
    width: int
    vocabulary: int


@dataclass(frozen=True)
class TrialResources:
    """What Ray reserves for a trial."""

    cpus: float
    gpus: float
    """A fraction of one GPU; 0 where there is none."""
    memory_gib: float = 0.0
    """Host memory that the trial fills; only counted where there is no GPU."""


def read_shape(folder: Path) -> ModelShape:
    """A model's shape, from its configuration and its weights' headers.

    Where a family has names of its own for its shape, a GPT's of as many parameters stands in.

    Args:
        folder: model folder with a `config.json`.

    Raises:
        InputError: the configuration or the weights are damaged.
    """
    config = read_config(folder)
    text = config.get("text_config")  # Of models that also see or hear.
    if isinstance(text, dict):
        config = text
    parameters = _count_parameters(folder)
    layers = _first_count(config, _LAYERS) or 24
    return ModelShape(
        parameters=parameters,
        layers=layers,
        width=_first_count(config, _WIDTHS) or math.isqrt(parameters // (12 * layers)),
        vocabulary=_first_count(config, ("vocab_size",)),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A model's `config.json`.

    Args:
        folder: model folder.

    Raises:
        InputError: no JSON object.
    """
    file = folder / "config.json"
    try:
        return read_object(file)
    except ValueError as error:
        raise InputError(one_problem(str(file), "", f"must be JSON: {error}")) from error


def _first_count(config: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of these settings that is a number; 0 where none is."""
    found = (config[name] for name in names if isinstance(config.get(name), int))
    return next(found, 0)


def _count_parameters(folder: Path) -> int:
    """Parameters in a folder's weights: from safetensors' headers, else from the files' size."""
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="np") as weights:
                names = weights.keys()
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise InputError(
                one_problem(str(file), "", f"must be whole safetensors weights: {error}")
            ) from error
    if total:
        return total
    # Pickled weights are not opened to be counted; four bytes a parameter is their usual size.
    return sum(file.stat().st_size for file in folder.glob("pytorch_model*.bin")) // 4


def estimate_memory_gib(specs: Sequence[TrialSpec], shape: ModelShape, on_gpu: bool) -> float:
    """Memory that trials need at their peak, training or generating, in GiB; of the GPU where there is one.

    Several are trained together on one set of frozen weights, and then evaluated.

    Args:
        specs: one trial, or those that train together.
        shape: their model's.
        on_gpu: on a CPU, decoding bounds its cache to 1 GiB.
    """
    learning = sum(_learning_bytes(spec, shape) for spec in specs)
    generating = max(_generating_bytes(spec, shape, on_gpu) for spec in specs)
    # Each member's adapter stays where it is while another's replies are generated.
    added = sum(_trained(spec, shape)[1] for spec in specs)
    peak = max(learning, generating)
    return _CONTEXT_GIB + _MARGIN * (4.0 * (shape.parameters + added) + peak) / 2**30


def _learning_bytes(spec: TrialSpec, shape: ModelShape) -> float:
    """What training takes beside the weights; 0 where nothing is trained.

    Weights are fp32; every trained parameter adds a gradient and the optimiser's two moments;
    activations are kept for the backward pass (about 34 values per token, layer and unit of width
    for a GPT block without recomputation: Korthikanti et al. 2022, equation 2, attention scores
    apart); logits are fp32 and exist about three times.
    """
    if isinstance(spec.method, BaseSettings):
        return 0.0
    training = spec.training
    bytes_per_value = 4 if training.precision == "fp32" else 2
    trained, _, kept_by_adapters = _trained(spec, shape)
    batch_size = training.batch_size
    if isinstance(spec.method, RlSettings) and spec.method.rl != "none":
        batch_size = max(batch_size, spec.method.rl_mini_batch_size)
    tokens = batch_size * training.max_length
    kept = 6.0 if training.gradient_checkpointing else 34.0
    return (
        12.0 * trained
        + kept / 2 * bytes_per_value * tokens * shape.layers * shape.width
        + bytes_per_value * tokens * kept_by_adapters
        + 3 * 4.0 * tokens * shape.vocabulary
    )


def _generating_bytes(spec: TrialSpec, shape: ModelShape, on_gpu: bool) -> float:
    """What decoding takes beside the weights: the cache, and the scores of the next token."""
    rows = spec.decoding.eval_batch_size * max(spec.decoding.beams)
    cache = 2.0 * 4 * rows * spec.training.max_length * shape.layers * shape.width
    if not on_gpu:
        cache = min(cache, 2.0**30)
    return cache + 3 * 4.0 * rows * shape.vocabulary


def estimate_disk_gib(spec: TrialSpec, shape: ModelShape) -> tuple[float, float]:
    """What a trial leaves on the disk, and what it takes besides while it runs, in GiB.

    It leaves its trained parameters in fp32; with reinforcement learning also those of the supervised
    phase. Meanwhile a checkpoint holds them and the optimiser's two moments, and for a moment there
    are two checkpoints, while one replaces the other.

    Args:
        spec: the trial.
        shape: its model's.
    """
    trained, _, _ = _trained(spec, shape)
    size = 4.0 * trained / 2**30
    reinforced = isinstance(spec.method, RlSettings) and spec.method.rl != "none"
    return size + reinforced * 4.0 * shape.parameters / 2**30, 6 * size


def trial_resources(memory_gib: float, gpu_memory_gib: float | None) -> TrialResources:
    """The smallest share of a GPU that holds a trial; the whole of it where none does.

    Args:
        memory_gib: estimated need.
        gpu_memory_gib: of one GPU; None without a GPU.
    """
    if gpu_memory_gib is None:
        return TrialResources(cpus=1, gpus=0, memory_gib=memory_gib)
    for share in _SHARES:
        if memory_gib <= share * gpu_memory_gib:
            return TrialResources(cpus=1, gpus=share)
    return TrialResources(cpus=1, gpus=1)


def _trained(spec: TrialSpec, shape: ModelShape) -> tuple[float, float, float]:
    """Parameters that are trained, those of them that are added, and values kept for them a token."""
    match spec.method:
        case BaseSettings():
            return 0.0, 0.0, 0.0
        case DeltaSettings(peft_type="houlsby" | "parallel" as kind, bottleneck=size):
            adapters = shape.layers * (2 if kind == "houlsby" else 1)
            added = float(adapters * (2 * shape.width * size + size + shape.width))
            # Of each: what it reads and what it gives, and the bottleneck before and after the
            # non-linearity.
            return added, added, float(adapters * 2 * (shape.width + size))
        case RlSettings(rl="ppo" | "rloo" as rl, value_model=values):
            # The policy, and for PPO perhaps the values' backbone; beside them the frozen reference
            # and reader's judge.
            trained = shape.parameters * (2.0 if rl == "ppo" and values == "own" else 1.0)
            judge = shape.parameters * isinstance(spec.method, ReaderSettings)
            return trained, trained + judge, 0.0
        case DeltaSettings() | DialogueActSettings(tuning="lora"):
            # An adapter is at most a few per cent of its base; its activations count in full.
            return 0.05 * shape.parameters, 0.0, 0.0
        case _:
            return float(shape.parameters), 0.0, 0.0

"""Everything that a training's next step depends on, as tensors and JSON data, and back.

Trained parameters, optimiser, schedule, gradient scaler and random states: what `checkpoint_files.py`
keeps, whoever trains.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from trainers.checkpoint_files import WEIGHTS, Checkpoint

_OPTIMIZER = "optimizer/"
_RANDOM = "random/"


def capture_training(
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: Any,
    scheduler: Any,
    scaler: Any,
    step: int,
    epoch: float,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a checkpoint holds, the process's random states included.

    Args:
        parameters: the trained ones, by name.
        optimizer: over exactly these.
        scheduler: of its learning rate.
        scaler: of fp16's gradients; None where there is none.
        step: optimiser steps done.
        epoch: epochs done.

    Returns:
        Tensors by names that begin with their kind, and JSON data.
    """
    optimizer_state = optimizer.state_dict()
    tensors = {WEIGHTS + name: p.detach().contiguous() for name, p in parameters.items()}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in optimizer_state["state"].items():
        scalars[str(index)] = {}
        for key, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{_OPTIMIZER}{index}/{key}"] = value.detach().contiguous()
            else:
                scalars[str(index)][key] = value
    tensors[_RANDOM + "cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[_RANDOM + "cuda"] = torch.cuda.get_rng_state()
    kind, keys, *position = np.random.get_state()
    state = {
        "step": step,
        "epoch": epoch,
        "optimizer_state": scalars,
        "optimizer_groups": [_scalars(group) for group in optimizer_state["param_groups"]],
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "random_python": random.getstate(),
        "random_numpy": [kind, np.asarray(keys).tolist(), *position],
    }
    return tensors, state


def _scalars(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group's settings that can change; tuples (betas) are as the trial says."""
    return {k: v for k, v in group.items() if v is None or isinstance(v, int | float | str)}


def restore_weights(checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Set the trained parameters to a checkpoint's.

    Args:
        checkpoint: of these parameters.
        parameters: by name; changed in place.
    """
    tensors = checkpoint.tensors(WEIGHTS)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def restore_optimizer(checkpoint: Checkpoint, optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """Set optimiser, schedule and scaler to a checkpoint's.

    Args:
        checkpoint: of a training with these.
        optimizer: changed in place.
        scheduler: changed in place.
        scaler: changed in place; None where there is none.
    """
    saved = checkpoint.state
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in saved["optimizer_state"].items()
    }
    for name, tensor in checkpoint.tensors(_OPTIMIZER).items():
        index, key = name.split("/", 1)
        state[int(index)][key] = tensor
    groups = [
        {**fresh, **group}
        for fresh, group in zip(
            optimizer.state_dict()["param_groups"], saved["optimizer_groups"], strict=True
        )
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(dict(saved["scheduler"]))
    if scaler is not None and saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])


def restore_random(checkpoint: Checkpoint) -> None:
    """Set the process's random states to a checkpoint's.

    Args:
        checkpoint: of any training.
    """
    tensors = checkpoint.tensors(_RANDOM)
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available() and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])
    version, numbers, gauss = checkpoint.state["random_python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *position = checkpoint.state["random_numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *position))


class OwnRandomness:
    """Random states of one training among several in a process; a GPU's is the process's."""

    def __init__(self) -> None:
        self.generator = torch.Generator()
        """PyTorch's on the CPU."""
        self._python = random.getstate()
        self._numpy = np.random.get_state()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the process draws from these states."""
        others = torch.get_rng_state(), random.getstate(), np.random.get_state()
        torch.set_rng_state(self.generator.get_state())
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            self._python, self._numpy = random.getstate(), np.random.get_state()
            torch.set_rng_state(others[0])
            random.setstate(others[1])
            np.random.set_state(others[2])

"""A training loop of our own in a checkpoint: its weights, its optimiser, and what it says of itself.

For loops whose randomness is drawn anew from the seed and the step, so that no random state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainers.checkpoint_files import WEIGHTS, newest_checkpoint, write_checkpoint

_OPTIMIZER = "optimizer/"


def save_loop(
    workdir: Path,
    step: int,
    identity: str,
    weights: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Put a checkpoint of a loop in place; it replaces the one before.

    Args:
        workdir: the loop's own folder.
        step: steps done.
        identity: of the training.
        weights: the trained parameters by name.
        optimizer: over exactly these, its state in tensors (Adam's is).
        state: JSON data.

    Raises:
        OSError: the disk is full; the checkpoint before is kept.
    """
    tensors = {WEIGHTS + name: p.detach().contiguous() for name, p in weights.items()}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            tensors[f"{_OPTIMIZER}{index}/{key}"] = value.detach().contiguous()
    write_checkpoint(workdir, step, identity, tensors, {**state, "step": step})


def restore_loop(
    workdir: Path,
    identity: str,
    weights: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """Set weights and optimiser to the newest checkpoint, where there is one.

    Args:
        workdir: the loop's own folder.
        identity: of the training.
        weights: as for `save_loop`; changed in place.
        optimizer: changed in place.

    Returns:
        The checkpoint's state, with its `step`, or None; and why checkpoints were passed over.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in weights.items()}
    checkpoint, notes = newest_checkpoint(workdir, identity, shapes)
    if checkpoint is None:
        return None, notes
    saved = checkpoint.tensors(WEIGHTS)
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in checkpoint.tensors(_OPTIMIZER).items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return checkpoint.state, notes

"""Several LoRA adapters on one base in memory, each row of a batch read through its own.

PEFT can mix adapters in a batch (`adapter_names`), but gathers and scatters the rows of each adapter
in every layer; here a layer's adapters are one tensor, and two batched products serve all rows. The
base is as it was once the adapters are let go of. Shapes: K members, B rows, T tokens, r the
largest rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search_spaces.errors import one_problem
from trainers.errors import ModelError
from trainers.peft_adapters import load_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Matrices = dict[str, tuple[Tensor, Tensor]]
"""By module: A (in, r) and B (r, out), the latter times the adapter's scale."""


class RowAdapters:
    """Which member each row of the next forward pass belongs to."""

    members: Tensor
    """int (B,); set before each forward pass of the base."""


@contextmanager
def row_adapters(base: PreTrainedModel, folders: Sequence[Path]) -> Iterator[RowAdapters]:
    """Within it, the base reads every row through the adapter of the row's member.

    What a row comes to depends on its own member's weights alone, whatever the others' are.

    Args:
        base: the model that all adapters were trained on; as it was afterwards.
        folders: one a member, as PEFT's `save_pretrained` writes it; ranks, scales and targets may
            differ.

    Raises:
        ModelError: an adapter is no plain LoRA.
    """
    read = [_read(base, folder) for folder in folders]
    by_module: defaultdict[str, dict[int, tuple[Tensor, Tensor]]] = defaultdict(dict)
    for member, matrices in enumerate(read):
        for name, pair in matrices.items():
            by_module[name][member] = pair
    rows = RowAdapters()
    hooks = [
        base.get_submodule(name).register_forward_hook(_branch(rows, *_stack(pairs, len(read))))
        for name, pairs in by_module.items()
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _branch(rows: RowAdapters, down: Tensor, up: Tensor) -> Any:
    """A hook that adds to a module's output what each row's adapter makes of its input.

    Args:
        rows: says which.
        down: every member's A, (K, in, r).
        up: every member's B times its scale, (K, r, out).
    """

    def add(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (x,) = inputs
        inner = torch.bmm(x.to(down.dtype), down.index_select(0, rows.members))
        added = torch.baddbmm(output.to(down.dtype), inner, up.index_select(0, rows.members))
        return added.to(output.dtype)

    return add


def _stack(pairs: dict[int, tuple[Tensor, Tensor]], members: int) -> tuple[Tensor, Tensor]:
    """Members' matrices as two tensors (K, in, r) and (K, r, out); zeros where one has less."""
    rank = max(down.shape[1] for down, _ in pairs.values())
    down, up = next(iter(pairs.values()))
    all_down = down.new_zeros(members, down.shape[0], rank)
    all_up = up.new_zeros(members, rank, up.shape[1])
    for member, (down, up) in pairs.items():
        all_down[member, :, : down.shape[1]] = down
        all_up[member, : up.shape[0]] = up
    return all_down, all_up


def _read(base: PreTrainedModel, folder: Path) -> _Matrices:
    """The adapter's matrices, as PEFT reads them; the base is as it was."""
    model = load_adapter(base, folder)
    config: Any = model.active_peft_config
    name = model.active_adapter
    matrices: _Matrices = {}
    plain = config.peft_type == "LORA" and config.bias == "none"
    for path, layer in model.get_base_model().named_modules():
        if not hasattr(layer, "base_layer") or not plain:
            continue
        plain = name in layer.lora_A and name not in layer.lora_variant
        if plain:
            down, up = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
            matrices[path] = (down.T, up.T * layer.scaling[name])
    plain = plain and not config.modules_to_save and bool(matrices)
    model.unload()
    if not plain:
        raise ModelError(
            one_problem(
                "model", str(folder), "must hold a plain LoRA adapter to be read with others"
            )
        )
    return matrices

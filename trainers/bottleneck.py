"""Bottleneck adapters: small networks after, or beside, the parts of a frozen decoder's blocks.

Sources: Houlsby et al. 2019, section 2.1 (`houlsby`: two a block, each after a sublayer and before
its residual sum; the layer norms stay frozen here); He et al. 2022, table 1 and section 4.6
(`parallel`: one a block, beside the MLP, scaled). PEFT has neither.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor, nn

from search_spaces.errors import one_problem
from search_spaces.spec import DeltaSettings, NonLinearity
from trainers.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOTTLENECK_TYPES = ("houlsby", "parallel")
"""Kinds of delta tuning that are made here."""

CHILD = "bottleneck"
"""Name of an adapter within the module that it changes."""

_ATTENTION = ("attn", "self_attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn")
"""What decoders call the two parts of a block."""

_PAPERS_OWN: dict[str, NonLinearity] = {"houlsby": "gelu", "parallel": "relu"}


class Bottleneck(nn.Module):
    """A change of a module's output: down to a few dimensions, a non-linearity, and up again.

    Args:
        width: D, of the module's output.
        size: of the bottleneck.
        non_linearity: between the two.
        scale: of what is added.
        serial: whether it reads the module's output; else the module's input.
    """

    def __init__(
        self, width: int, size: int, non_linearity: NonLinearity, scale: float, serial: bool
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        self.size, self.non_linearity, self.scale, self.serial = size, non_linearity, scale, serial
        self._activate = getattr(nn.functional, non_linearity)
        self._begin_near_identity()

    def forward(self, hidden_btd: Tensor) -> Tensor:
        """What is added to the module's output, before scaling (B, T, D).

        Args:
            hidden_btd: what the adapter reads, (B, T, D).
        """
        added: Tensor = self.up(self._activate(self.down(hidden_btd)))
        return added

    def change(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """A forward hook: the module's output with the adapter's share; attention's is a tuple.

        Args:
            module: the module that the adapter belongs to.
            inputs: what it was called with.
            output: what it gave.
        """
        first = output[0] if isinstance(output, tuple) else output
        changed = first + self.scale * self(first if self.serial else inputs[0])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def _begin_near_identity(self) -> None:
        if self.serial:
            # Houlsby et al. 2019, section 3.6: N(0, 0.01), cut at two standard deviations.
            for layer in (self.down, self.up):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        else:
            # He et al. 2022, appendix A: as LoRA begins, with nothing added.
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)


def add_bottlenecks(base: PreTrainedModel, settings: DeltaSettings) -> PreTrainedModel:
    """Freeze a model and put new adapters into it, the only parameters that are open.

    Args:
        base: a decoder whose blocks hold an attention and an MLP; changed in place.
        settings: `peft_type` `houlsby` or `parallel`, and the adapters' size.

    Raises:
        ModelError: no such blocks are found.
    """
    serial = settings.peft_type == "houlsby"
    places = [place for block in _block_parts(base) for place in (block if serial else block[1:])]
    base.requires_grad_(False)
    for place in places:
        attach(
            base,
            place,
            settings.bottleneck,
            settings.non_linearity or _PAPERS_OWN[settings.peft_type],
            1.0 if serial else settings.adapter_scale,
            serial,
        )
    return base


def attach(
    base: PreTrainedModel,
    place: str,
    size: int,
    non_linearity: NonLinearity,
    scale: float,
    serial: bool,
) -> None:
    """Put one new adapter into a model.

    Args:
        base: changed in place.
        place: name of the module whose output it changes.
        size: of the bottleneck.
        non_linearity: within it.
        scale: of what is added.
        serial: whether it reads the module's output; else the module's input.
    """
    width = int(base.config.get_text_config(decoder=True).hidden_size)
    module = base.get_submodule(place)
    # Drawn on the CPU: the same beginning on every device.
    adapter = Bottleneck(width, size, non_linearity, scale, serial)
    module.add_module(CHILD, adapter.to(base.device))
    module.register_forward_hook(adapter.change)


def find_bottlenecks(model: nn.Module) -> dict[str, Bottleneck]:
    """A model's adapters by the name of the module that each belongs to; empty where it has none.

    Args:
        model: any model.
    """
    return {
        name.removesuffix(f".{CHILD}"): module
        for name, module in model.named_modules()
        if isinstance(module, Bottleneck)
    }


def known_non_linearity(name: object) -> bool:
    """Whether a name is one of a non-linearity.

    Args:
        name: anything.
    """
    return name in get_args(NonLinearity)


def _block_parts(base: PreTrainedModel) -> list[tuple[str, str]]:
    """Names of every block's attention and MLP, in the model's order."""
    layers = int(getattr(base.config.get_text_config(decoder=True), "num_hidden_layers", 0))
    stacks = [
        (name, module)
        for name, module in base.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    for name, stack in stacks:
        found = [_parts(block) for block in stack]
        parts = [part for part in found if part is not None]
        if len(parts) == layers:
            return [
                (f"{name}.{number}.{attention}", f"{name}.{number}.{mlp}")
                for number, (attention, mlp) in enumerate(parts)
            ]
    raise _unknown_family(base, [module for _, module in stacks])


def _parts(block: nn.Module) -> tuple[str, str] | None:
    """What a block calls its attention and its MLP, where it has one of each, and adds them itself."""
    names = dict(block.named_children())
    attention = [name for name in _ATTENTION if name in names]
    mlp = [name for name in _MLP if name in names]
    if len(attention) != 1 or len(mlp) != 1:
        return None
    for name in (*attention, *mlp):
        # Some families' modules add the residual themselves: what they give is no change of it.
        if "residual" in inspect.signature(type(names[name]).forward).parameters:
            return None
    return attention[0], mlp[0]


def _unknown_family(base: PreTrainedModel, stacks: list[nn.ModuleList]) -> ModelError:
    blocks = [block for stack in stacks for block in stack]
    odd = next((block for block in blocks if _parts(block) is None), None)
    held = "no blocks" if odd is None else ", ".join(name for name, _ in odd.named_children())
    return ModelError(
        one_problem(
            "search space",
            "peft_type",
            "a bottleneck adapter needs blocks with an attention "
            f"({', '.join(_ATTENTION)}) and an MLP ({', '.join(_MLP)}) that the block itself adds "
            f"to its residual, and those of a {base.config.model_type} model hold {held}",
            nearest="lora",
        )
    )

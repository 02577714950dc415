"""A frozen base model that several members' adapters are trained on in one forward pass.

Nothing of the base is replaced: hooks add the adapters to the layers they belong to, and
transformers' own switch chooses the attention. `close` takes all of it off again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import gelu
from transformers.activations import NewGELUActivation

from trainers.encoding import EncodedPair
from trainers.fused_attention import ATTENTION
from trainers.fused_dropout import MemberDropout
from trainers.fused_lora import AdapterStorage, add_adapters
from trainers.fused_rows import Example, Rows, as_example, lay_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DROPOUTS = {
    "attention_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    # Of heads that a causal language model does not have.
    *("summary_first_dropout", "classifier_dropout"),
}
"""Settings of dropout by modules or by the attention function; others may be anywhere."""

_SEEN = (12, 7, 12)
"""Tokens of the pairs by which a model is tried."""
_TOLERANCE = 1e-3


class FusedModel:
    """A base model with the adapters of K members.

    Args:
        base: frozen; its attention and its dropout are put back by `close`.
        storage: the adapters.
        dropouts: each member's, before its adapters.
        generators: each member's random numbers.
        precision: what is computed in.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        storage: AdapterStorage,
        dropouts: Sequence[float],
        generators: Sequence[torch.Generator],
        precision: str,
    ) -> None:
        self.base: Any = base
        self.storage = storage
        self.dropouts = tuple(dropouts)
        self._random = MemberDropout(generators)
        self._rows: Rows | None = None
        self._device = storage.values.device
        self._autocast = partial(
            torch.autocast,
            self._device.type,
            dtype=torch.bfloat16,
            enabled=precision == "bf16",
        )
        self._anchor = torch.zeros((), device=self._device, requires_grad=True)
        self._attention = self.base.config._attn_implementation
        self._use_attention(ATTENTION)
        self._closing: list[Callable[[], object]] = []
        for site in storage.sites:
            layer = base.get_submodule(site.name)
            hook = partial(self._adapt, site.name)
            self._closing.append(layer.register_forward_hook(hook).remove)
        for module in base.modules():
            if isinstance(module, torch.nn.Dropout) and module.p:
                self._take_over(module)
            elif isinstance(module, NewGELUActivation):
                # The same function in one kernel; written out, it is a third of a small model's time.
                self._replace_forward(module, partial(gelu, approximate="tanh"))
        self._bind()

    def close(self) -> None:
        """Leave the base as it was."""
        for undo in self._closing:
            undo()
        self._use_attention(self._attention)
        self.base.eval()

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some members.

        Args:
            members: by their places.
        """
        self.storage.keep(members)
        self.dropouts = tuple(self.dropouts[k] for k in members)
        self._random = MemberDropout([self._random.generators[k] for k in members])
        self._bind()

    def add_gradients(
        self, batches: Sequence[Sequence[Example]], counts: Sequence[int]
    ) -> torch.Tensor:
        """One forward and backward pass; gradients are added to the storage's.

        Args:
            batches: each member's micro-batch; empty where it rests.
            counts: counted tokens of each member's optimiser step, all its micro-batches together.

        Returns:
            [K] each member's share of its step's mean loss per counted token, in nats.
        """
        self.base.train()
        rows = lay_out(batches, self._device)
        weights_k = torch.tensor(counts, dtype=self.storage.values.dtype).clamp_(min=1)
        weights_k = weights_k.reciprocal_().to(self._device, non_blocking=True)
        losses_k = self._losses(rows) * weights_k
        losses_k.sum().backward()
        return losses_k.detach()

    def sum_losses(self, k: int, pairs: Sequence[EncodedPair]) -> tuple[float, int]:
        """One member's summed loss in nats over some pairs, and their counted tokens.

        Args:
            k: its place.
            pairs: any.
        """
        self.base.eval()
        examples = [as_example(pair) for pair in pairs]
        rows = lay_out([examples], self._device)
        self._bind(slice(k, k + 1))
        try:
            loss = float(self._losses(rows))
        finally:
            self._bind()
        return loss, sum(len(example.kept) for example in examples)

    def _losses(self, rows: Rows) -> torch.Tensor:
        """[K] summed losses."""
        self._rows = rows
        with self._autocast():
            logits_mv = run_rows(self.base, rows, self._random)
        kind = self.storage.values.dtype
        losses_m = torch.nn.functional.cross_entropy(
            logits_mv.to(kind), rows.targets, reduction="none"
        )
        return losses_m.new_zeros(len(rows.shares)).index_add(0, rows.owners, losses_m)

    def _bind(self, members: slice = slice(None)) -> None:
        """Have the layers use these members' adapters."""
        storage = self.storage
        values = storage.layers(storage.values)
        gradients = storage.layers(storage.gradients)
        scales = storage.scales_k11[members]
        self._factors = {
            site.name: (
                *(x[members] for x in (*values[site.name], *gradients[site.name])),
                scales,
            )
            for site in storage.sites
        }

    def _adapt(
        self, site: str, layer: torch.nn.Module, inputs: Any, output: torch.Tensor
    ) -> torch.Tensor:
        rows = self._rows
        if rows is None:
            raise RuntimeError("a fused model runs on rows alone")
        x_ni = inputs[0][0]
        if layer.training and any(self.dropouts):
            x_ni = x_ni.to(self.storage.values.dtype)
            x_ni = x_ni * self._random.mask_tokens(x_ni, rows, self.dropouts)
        return add_adapters(x_ni, output[0], self._factors[site], self._anchor, rows)[None]

    def _take_over(self, module: torch.nn.Dropout) -> None:
        """Draw a module's dropout per member."""

        def drop(x_1nc: torch.Tensor) -> torch.Tensor:
            if not module.training or self._rows is None:
                return x_1nc
            chances = [module.p] * len(self._rows.shares)
            return x_1nc * self._random.mask_tokens(x_1nc[0], self._rows, chances)

        self._replace_forward(module, drop)

    def _replace_forward(
        self, module: torch.nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        vars(module)["forward"] = forward
        self._closing.append(partial(vars(module).pop, "forward"))

    def _use_attention(self, name: str) -> None:
        self.base.set_attn_implementation(name)


def run_rows(base: Any, rows: Rows, dropout: MemberDropout) -> torch.Tensor:
    """Scores of the next token wherever it counts, [M, V].

    Args:
        base: a causal language model with this module's attention.
        rows: what it reads.
        dropout: draws the attention's masks.
    """
    logits_1mv: torch.Tensor = base(
        input_ids=rows.ids[None],
        # None is padded; without it, transformers looks for padding, and waits for the device to.
        attention_mask=torch.ones_like(rows.ids)[None],
        position_ids=rows.positions[None],
        logits_to_keep=rows.kept,
        use_cache=False,
        rows=rows,
        member_dropout=dropout,
    ).logits
    return logits_1mv[0]


def why_not_fused(base: PreTrainedModel) -> str:
    """Why a model cannot read many pairs in one row; empty where it can.

    Its configuration is looked at first; then it reads some pairs both ways.

    Args:
        base: the model, its attention as it was loaded.
    """
    model: Any = base
    config = model.config
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if missing := {"position_ids", "logits_to_keep"} - set(
        inspect.signature(model.forward).parameters
    ):
        return f"its forward pass takes no {min(missing)}"
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "not all of its layers attend to all earlier tokens"
    if getattr(config, "sliding_window", None) is not None:
        return "its attention has a window"
    if any("expert" in name for name in config.to_dict()):
        return "it routes tokens to experts, whose load is a part of the loss"
    settings = config.to_dict().items()
    odd = [k for k, v in settings if "drop" in k and k not in _DROPOUTS and v]
    if odd:
        return f"it has dropout of another kind ({odd[0]})"
    if getattr(config, "reorder_and_upcast_attn", False):
        return "its attention is in a precision of its own"
    return _first_difference(model)


def _first_difference(model: Any) -> str:
    device = model.device
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(model.config.vocab_size, (n,), generator=draw) for n in _SEEN]
    examples = [
        as_example(EncodedPair(text.tolist(), text.tolist(), reply_truncated=False))
        for text in texts
    ]
    before = model.config._attn_implementation
    model.eval()
    with torch.inference_mode():
        alone = torch.cat(
            [
                model(text[None], attention_mask=torch.ones_like(text)[None]).logits[0, :-1]
                for text in (text.to(device) for text in texts)
            ]
        )
        try:
            model.set_attn_implementation(ATTENTION)
            together = run_rows(model, lay_out([examples], device), MemberDropout([]))
        except (TypeError, ValueError) as error:
            return f"it has no attention that can be exchanged ({str(error).splitlines()[0]})"
        finally:
            model.set_attn_implementation(before)
    difference = (alone - together).abs().max() / alone.abs().max()
    return "" if difference < _TOLERANCE else "it reads a pair differently beside others"

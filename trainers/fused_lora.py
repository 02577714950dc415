"""LoRA adapters of K members on one frozen layer, and the flat storage that holds them all.

Shapes: K members, N tokens, n the most tokens that a member has, I inputs and O outputs of a layer,
r the largest rank, P parameters of a member. Smaller ranks are filled up with zeros, whose gradients
stay zero.

Source: LoRA (Hu et al. 2021), scaled by alpha / rank as in PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainers.fused_rows import Rows, scatter_rows


@dataclass(frozen=True)
class Site:
    """A layer that has adapters."""

    name: str
    """Of the layer in the base model."""
    prefix: str
    """What PEFT puts before it in the names of parameters."""
    inputs: int
    outputs: int

    def parameter(self, kind: str) -> str:
        """PEFT's name of one of its parameters.

        Args:
            kind: `A` or `B`.
        """
        return f"{self.prefix}{self.name}.lora_{kind}.default.weight"


class AdapterStorage:
    """The adapters of K members: parameters, gradients and Adam's moments, [K, P] each.

    Args:
        sites: the adapted layers.
        ranks: of the members.
        scales: of the members, alpha / rank.
        like: its type and device are the storage's.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        ranks: Sequence[int],
        scales: Sequence[float],
        like: torch.Tensor,
    ) -> None:
        self.sites = tuple(sites)
        self.ranks = tuple(ranks)
        self.rank = max(ranks)
        self.scales_k11 = torch.tensor(scales, dtype=like.dtype, device=like.device).view(-1, 1, 1)
        size = self.rank * sum(site.inputs + site.outputs for site in sites)
        self.values, self.gradients, self.means, self.squares = (
            torch.zeros(len(ranks), size, dtype=like.dtype, device=like.device) for _ in range(4)
        )

    def keep(self, members: Sequence[int]) -> None:
        """Let go of all other members.

        Args:
            members: by their places.
        """
        index = torch.tensor(members, device=self.values.device)
        self.ranks = tuple(self.ranks[k] for k in members)
        self.scales_k11 = self.scales_k11[index]
        self.values, self.gradients = self.values[index], self.gradients[index]
        self.means, self.squares = self.means[index], self.squares[index]

    def layers(self, buffer_kp: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A buffer's two factors of every site, [K, I, r] and [K, r, O]: views.

        Args:
            buffer_kp: one of the four.
        """
        found, start, rank = {}, 0, self.rank
        for site in self.sites:
            middle = start + site.inputs * rank
            end = middle + site.outputs * rank
            found[site.name] = (
                buffer_kp[:, start:middle].view(-1, site.inputs, rank),
                buffer_kp[:, middle:end].view(-1, rank, site.outputs),
            )
            start = end
        return found

    def member(self, buffer_kp: torch.Tensor, k: int) -> dict[str, torch.Tensor]:
        """A buffer's tensors of one member in PEFT's shapes, by PEFT's names: views.

        Args:
            buffer_kp: one of the four.
            k: the member's place.
        """
        rank, layers = self.ranks[k], self.layers(buffer_kp)
        found = {}
        for site in self.sites:
            a_kir, b_kro = layers[site.name]
            found[site.parameter("A")] = a_kir[k, :, :rank].T
            found[site.parameter("B")] = b_kro[k, :rank].T
        return found

    def load(self, k: int, parameters: Mapping[str, torch.Tensor], optimizer: Any) -> None:
        """Take over a member's parameters and moments.

        Args:
            k: its place.
            parameters: by PEFT's names.
            optimizer: over these; without a state at the beginning.
        """
        with torch.no_grad():
            for name, view in self.member(self.values, k).items():
                view.copy_(parameters[name])
            for buffer, key in ((self.means, "exp_avg"), (self.squares, "exp_avg_sq")):
                for name, view in self.member(buffer, k).items():
                    if state := optimizer.state.get(parameters[name]):
                        view.copy_(state[key])

    def unload(
        self, k: int, parameters: Mapping[str, torch.Tensor], optimizer: Any, step: int
    ) -> None:
        """Give a member's parameters and moments back.

        Args:
            k: its place.
            parameters: by PEFT's names; changed in place.
            optimizer: over these; changed in place.
            step: optimiser steps done.
        """
        means, squares = self.member(self.means, k), self.member(self.squares, k)
        with torch.no_grad():
            for name, view in self.member(self.values, k).items():
                parameters[name].copy_(view)
                optimizer.state[parameters[name]] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": means[name].clone(memory_format=torch.contiguous_format),
                    "exp_avg_sq": squares[name].clone(memory_format=torch.contiguous_format),
                }


def add_adapters(
    x_ni: torch.Tensor,
    output_no: torch.Tensor,
    factors: Sequence[torch.Tensor],
    anchor: torch.Tensor,
    rows: Rows,
) -> torch.Tensor:
    """A layer's output with each member's adapter added to its tokens, [N, O].

    Args:
        x_ni: the layer's input.
        output_no: the layer's output; its type is what is computed in.
        factors: of the site: A [K, I, r], B [K, r, O], their gradients, which are added to, and the
            scales [K, 1, 1].
        anchor: anything that needs a gradient, so that the first layer's adapters get theirs.
        rows: whose tokens they are.
    """
    add: Any = _AddAdapters.apply
    added: torch.Tensor = add(x_ni, output_no, anchor, factors, rows)
    return added


class _AddAdapters(torch.autograd.Function):
    """Gradients of the factors go straight to their storage."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ni: torch.Tensor,
        output_no: torch.Tensor,
        anchor: torch.Tensor,
        factors: Sequence[torch.Tensor],
        rows: Rows,
    ) -> torch.Tensor:
        a_kir, b_kro, _, _, scales_k11 = factors
        kind = output_no.dtype
        x_kni = _by_member(x_ni.to(kind), rows)
        z_knr = torch.bmm(x_kni, a_kir.to(kind)) * scales_k11.to(kind)
        ctx.save_for_backward(x_kni, z_knr)
        ctx.factors, ctx.rows, ctx.kind = factors, rows, x_ni.dtype
        return output_no + _by_token(torch.bmm(z_knr, b_kro.to(kind)), rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g_no,) = gradients
        x_kni, z_knr = ctx.saved_tensors
        a_kir, b_kro, a_gradient_kir, b_gradient_kro, scales_k11 = ctx.factors
        kind = g_no.dtype
        g_kno = _by_member(g_no, ctx.rows)
        dz_knr = torch.bmm(g_kno, b_kro.to(kind).transpose(1, 2)) * scales_k11.to(kind)
        _add_product(b_gradient_kro, z_knr.transpose(1, 2), g_kno)
        _add_product(a_gradient_kir, x_kni.transpose(1, 2), dz_knr)
        dx_ni = None
        if ctx.needs_input_grad[0]:
            dx_kni = torch.bmm(dz_knr, a_kir.to(kind).transpose(1, 2))
            dx_ni = _by_token(dx_kni, ctx.rows).to(ctx.kind)
        return dx_ni, g_no, None, None, None


def _add_product(sum_kab: torch.Tensor, left_kan: torch.Tensor, right_knb: torch.Tensor) -> None:
    if sum_kab.dtype == left_kan.dtype:
        sum_kab.baddbmm_(left_kan, right_knb)
    else:
        sum_kab.add_(torch.bmm(left_kan, right_knb))


def _by_member(x_nc: torch.Tensor, rows: Rows) -> torch.Tensor:
    """[K, n, C]."""
    members = len(rows.shares)
    if not rows.even:
        x_nc = scatter_rows(x_nc, rows.member_slots, members * rows.most)
    return x_nc.reshape(members, rows.most, x_nc.shape[1])


def _by_token(x_knc: torch.Tensor, rows: Rows) -> torch.Tensor:
    """[N, C]."""
    x_nc = x_knc.flatten(0, 1)
    return x_nc if rows.even else x_nc.index_select(0, rows.member_slots)

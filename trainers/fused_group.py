"""The loop of trainings that share a frozen base, until the last of them ends.

A tick is one forward and backward pass over a micro-batch of every member; those whose accumulation is
complete then take their optimiser step. Losses stay on the device until one is logged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from trainers.errors import DivergedError, StoppedError
from trainers.fused_lora import AdapterStorage
from trainers.fused_member import Member
from trainers.fused_model import FusedModel
from trainers.fused_optimizer import step_members
from trainers.loss import mean_of_sums
from trainers.progress import ShouldStop, never

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OnEnd = Callable[[int, Exception | None], None]
"""Told of a member that ended, by its number, and of the error that ended it."""


class FusedGroup:
    """Members that go on together.

    Args:
        members: by numbers by which their ends are told.
        base: the frozen model; as it was afterwards.
        tokenizer: the model's.
        precision: what is computed in.
    """

    def __init__(
        self,
        members: Mapping[int, Member],
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        precision: str,
    ) -> None:
        self._numbers, self._members = list(members), list(members.values())
        self._base, self._tokenizer = base, tokenizer
        settings = [member.settings for member in self._members]
        self._storage = AdapterStorage(
            self._members[0].sites,
            [one.rank for one in settings],
            [one.alpha / one.rank for one in settings],
            next(iter(self._members[0].parameters.values())),
        )
        for k, member in enumerate(self._members):
            member.load(k, self._storage)
        self._model = FusedModel(
            base,
            self._storage,
            [one.dropout for one in settings],
            [member.random.generator for member in self._members],
            precision,
        )
        self._losses: list[tuple[torch.Tensor, list[tuple[int, Member, int]]]] = []
        self._errors: dict[Member, Exception] = {}
        self._stopping = False
        # Ticks in which a checkpoint was wanted and some members were in the middle of a step.
        self._waited = 0

    def run(self, should_stop: ShouldStop, on_end: OnEnd) -> None:
        """Train all members to their ends.

        Args:
            should_stop: asked after every tick, and while validation losses are measured.
            on_end: told of every member that ends.

        Raises:
            StoppedError: `should_stop` said so; every member has a checkpoint.
        """
        try:
            while True:
                self._stop_if_asked()
                self._validate(should_stop)
                self._stop_if_asked()
                self._save_if_due()
                self._let_go(on_end)
                if not self._members:
                    return
                self._tick()
                self._stopping = self._stopping or should_stop()
        finally:
            for member in self._members:
                member.write_log()
            self._model.close()

    def _tick(self) -> None:
        began = time.monotonic()
        going = {member for member in self._members if self._goes_on(member)}
        taken = [member.take() if member in going else ([], 1) for member in self._members]
        losses_k = self._model.add_gradients(
            [examples for examples, _ in taken], [counted for _, counted in taken]
        )
        placed = [(k, member) for k, member in enumerate(self._members) if member in going]
        self._losses.append((losses_k, [(k, member, member.step + 1) for k, member in placed]))
        stepping = [(k, member) for k, member in placed if member.between_steps]
        norms = None
        if stepping:
            norms = step_members(self._storage, [one.next_step(k) for k, one in stepping])
        tokens = [sum(len(example.ids) for example in examples) for examples, _ in taken]
        seconds_per_token = (time.monotonic() - began) / sum(tokens)
        for member, count in zip(self._members, tokens, strict=True):
            member.time.seconds += count * seconds_per_token
        if norms is not None:
            self._end_steps([member for _, member in stepping], norms)

    def _goes_on(self, member: Member) -> bool:
        if member.is_done or not member.is_validated:
            return False
        # Where members' steps never end at once, those that are through let the others catch up.
        patience = 2 * max(one.accumulation for one in self._members)
        return self._waited <= patience or not member.between_steps

    def _end_steps(self, members: Sequence[Member], norms: torch.Tensor) -> None:
        for member in members:
            member.end_step()
        read_now = any(member.is_logged or member.ends_epoch for member in members)
        if read_now or norms.device.type == "cpu":
            self._read_losses()
        logged = any(member.is_logged for member in members)
        for member, norm in zip(members, norms.tolist() if logged else (), strict=logged):
            if member.is_logged and member not in self._errors:
                with self._ending(member):
                    member.log(norm)

    def _read_losses(self) -> None:
        """Have every member count its losses since the last time; a wait for the device."""
        if not self._losses:
            return
        values = torch.stack(
            [losses_k[k] for losses_k, counted in self._losses for k, _, _ in counted]
        ).tolist()
        counted = [(member, step) for _, many in self._losses for _, member, step in many]
        self._losses = []
        for (member, step), loss in zip(counted, values, strict=True):
            if member not in self._errors:
                with self._ending(member):
                    member.course.add_loss(step, loss)

    @contextlib.contextmanager
    def _ending(self, member: Member) -> Iterator[None]:
        """Within it, what diverges ends the member alone."""
        try:
            yield
        except DivergedError as error:
            self._errors[member] = error

    def _validate(self, should_stop: ShouldStop) -> None:
        """Measure validation losses where an epoch has ended."""
        for k, member in enumerate(self._members):
            if member.is_validated or member in self._errors:
                continue
            began = time.monotonic()
            try:
                loss = mean_of_sums(
                    partial(self._model.sum_losses, k),
                    member.valid,
                    never if self._stopping else should_stop,
                )
            except StoppedError:
                self._stopping = True
                return
            member.time.seconds += time.monotonic() - began
            with self._ending(member):
                member.end_epoch(loss)

    def _stop_if_asked(self) -> None:
        if self._stopping and self._is_between_steps():
            self._save()
            steps = ", ".join(str(member.step) for member in self._members)
            raise StoppedError(f"training was asked to stop at steps {steps}")

    def _save_if_due(self) -> None:
        if not self._stopping and not any(member.is_due for member in self._members):
            return
        if self._is_between_steps():
            self._save()
            self._waited = 0
        else:
            self._waited += 1

    def _is_between_steps(self) -> bool:
        return all(member.between_steps for member in self._members)

    def _save(self) -> None:
        """Write a checkpoint of every member that is well."""
        self._read_losses()
        for k, member in enumerate(self._members):
            if member not in self._errors and not (member.is_done and member.is_validated):
                began = time.monotonic()
                member.save(k, self._storage)
                member.time.seconds += time.monotonic() - began

    def _let_go(self, on_end: OnEnd) -> None:
        """Save the members that are through, and go on without them and without the diverged."""
        ended = [
            k
            for k, member in enumerate(self._members)
            if member in self._errors or (member.is_done and member.is_validated)
        ]
        if not ended:
            return
        for k in ended:
            member = self._members[k]
            if member in self._errors:
                member.write_log()
            else:
                member.finish(k, self._storage, self._base, self._tokenizer)
            on_end(self._numbers[k], self._errors.get(member))
        kept = [k for k in range(len(self._members)) if k not in ended]
        self._numbers = [self._numbers[k] for k in kept]
        self._members = [self._members[k] for k in kept]
        if kept:
            self._model.keep(kept)

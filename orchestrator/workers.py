"""The processes beside the driver, there from when the first thing needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.environment import set_environment
from orchestrator.interrupts import Interrupts


class Workers:
    """Ray, started when the first thing needs it: a sweep that is done takes no seconds.

    Args:
        cpus: trials at once on a machine without a GPU; all cores where absent.
        answer: how signals are answered while Ray ends.
        last_word: said where this process dies without being able to.
    """

    def __init__(self, cpus: int | None, answer: Interrupts, last_word: str) -> None:
        self.cpus = cpus
        self.answer = answer
        self.last_word = last_word
        self.context: Any = None
        self.cluster: Any = None

    def __enter__(self) -> Workers:
        return self

    def start(self) -> Any:
        """The running Ray, started on first use."""
        if self.cluster is None:
            set_environment()
            from orchestrator.ray_process import ray_cluster

            self.context = ray_cluster(self.cpus, self.last_word)
            self.cluster = self.context.__enter__()
        return self.cluster

    def begin(self, function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Begin to call a function once per tuple of arguments, beside the trials."""
        self.start()
        from orchestrator.execution import start_on_workers

        return start_on_workers(function, arguments)

    def wait(self, calls: Sequence[Any]) -> list[Any]:
        """The calls' results, in order.

        Raises:
            RayLostError: Ray died.
        """
        if not calls:
            return []
        from orchestrator.execution import wait_for

        return wait_for(calls)

    def __exit__(self, *error: object) -> None:
        if self.context is not None:
            with self.answer.ignored():
                self.context.__exit__(*error)

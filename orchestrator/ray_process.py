"""Ray for as long as a sweep needs it: started, watched, and ended with all that belongs to it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil
import ray

from orchestrator.errors import RayLostError
from orchestrator.reaper import Guardian, Known, end_all, family

_LOOK_EVERY_S = 1.0
_VITAL = ("raylet", "gcs_server")
"""Without these, Ray is no more."""


@dataclass(frozen=True)
class RayCluster:
    """The Ray that a sweep runs on."""

    cpus: float
    gpus: float


@contextmanager
def ray_cluster(cpus: int | None) -> Iterator[RayCluster]:
    """The Ray at `RAY_ADDRESS`, else one of our own, which ends with the block.

    Where a Ray of our own dies, the block is interrupted, wherever the main thread is in it.

    Args:
        cpus: trials at once on a machine without a GPU; all cores where absent.

    Raises:
        RayLostError: Ray could not be started, or died.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Tune looks for its own result files, which we have turned off, and warns of each trial; of a
    # worker that died it prints its own traceback.
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    local = {} if address else {"num_cpus": cpus, "include_dashboard": False}
    ours = psutil.Process()
    before = {child.pid for child in ours.children()}
    with _handlers_kept():
        ray.init(log_to_driver=False, logging_level="error", configure_logging=False, **local)
    roots = [child for child in ours.children() if child.pid not in before]
    watch = None if address else _Watch(roots)
    try:
        found = ray.cluster_resources()
        yield RayCluster(found.get("CPU", 0), found.get("GPU", 0))
    except KeyboardInterrupt:
        if watch is None or not watch.lost:
            raise
        raise RayLostError(f"Ray's process {watch.lost} died") from None
    finally:
        if watch is not None:
            watch.stop()
        ray.shutdown()
        if watch is not None:
            watch.end()


class _Watch:
    """Looks after the processes of a local Ray from a thread of its own."""

    def __init__(self, roots: Sequence[psutil.Process]) -> None:
        self.roots = [root.pid for root in roots]
        self.vital = {root: name for root in roots if (name := _name(root)) in _VITAL}
        self.lost = ""
        """The vital process that died."""
        self.seen: Known = frozenset()
        self.guardian = Guardian()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, name="ray-watch", daemon=True)
        self._look_once()
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGUSR2, _interrupt)
        self.thread.start()

    def stop(self) -> None:
        """Look no more: Ray is about to be ended."""
        if self.before is not None:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.ended.set()
        self.thread.join()
        if self.before is not None:
            signal.signal(signal.SIGUSR2, self.before)
        self._look_once()

    def end(self) -> None:
        """End what is left of Ray's processes; to be called after its own end."""
        end_all(self.seen, grace_s=0.5)
        self.guardian.dismiss()

    def _look(self) -> None:
        while not self.ended.wait(_LOOK_EVERY_S):
            self._look_once()
            dead = [name for process, name in self.vital.items() if not _runs(process)]
            if dead:
                self.lost = dead[0]
                if self.before is not None:
                    # A signal gets through to a main thread that waits inside Ray.
                    os.kill(os.getpid(), signal.SIGUSR2)
                return

    def _look_once(self) -> None:
        alive = {(pid, began) for pid, began in self.seen if psutil.pid_exists(pid)}
        # Children of a raylet that died are nobody's children: they are remembered.
        self.seen = frozenset(alive | family(self.roots))
        self.guardian.tell(self.seen)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # The one exception that gets out of Ray's own waiting.


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep our answers to signals: Ray puts its own in their place when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)

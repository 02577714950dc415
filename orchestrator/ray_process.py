"""Ray for as long as a sweep needs it: started, watched, and ended with all that belongs to it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
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
from search_spaces.errors import SearchSpaceError, one_problem

_LOOK_EVERY_S = 1.0
_VITAL = ("raylet", "gcs_server")
"""Without these, Ray is no more."""


@dataclass(frozen=True)
class RayCluster:
    """The Ray that a sweep runs on."""

    cpus: float
    gpus: float
    memory_gib: float
    """Of all its machines."""


@contextmanager
def ray_cluster(cpus: int | None, last_word: str) -> Iterator[RayCluster]:
    """The Ray at `RAY_ADDRESS`, else one of our own, which ends with the block.

    Where a Ray of our own dies, the block is interrupted, wherever the main thread is in it.

    Args:
        cpus: trials at once on a machine without a GPU; all cores where absent.
        last_word: said on standard error where this process dies without being able to.

    Raises:
        RayLostError: Ray could not be started, or died.
        SearchSpaceError: nothing answers at `RAY_ADDRESS`.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Tune looks for its own result files, which we have turned off, and warns of each trial; of a
    # worker that died it prints its own traceback.
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    local = {} if address else {"num_cpus": cpus, "include_dashboard": False}
    ours = psutil.Process()
    before = {child.pid for child in ours.children()}
    if address:
        _check_reachable(address)
    with _handlers_kept(), _own_process_groups():
        try:
            ray.init(log_to_driver=False, logging_level="error", configure_logging=False, **local)
        except KeyboardInterrupt:
            begun = family(child.pid for child in ours.children() if child.pid not in before)
            ray.shutdown()
            end_all(begun, grace_s=0.5)
            raise
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RayLostError(f"Ray could not be started: {first}") from error
    roots = [child for child in ours.children() if child.pid not in before]
    watch = None if address else _Watch(roots, last_word)
    try:
        found = ray.cluster_resources()
        memory_gib = found.get("memory", 0) / 2**30
        yield RayCluster(found.get("CPU", 0), found.get("GPU", 0), memory_gib)
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

    def __init__(self, roots: Sequence[psutil.Process], last_word: str) -> None:
        self.roots = [root.pid for root in roots]
        self.vital = {root: name for root in roots if (name := _name(root)) in _VITAL}
        self.lost = ""
        """The vital process that died."""
        self.seen: Known = frozenset()
        self.guardian = Guardian(last_word)
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
                if self.before is None:
                    return
                # A signal gets through to a main thread that waits inside Ray; at times not the first.
                os.kill(os.getpid(), signal.SIGUSR2)

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


def _check_reachable(address: str) -> None:
    """Say within seconds that nothing listens where the cluster should be; Ray takes minutes.

    Raises:
        SearchSpaceError: there is no connection to be had.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit() or not host:
        return  # `auto` and the like are Ray's to find.
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise SearchSpaceError(
            one_problem("RAY_ADDRESS", "", f"must be a Ray cluster in reach: {reason}", address)
        ) from error


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Start processes in groups of their own, so that a signal to ours does not reach them.

    `timeout`, schedulers and closing terminals signal the whole group: the trials could not save.
    """
    begin = subprocess.Popen.__init__

    def apart(self: Any, *arguments: Any, **named: Any) -> None:
        named.setdefault("process_group", 0)
        begin(self, *arguments, **named)

    subprocess.Popen.__init__ = apart  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = begin  # type: ignore[method-assign]


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

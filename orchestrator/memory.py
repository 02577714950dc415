"""Memory of a worker: held to its share of a GPU, and measured trial by trial."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def hold_to_share(share: float) -> None:
    """Let this process fill its share of the GPU and no more.

    Ray's fractions only count trials; this is what keeps one from its sibling's memory.

    Args:
        share: fraction of one GPU; 0 where the trial was given none.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share or 1.0)
        torch.cuda.empty_cache()


def forget_peak_memory() -> None:
    """Begin to measure anew: a worker runs many trials, and each has a peak of its own."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # proc(5): resets the peak resident set size


def peak_memory_gib() -> float | None:
    """The most memory held since `forget_peak_memory`, in GiB: of the GPU where there is one.

    Else resident memory of this process; None where the system does not tell (not Linux).
    """
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    if not _STATUS.exists():
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return round(int(found[1]) / 2**20, 3) if found else None

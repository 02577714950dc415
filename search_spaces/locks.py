"""Locks on files: held by one process at a time, and given up when it ends, however it ends."""

from __future__ import annotations

import errno
import fcntl

_HELD = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system says that has no locks (some network file systems)."""


def try_lock(descriptor: int) -> bool | None:
    """Whether the lock is held now: by us, or not; None where the file system has no locks.

    Args:
        descriptor: of an open file.

    Raises:
        OSError: something else is wrong with the file.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in _HELD:
            return False
        raise
    return True

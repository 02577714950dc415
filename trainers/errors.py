"""What can go wrong in training, by class; each class has its own answer in the sweep."""

from __future__ import annotations

import errno

from search_spaces.errors import InputError

_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)


class ModelError(InputError, ValueError):
    """A model, its files or its tokenizer are missing or cannot be used as asked."""


class DivergedError(ArithmeticError):
    """A loss or gradient became NaN or infinite; training longer or again cannot help.

    Args:
        step: optimiser step at which it was seen.
        loss: the value seen.
        what: what had that value.
    """

    def __init__(self, step: int, loss: float, what: str = "training loss") -> None:
        self.step = step
        self.loss = loss
        self.what = what
        super().__init__(
            f"{what} must stay finite, but got {loss} at step {step}; "
            "a lower learning_rate, more warmup_steps or a smaller max_grad_norm may help"
        )

    def __reduce__(self) -> tuple[type[DivergedError], tuple[int, float, str]]:
        """Pickle by arguments, so that the error survives the way back from a Ray worker."""
        return (type(self), (self.step, self.loss, self.what))


class StoppedError(Exception):
    """The sweep asked the trial to stop, and it did at a safe point: a rerun continues from there."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the GPU or on the host.

    Args:
        error: what was raised.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # PyTorch's CPU allocator and CUDA's libraries raise plain RuntimeErrors.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)

"""Libraries that print while they work, asked not to."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Turn off progress bars and chatter of transformers and datasets in this process.

    Warnings of consequence are errors of ours or stand in the result; bars and hints of ten
    trials at once help nobody.
    """
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()

"""What a method reads beside the corpus and the model: where it is, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path

from corpora.question_answers import content_hash, read_preferences, read_questions
from search_spaces.spec import ChatMglSettings, ReaderSettings, TrialSpec
from trainers.encoder_files import find_encoder


def method_inputs(spec: TrialSpec) -> dict[str, str]:
    """Content hash or fingerprint of everything further that a trial's method reads, by its field.

    Args:
        spec: the trial.

    Raises:
        CorpusError: data cannot be read; with everything that is wrong in it.
        ModelError: an encoder is nowhere to be had.
    """
    method = spec.method
    inputs: dict[str, str] = {}
    if isinstance(method, ChatMglSettings):
        inputs["qa_data"] = content_hash(read_questions(data_file(method.qa_data)))
        if method.rl != "none":
            preferences = read_preferences(data_file(method.preference_data))
            inputs["preference_data"] = content_hash(preferences)
            if method.reward_model is not None:
                inputs["reward_model"] = find_encoder(method.reward_model, "reward_model")[1]
    if isinstance(method, ReaderSettings) and method.rl != "none" and method.similarity_weight:
        inputs["similarity_model"] = find_encoder(method.similarity_model, "similarity_model")[1]
    return inputs


def data_file(name: str) -> Path | None:
    """The file of question-answer data that a setting names; None for the bundled one.

    Args:
        name: `sample`, or a path.
    """
    # Unlike Path's own, leaves unknown users alone.
    return None if name == "sample" else Path(os.path.expanduser(name))

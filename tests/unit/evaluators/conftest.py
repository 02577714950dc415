from __future__ import annotations

import pytest

from evaluators.encoders import Encoder, resolve_encoder
from evaluators.wordnet import install_wordnet
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import BUNDLED_ENCODER


@pytest.fixture(scope="session")
def wordnet() -> None:
    """WordNet, fetched once into the program's cache where it is not here yet."""
    install_wordnet()


@pytest.fixture(scope="session")
def metrics() -> MetricsSpec:
    """All seven metrics, with the encoder that a package carries."""
    return MetricsSpec(bertscore_model=BUNDLED_ENCODER)


@pytest.fixture(scope="session")
def encoder(metrics: MetricsSpec) -> Encoder:
    found = resolve_encoder(metrics)
    assert found is not None
    return found

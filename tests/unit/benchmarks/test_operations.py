from __future__ import annotations

import pytest

from benchmarks.sweep.operations import (
    Adapter,
    Shape,
    count_decoding,
    count_forward,
    count_scoring,
    count_training,
    measure_rate,
)

# A token of one block: 2 (4 x 2^2 + 2 x 2 x 8) = 96; a position attended to: 4 x 2 = 8; a position
# scored: 2 x 2 x 3 = 12.
TINY = Shape(layers=2, width=2, inner=8, vocabulary=3)
THREE_TOKENS = 2 * (3 * 96 + 6 * 8) + 2 * 12
TWO_TOKENS = 2 * (2 * 96 + 3 * 8) + 12


def test_a_forward_pass_counts_blocks_attention_and_scores() -> None:
    assert count_forward(TINY, tokens=3, attended=6, scored=2) == THREE_TOKENS == 696


def test_full_fine_tuning_is_three_passes_and_validation_one() -> None:
    counted = count_training(TINY, [(3, 2)], [(2, 1)], epochs=2, adapter=None)
    assert counted == 2 * 3 * 696 + TWO_TOKENS == 4620


def test_a_frozen_model_takes_two_passes_and_its_adapter_six_operations_a_weight_and_token() -> (
    None
):
    counted = count_training(TINY, [(3, 2)], [], epochs=1, adapter=Adapter(weights=10))
    assert counted == 2 * 696 + 6 * 10 * 3 == 1572


def test_learned_tokens_are_read_before_the_text() -> None:
    counted = count_training(TINY, [(3, 2)], [], epochs=1, adapter=Adapter(read_tokens=1))
    assert counted == 2 * (2 * (4 * 96 + 10 * 8) + 2 * 12) == 1904


def test_learned_keys_are_attended_to_by_each_token() -> None:
    counted = count_training(TINY, [(3, 2)], [], epochs=1, adapter=Adapter(attended_positions=5))
    assert counted == 2 * (2 * (3 * 96 + (6 + 5 * 3) * 8) + 2 * 12) == 1872


def test_a_prompt_is_read_once_for_all_widths_and_gives_each_reply_its_first_token() -> None:
    prompt = 2 * (3 * 96 + 6 * 8) + 12
    assert count_decoding(TINY, 3, [(1, 1)]) == prompt == 684
    # Two beams read two tokens more, which see 3 + 1 and 3 + 2 positions.
    assert count_decoding(TINY, 3, [(1, 1), (2, 3)]) == prompt + 2 * (2 * (2 * 96 + 9 * 8) + 24)


def test_an_encoder_sees_all_tokens_from_each() -> None:
    assert count_scoring(TINY, [3, 0]) == 2 * (3 * 96 + 9 * 8) == 720


def test_at_full_size_a_trained_token_takes_about_six_operations_a_weight() -> None:
    large = Shape(layers=36, width=1280, inner=5120, vocabulary=50257)
    weights = 36 * 12 * 1280**2 + 1280 * 50257
    counted = count_training(large, [(100, 100)], [], epochs=1, adapter=None) / 100
    assert counted == pytest.approx(6 * weights, rel=0.02)


def test_the_rate_of_the_machine_is_that_of_a_computer() -> None:
    assert 1e8 < measure_rate(seconds=0.2) < 1e16

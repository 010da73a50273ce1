"""A ragged stream's states are those of each row read alone and at once, whatever was taken back, kept or forked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from transformers import AutoModelForCausalLM, MambaConfig

from pad_cli.decoding.session import RollbackSession, can_roll_back
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from tests.architectures import ARCHITECTURES, make_architecture
from tests.decoding.slow import last_state

SLIDING = ("gemma2", "mistral")

TOKENS = st.lists(st.integers(4, 200), max_size=4)


class Reading:
    """A stream, and what each of its rows has read."""

    def __init__(self, model: LanguageModel, rows: Sequence[Sequence[int]]) -> None:
        self.stream = RollbackSession(model, rows)
        self.rows = [list(row) for row in rows]

    @torch.inference_mode()
    def read(self, blocks: Sequence[Sequence[int]]) -> None:
        """Read, and compare the states of the new tokens with those of the row alone, without a cache."""
        hidden = self.stream.read(blocks)
        for row, block, states in zip(self.rows, blocks, hidden, strict=True):
            for count, state in enumerate(states[len(states) - len(block) :]):
                alone = last_state(self.stream.model, [*row, *block[: count + 1]])
                torch.testing.assert_close(state[None], alone, atol=2e-4, rtol=2e-4)
            row += block

    @torch.inference_mode()
    def rollback(self, counts: Sequence[int]) -> None:
        self.stream.rollback(counts)
        self.rows = [row[: len(row) - count] for row, count in zip(self.rows, counts, strict=True)]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        self.stream.keep(rows)
        self.rows = [list(self.rows[row]) for row in rows]

    @torch.inference_mode()
    def fork(self, rows: Sequence[int]) -> Reading:
        other = Reading.__new__(Reading)
        other.stream = self.stream.fork(rows)
        other.rows = [list(self.rows[row]) for row in rows]
        return other


def machine_of(model: LanguageModel, most_rows: int) -> type[RuleBasedStateMachine]:
    """A machine that reads with a model in any order of steps, in a stream and forks of it."""

    class Machine(RuleBasedStateMachine):
        @initialize(rows=st.lists(TOKENS, min_size=1, max_size=most_rows))
        def begin(self, rows: list[list[int]]) -> None:
            with torch.inference_mode():
                self.readings = [Reading(model, rows)]

        @rule(data=st.data())
        def read(self, data: st.DataObject) -> None:
            reading = self._any(data)
            blocks = data.draw(st.lists(TOKENS, min_size=len(reading.rows), max_size=len(reading.rows)))
            if any(blocks):
                reading.read(blocks)

        @rule(data=st.data())
        def rollback(self, data: st.DataObject) -> None:
            reading = self._any(data)
            reading.rollback([data.draw(st.integers(0, len(row))) for row in reading.rows])

        @rule(data=st.data())
        def keep(self, data: st.DataObject) -> None:
            reading = self._any(data)
            reading.keep(self._some_rows(data, reading))

        @precondition(lambda self: len(self.readings) < 3)
        @rule(data=st.data())
        def fork(self, data: st.DataObject) -> None:
            reading = self._any(data)
            self.readings.append(reading.fork(self._some_rows(data, reading)))

        def teardown(self) -> None:
            for reading in getattr(self, "readings", []):
                reading.read([[7, 8] for _ in reading.rows])

        def _any(self, data: st.DataObject) -> Reading:
            return self.readings[data.draw(st.integers(0, len(self.readings) - 1))]

        def _some_rows(self, data: st.DataObject, reading: Reading) -> list[int]:
            return data.draw(st.lists(st.integers(0, len(reading.rows) - 1), min_size=1, max_size=most_rows))

    return Machine


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steps_in_any_order_give_the_states_of_each_row_alone(name: str, byte_tokenizer: Any) -> None:
    """With a sliding window of 8 tokens there is one row."""
    model = make_architecture(name, byte_tokenizer)
    machine = machine_of(model, most_rows=1 if name in SLIDING else 4)
    how = settings(max_examples=12, stateful_step_count=12, deadline=None, derandomize=True)
    run_state_machine_as_test(machine, settings=how)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_grow_long_and_apart(name: str, byte_tokenizer: Any) -> None:
    """As a block of drafts does it: some tokens in all rows, of which each takes back its own number."""
    chance, count = random.Random(0), 1 if name in SLIDING else 3
    reading = Reading(make_architecture(name, byte_tokenizer), [[9, 8], [], [5] * 11][:count])
    for _ in range(12):
        reading.read([[chance.randrange(4, 200) for _ in range(4)] for _ in range(count)])
        reading.rollback([chance.randrange(4) for _ in range(count)])
    assert min(map(len, reading.rows)) > 20


@pytest.fixture
def llama(byte_tokenizer: Any) -> LanguageModel:
    return make_architecture("llama", byte_tokenizer)


def test_places_that_every_row_takes_back_are_cut_off(llama: LanguageModel) -> None:
    reading = Reading(llama, [[5, 6, 7], [8]])
    reading.read([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert length(reading) == 7
    reading.rollback([2, 3])
    assert length(reading) == 5, "one place is hidden in the second row only"
    reading.rollback([1, 0])
    assert length(reading) == 4


def test_a_row_that_leaves_lets_its_places_be_cut_off(llama: LanguageModel) -> None:
    reading = Reading(llama, [[5, 6, 7, 8], [8]])
    reading.read([[9, 9, 9], []])
    reading.keep([1])
    reading.rollback([0])
    assert length(reading) == 4
    reading.read([[1, 2]])


def test_one_row_never_has_hidden_places(llama: LanguageModel) -> None:
    reading = Reading(llama, [[5, 6]])
    for _ in range(5):
        reading.read([[1, 2, 3]])
        reading.rollback([2])
        assert length(reading) == len(reading.rows[0])


def length(reading: Reading) -> int:
    """Places in the cache, which the mask agrees with."""
    stream = reading.stream
    assert stream._mask.shape == (len(reading.rows), stream._cache.get_seq_length())
    assert stream._mask.sum(1).tolist() == [len(row) for row in reading.rows]
    return int(stream._mask.shape[1])


def test_all_can_be_taken_back_and_read_anew_by_other_rows(llama: LanguageModel) -> None:
    reading = Reading(llama, [[5, 6, 7], [8]])
    reading.rollback([3, 1])
    reading.keep([0, 1, 1])
    reading.read([[1], [2, 3], []])


def test_a_fork_and_its_origin_do_not_know_of_each_other(llama: LanguageModel) -> None:
    reading = Reading(llama, [[5, 6, 7], [8]])
    fork = reading.fork([1, 1, 0])
    reading.read([[1, 2], [3]])
    fork.read([[4], [], [5, 6]])
    reading.rollback([2, 0])
    fork.read([[4], [9], [5, 6]])
    reading.read([[3], [1]])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sliding_window_is_ragged_in_one_row_only(name: str, byte_tokenizer: Any) -> None:
    model = make_architecture(name, byte_tokenizer)
    assert can_roll_back(model, rows=1)
    assert can_roll_back(model, rows=2) is (name not in SLIDING)


def test_states_that_are_no_list_of_keys_cannot_be_ragged(byte_tokenizer: Any) -> None:
    config = MambaConfig(vocab_size=len(byte_tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    assert not can_roll_back(wrap_language_model("mamba", model, byte_tokenizer), rows=1)

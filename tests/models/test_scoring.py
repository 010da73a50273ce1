"""Log-probabilities of answers and their gradients are those of the model's own logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pad_cli.equation import LogitHead
from pad_cli.models import scoring
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import all_log_probs, answer_log_probs, answer_states, token_log_probs
from tests.architectures import ARCHITECTURES, make_architecture

SEQUENCES = [((5, 6, 7), (8, 9, 1)), ((5,), (30, 31, 32, 33, 34, 1)), ((40, 41, 42, 43, 44), (1,)), ((9, 9), (50, 1))]


def written_out(model: LanguageModel, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """sum_t log softmax(logits_t)[a_t] of one answer alone, by the model's own forward."""
    logits = model.model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_padded_batch_gives_each_answers_log_probability(name: str, byte_tokenizer: Any) -> None:
    model = make_architecture(name, byte_tokenizer)
    found = answer_log_probs(model, SEQUENCES)
    expected = torch.stack([written_out(model, *sequence) for sequence in SEQUENCES])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prompt_that_is_read_once_for_its_answers_gives_the_same_states(name: str, byte_tokenizer: Any) -> None:
    model = make_architecture(name, byte_tokenizer)
    of_one = [(SEQUENCES[0][0], answer) for _, answer in SEQUENCES]
    for sequences in ([*SEQUENCES, *of_one], [(SEQUENCES[2][0], (1,)), (SEQUENCES[2][0], (2,))]):
        shared = answer_states(model, sequences, shared=True)
        torch.testing.assert_close(shared, answer_states(model, sequences), atol=1e-4, rtol=1e-4)


def test_each_prompt_counts_once_in_a_batch(policy: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten answers of 3 tokens to a prompt of 50: 80 tokens together, 530 apart."""
    monkeypatch.setattr(scoring, "_CPU_BATCH_TOKENS", 100)
    together = [(tuple(range(50)), (number, 8, 9)) for number in range(10)]
    apart = [(tuple(range(number, number + 50)), (7, 8, 9)) for number in range(10)]

    def sizes(sequences: list[scoring.TokenSequence]) -> list[int]:
        batches = scoring.in_batches(sequences, lambda batch, _: len(batch), policy.device, shared=True)
        found = [(numbers, size) for numbers, size in batches]
        assert sorted(number for numbers, _ in found for number in numbers) == list(range(len(sequences)))
        return [size for _, size in found]

    assert sizes(together) == [10]
    assert sizes(apart) == [1] * 10


@pytest.mark.parametrize("logits", [300, 2**25])
@pytest.mark.parametrize("head", ["plain", "scaled", "capped"])
def test_the_gradient_is_that_of_the_log_softmax_of_all_logits(
    head: str, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 logits at once are one token in a piece."""
    monkeypatch.setattr(scoring, "_PIECE_LOGITS", logits)
    torch.manual_seed(0)
    weight, bias = torch.randn(200, 8), torch.randn(200)
    scale, cap = {"plain": (1.0, None), "scaled": (0.3, None), "capped": (0.5, 2.0)}[head]
    unembedding = LogitHead(weight, bias, scale, cap)
    states, targets, upstream = torch.randn(7, 8), torch.randint(200, (7,)), torch.randn(7)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    values = token_log_probs(ours, targets, unembedding)
    expected = unembedding(theirs).log_softmax(-1)[torch.arange(7), targets]
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    values.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_a_head_shifts_the_states_of_its_own_answer(policy: LanguageModel) -> None:
    head = PreferenceHeads(("a", "b"), policy.hidden_size, 2)
    torch.nn.init.normal_(head.up)
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, -2.0], [1.0, 1.0]])
    with torch.no_grad():
        together = answer_log_probs(policy, SEQUENCES, head, weights)
        alone = [answer_log_probs(policy, [s], head, w[None])[0] for s, w in zip(SEQUENCES, weights, strict=True)]
        plain = answer_log_probs(policy, SEQUENCES)
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)
    assert torch.isclose(together, plain, atol=1e-4).tolist() == [False, True, False, False]


def test_any_number_of_answers_gives_what_one_batch_gives(
    policy: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer_log_probs(policy, SEQUENCES)
    monkeypatch.setattr(scoring, "_BATCH_TOKENS", 12)
    for shared in (False, True):
        torch.testing.assert_close(all_log_probs(policy, SEQUENCES, shared=shared), expected, atol=1e-4, rtol=1e-4)

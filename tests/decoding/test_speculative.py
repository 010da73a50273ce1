"""Speculative decoding writes what plain decoding writes; only the number of forwards differs."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, LogitsProcessor, LogitsProcessorList, MistralConfig, MistralForCausalLM

from pad_cli.decoding.decode import Request, Sampler, Step, collect, decode_steps
from pad_cli.decoding.detokenize import TokenChoice
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.speculative import BlockLength, speculate_steps
from pad_cli.decoding.strategies import Guidance
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree, assert_same_scores, each_row, row_of
from tests.architectures import ARCHITECTURES, WINDOW, make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.decoding.drafters import DRAFTERS, forwards, make_engine, stops
from tests.tiny import make_language_model, make_reward_model
from tests.token_prompts import generate_all, generate_ids

TEXTS = [[60], [5, 40, 77, 90, 31], [200, 17], [100, 101, 102, 103] * 6, [9], [33, 34, 35, 36, 37, 38, 39]]
"""Prompts as tokens; two are of one token."""

SPECS = (["humorous"], ["formal, concise=0.5"], ["not humorous"], ["concise=2"], ["humorous", "formal"], ["not formal"])
WEIGHTS = [1.0, 0.5, 2.0, 3.0, 0.0, -1.0]
SLIDING = ("gemma2", "mistral")


def settings(**changed: object) -> DecodingSettings:
    return DecodingSettings.model_validate({"max_new_tokens": 14, "path": "separate", **changed})


def preferences(engine: PadEngine, count: int = len(SPECS)) -> list[Preference]:
    return [engine.preference(specs) for specs in SPECS[:count]]


def deepen(small: LanguageModel, layers: int) -> LanguageModel:
    """A larger Llama that writes the same: its further blocks add nothing to the hidden state."""
    config = copy.deepcopy(small.model.config)
    config.num_hidden_layers += layers
    large = LlamaForCausalLM(config).eval().requires_grad_(False)
    large.load_state_dict(small.model.state_dict(), strict=False)
    for block in large.model.layers[-layers:]:
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    return wrap_language_model("deepened", large, small.tokenizer)


def answers(
    engine: PadEngine,
    how: DecodingSettings,
    draft_tokens: int | str,
    prompts: Sequence[list[int]] = TEXTS,
    *,
    ignore_eos: bool = False,
) -> list[list[int]]:
    how = how.model_copy(update={"draft_tokens": draft_tokens})
    generate = generate_all if ignore_eos else generate_ids
    return generate(engine, prompts, preferences(engine, len(prompts)), how, WEIGHTS[: len(prompts)])


def agree(
    engine: PadEngine,
    drafted: list[list[int]],
    plain: list[list[int]],
    how: DecodingSettings,
    prompts: Sequence[list[int]] = TEXTS,
) -> None:
    """Answers with drafts are those without but for near ties."""
    weights = WEIGHTS[: len(prompts)]
    assert_agree(drafted, plain, alone(engine, prompts, preferences(engine, len(prompts)), how, weights))


@pytest.fixture(params=DRAFTERS)
def engine(request: pytest.FixtureRequest, byte_tokenizer: Any) -> PadEngine:
    return make_engine(request.param, stops(make_language_model(byte_tokenizer, seed=3)))


# What is written


@pytest.mark.parametrize("kind", ["mostly right", "always wrong"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_answers_are_those_without_drafts_in_every_architecture(
    name: str, kind: str, byte_tokenizer: Any
) -> None:
    """One row at a time where attention has a sliding window."""
    engine = make_engine(kind, stops(make_architecture(name, byte_tokenizer)))
    how = settings(batch_size=1 if name in SLIDING else 64)
    expected = answers(engine, how, 0)
    for draft_tokens in (3, 20):
        agree(engine, answers(engine, how, draft_tokens), expected, how)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.7, "seed": 1},
        {"temperature": 1.5, "seed": 2, "top_p": 0.8, "reward_ngram": 0},
        {"temperature": 1.0, "seed": 3, "top_k": 4, "min_p": 0.05},
        {"temperature": 1.2, "seed": 4, "repetition_penalty": 1.5, "reward_ngram": 0},
        {"temperature": 1.2, "seed": 5, "no_repeat_ngram_size": 1},
        {"temperature": 0.0, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_sampled_answers_are_those_without_drafts(engine: PadEngine, sampling: dict[str, float]) -> None:
    how = settings(**sampling)
    expected = answers(engine, how, 0)
    for draft_tokens in (1, 5):
        agree(engine, answers(engine, how, draft_tokens), expected, how)
    assert len({len(answer) for answer in expected}) > 1, "rows should end at different steps"


@examples(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.lists(st.integers(4, 200), min_size=1, max_size=12), min_size=1, max_size=5),
    kind=st.sampled_from(DRAFTERS),
    draft_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.8, 2.0]),
    candidates=st.integers(1, 30),
    reward_ngram=st.integers(0, 3),
    max_new_tokens=st.integers(1, 20),
    seed=st.integers(0, 100),
)
def test_drafts_change_no_answer_whatever_is_asked(
    prompts: list[list[int]], kind: str, draft_tokens: int, byte_tokenizer: Any, **changed: Any
) -> None:
    engine = make_engine(kind, stops(make_language_model(byte_tokenizer, seed=5, hidden_size=16)))
    how = settings(**changed)
    agree(engine, answers(engine, how, draft_tokens, prompts), answers(engine, how, 0, prompts), how, prompts)


@pytest.mark.parametrize("max_new_tokens", [1, 2])
def test_an_answer_can_be_as_short_as_one_token(engine: PadEngine, max_new_tokens: int) -> None:
    how = settings(max_new_tokens=max_new_tokens)
    agree(engine, answers(engine, how, 4), answers(engine, how, 0), how)


def test_an_answer_that_ignores_ends_of_sequence_has_its_full_length(engine: PadEngine) -> None:
    expected = answers(engine, settings(), 0, ignore_eos=True)
    agree(engine, answers(engine, settings(), 4, ignore_eos=True), expected, settings())
    assert {len(answer) for answer in expected} == {14}


def test_batch_equals_single_with_drafts(engine: PadEngine) -> None:
    together, apart = (answers(engine, settings(temperature=1.0, batch_size=size), 3) for size in (64, 1))
    agree(engine, together, apart, settings(temperature=1.0))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_token_is_chosen_from_the_same_scores_as_without_drafts(engine: PadEngine, temperature: float) -> None:
    plain = by_row(decode_steps(make_request(engine, temperature)))
    drafted = by_row(speculate_steps(make_request(engine, temperature), BlockLength(3)))
    requests = each_row(make_request(engine, temperature))
    for row, request in enumerate(requests):
        assert_agree(*([[int(step.tokens) for step in rows[row]]] for rows in (drafted, plain)), [request])
        for ours, theirs in zip(drafted[row], plain[row], strict=False):
            assert_same_scores(ours, theirs)
            if not torch.equal(ours.tokens, theirs.tokens):
                break


def test_processors_see_each_row_as_it_would_be_without_drafts(engine: PadEngine) -> None:
    """Rows are of different length; what fills the shorter ones up is nothing that was written."""
    plain, drafted = Watch(), Watch()
    asked = replace(make_request(engine, 0.0), ignore_eos=True)
    request = replace(asked, processors=LogitsProcessorList([plain]))
    expected = collect(len(TEXTS), decode_steps(request))
    request = replace(asked, processors=LogitsProcessorList([drafted]))
    made = collect(len(TEXTS), speculate_steps(request, BlockLength(3)))
    assert_agree(made, expected, each_row(asked))
    if made == expected:
        assert plain.seen <= drafted.seen


class Watch(LogitsProcessor):
    """Changes nothing, and remembers all that was read."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, ...]] = set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.add(tuple(input_ids[0].tolist()))
        return scores


def make_request(engine: PadEngine, temperature: float) -> Request:
    model = engine.reward_model
    assert model is not None
    weights = model.weights(preferences(engine))
    return Request(
        policy=engine.policy,
        prompts=TEXTS,
        guidance=Guidance(model, "separate", TEXTS, weights, torch.tensor(WEIGHTS)),
        candidates=10,
        reward_ngram=2,
        max_new_tokens=14,
        sampler=Sampler(settings(temperature=temperature), [random.Random(row) for row in range(len(TEXTS))]),
    )


def by_row(steps: Iterator[Step]) -> dict[int, list[Step]]:
    """The steps of each row, of one row each."""
    rows: dict[int, list[Step]] = {row: [] for row in range(len(TEXTS))}
    for step in steps:
        for index, row in enumerate(step.rows):
            rows[row].append(row_of(step, index))
    return rows


def test_streamed_pieces_are_those_without_drafts(engine: PadEngine) -> None:
    humorous = engine.preference(["humorous"])
    for prompt in PROMPTS:
        how = settings(draft_tokens=4, temperature=1)
        drafted = "".join(engine.stream(prompt, humorous, how)).strip()
        plain = engine.generate([prompt], [humorous], settings(temperature=1))
        assert_agree(plain, [drafted], alone(engine, [prompt], [humorous], settings(temperature=1)))


def test_explanations_are_those_without_drafts(engine: PadEngine) -> None:
    for prompt in PROMPTS:
        plain, drafted = (
            engine.explain(prompt, engine.preference(["formal"]), settings(draft_tokens=draft)) for draft in (0, 4)
        )
        request = alone(engine, [prompt], [engine.preference(["formal"])], settings())
        assert_agree(*([[choice.token for choice in choices]] for choices in (drafted, plain)), request)
        for ours, theirs in zip(drafted, plain, strict=False):
            if ours.token != theirs.token or texts(ours) != texts(theirs):
                break  # a near tie, of two tokens or of two candidates
            assert ours.plain_text == theirs.plain_text
            assert ours.push == pytest.approx(theirs.push, abs=1e-3)
            assert probabilities(ours) == pytest.approx(probabilities(theirs), abs=1e-4)


def texts(choice: TokenChoice) -> list[str]:
    return sorted(rival.text for rival in choice.candidates)


def probabilities(choice: TokenChoice) -> list[float]:
    return sorted(rival.probability for rival in choice.candidates)


# What is read


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("draft_tokens", [1, 3, 7])
def test_right_drafts_of_n_tokens_need_a_forward_of_the_policy_every_n_plus_1_tokens(
    draft_tokens: int, temperature: float, byte_tokenizer: Any
) -> None:
    """Sampled ones too: a token is drafted with the number that later draws it."""
    small = make_language_model(byte_tokenizer, seed=3)
    policy = deepen(small, layers=1)
    engine = PadEngine(policy, make_reward_model(small))
    with forwards(policy) as read, forwards(small) as drafted:
        answers(engine, settings(max_new_tokens=24, temperature=temperature), draft_tokens, ignore_eos=True)
    longest = max(map(len, TEXTS))
    assert [tokens for _, tokens in read] == [longest - 1] + [draft_tokens + 1] * (24 // (draft_tokens + 1))
    assert [tokens for _, tokens in drafted] == [longest - 1] + [1] * 24


def test_wrong_drafts_still_bring_a_token_for_each_forward(byte_tokenizer: Any) -> None:
    policy = make_language_model(byte_tokenizer, seed=3)
    engine = make_engine("always wrong", policy)
    with forwards(policy) as read:
        answers(engine, settings(), 4, ignore_eos=True)
    lengths = [tokens for _, tokens in read[1:]]
    assert lengths == [5] * 10 + [4, 3, 2, 1], "nothing is drafted beyond the last token"


def test_auto_drafts_only_for_a_policy_of_eight_times_the_size(byte_tokenizer: Any) -> None:
    small = make_language_model(byte_tokenizer, seed=3)
    model = make_reward_model(small)
    for layers, drafts in ((1, False), (8, False), (24, True)):
        policy = deepen(small, layers)
        engine = PadEngine(policy, model)
        times = size(policy) / size(small)
        assert (times >= 8) is drafts
        with forwards(policy) as read:
            auto = answers(engine, settings(), "auto", ignore_eos=True)
        assert (len(read) < 14) is drafts
        agree(engine, auto, answers(engine, settings(), 0, ignore_eos=True), settings())


def size(model: LanguageModel) -> int:
    return sum(parameter.numel() for parameter in model.model.parameters())


def test_without_guidance_there_is_nothing_to_draft_with(engine: PadEngine) -> None:
    plain, requests = (
        generate_ids(PadEngine(engine.policy), TEXTS, None, settings()),
        alone(engine, TEXTS, None, settings()),
    )
    assert_agree(generate_ids(engine, TEXTS, None, settings(draft_tokens=4)), plain, requests)
    weightless = generate_ids(engine, TEXTS, preferences(engine), settings(draft_tokens=4, guidance_weight=0))
    assert_agree(weightless, plain, requests)


# What is refused


@pytest.mark.parametrize("name", SLIDING)
def test_a_sliding_window_drafts_for_one_row_only(name: str, byte_tokenizer: Any) -> None:
    engine = make_engine("mostly right", make_architecture(name, byte_tokenizer))
    with pytest.raises(UsageError, match=r"decoding\.draft_tokens") as caught:
        answers(engine, settings(batch_size=2), 4)
    assert "batch_size 1" in caught.value.hint


@pytest.mark.parametrize("rows", [1, 2])
def test_auto_does_without_drafts_where_a_sliding_window_has_several_rows(rows: int, byte_tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(byte_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        sliding_window=WINDOW,
        eos_token_id=byte_tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = MistralForCausalLM(config).eval().requires_grad_(False)
    policy = wrap_language_model("mistral", model, byte_tokenizer)
    engine = PadEngine(policy, make_reward_model(make_language_model(byte_tokenizer, seed=1, hidden_size=8)))
    with forwards(policy) as read:
        auto = answers(engine, settings(batch_size=rows), "auto", TEXTS[1:3])
    assert any(tokens > 1 for _, tokens in read[1:]) is (rows == 1)
    agree(engine, auto, answers(engine, settings(batch_size=rows), 0, TEXTS[1:3]), settings(), TEXTS[1:3])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("path", ["auto", "fused", "paired", "separate"])
def test_drafting_is_refused_on_other_paths_and_with_an_adapter(
    path: str, policy: LanguageModel, other_policy: LanguageModel, byte_tokenizer: Any
) -> None:
    model = make_reward_model(policy)
    engine = PadEngine(policy, model)
    if path == "separate":
        backbone = copy.deepcopy(policy)
        engine = PadEngine(other_policy, with_adapter(make_reward_model(backbone), train_lora(backbone)))
    with pytest.raises(UsageError, match=r"decoding\.draft_tokens") as caught:
        answers(engine, settings(path=path), 4)
    assert "path separate, no adapter" in caught.value.hint


@pytest.mark.parametrize("steps_of", [decode_steps, lambda request: speculate_steps(request, BlockLength(3))])
def test_rows_that_are_stopped_leave_the_others_as_they_are(
    engine: PadEngine, steps_of: Callable[[Request], Iterator[Step]]
) -> None:
    request = replace(make_request(engine, 1.0), ignore_eos=True)
    whole = collect(len(TEXTS), decode_steps(request))
    limits, written = [1 + 3 * row for row in range(len(TEXTS))], [0] * len(TEXTS)
    made: list[list[int]] = [[] for _ in TEXTS]
    request = replace(make_request(engine, 1.0), ignore_eos=True, stopped=lambda row: written[row] >= limits[row])
    for step in steps_of(request):
        for row, token in zip(step.rows, step.tokens.tolist(), strict=True):
            written[row] += 1
            made[row].append(token)
    expected = [answer[:limit] for answer, limit in zip(whole, limits, strict=True)]
    assert_agree(made, expected, each_row(make_request(engine, 1.0)))

"""With an adapter, one forward of [policy rows, reward rows] gives what two models give, of which PEFT made one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.equation import select_candidates, withhold_repeats
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.agreement import alone, assert_agree
from tests.architectures import make_architecture
from tests.decoding.adapters import LINEARS, train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow import last_state
from tests.tiny import make_reward_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT's PeftModel asks the model for it."""

SPECS = (["humorous"], ["formal, concise=0.5"], ["not humorous"], ["concise=2"], ["humorous", "formal"], ["not formal"])
WEIGHTS = (1.0, 0.5, 2.0, 3.0, 0.0, -1.0)
PATHS = ("paired", "separate")


@dataclass
class World:
    """A policy whose answers end at different steps, and a reward model with an adapter on it."""

    policy: LanguageModel
    trained: Any
    model: PersonalizedRewardModel

    @property
    def engine(self) -> PadEngine:
        return PadEngine(self.policy, self.model)

    def agree(self, first: list[tuple[int, ...]], second: list[tuple[int, ...]], how: DecodingSettings) -> None:
        """The guided answers to all prompts are the same but for near ties."""
        assert_agree(first, second, alone(self.engine, PROMPTS, self.preferences, how, WEIGHTS))

    @property
    def preferences(self) -> list[Preference]:
        return [self.model.preference(specs) for specs in SPECS]


def make_world(name: str, tokenizer: Any, lora: float = 0.2, heads: float = 1.0) -> World:
    policy = make_architecture(name, tokenizer)
    policy.model.generation_config.eos_token_id = list(range(1, policy.vocabulary_size, 6))
    trained = train_lora(policy, LINEARS[name], lora)
    return World(policy, trained, with_adapter(make_reward_model(policy, scale=heads), trained))


@pytest.fixture
def world(byte_tokenizer: Any) -> World:
    return make_world("llama", byte_tokenizer)


def settings(**changed: object) -> DecodingSettings:
    return DecodingSettings.model_validate({"max_new_tokens": 14, **changed})


def tokens(engine: PadEngine, *how: Any) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in engine.generate(PROMPTS, *how)]


def context(policy: LanguageModel, prompt: str) -> list[int]:
    return encode_prompt(policy.tokenizer, as_messages(prompt))


@torch.inference_mode()
def slow_with_peft(policy: LanguageModel, world: World, number: int, how: DecodingSettings) -> tuple[int, ...]:
    """An answer as the equations have it, of one row and without a cache: PEFT's own model gives logits_p."""
    model, backbone, adapted = world.model, world.policy, world.trained.base_model.model.get_decoder()
    weights = model.weights(world.preferences[number : number + 1])
    answer: list[int] = []
    for _ in range(how.max_new_tokens):
        text = [*context(policy, PROMPTS[number]), *answer]
        candidates, log_probs = select_candidates(policy.head(last_state(policy, text)), how.candidates)
        hidden = adapted(input_ids=torch.tensor([text])).last_hidden_state[:, -1]
        logits_p = backbone.head(hidden + model.heads(hidden, weights))
        logits_ref = backbone.head(last_state(backbone, text))
        rewards = (logits_p.log_softmax(-1) - logits_ref.log_softmax(-1)).gather(1, candidates)
        rewards = withhold_repeats(
            rewards, log_probs, candidates, torch.tensor([answer], dtype=torch.long), how.reward_ngram
        )
        answer.append(int(candidates[0, (log_probs + WEIGHTS[number] * rewards).argmax(-1)]))
        if answer[-1] in policy.end_tokens:
            break
    return tuple(answer)


def plain_greedy(policy: LanguageModel, length: int = 14) -> list[tuple[int, ...]]:
    """transformers' own greedy answers to the prompts."""
    answers = []
    for prompt in PROMPTS:
        row = torch.tensor([context(policy, prompt)])
        new = policy.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            max_new_tokens=length,
            eos_token_id=sorted(policy.end_tokens),
            pad_token_id=policy.tokenizer.pad_token_id,
        )
        answers.append(tuple(new[0, row.shape[1] :].tolist()))
    return answers


@torch.inference_mode()
def states(policy: LanguageModel, rows: Sequence[int] = (11, 40, 41, 90)) -> torch.Tensor:
    row = torch.tensor([list(rows)])
    return policy.hidden_states(row, torch.ones_like(row))


@pytest.mark.parametrize(("name", "reward_ngram"), [("llama", 0), ("llama", 1), *((name, 2) for name in LINEARS)])
def test_paired_equals_separate_equals_peft_without_a_cache(name: str, reward_ngram: int, byte_tokenizer: Any) -> None:
    world = make_world(name, byte_tokenizer)
    slow = [slow_with_peft(world.policy, world, n, settings(reward_ngram=reward_ngram)) for n in range(len(PROMPTS))]
    for path in PATHS:
        how = settings(path=path, reward_ngram=reward_ngram)
        world.agree(tokens(world.engine, world.preferences, how, WEIGHTS), slow, how)
    assert len({len(answer) for answer in slow}) > 1, "rows should end at different steps"
    assert slow != plain_greedy(world.policy)


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_on_another_policy_the_adapted_backbone_is_compared_with_the_plain_one(name: str, byte_tokenizer: Any) -> None:
    world = make_world(name, byte_tokenizer)
    policy = make_architecture("qwen2", byte_tokenizer, seed=7)
    slow = [slow_with_peft(policy, world, number, settings()) for number in range(len(PROMPTS))]
    engine, wanted = PadEngine(policy, world.model), (world.preferences, settings(), WEIGHTS)
    assert_agree(tokens(engine, *wanted), slow, alone(engine, PROMPTS, *wanted))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_batch_equals_single_with_an_adapter(name: str, path: str, byte_tokenizer: Any) -> None:
    world, how = make_world(name, byte_tokenizer), settings(path=path)
    together, apart = (
        tokens(world.engine, world.preferences, settings(path=path, batch_size=size), WEIGHTS) for size in (64, 1)
    )
    world.agree(together, apart, how)


def test_paired_equals_separate_when_sampling(world: World) -> None:
    kinds = [settings(path=path, temperature=1.2, seed=4) for path in PATHS]
    world.agree(*(tokens(world.engine, world.preferences, how, WEIGHTS) for how in kinds), kinds[0])


def test_heads_and_adapter_both_steer(byte_tokenizer: Any) -> None:
    """What each does alone is neither plain decoding nor what both do."""
    kinds = [make_world("llama", byte_tokenizer, lora, heads) for lora, heads in ((0, 1), (0.2, 0), (0.2, 1))]
    answers = [tokens(world.engine, world.preferences, settings(), [2.0] * len(PROMPTS)) for world in kinds]
    answers.append(plain_greedy(kinds[0].policy))
    assert all(first != second for first, second in itertools.combinations(answers, 2))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LINEARS)
def test_an_adapter_and_heads_of_zeros_are_plain_greedy(name: str, path: str, byte_tokenizer: Any) -> None:
    world = make_world(name, byte_tokenizer, lora=0, heads=0)
    answers = tokens(world.engine, world.preferences, settings(path=path), [5.0] * len(PROMPTS))
    assert_agree(answers, plain_greedy(world.policy), alone(world.engine, PROMPTS, None, settings()))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("changed", "preferred"),
    [({"guidance_weight": 0.0}, True), ({"candidates": 1, "guidance_weight": 5.0}, True), ({}, False)],
    ids=["weight 0", "one candidate", "no preference"],
)
def test_weight_0_and_one_candidate_and_no_preference_are_plain_greedy(
    world: World, path: str, changed: dict[str, float], preferred: bool
) -> None:
    answers = tokens(world.engine, world.preferences if preferred else None, settings(path=path, **changed))
    assert_agree(answers, plain_greedy(world.policy), alone(world.engine, PROMPTS, None, settings()))


@pytest.mark.parametrize("path", PATHS)
def test_rows_of_weight_0_or_without_preference_are_plain_greedy_beside_guided_rows(world: World, path: str) -> None:
    preferences, weights = world.preferences, [4.0] * len(PROMPTS)
    preferences[1], weights[2] = NO_PREFERENCE, 0.0
    answers, plain = tokens(world.engine, preferences, settings(path=path), weights), plain_greedy(world.policy)
    assert answers[0] != plain[0]
    assert_agree(answers[1:3], plain[1:3], alone(world.engine, PROMPTS[1:3], None, settings()))


def test_auto_is_paired_on_the_backbone_itself_and_separate_elsewhere(world: World, byte_tokenizer: Any) -> None:
    assert world.engine.path(settings()) == "paired"
    assert PadEngine(make_architecture("gpt2", byte_tokenizer), world.model).path(settings()) == "separate"


def test_fused_is_refused_with_an_adapter(world: World) -> None:
    with pytest.raises(UsageError, match=r"decoding\.path: fused") as caught:
        world.engine.generate(PROMPTS, world.preferences, settings(path="fused"))
    assert "auto" in caught.value.hint


def test_paired_on_another_policy_is_refused(world: World, byte_tokenizer: Any) -> None:
    engine = PadEngine(make_architecture("gpt2", byte_tokenizer), world.model)
    with pytest.raises(UsageError, match=r"decoding\.path: paired") as caught:
        engine.generate(PROMPTS, world.preferences, settings(path="paired"))
    assert "auto" in caught.value.hint


@pytest.mark.parametrize("path", PATHS)
def test_decoding_leaves_the_policy_as_it_was_bit_for_bit(world: World, path: str) -> None:
    """While an answer is being written, too, and when nobody reads it to its end."""
    weights = {name: tensor.clone() for name, tensor in world.policy.model.state_dict().items()}
    before = states(world.policy)
    pieces = world.engine.stream(PROMPTS[1], world.preferences[0], settings(path=path, max_new_tokens=40))
    assert next(pieces)
    assert torch.equal(states(world.policy), before)
    pieces.close()
    assert torch.equal(states(world.policy), before)
    world.engine.generate(PROMPTS, world.preferences, settings(path=path))
    assert torch.equal(states(world.policy), before)
    after = world.policy.model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())

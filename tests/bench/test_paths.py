"""The paths that `pad bench` compares: which there are, that they agree, and how agreement is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pad_cli.bench.measure import (
    Written,
    check_agreement,
    conditions,
    top_two,
)
from pad_cli.bench.paths import Name, Paths, PromptBatch, Watch, benchmark_prompts, random_prompts
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.strategies import score_uncached
from pad_cli.errors import PadError, UsageError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel, RewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.agreement import alone, assert_agree
from tests.architectures import make_architecture
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

TOKENS = 6
STEERED = DecodingSettings(guidance_weight=2.0)


def make_adapter(model: Any, directory: Path) -> Adapter:
    """Random LoRA weights in PEFT's files, strong enough to change answers."""
    generator = torch.Generator().manual_seed(2)
    factors = {}
    for path, module in model.named_modules():
        if path.endswith(("q_proj", "up_proj")):
            for factor, shape in (("A", (2, module.in_features)), ("B", (module.out_features, 2))):
                factors[f"base_model.model.{path}.lora_{factor}.weight"] = torch.randn(shape, generator=generator)
    save_file(factors, directory / ADAPTER_WEIGHTS)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "up_proj"]}
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return Adapter.load(directory, model)


@pytest.fixture
def adapted(byte_tokenizer: Any, tmp_path: Path) -> PersonalizedRewardModel:
    """A reward model with an adapter; its backbone is the fixture `policy`'s double."""
    model = make_reward_model(make_language_model(byte_tokenizer, seed=0))
    model.adapter = make_adapter(model.backbone.model, tmp_path)
    return model


@pytest.fixture
def released(policy: LanguageModel) -> PromptRewardModel:
    """A reward model in the authors' form."""
    generator = torch.Generator().manual_seed(4)
    head = torch.nn.Linear(policy.hidden_size, policy.hidden_size).requires_grad_(False)
    head.weight.copy_(torch.eye(policy.hidden_size) + 0.3 * torch.randn(head.weight.shape, generator=generator))
    return PromptRewardModel(policy, head)


@pytest.fixture
def larger_policy(byte_tokenizer: Any) -> LanguageModel:
    return make_language_model(byte_tokenizer, seed=3, hidden_size=64)


def make_paths(
    policy: LanguageModel,
    model: RewardModel,
    settings: DecodingSettings = STEERED,
    *,
    batch_size: int = 2,
    new_tokens: int = TOKENS,
) -> Paths:
    engine = PadEngine(policy, model)
    return Paths(engine, settings, random_prompts(engine, batch_size, 5), new_tokens)


def make_items(specs: tuple[str, ...]) -> list[BenchmarkItem]:
    """Prompts of 1 to 12 characters."""
    return [
        BenchmarkItem(str(number), "single", spec, as_messages("ab" * number or "x"), (spec,))
        for number, spec in enumerate(specs)
    ]


def answer(paths: Paths, path: Name) -> Written:
    watch = Watch(STEERED.candidates)
    with conditions(paths.policy, threads=1):
        tokens = paths.answer(path, watch)
    return Written(path, torch.tensor(tokens), watch.top)


def check_all_agree(paths: Paths) -> Written:
    """Every guided path writes the same, with the same scores, and so does the algorithm without a cache."""
    first = answer(paths, paths.guided[0])
    for path in paths.guided[1:]:
        other = answer(paths, path)
        check_agreement(other, first, exact=True)
        if torch.equal(other.tokens, first.tokens):
            assert torch.allclose(other.top, first.top, atol=1e-3), path
    for step in range(paths.new_tokens):
        candidates, scores = score_uncached(
            paths.policy,
            paths._guidance,
            paths.batch.prompts[0],
            first.tokens[0, :step].tolist(),
            count=STEERED.candidates,
            reward_ngram=STEERED.reward_ngram,
        )
        top = top_two(scores, STEERED.candidates)
        uncached = Written("uncached", candidates.gather(1, scores.argmax(-1, keepdim=True)), top[:, None])
        here = slice(step, step + 1)
        check_agreement(uncached, Written("cached", first.tokens[:1, here], first.top[:1, here]), exact=True)
        assert torch.allclose(top, first.top[:1, step], atol=1e-3)
    return first


def test_a_policy_that_is_the_backbone_is_measured_fused_and_separately(
    reward_model: PersonalizedRewardModel,
) -> None:
    assert make_paths(reward_model.backbone, reward_model).guided == ("fused", "separate")


def test_a_policy_that_is_the_backbone_is_measured_paired_and_separately_when_there_is_an_adapter(
    adapted: PersonalizedRewardModel,
) -> None:
    assert make_paths(adapted.backbone, adapted).guided == ("paired", "separate")


def test_only_a_backbone_smaller_than_the_policy_drafts(
    larger_policy: LanguageModel, other_policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    assert make_paths(larger_policy, reward_model).guided == ("separate", "speculative")
    assert make_paths(other_policy, reward_model).guided == ("separate",)


def test_no_adapter_drafts(larger_policy: LanguageModel, adapted: PersonalizedRewardModel) -> None:
    assert make_paths(larger_policy, adapted).guided == ("separate",)


def test_with_a_sliding_window_one_row_alone_is_drafted(byte_tokenizer: Any) -> None:
    policy = make_architecture("mistral", byte_tokenizer)
    model = make_reward_model(make_language_model(byte_tokenizer, seed=0, hidden_size=8))
    assert make_paths(policy, model, batch_size=1).guided == ("separate", "speculative")
    assert make_paths(policy, model, batch_size=2).guided == ("separate",)


def test_a_forced_path_is_the_only_guided_one(
    larger_policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    for path in ("fused", "paired", "separate"):
        settings = DecodingSettings.model_validate({"path": path})
        assert make_paths(reward_model.backbone, reward_model, settings).guided == (path,)
    assert make_paths(larger_policy, reward_model, DecodingSettings(path="separate")).guided == ("separate",)


def test_without_an_adapter_all_paths_write_the_same(reward_model: PersonalizedRewardModel) -> None:
    paths = make_paths(reward_model.backbone, reward_model)
    assert not torch.equal(check_all_agree(paths).tokens, answer(paths, "plain").tokens), "guidance changes nothing"


def test_with_an_adapter_all_paths_write_the_same(
    adapted: PersonalizedRewardModel, reward_model: PersonalizedRewardModel
) -> None:
    written = check_all_agree(make_paths(adapted.backbone, adapted))
    without = answer(make_paths(reward_model.backbone, reward_model), "fused")
    assert not torch.equal(written.tokens, without.tokens), "the adapter changes nothing"


@pytest.mark.parametrize("same", [True, False], ids=["its own policy", "another policy"])
def test_a_reward_model_that_reads_the_preference_reads_another_prompt_on_every_path(
    same: bool, larger_policy: LanguageModel, released: PromptRewardModel
) -> None:
    engine = PadEngine(released.backbone if same else larger_policy, released)
    items = make_items(("text:funny", "text:short"))
    paths = Paths(engine, STEERED, benchmark_prompts(engine, items, 2), TOKENS)
    assert paths.guided == (("paired", "separate") if same else ("separate", "speculative"))
    written = check_all_agree(paths).tokens.tolist()
    preferences = [engine.preference(item.preference) for item in items]
    prompts = [item.prompt for item in items]
    expected = [answer.token_ids[:TOKENS] for answer in engine.generate(prompts, preferences, STEERED)]
    seen = [row[: len(answer)] for row, answer in zip(written, expected, strict=True)]
    assert_agree(expected, seen, alone(engine, prompts, preferences, STEERED))


def test_drafting_writes_the_same(larger_policy: LanguageModel, reward_model: PersonalizedRewardModel) -> None:
    paths = make_paths(larger_policy, reward_model, batch_size=3, new_tokens=20)
    assert "speculative" in paths.guided
    check_all_agree(paths)


def test_tokens_that_only_a_padded_unembedding_has_are_no_candidates(
    byte_tokenizer: Any, reward_model: PersonalizedRewardModel
) -> None:
    model = make_language_model(byte_tokenizer, seed=3).model
    model.resize_token_embeddings(len(byte_tokenizer) + 4, mean_resizing=False)
    model.get_output_embeddings().weight.data[-4:] = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    policy = wrap_language_model("padded", model.requires_grad_(False), byte_tokenizer)
    paths = make_paths(policy, reward_model)
    assert int(answer(paths, "plain").tokens.max()) >= len(byte_tokenizer), "no such token is likely"
    check_all_agree(paths)


def test_prompts_of_different_length_are_answered_as_alone(reward_model: PersonalizedRewardModel) -> None:
    engine = PadEngine(reward_model.backbone, reward_model)
    items = make_items(("humorous", "formal", "concise"))
    together = Paths(engine, STEERED, benchmark_prompts(engine, items, 3), TOKENS)
    assert [len(prompt) for prompt in together.batch.prompts] == [3, 4, 6]
    assert together.batch.longest == 6
    for path in ("generate", "plain", "fused"):
        whole = answer(together, path)
        for row, item in enumerate(items):
            alone = Paths(engine, STEERED, benchmark_prompts(engine, [item], 1), TOKENS)
            assert torch.equal(whole.tokens[row], answer(alone, path).tokens[0]), path


def test_items_are_spread_evenly_over_the_benchmark(reward_model: PersonalizedRewardModel) -> None:
    engine, items = PadEngine(reward_model.backbone, reward_model), make_items(("humorous",) * 9)

    def lengths(count: int) -> list[int]:
        return [len(prompt) - 2 for prompt in benchmark_prompts(engine, items, count).prompts]

    assert lengths(3) == [1, 6, 12]
    assert lengths(9) == [1, *range(2, 17, 2)]
    with pytest.raises(UsageError, match="9 items, too few for a batch of 10"):
        benchmark_prompts(engine, items, 10)


def test_models_of_different_vocabularies_need_text(reward_model: PersonalizedRewardModel, byte_tokenizer: Any) -> None:
    policy = make_language_model(make_tokenizer(extra=("ab",)), seed=3)
    engine = PadEngine(policy, reward_model)
    with pytest.raises(UsageError, match=r"vocabularies differ\.\nName a `benchmark`"):
        random_prompts(engine, 2, 5)
    batch = benchmark_prompts(engine, make_items(("humorous", "formal")), 2)
    paths = Paths(engine, STEERED, batch, TOKENS)
    assert paths.names == ("generate", "plain", "bridged")
    assert answer(paths, "bridged").tokens.shape == (2, TOKENS)


def test_a_sliding_window_follows_another_vocabulary_in_one_row_alone(byte_tokenizer: Any) -> None:
    policy = make_language_model(make_tokenizer(extra=("ab",)), seed=3)
    engine = PadEngine(policy, make_reward_model(make_architecture("mistral", byte_tokenizer)))
    items = make_items(("humorous", "formal"))
    assert Paths(engine, STEERED, benchmark_prompts(engine, items, 1), TOKENS).guided == ("bridged",)
    with pytest.raises(UsageError, match=r"sliding window.*\nUse: batch_sizes: \[1\]"):
        Paths(engine, STEERED, benchmark_prompts(engine, items, 2), TOKENS)


def test_no_path_stops_at_an_end_of_sequence(reward_model: PersonalizedRewardModel, byte_tokenizer: Any) -> None:
    """Every token of this policy ends an answer, as far as its configuration goes."""
    policy = make_language_model(byte_tokenizer, seed=3, hidden_size=64)
    before = policy.model.generation_config
    before.eos_token_id = list(range(policy.vocabulary_size))
    paths = make_paths(policy, reward_model)
    for path in ("generate", "plain", "separate", "speculative"):
        assert answer(paths, path).tokens.shape == (2, TOKENS), path
    assert policy.model.generation_config is before


def test_random_prompts_are_the_same_every_time_and_hold_no_special_token(
    reward_model: PersonalizedRewardModel,
) -> None:
    engine = PadEngine(reward_model.backbone, reward_model)
    first, second = (random_prompts(engine, 3, 40).prompts for _ in range(2))
    assert first == second
    assert [len(prompt) for prompt in first] == [40, 40, 40]
    assert not {token for prompt in first for token in prompt} & set(engine.policy.tokenizer.all_special_ids)


def test_random_prompts_take_the_principles_in_turn(reward_model: PersonalizedRewardModel) -> None:
    batch: PromptBatch = random_prompts(PadEngine(reward_model.backbone, reward_model), 4, 5)
    assert batch.preference_weights.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_the_number_of_threads_is_restored(policy: LanguageModel) -> None:
    before = torch.get_num_threads()
    with conditions(policy, threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def wrote(path: str, tokens: list[list[int]], best: list[list[float]], gap: float = 1.0) -> Written:
    """With a second token that is worse by a gap everywhere."""
    top = torch.tensor(best)
    return Written(path, torch.tensor(tokens), torch.stack([top, top - gap], dim=-1))


def test_paths_that_write_other_tokens_are_named() -> None:
    first, second = (
        wrote("fused", [[1, 2], [3, 4]], [[0.0] * 2] * 2),
        wrote("separate", [[1, 2], [3, 5]], [[0.0] * 2] * 2),
    )
    with pytest.raises(PadError, match="'fused' and 'separate' do not agree: token 2 of answer 2 differs"):
        check_agreement(first, second, exact=True)


def test_in_float32_too_a_near_tie_may_fall_either_way() -> None:
    first, second = (wrote(path, [tokens], [[0.0] * 3], 5e-4) for path, tokens in (("a", [1, 2, 3]), ("b", [1, 7, 8])))
    check_agreement(first, second, exact=True)
    clear = replace(second, top=second.top - torch.tensor([0.0, 0.01]))
    with pytest.raises(PadError, match="token 2 of answer 1 differs"):
        check_agreement(replace(first, top=clear.top), clear, exact=True)


def test_in_half_precision_a_near_tie_may_fall_either_way_and_what_follows_it_is_another_answer() -> None:
    first, second = wrote("a", [[1, 2, 3]], [[-1.0, -1.1, -9.0]]), wrote("b", [[1, 7, 8]], [[-1.0, -1.2, -0.1]])
    check_agreement(first, second, exact=False)


@pytest.mark.parametrize("best", [[-1.0, -2.0, 0.0], [-1.0, float("nan"), 0.0]])
def test_in_half_precision_scores_that_differ_are_refused(best: list[float]) -> None:
    with pytest.raises(PadError, match="'a' and 'b' do not agree: scores differ"):
        check_agreement(wrote("a", [[1, 2, 3]], [[-1.0, -1.1, 0.0]]), wrote("b", [[1, 7, 3]], [best]), exact=False)


def test_the_two_best_scores_are_the_same_whatever_constant_the_scores_have() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, -50.0]])
    assert torch.allclose(top_two(scores, 3), top_two(scores[:, :3] + 7, 3))
    assert top_two(scores, 1).tolist() == [[0.0, -torch.inf]]

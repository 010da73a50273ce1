"""The cache of hidden states: equal to reading each answer alone, and safe to interrupt."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pad_cli.models import scoring
from pad_cli.models.language_model import LanguageModel
from pad_cli.training import hidden_cache
from pad_cli.training.hidden_cache import HiddenCache, HiddenStateExtractor, build_hidden_cache

Sequences = list[tuple[tuple[int, ...], tuple[int, ...]]]


@pytest.fixture
def sequences() -> Sequences:
    """Eleven answers of 1 to 12 tokens to prompts of 1 to 20 tokens."""
    rng = random.Random(4)

    def tokens(longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, 260) for _ in range(rng.randint(1, longest)))

    return [(tokens(20), tokens(12)) for _ in range(11)]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven answers make three shards, and a shard several batches."""
    monkeypatch.setattr(hidden_cache, "_SHARD", 4)
    monkeypatch.setattr(scoring, "_BATCH_TOKENS", 64)


def build(
    model: LanguageModel, sequences: Sequences, directory: Path, dtype: torch.dtype = torch.float32
) -> HiddenCache:
    reader = HiddenStateExtractor(model, None, dtype, None, 1)
    return build_hidden_cache(sequences, reader, directory)


def states(cache: HiddenCache, answer: int) -> torch.Tensor:
    return cache.gather("hidden", cache.positions(torch.tensor([answer]))[0])


def equal(first: HiddenCache, second: HiddenCache) -> bool:
    everything = torch.arange(len(first))
    gathered = all(
        torch.equal(first.gather(name, everything), second.gather(name, everything)) for name in ("hidden", "reference")
    )
    return gathered and all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("targets", "starts"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers each computed shard held."""
    computed: list[int] = []
    compute = HiddenStateExtractor.__call__

    def count(
        reader: HiddenStateExtractor, sequences: Sequences, advance: Callable[[int], None]
    ) -> dict[str, torch.Tensor]:
        computed.append(len(sequences))
        return compute(reader, sequences, advance)

    monkeypatch.setattr(HiddenStateExtractor, "__call__", count)
    return computed


def test_cached_states_equal_reading_each_answer_alone(
    policy: LanguageModel, sequences: Sequences, tmp_path: Path
) -> None:
    cache = build(policy, sequences, tmp_path)
    for number, (prompt, answer) in enumerate(sequences):
        assert cache.targets[cache.positions(torch.tensor([number]))[0]].tolist() == list(answer)
        text = torch.tensor([[*prompt, *answer]])
        alone = policy.model.model(input_ids=text).last_hidden_state[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(states(cache, number), alone, atol=1e-5, rtol=1e-4)
    assert len(cache) == sum(len(answer) for _, answer in sequences)


def test_every_batch_is_told_not_only_every_file(policy: LanguageModel, sequences: Sequences) -> None:
    told: list[int] = []
    HiddenStateExtractor(policy, None, torch.float32, None, 1)(sequences, told.append)
    assert sum(told) == len(sequences)
    assert len(told) > 1


def test_positions_are_those_of_the_asked_answers_in_the_asked_order() -> None:
    """Answers of 2, 3 and 1 tokens start at 0, 2 and 5; answers 2, 1, 2 hold 5, then 2 3 4, then 5."""
    cache = HiddenCache(torch.zeros(6), torch.tensor([0, 2, 5]), torch.tensor([2, 3, 1]), (), torch.zeros(0))
    positions, owners = cache.positions(torch.tensor([2, 1, 2]))
    assert positions.tolist() == [5, 2, 3, 4, 5]
    assert owners.tolist() == [0, 1, 1, 1, 2]


def test_a_finished_cache_is_read_not_computed(
    policy: LanguageModel, sequences: Sequences, tmp_path: Path, forwards: list[int]
) -> None:
    first = build(policy, sequences, tmp_path)
    assert forwards == [4, 4, 3]
    assert equal(build(policy, sequences, tmp_path), first)
    assert forwards == [4, 4, 3]


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path, content: bytes) -> None:
    """Another file of that name; a cache that is open still has the old one mapped."""
    path.unlink()
    path.write_bytes(content)


def truncate(path: Path) -> None:
    replace(path, path.read_bytes()[:-40])


def empty(path: Path) -> None:
    replace(path, b"")


def shorten(path: Path) -> None:
    """A whole safetensors file, with a state too few."""
    rows = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file({**rows, "hidden": rows["hidden"][:-1].clone()}, path)


@pytest.mark.parametrize("damage", [delete, truncate, empty, shorten])
def test_a_missing_or_damaged_shard_alone_is_computed_again(
    policy: LanguageModel, sequences: Sequences, tmp_path: Path, forwards: list[int], damage: object
) -> None:
    first = build(policy, sequences, tmp_path)
    shards = sorted(tmp_path.iterdir())
    assert len(shards) == 3
    damage(shards[2])
    forwards.clear()
    assert equal(build(policy, sequences, tmp_path), first)
    assert forwards == [3]
    assert sorted(tmp_path.iterdir()) == shards


def test_an_interrupted_cache_keeps_its_finished_shards(
    policy: LanguageModel, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = HiddenStateExtractor.__call__

    def fail_once(
        reader: HiddenStateExtractor, sequences: Sequences, advance: Callable[[int], None]
    ) -> dict[str, torch.Tensor]:
        computed.append(1)
        if len(computed) == 2:
            raise KeyboardInterrupt
        return compute(reader, sequences, advance)

    monkeypatch.setattr(HiddenStateExtractor, "__call__", fail_once)
    with pytest.raises(KeyboardInterrupt):
        build(policy, sequences, tmp_path)
    continued = build(policy, sequences, tmp_path)
    assert len(computed) == 4, "the first shard is not computed again"
    assert equal(continued, build(policy, sequences, tmp_path / "uninterrupted"))


def test_changed_tokens_another_backbone_or_another_format_start_anew(
    policy: LanguageModel, other_policy: LanguageModel, sequences: Sequences, tmp_path: Path
) -> None:
    build(policy, sequences, tmp_path)
    prompt, answer = sequences[0]
    build(policy, [((*prompt, 9), answer), *sequences[1:]], tmp_path)
    build(other_policy, sequences, tmp_path)
    assert states(build(policy, sequences, tmp_path, torch.bfloat16), 0).dtype == torch.bfloat16
    assert len({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == 4


def test_a_prompt_may_end_where_an_answer_begins(policy: LanguageModel, tmp_path: Path) -> None:
    """The same text cut at another place is another sequence, not the same cache."""
    first = build(policy, [((5, 6), (7, 8))], tmp_path)
    second = build(policy, [((5, 6, 7), (8,))], tmp_path)
    assert len(first) == 2
    torch.testing.assert_close(states(second, 0)[0], states(first, 0)[1], atol=1e-5, rtol=1e-4)


def test_rows_are_gathered_in_the_asked_order_across_files(
    policy: LanguageModel, sequences: Sequences, tmp_path: Path
) -> None:
    cache = build(policy, sequences, tmp_path)
    everything = cache.gather("hidden", torch.arange(len(cache)))
    order = torch.randperm(len(cache), generator=torch.Generator().manual_seed(0)).repeat(2)
    assert torch.equal(cache.gather("hidden", order), everything[order])
    assert torch.equal(cache.gather("hidden", order[:1]), everything[order[:1]])

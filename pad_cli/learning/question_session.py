"""`pad learn --ask`: a pool of steered answers to choose between, and a session that asks about them.

Replies are on disk after every question, so that another sitting goes on where one stopped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.learning.choices import FEWEST, Comparison
from pad_cli.learning.posterior import Posterior, basis_of, differences
from pad_cli.learning.user_weights import Features, Learned, choice_features, summarise, with_heads
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs.parsed_rows import is_text
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Messages, as_messages
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog

_TEMPERATURE = 1.0
_MOST_PRINCIPLES = 3  # that an answer is steered to
_WANTED = 2 / 3  # of them; the others are avoided
_WORTHWHILE = 0.15  # bits that the best question must promise, for another one to be worth a user's time
_LEAST = 6  # replies before that counts


@dataclass(frozen=True)
class Pool:
    """N comparisons that may be asked, and their features."""

    comparisons: tuple[Comparison, ...]
    features: Features


def make_pool(
    engine: PadEngine, prompts: Sequence[Messages], settings: DecodingSettings, answers: int = 6, seed: int = 0
) -> Pool:
    """Answer each prompt in several ways, and pair the answers. The same seed gives the same pool.

    Prompts are distinct; answers are sampled at temperature 1 where the settings are greedy. `seed` decides
    preferences, sampling, and which answer comes first.

    Raises:
        UsageError: the reward model has no preference heads, or all answers to each prompt are the same.
    """
    model = with_heads(engine.reward_model)
    rng = random.Random(seed)
    preferences = [_random_preference(rng, model.principles) for _ in range(len(prompts) * answers)]
    sampled = settings.model_copy(update={"temperature": settings.temperature or _TEMPERATURE, "seed": seed})
    streams = [f"{prompt}/{way}" for prompt in range(len(prompts)) for way in range(answers)]
    rows = [prompt for prompt in prompts for _ in range(answers)]
    with bar("Answering the prompts in several ways", total=len(rows)) as progress:
        generations = engine.generate(rows, preferences, sampled, streams=streams, on_batch=progress.advance)
    texts = [generation.text.strip() for generation in generations]
    comparisons = []
    for number, prompt in enumerate(prompts):
        ways = [text for text in dict.fromkeys(texts[number * answers : (number + 1) * answers]) if is_text(text)]
        pairs = [(ways[earlier], ways[later]) for later in range(len(ways)) for earlier in range(later)]
        comparisons += [Comparison(prompt, *(pair if rng.random() < 0.5 else pair[::-1])) for pair in pairs]
    if not comparisons:
        raise UsageError("All sampled answers to each prompt are identical.", "Give other prompts: --prompts FILE")
    return Pool(tuple(comparisons), choice_features(model, comparisons))


def _random_preference(rng: random.Random, principles: Sequence[str]) -> Preference:
    """A few principles, most of them wanted and the others avoided."""
    count = rng.randint(1, min(_MOST_PRINCIPLES, len(principles)))
    return Preference({name: 1.0 if rng.random() < _WANTED else -1.0 for name in rng.sample(principles, count)}, {})


class Session:
    """Questions to one user.

    Attributes:
        model: the reward model whose weights are learned.
        pool: what may be asked.
        replies: all replies so far; those of earlier sittings are read from `log`, a file as `read_choices` reads it.
    """

    def __init__(self, model: PersonalizedRewardModel, pool: Pool, log: Path) -> None:
        self.model, self.pool = model, pool
        self._results = ResultLog(log, needs=("prompt", "answers", "choice"))
        self._basis = basis_of(model.pair_moments, pool.features.slopes)
        self._seen = differences(*pool.features, self._basis)
        self._posterior = Posterior(len(model.principles))
        self.replies = self._posterior.replies
        rows = list(self._results.done.values())
        comparisons = [Comparison(as_messages(row["prompt"]), *row["answers"]) for row in rows]
        self._asked = {comparison.key for comparison in comparisons}
        seen = differences(*self._features_of(comparisons), self._basis)
        for number, row in enumerate(rows):
            self._posterior.add(seen.at(number), None if row["choice"] is None else row["choice"] == 0)

    def next(self) -> int | None:
        """The place in the pool of the comparison whose reply tells most; None when none is left that tells enough."""
        bits = self._posterior.information(self._seen)
        left = [place for place, comparison in enumerate(self.pool.comparisons) if comparison.key not in self._asked]
        best = max(left, key=lambda place: bits[place], default=None)
        if best is None or (len(self.replies) >= _LEAST and bits[best] < _WORTHWHILE):
            return None
        return best

    def answer(self, place: int, first: bool | None) -> None:
        """Record a reply to the comparison at a place in the pool: the first, the second (False), or neither (None)."""
        comparison = self.pool.comparisons[place]
        prompt, answers = [dict(message) for message in comparison.prompt], [comparison.first, comparison.second]
        choice = None if first is None else 0 if first else 1
        self._results.append({comparison.key: {"prompt": prompt, "answers": answers, "choice": choice}})
        self._asked.add(comparison.key)
        self._posterior.add(self._seen.at(place), first)

    @property
    def can_learn(self) -> bool:
        """Are there enough choices for a profile? Ties do not count."""
        return sum(reply is not None for reply in self.replies) >= FEWEST

    def learned(self) -> Learned:
        """The weights from all replies so far, those of earlier sittings included; see `can_learn`."""
        return summarise(self.model.principles, self._posterior, self._basis)

    def _features_of(self, comparisons: Sequence[Comparison]) -> Features:
        """Of earlier sittings' comparisons: those in the pool to the last bit, so that resuming is exact."""
        places = {(each.key, each.first): place for place, each in enumerate(self.pool.comparisons)}
        found = choice_features(self.model, comparisons)
        for number, each in enumerate(comparisons):
            if (place := places.get((each.key, each.first))) is not None:
                for values, known in zip(found, self.pool.features, strict=True):
                    values[number] = known[place]
        return found

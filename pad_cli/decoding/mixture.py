"""Decode from several voices at once: language models, or one model under several prompts, mixed with signed weights.

    score(a) = sum_v weight_v * log pi_v(a | s_v)        for a among the first voice's top C tokens

Inside the candidate set normalisers are constants of the state: of every voice but the first, C logits are enough.
With weights (1 + g, -g) this contrasts a prompt with another (context steering, arXiv 2405.01768); with weights of
several trained models it mixes their logits (arXiv 2406.18853). Every voice reads its own prompt and the same answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pad_cli.decoding.loop import Request, collect, decode_steps
from pad_cli.decoding.readers import PolicyReader
from pad_cli.decoding.sampling import Chooser, policy_processors
from pad_cli.decoding.stream import Stream
from pad_cli.errors import UsageError, VocabularyError
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel, same_vocabulary
from pad_cli.recipe import DecodingSettings


@dataclass(frozen=True)
class Voice:
    """Something that has an opinion of the next token in each of B rows.

    Attributes:
        model: the language model.
        prompts: B prompts in its tokens.
        weights: B weights, one a row, of any sign.
        adapter: LoRA weights attached to the model, through which this voice reads; None for the model as it is.
    """

    model: LanguageModel
    prompts: list[list[int]]
    weights: list[float]
    adapter: Adapter | None = None

    def part(self, start: int, stop: int) -> Voice:
        """The same for some of the rows."""
        return replace(self, prompts=self.prompts[start:stop], weights=self.weights[start:stop])


def generate_mixture(voices: Sequence[Voice], settings: DecodingSettings, streams: Sequence[str]) -> list[list[int]]:
    """Answer B prompts with a mixture of voices, `settings.batch_size` rows at a time.

    Repetition controls act on the first voice, once, whatever its weight; guidance and reward settings do not count.

    Args:
        voices: at least one; they share a vocabulary. The first proposes the candidates.
        settings: how to decode.
        streams: B names; with the seed they decide what sampling draws, as in `PadEngine.generate`.

    Returns:
        B answers in tokens; a finished one ends with its end of sequence (the first voice's).

    Raises:
        UsageError: there is no voice, a prompt has no tokens, or the lists differ in length.
        VocabularyError: two voices mean different things by a token.
    """
    _check(voices, streams)
    answers: list[list[int]] = []
    for start in range(0, len(streams), settings.batch_size):
        stop = start + settings.batch_size
        request = _request([voice.part(start, stop) for voice in voices], settings, streams[start:stop])
        answers += collect(len(request.prompts), decode_steps(request))
    return answers


class MixtureReader(PolicyReader):
    """All voices reading along; its "rewards" are what they add to the first voice's own log-probabilities.

    Voices of the same model and adapter read in one forward pass.

    Args:
        voices: at least one.
    """

    def __init__(self, voices: Sequence[Voice]) -> None:
        self._count = len(voices[0].prompts)
        self._heads = [voice.model.head for voice in voices]
        self._weights = [torch.tensor(voice.weights, device=voices[0].model.device) for voice in voices]
        groups: dict[tuple[int, int], list[int]] = {}
        for number, voice in enumerate(voices):
            groups.setdefault((id(voice.model), id(voice.adapter)), []).append(number)
        self._streams: list[Stream] = []
        self._places: dict[int, tuple[int, int]] = {}  # voice to its stream, and its place in that
        for members in groups.values():
            first = voices[members[0]]
            prompts = [prompt for number in members for prompt in voices[number].prompts]
            self._places.update({number: (len(self._streams), place) for place, number in enumerate(members)})
            self._streams.append(Stream.of_prompts(first.model, prompts, adapter=first.adapter))

    @property
    def hidden(self) -> torch.Tensor:
        return self._hidden(0)

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """As in `PolicyReader`; up to a constant of the state."""
        total = torch.zeros_like(log_probs)
        for voice, weights in enumerate(self._weights):
            more = weights - 1 if voice == 0 else weights  # the first one's log-probabilities are there once
            if more.any():
                total += more[:, None] * self._logits(voice, candidates).to(total.device)
        return total

    def push(self, tokens: torch.Tensor) -> None:
        for stream in self._streams:
            stream.push(tokens.repeat(len(stream.hidden) // self._count))

    def keep(self, kept: torch.Tensor) -> None:
        for stream in self._streams:
            size = len(stream.hidden) // self._count
            stream.keep(torch.cat([kept + self._count * place for place in range(size)]))
        self._weights = [weights[kept] for weights in self._weights]
        self._count = len(kept)

    def _hidden(self, voice: int) -> torch.Tensor:
        """(B, H) a voice's states."""
        stream, place = self._places[voice]
        return self._streams[stream].hidden[place * self._count : (place + 1) * self._count]

    def _logits(self, voice: int, candidates: torch.Tensor) -> torch.Tensor:
        """A voice's logits of (B, C) candidates, in float32."""
        hidden = self._hidden(voice).float()
        return self._heads[voice].at(hidden, candidates.to(hidden.device))


@dataclass(frozen=True)
class _MixedRequest(Request):
    voices: Sequence[Voice] = ()

    @property
    def shared_tokens(self) -> int:
        return min(voice.model.vocabulary_size for voice in self.voices)

    @property
    def reads(self) -> list[tuple[LanguageModel, Sequence[list[int]]]]:
        return [(voice.model, voice.prompts) for voice in self.voices]

    def reader(self) -> PolicyReader:
        return MixtureReader(self.voices)


def _request(voices: Sequence[Voice], settings: DecodingSettings, streams: Sequence[str]) -> _MixedRequest:
    first = voices[0]
    return _MixedRequest(
        policy=first.model,
        prompts=first.prompts,
        guidance=None,
        candidates=settings.candidates,
        reward_ngram=0,
        max_new_tokens=settings.max_new_tokens,
        chooser=Chooser(settings, [random.Random(f"{settings.seed}/{name}") for name in streams]),
        processors=policy_processors(settings),
        voices=[first, *(voice for voice in voices[1:] if any(voice.weights))],
    )


def _check(voices: Sequence[Voice], streams: Sequence[str]) -> None:
    if not voices:
        raise UsageError("A mixture has no voices.", "Give at least one.")
    for voice in voices:
        if not len(voice.prompts) == len(voice.weights) == len(streams):
            raise UsageError(
                f"{len(streams)} streams, but {len(voice.prompts)} prompts and {len(voice.weights)} weights.",
                "Give one for each answer.",
            )
        if not all(voice.prompts):
            raise UsageError("A prompt has no tokens.", "Give at least one token for each prompt.")
        if not same_vocabulary(voices[0].model, voice.model):
            raise VocabularyError(
                f"'{voices[0].model.name}' and '{voice.model.name}' have different vocabularies.",
                "Mix models that share a tokenizer.",
            )

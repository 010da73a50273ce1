"""Who writes the answers: the language model that is to be steered, or another one behind a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pad_cli.contrast.answers import Request
from pad_cli.decoding.engine import PadEngine
from pad_cli.endpoint.asking import ask_all, cost_of, forecast, run
from pad_cli.endpoint.client import Reply, find_endpoint
from pad_cli.errors import EndpointError
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings, EndpointSettings
from pad_cli.system.progress import note
from pad_cli.system.runs import ResultLog, fingerprint

_NUCLEUS = 256  # candidates; the nucleus of top_p is far smaller
_ROLE = "teacher"


@dataclass(frozen=True)
class PolicyTeacher:
    """The language model itself, under a system prompt; `settings` are of sampling."""

    model: LanguageModel
    settings: DecodingSettings

    @property
    def key(self) -> Any:
        decisive = self.settings.model_dump(include={"temperature", "top_p", "max_new_tokens", "seed"})
        return [self.model.fingerprint, str(self.model.dtype), decisive]

    def write(self, requests: Mapping[str, Request], log: ResultLog, advance: Callable[[int], None]) -> None:
        engine, size = PadEngine(self.model), self.settings.batch_size
        settings = self.settings.model_copy(update={"candidates": _NUCLEUS})
        keys = list(requests)
        for batch in (keys[start : start + size] for start in range(0, len(keys), size)):
            asked = [requests[key] for key in batch]
            streams = [fingerprint([request.prompt, request.name]) for request in asked]
            replies = engine.generate([request.instructed for request in asked], None, settings, streams=streams)
            rows = ({"text": reply.text, "ended": reply.finish_reason == "stop"} for reply in replies)
            log.append(dict(zip(batch, rows, strict=True)))
            advance(len(batch))


@dataclass(frozen=True)
class EndpointTeacher:
    """A language model behind a server that speaks OpenAI's protocol; one that ignores seeds samples anew each time."""

    settings: EndpointSettings
    seed: int

    @property
    def key(self) -> Any:
        settings = self.settings
        return [find_endpoint(settings).shown, settings.model, settings.temperature, settings.max_tokens, self.seed]

    def write(self, requests: Mapping[str, Request], log: ResultLog, advance: Callable[[int], None]) -> None:
        """Raises EndpointError if the server refuses, cannot be reached, or would cost more than it may."""
        settings = self.settings
        questions = {key: request.instructed for key, request in requests.items()}
        expected = forecast(questions.values(), settings, settings.max_tokens)
        if expected.usd is not None:
            limit = "" if settings.max_cost is None else f", and never more than ${settings.max_cost:g}"
            note(f"{expected.requests} requests to {settings.model} will cost about ${expected.usd:.4f}{limit}.")
        before = cost_of(log.done.values(), settings) or 0.0
        asking = ask_all(questions, settings, find_endpoint(settings), log, advance, _read, _ROLE, seeded=True)
        failed = run(asking)
        if expected.usd is not None:
            note(f"This cost ${(cost_of(log.done.values(), settings) or 0.0) - before:.4f}.")
        waiting = questions.keys() - log.done.keys() - failed.keys()
        if waiting:
            raise EndpointError(
                f"Stopped before ${settings.max_cost:g} was exceeded, with {len(waiting)} answers not written.",
                "What was answered is kept: allow more (teacher.max_cost) or fewer prompts (limit), and run again.",
            )


def _read(reply: Reply) -> dict[str, Any]:
    return {"mode": "answer", "text": reply.text, "ended": reply.ended}

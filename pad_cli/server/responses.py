"""The OpenAI API's objects: completions, chunks of them, usage, models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pad_cli.server.answer import Finished, Piece
from pad_cli.server.schema import ChatRequest, TextRequest


class Response:
    """What one request is answered with.

    Args:
        request: chat, or text.
        prompt_tokens: for `usage`.
        told: for `pad`: the preference, the guidance weight and the seed that were used.
        fingerprint: of the models.
    """

    def __init__(
        self,
        request: ChatRequest | TextRequest,
        prompt_tokens: int,
        told: Mapping[str, Any],
        fingerprint: str,
    ) -> None:
        self._chat = isinstance(request, ChatRequest)
        self._prompt_tokens, self._told = prompt_tokens, dict(told)
        prefix, self._kind = ("chatcmpl", "chat.completion") if self._chat else ("cmpl", "text_completion")
        self._same = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, answers: Sequence[Finished]) -> dict[str, Any]:
        """All choices at once."""
        return {
            **self._same,
            "object": self._kind,
            "choices": [self._choice(answer) for answer in sorted(answers, key=lambda answer: answer.index)],
            "usage": self._usage(answers),
            "pad": self._told,
        }

    def begin(self, index: int) -> list[str]:
        """The event with which a chat's choice begins."""
        return [self._event(index, {"role": "assistant", "content": ""}, "", None)] if self._chat else []

    def piece(self, piece: Piece) -> str:
        return self._event(piece.index, {"content": piece.text}, piece.text, None)

    def end(self, answer: Finished) -> str:
        return self._event(answer.index, {}, "", answer.reason)

    def usage_event(self, answers: Sequence[Finished]) -> str:
        """The last event, where it was asked for."""
        return event({**self._chunk(), "choices": [], "usage": self._usage(answers)})

    def _choice(self, answer: Finished) -> dict[str, Any]:
        same = {"index": answer.index, "logprobs": None, "finish_reason": answer.reason}
        if not self._chat:
            return {**same, "text": answer.text}
        return {**same, "message": {"role": "assistant", "content": answer.text, "refusal": None}}

    def _event(self, index: int, delta: Mapping[str, str], text: str, reason: str | None) -> str:
        choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": reason}
        choice |= {"delta": dict(delta)} if self._chat else {"text": text}
        return event({**self._chunk(), "choices": [choice]})

    def _chunk(self) -> dict[str, Any]:
        return {**self._same, "object": "chat.completion.chunk" if self._chat else self._kind, "pad": self._told}

    def _usage(self, answers: Sequence[Finished]) -> dict[str, int]:
        new = sum(answer.tokens for answer in answers)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": new,
            "total_tokens": self._prompt_tokens + new,
        }


def event(content: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


DONE = "data: [DONE]\n\n"


def model_object(name: str, policy: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "pad", "root": policy}

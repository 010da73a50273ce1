"""What a client is told when a request cannot be answered: the OpenAI API's statuses and error objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID = "invalid_request_error"
SERVER = "server_error"


class ApiError(Exception):
    """A request ends with this.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        kind: `type` of the error object.
        code: a word for programs.
        param: which key of the request; `messages.0.content`.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str = "invalid_value",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = " ".join(message.split("\n"))
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def too_busy() -> ApiError:
    return ApiError(
        429,
        "Too many requests are waiting. Try again in a moment.",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": "1"},
    )


def timed_out(seconds: float) -> ApiError:
    return ApiError(504, f"No answer within {seconds:g} s.", kind=SERVER, code="timeout")


def failed() -> ApiError:
    return ApiError(500, "The server failed at this request; its log says why.", kind=SERVER, code="internal_error")


def interrupted() -> ApiError:
    return ApiError(503, "The server ran out of memory at this request. Ask again.", kind=SERVER, code="out_of_memory")


def shutting_down() -> ApiError:
    return ApiError(503, "The server is shutting down.", kind=SERVER, code="shutting_down")


def gone() -> ApiError:
    """Nobody reads it; requests are counted under this status."""
    return ApiError(499, "The client has left.", code="client_closed_request")

"""What every request passes: the bearer token, the longest time it may take, and the count of what came of it."""

from __future__ import annotations

import asyncio
import hmac
import logging

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pad_cli.server.api_error import ApiError

_log = logging.getLogger(__name__)
_OPEN = ("/health",)
_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics")


class Guard:
    """Middleware.

    Args:
        app: what it guards.
        api_key: what clients must send as a bearer token (`/health` aside); None lets everybody in.
        patience: seconds after which a request is dropped, however slowly its client sends or takes.
        requests: counts by route and status.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, patience: float, requests: Counter) -> None:
        self._app, self._patience, self._requests = app, patience, requests
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._may_enter(scope):
                async with asyncio.timeout(self._patience):
                    await self._app(scope, receive, counted)
            else:
                error = ApiError(
                    401,
                    "The API key is missing or wrong.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await JSONResponse(error.body, error.status, error.headers)(scope, receive, counted)
        except TimeoutError:
            _log.warning("A client was too slow; its connection is dropped.")
            status = 499
        except Exception:
            status = 500
            raise
        finally:
            path = scope["path"]
            route = next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")
            self._requests.labels(route, str(status)).inc()

    def _may_enter(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in _OPEN:
            return True
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        given = token.strip().encode()
        return hmac.compare_digest(given, self._key) and scheme.lower() == "bearer"

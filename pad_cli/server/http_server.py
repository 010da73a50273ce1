"""`serve`: bind, load, answer until told to stop; the routes of the API, and what guards them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import re
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend, AuthenticationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.recipe import DecodingSettings, GenerateRecipe
from pad_cli.server.protocol import ApiError, Event, Reply, internal_error, read_request
from pad_cli.server.request_reader import Limits, RequestReader
from pad_cli.server.scheduler import Job, Scheduler
from pad_cli.system.progress import note

_DISCONNECT_SECONDS = 0.2  # after which a client that has left is noticed
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^\s/:?#@\[\]]+|\[[0-9a-f:.]+\])(:[0-9]+)?")


def serve(
    recipe: GenerateRecipe,
    limits: Limits | None = None,
    *,
    default: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> None:
    """Answer requests until interrupted; running ones may then end within `limits.grace`.

    Args:
        recipe: policy, reward model, and the defaults of requests.
        limits: what the server accepts.
        default: the preference that model `pad` stands for.
        port: 0 for any that is free.
        api_key: what clients must send as a bearer token; None lets everybody in.
        allow_origins: web pages that may ask, by origin (`http://localhost:3000`); "*" for all.

    Raises:
        UsageError: the address cannot be listened at, or an origin is invalid.
        PreferenceError: the default preference cannot be understood.
    """
    limits = limits or Limits()
    origins = [_origin(each) for each in allow_origins]
    _listener(host, port).close()  # refuses an address before anything loads
    engine = PadEngine.from_recipe(recipe)
    if default:
        engine.preference(default)
    app = build_app(engine, recipe.decoding, limits, default=default, api_key=api_key, allow_origins=origins)
    with _listener(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/v1"
        note(f"Serving {engine.policy.name} at {address}")
        server = make_server(app, limits)
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.run(sockets=[listener])


def make_server(app: Starlette, limits: Limits) -> uvicorn.Server:
    """What serves the application."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=limits.keep_alive,
        timeout_graceful_shutdown=math.ceil(limits.grace),
    )
    return uvicorn.Server(config)


def _origin(text: str) -> str:
    """An origin as browsers write it: lower case, without a path and its scheme's default port."""
    origin = text.lower().removesuffix("/")
    if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
        raise UsageError(f"'{text}' is not an origin.", "Write --allow-origin http://localhost:3000, or '*' for all.")
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"Cannot listen at {host}, port {port}: {error.strerror}."
        raise UsageError(message, "Choose another --port.") from error


def build_app(
    engine: PadEngine,
    settings: DecodingSettings,
    limits: Limits,
    *,
    default: Sequence[str] = (),
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> Starlette:
    """The application; its lifespan starts and ends the decoding thread. Arguments are those of `serve`."""
    service = _Service(engine, settings, limits, default)
    middleware = []
    if allow_origins:  # before the key is checked: preflights carry none
        methods, anything = ("GET", "POST"), ("*",)
        middleware.append(
            Middleware(CORSMiddleware, allow_origins, methods, allow_headers=anything, expose_headers=anything)
        )
    if api_key is not None:
        middleware.append(Middleware(AuthenticationMiddleware, backend=_BearerToken(api_key), on_error=_wrong_key))
    return Starlette(
        routes=[
            Route("/v1/chat/completions", service.complete, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/health", service.health),
        ],
        middleware=middleware,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: lambda *_: Response(status_code=499),
            Exception: lambda *_: _json_error(internal_error()),
        },
        lifespan=service.lifespan,
    )


class _BearerToken(AuthenticationBackend):
    """Lets in who sends the key, and everybody to /health."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    async def authenticate(self, conn: HTTPConnection) -> None:
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self._key) and scheme.lower() == "bearer"
        if not right and conn.scope["path"] != "/health":  # not `conn.url`, of which the client writes a part
            raise AuthenticationError


def _wrong_key(conn: HTTPConnection, error: AuthenticationError) -> Response:
    message, headers = "The API key is missing or wrong.", {"WWW-Authenticate": "Bearer"}
    return _json_error(ApiError(401, message, code="invalid_api_key", headers=headers))


class _Service:
    def __init__(self, engine: PadEngine, settings: DecodingSettings, limits: Limits, default: Sequence[str]) -> None:
        self._engine, self._limits = engine, limits
        self._reader = RequestReader(engine, settings, limits, default)
        self._tokenizing = asyncio.Lock()  # fast tokenizers are not thread-safe
        self._created = int(time.time())
        guide = "" if engine.reward_model is None else f"-{engine.reward_model.fingerprint}"
        self._fingerprint = f"{engine.policy.fingerprint}{guide}"
        self._scheduler = Scheduler(engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._scheduler.start()
        try:
            yield
        finally:
            await run_in_threadpool(self._scheduler.close, self._limits.grace)

    async def complete(self, http: Request) -> Response:
        request = read_request(await self._body(http))
        async with self._tokenizing:
            work = await run_in_threadpool(self._reader.work, request)
        reply = Reply(request.model, work.prompt_tokens, work.pad, self._fingerprint)
        job = Job(self._engine, work, streamed=request.stream, timeout=self._limits.timeout)
        self._scheduler.submit(job)
        if not request.stream:
            return JSONResponse(reply.whole(await _whole(http, job)))
        chunks = _chunks(job, reply, usage=request.stream_options.include_usage)
        return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def models(self, request: Request) -> Response:
        names = await run_in_threadpool(self._reader.model_names)
        common = {"object": "model", "created": self._created, "owned_by": "pad"}
        return JSONResponse({"object": "list", "data": [{"id": name, **common} for name in names]})

    async def health(self, request: Request) -> Response:
        health = self._scheduler.health
        return JSONResponse(health, status_code=200 if health["status"] == "ok" else 503)

    async def _body(self, request: Request) -> bytes:
        body, limits = bytearray(), self._limits
        try:
            async with asyncio.timeout(limits.read_timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > limits.max_body:
                        message = f"The body has more than {limits.max_body} bytes."
                        raise ApiError(413, message, code="request_too_large")
        except TimeoutError as error:
            message = f"The body did not arrive within {limits.read_timeout:g} s."
            raise ApiError(408, message, code="timeout") from error
        return bytes(body)


async def _whole(request: Request, job: Job) -> list[Event]:
    """The answers of a job (ClientDisconnect if the client leaves first; ApiError if one fails or the server stops)."""

    async def collect() -> list[Event]:
        return [event async for event in job.events()]

    answers = asyncio.ensure_future(collect())
    try:
        while not answers.done():
            if await request.is_disconnected():
                raise ClientDisconnect
            await asyncio.wait([answers], timeout=_DISCONNECT_SECONDS)
        return answers.result()
    except asyncio.CancelledError:
        raise ApiError(503, "The server is shutting down.", code="shutting_down") from None
    finally:
        answers.cancel()
        job.cancel()


async def _chunks(job: Job, reply: Reply, *, usage: bool) -> AsyncIterator[str]:
    """The text of a stream. An error has no status, since the response has begun: it is the last event."""
    tokens = 0
    try:
        async for event in job.events():
            for chunk in reply.chunks(event):
                yield _event_text(chunk)
            tokens += event.tokens
        if usage:
            yield _event_text(reply.usage_chunk(tokens))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event_text(error.body)
    finally:
        job.cancel()  # the client may have left


def _event_text(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _json_error(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _api_error(request: Request, error: Any) -> Response:
    return _json_error(error)


async def _http_error(request: Request, error: Any) -> Response:
    hint = " Answers come from /v1/chat/completions." if error.status_code == 404 else ""
    message = f"{request.method} {request.url.path}: {error.detail}.{hint}"
    return _json_error(ApiError(error.status_code, message, code="no_such_route", headers=error.headers))

"""`serve`: bind, load, answer until told to stop; the routes of the API, and what guards them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.recipe import DecodingSettings, GenerateRecipe
from pad_cli.server.protocol import ApiError, Event, Reply, internal_error, read_request
from pad_cli.server.request_reader import Limits, RequestReader
from pad_cli.server.scheduler import Job, Scheduler
from pad_cli.system.progress import note

_log = logging.getLogger(__name__)
_SEND_ERRORS = 5  # seconds, after `limits.grace`
_ORIGIN = re.compile(r"(?P<site>(?P<scheme>[a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/:?#@\[\]]+))(?P<port>:[0-9]+)?")
_PORTS = {"http": ":80", "https": ":443"}


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
    """Answer requests until interrupted; running ones may then end, and clients whose time is up get an error.

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
        server = HttpServer(app, limits, f"Serving {engine.policy.name} at {address}")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.run(sockets=[listener])


class HttpServer(uvicorn.Server):
    """uvicorn's server, which notes `started` once it listens, and after `limits.grace` fails what still runs."""

    def __init__(self, app: Starlette, limits: Limits, started: str) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=limits.keep_alive,
            timeout_graceful_shutdown=math.ceil(limits.grace) + _SEND_ERRORS,
        )
        super().__init__(config)
        self._scheduler, self._grace, self._message = app.state.scheduler, limits.grace, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        note(self._message)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._grace, self._scheduler.give_up)
        await super().shutdown(sockets)


def _origin(text: str) -> str:
    """An origin as browsers write it: lower case, without a path and its scheme's default port."""
    if text in ("*", "null"):
        return text
    match = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None:
        raise UsageError(f"'{text}' is not an origin.", "Write --allow-origin http://localhost:3000, or '*' for all.")
    return match["site"] if match["port"] == _PORTS.get(match["scheme"]) else match[0]


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
    """The application; its lifespan starts and ends `app.state.scheduler`. Arguments are those of `serve`."""
    service = _Service(engine, settings, limits, default)
    patience = limits.timeout + 2 * limits.read_timeout
    guard = Middleware(RequestGuard, api_key=api_key, patience=patience)
    cors = Middleware(
        CORSMiddleware, allow_origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=("*",)
    )  # outside the guard: preflights carry no key, and errors need its header too
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", service.complete, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/health", service.health),
        ],
        middleware=[cors, guard] if allow_origins else [guard],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
        lifespan=service.lifespan,
    )
    app.state.scheduler = service.scheduler
    return app


class RequestGuard:
    """Middleware: checks the bearer token, and drops requests after `patience` seconds."""

    def __init__(self, app: ASGIApp, api_key: str | None, patience: float) -> None:
        self._app, self._patience = app, patience
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._patience):
                if self._may_enter(scope):
                    await self._app(scope, receive, noting_send)
                else:
                    message, headers = "The API key is missing or wrong.", {"WWW-Authenticate": "Bearer"}
                    error = ApiError(401, message, code="invalid_api_key", headers=headers)
                    await _json_error(error)(scope, receive, send)
        except TimeoutError:
            _log.warning("A client was too slow; its connection is dropped.")
        except Exception:
            _log.exception("%s %s failed.", scope["method"], scope["path"])
            if begun:
                raise  # the response has begun: let the server break it off
            await _json_error(internal_error())(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] == "/health":
            return True
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return hmac.compare_digest(token.strip().encode(), self._key) and scheme.lower() == "bearer"


class _Service:
    def __init__(self, engine: PadEngine, settings: DecodingSettings, limits: Limits, default: Sequence[str]) -> None:
        self._engine, self._limits = engine, limits
        self._reader = RequestReader(engine, settings, limits, default)
        self._tokenizing = asyncio.Lock()  # fast tokenizers are not thread-safe
        self._created = int(time.time())
        guide = "" if engine.reward_model is None else f"-{engine.reward_model.fingerprint}"
        self._fingerprint = f"{engine.policy.fingerprint}{guide}"
        self.scheduler = Scheduler(engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.scheduler.start()
        try:
            yield
        finally:
            await run_in_threadpool(self.scheduler.close, self._limits.grace)

    async def complete(self, http: Request) -> Response:
        request = read_request(await self._body(http))
        async with self._tokenizing:
            work = await run_in_threadpool(self._reader.work, request)
        reply, streamed = Reply(request.model, work.prompt_tokens, work.pad, self._fingerprint), request.stream
        job = Job(self._engine, work, streamed=streamed, timeout=self._limits.timeout)
        self.scheduler.submit(job)
        try:
            if not streamed:
                return JSONResponse(reply.whole(await _unless_disconnected(http, _whole(job))))
            events = job.events()
            first = await _unless_disconnected(http, anext(events))  # what fails before the first text has a status
        finally:
            if not streamed or sys.exception() is not None:
                job.cancel()
        chunks = _chunks(first, events, reply, len(job.answers), usage=request.stream_options.include_usage)
        return _EventStream(chunks, on_close=job.cancel)

    async def models(self, request: Request) -> Response:
        names = await run_in_threadpool(self._reader.model_names)
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        await run_in_threadpool(self._reader.specs, name)  # refuses unknown ones
        return JSONResponse(self._model(name))

    async def health(self, request: Request) -> Response:
        health = self.scheduler.health
        return JSONResponse(health, status_code=200 if health["status"] == "ok" else 503)

    def _model(self, name: str) -> dict[str, Any]:
        root = self._engine.policy.name
        return {"id": name, "object": "model", "created": self._created, "owned_by": "pad", "root": root}

    async def _body(self, request: Request) -> bytes:
        body, limits = bytearray(), self._limits
        try:
            async with asyncio.timeout(limits.read_timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > limits.max_body:
                        message = f"The body has more than {limits.max_body} bytes."
                        raise ApiError(413, message, code="request_too_large")
        except ClientDisconnect as error:
            raise _client_left() from error
        except TimeoutError as error:
            message = f"The body did not arrive within {limits.read_timeout:g} s."
            raise ApiError(408, message, code="timeout") from error
        return bytes(body)


async def _whole(job: Job) -> list[Event]:
    return [event async for event in job.events()]


class _EventStream(StreamingResponse):
    """Server-sent events; `on_close` is called when they end, or the client leaves."""

    def __init__(self, chunks: AsyncIterator[str], on_close: Callable[[], None]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


async def _chunks(
    first: Event, events: AsyncIterator[Event], reply: Reply, choices: int, *, usage: bool
) -> AsyncIterator[str]:
    """The text of a stream. An error after the first event has no status any more: it is the last event."""
    try:
        for chunk in (*reply.first_chunks(choices), *reply.chunks(first)):
            yield _event_text(chunk)
        tokens = first.tokens
        async for event in events:
            for chunk in reply.chunks(event):
                yield _event_text(chunk)
            tokens += event.tokens
        if usage:
            yield _event_text(reply.usage_chunk(tokens))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event_text(error.body)


def _event_text(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


Result = TypeVar("Result")


async def _unless_disconnected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, unless the client leaves first."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    result, left = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait([result, left], return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise _client_left()
        return result.result()
    finally:
        result.cancel()
        left.cancel()


def _client_left() -> ApiError:
    return ApiError(499, "The client has left.", code="client_closed_request")  # nobody reads it; it is counted


def _json_error(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json_error(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = " Answers come from /v1/chat/completions." if error.status_code == 404 else ""
    message = f"{request.method} {request.url.path}: {error.detail}.{hint}"
    return _json_error(ApiError(error.status_code, message, code="no_such_route", headers=error.headers))

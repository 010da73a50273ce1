"""The routes: chat and text completions, models, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pad_cli.decoding.engine import PadEngine
from pad_cli.recipe import DecodingSettings
from pad_cli.server.answer import Event, Failed, Finished, Piece
from pad_cli.server.api_error import ApiError, failed, gone
from pad_cli.server.catalogue import Catalogue
from pad_cli.server.guard import Guard
from pad_cli.server.job import Job
from pad_cli.server.reading import Limits, Reading
from pad_cli.server.responses import DONE, event, model_object
from pad_cli.server.responses import Response as Reply
from pad_cli.server.scheduler import Scheduler
from pad_cli.server.schema import ChatRequest, TextRequest, read_request


def build_app(
    engine: PadEngine,
    settings: DecodingSettings,
    limits: Limits,
    *,
    default: Sequence[str] = (),
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> Starlette:
    """The application, for any ASGI server; its lifespan starts and ends its scheduler, `app.state.scheduler`.

    Args:
        engine: answers.
        settings: what a request does not say.
        limits: what the server takes on.
        default: the preference that model `pad` stands for.
        api_key: what clients must send as a bearer token; None lets everybody in.
        allow_origins: web pages that may ask, by origin (`http://localhost:3000`); "*" for all.
    """
    service = _Service(engine, settings, limits, default)
    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.text, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    app = _App(
        allow_origins,
        routes=routes,
        exception_handlers={ApiError: _refusal, HTTPException: _http_refusal, Exception: _bug},
        lifespan=service.lifespan,
    )
    app.state.scheduler = service.scheduler
    patience = limits.timeout + 2 * limits.read_timeout
    app.add_middleware(Guard, api_key=api_key, patience=patience, requests=service.scheduler.meters.requests)
    return app


class _App(Starlette):
    def __init__(self, allow_origins: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self._allow_origins = allow_origins

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's own, within CORS: preflights need no key, and every answer has the header, errors of ours too."""
        stack = super().build_middleware_stack()
        if not self._allow_origins:
            return stack
        cors = CORSMiddleware(
            stack, self._allow_origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=("*",)
        )
        # what a preflight that names no headers is told; one that names some gets those
        cors.preflight_headers.setdefault("Access-Control-Allow-Headers", "authorization, content-type")
        return cors


class _Service:
    def __init__(self, engine: PadEngine, settings: DecodingSettings, limits: Limits, default: Sequence[str]) -> None:
        self._engine, self._limits = engine, limits
        self._catalogue = Catalogue(engine, default)
        self._reading = Reading(engine, settings, limits, self._catalogue)
        self._tokenizing = asyncio.Lock()  # fast tokenizers are not for two threads
        self._created = int(time.time())
        guide = "" if engine.reward_model is None else f"-{engine.reward_model.fingerprint}"
        self._fingerprint = f"{engine.policy.fingerprint}{guide}"
        self.scheduler = Scheduler(
            engine, max_batch=limits.max_batch, max_queue=limits.max_queue, batch_wait=limits.batch_wait
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.scheduler.start()
        try:
            yield
        finally:
            await run_in_threadpool(self.scheduler.close, self._limits.grace)

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, read_request(ChatRequest, await self._body(request)))

    async def text(self, request: Request) -> Response:
        return await self._complete(request, read_request(TextRequest, await self._body(request)))

    async def models(self, request: Request) -> Response:
        names = await run_in_threadpool(self._catalogue.names)
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        await run_in_threadpool(self._catalogue.specs, name)
        return JSONResponse(self._model(name))

    async def health(self, request: Request) -> Response:
        alive = self.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "decoding has stopped"}, status_code=200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.scheduler.meters.text(), media_type="text/plain; version=0.0.4")

    def _model(self, name: str) -> dict[str, Any]:
        return model_object(name, self._engine.policy.name, self._created)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.read_timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > self._limits.max_body:
                        raise ApiError(
                            413, f"The body has more than {self._limits.max_body} bytes.", code="request_too_large"
                        )
        except ClientDisconnect as error:
            raise gone() from error
        except TimeoutError as error:
            raise ApiError(
                408, f"The body did not arrive within {self._limits.read_timeout:g} s.", code="timeout"
            ) from error
        return bytes(body)

    async def _complete(self, request: Request, asked: ChatRequest | TextRequest) -> Response:
        async with self._tokenizing:
            work = await run_in_threadpool(self._reading.work, asked)
        reply = Reply(asked, work.prompt_tokens, work.told, self._fingerprint)
        job = Job(self.scheduler, self._engine, work, pieces=bool(asked.stream), timeout=self._limits.timeout)
        try:
            if not asked.stream:
                return JSONResponse(reply.whole(await _unless_gone(request, job.whole())))
            first = await _unless_gone(request, job.next())  # what fails before the first word still has a status
            if isinstance(first, Failed):
                raise first.error
        finally:
            if not asked.stream or sys.exception() is not None:
                job.close()
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return _EventStream(job, _events(job, first, reply, len(work.items), usage))


class _EventStream(StreamingResponse):
    """Server-sent events; when they end, or the client leaves, the job is closed."""

    def __init__(self, job: Job, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close()


async def _events(job: Job, first: Event | None, reply: Reply, choices: int, usage: bool) -> AsyncIterator[str]:
    found: list[Finished] = []
    for index in range(choices):
        for text in reply.begin(index):
            yield text
    current = first
    while current is not None:
        if isinstance(current, Failed):
            yield event(current.error.body)
            return
        if isinstance(current, Piece):
            yield reply.piece(current)
        else:
            found.append(current)
            yield reply.end(current)
        current = await job.next()
    if usage:
        yield reply.usage_event(found)
    yield DONE


Result = TypeVar("Result")


async def _unless_gone(request: Request, waiting: Coroutine[Any, Any, Result]) -> Result:
    """What is waited for, unless the client leaves first."""
    result, left = asyncio.ensure_future(waiting), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([result, left], return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise gone()
        return result.result()
    finally:
        result.cancel()
        left.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}.", code="no_such_route")
    return JSONResponse(told.body, status_code=error.status_code, headers=error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    return JSONResponse(failed().body, status_code=500)

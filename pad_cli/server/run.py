"""`serve`: bind, load, answer until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.recipe import GenerateRecipe
from pad_cli.server.app import build_app
from pad_cli.server.reading import Limits
from pad_cli.system.progress import note

_LAST_WORDS = 5  # seconds to send them
_PORTS = {"http": 80, "https": 443}


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
    """Answer requests until interrupted; those under way may then end, and clients whose time is up are told so.

    Args:
        recipe: policy, reward model, and how to decode where a request does not say.
        limits: what the server takes on.
        default: the preference that model `pad` stands for.
        host: address to listen at.
        port: 0 for any that is free.
        api_key: what clients must send as a bearer token; None lets everybody in.
        allow_origins: web pages that may ask, by origin (`http://localhost:3000`); "*" for all.

    Raises:
        UsageError: the address cannot be listened at, or an origin is none.
        PreferenceError: the default preference cannot be understood.
    """
    limits = limits or Limits()
    origins = [_origin(each) for each in allow_origins]
    with contextlib.closing(_bound(host, port)) as listener:
        engine = PadEngine.from_recipe(recipe)
        if default:
            engine.preference(default)
        app = build_app(engine, recipe.decoding, limits, default=default, api_key=api_key, allow_origins=origins)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/v1"
        server = HttpServer(app, limits, f"Serving {engine.policy.name} at {address}")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.run(sockets=[listener])


class HttpServer(uvicorn.Server):
    """uvicorn's server, which tells clients that still wait at the end of `limits.grace`.

    Args:
        app: of `build_app`.
        limits: the same that the application has.
        told: said once it listens.
    """

    def __init__(self, app: Starlette, limits: Limits, told: str) -> None:
        patience = math.ceil(limits.grace) + _LAST_WORDS
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=limits.keep_alive,
            timeout_graceful_shutdown=patience,
        )
        super().__init__(config)
        self._scheduler, self._grace, self._told = app.state.scheduler, limits.grace, told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        note(self._told)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._grace, self._scheduler.give_up)
        await super().shutdown(sockets)


def _origin(text: str) -> str:
    """An origin as browsers write it: lower case, and without a path or its scheme's own port."""
    if text in ("*", "null"):
        return text
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:  # not a port, or half an IPv6 address
        parts, port = urlsplit(""), None
    if not parts.scheme or not parts.hostname or parts.path not in ("", "/") or parts.query or "@" in parts.netloc:
        raise UsageError(f"'{text}' is not an origin.", "Write --allow-origin http://localhost:3000, or '*' for all.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS.get(parts.scheme)) else f":{port}")


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address; it does not listen yet, so that no client waits for models to load."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            stack.pop_all()
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {host}, port {port}: {error.strerror}.", "Choose another --port."
        ) from error
    return listener

"""`serve`: bind, load, answer until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.recipe import GenerateRecipe
from pad_cli.server.app import build_app
from pad_cli.server.request_reader import Limits
from pad_cli.system.progress import note

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
        host: address to listen at.
        port: 0 for any that is free.
        api_key: what clients must send as a bearer token; None lets everybody in.
        allow_origins: web pages that may ask, by origin (`http://localhost:3000`); "*" for all.

    Raises:
        UsageError: the address cannot be listened at, or an origin is invalid.
        PreferenceError: the default preference cannot be understood.
    """
    limits = limits or Limits()
    origins = [_origin(each) for each in allow_origins]
    _listener(host, port).close()  # refuses an address before anything loads; no client may wait meanwhile
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
    match = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None and text not in ("*", "null"):
        raise UsageError(f"'{text}' is not an origin.", "Write --allow-origin http://localhost:3000, or '*' for all.")
    if match is None:
        return text
    default = match["port"] in (None, _PORTS.get(match["scheme"]))
    return match["site"] if default else match[0]


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"Cannot listen at {host}, port {port}: {error.strerror}."
        raise UsageError(message, "Choose another --port.") from error

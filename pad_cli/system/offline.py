"""Without the network: `pad --offline`, or PAD_OFFLINE=1 in the environment.

Then nothing leaves this machine: the hub's libraries look in their caches only, a judge has to be on this machine, and
whatever tries to connect to another one all the same, a plugin too, is told that there is no network. HF_HUB_OFFLINE=1
is weaker: it is about the hub alone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from typing import Any

_OURS, _HUBS = "PAD_OFFLINE", ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "true", "yes", "on")
_LOADED = (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))
_CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")  # events of Python, with (socket, address)
_RESOLVES = ("socket.getaddrinfo", "socket.gethostbyname")  # with (host, ...)
_state = {"watched": False}


def offline() -> bool:
    """Is the network off limits?"""
    return os.environ.get(_OURS, "").lower() in _TRUE


def go_offline() -> None:
    """Keep this process, and those that it starts, from the network."""
    os.environ.update(dict.fromkeys((_OURS, *_HUBS), "1"))
    for module, name in _LOADED:  # which read the environment when they were imported
        if module in sys.modules:
            setattr(sys.modules[module], name, True)
    if not _state["watched"]:
        _state["watched"] = True
        sys.addaudithook(_refuse)  # for good: there is no way to remove one


def is_this_machine(host: str) -> bool:
    """Is a host's name or address one of the loopback interface?"""
    name = host.strip("[]").partition("%")[0].lower()
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def hub_hint(hint: str, command: str) -> str:
    """A hint about something on the hub; where the hub is off limits, also how to fetch it.

    Args:
        hint: for everybody.
        command: that fetches it.
    """
    loaded = sys.modules.get("huggingface_hub.constants")
    closed = offline() or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    if not closed and not getattr(loaded, "HF_HUB_OFFLINE", False):
        return hint
    return f"{hint} The hub is off limits (--offline, PAD_OFFLINE or HF_HUB_OFFLINE); fetch it once: {command}"


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook; libraries take its error for that of a network that is not there."""
    if not event.startswith("socket.") or not offline():
        return
    if event in _CONNECTS and isinstance(arguments[1], tuple) and not is_this_machine(str(arguments[1][0])):
        raise ConnectionError(f"offline: no connection to {arguments[1][0]}")
    if event in _RESOLVES and arguments[0]:
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.strip("[]"))
            return  # a number needs nobody to look it up
        if not is_this_machine(host):
            raise ConnectionError(f"offline: '{host}' is not looked up")

"""Without the network: `pad --offline`, or PAD_OFFLINE=1 in the environment.

The hub's libraries then look in their caches only, a judge has to be on this machine, and whatever connects to another
machine all the same, a plugin too, is refused. HF_HUB_OFFLINE=1 is weaker: it is about the hub alone.
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
_CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")  # audit events, with (socket, address)
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
        sys.addaudithook(_refuse)  # for good: an audit hook cannot be removed


def is_this_machine(host: str) -> bool:
    """Is a host's name or address one of the loopback interface?"""
    name = host.strip("[]").partition("%")[0].lower()
    address = _address(name)
    return address.is_loopback if address else name == "localhost" or name.endswith(".localhost")


def hub_hint(hint: str, command: str) -> str:
    """A hint about something on the hub; where the hub is off limits, also the command that fetches it."""
    loaded = sys.modules.get("huggingface_hub.constants")
    closed = offline() or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    if not closed and not getattr(loaded, "HF_HUB_OFFLINE", False):
        return hint
    return f"{hint} The hub is off limits (--offline, PAD_OFFLINE or HF_HUB_OFFLINE); fetch it once: {command}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook; libraries take its error for that of a network that is not there."""
    if not event.startswith("socket.") or not offline():
        return
    if event in _CONNECTS and isinstance(arguments[1], tuple) and not is_this_machine(str(arguments[1][0])):
        raise ConnectionError(f"offline: no connection to {arguments[1][0]}")
    if event in _RESOLVES and arguments[0]:
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if not _address(host.strip("[]")) and not is_this_machine(host):  # an address needs no look-up
            raise ConnectionError(f"offline: '{host}' is not looked up")

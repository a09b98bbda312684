"""What we lean on inside uvicorn, websockets and asyncio: names that are not promised to stay.

One table. tests/transport/test_insides.py fails where one of them is gone, or where a method that we override or call
takes something else than written here; and where a protocol class of ours uses one of its own that is not here. After
an update of either library run it first, then raise the upper bounds in pyproject.toml. A service that starts with
something missing says so and serves without our protocols (`choice.py`).
"""

from __future__ import annotations

import asyncio.selector_events
import dis
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import Protocol


@dataclass(frozen=True)
class Inside:
    """A class of a library: its methods that we override or call, and its attributes that we read or set."""

    owner: type
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> parameters after self
    attributes: tuple[str, ...] = ()


_PROTOCOL: dict[str, tuple[str, ...]] = {
    "__init__": ("config", "server_state", "app_state", "_loop"),
    "connection_made": ("transport",),
    "connection_lost": ("exc",),
    "data_received": ("data",),
    "pause_writing": (),
    "resume_writing": (),
}

INSIDES = (
    Inside(H11Protocol, _PROTOCOL, ("transport", "loop", "client", "conn", "cycle", "flow")),
    Inside(RequestResponseCycle, attributes=("response_complete", "keep_alive")),
    Inside(FlowControl, {"__init__": ("transport",), "pause_reading": (), "resume_reading": ()}),
    Inside(
        WebSocketsSansIOProtocol,
        {
            **_PROTOCOL,
            "handle_connect": ("event",),
            "send": ("message",),
            "send_receive_event_to_app": (),
            "stop_keepalive": (),
        },
        (
            *("transport", "loop", "client", "conn", "scope", "queue", "frames", "curr_msg_data_type", "writable"),
            *(
                "handshake_initiated",
                "handshake_complete",
                "close_sent",
                "close_timer",
                "close_timeout",
                "disconnected",
            ),
        ),
    ),
    Inside(Protocol, {"fail": ("code", "reason"), "data_to_send": ()}, ("state",)),
    Inside(Frame, {"serialize": ("mask", "extensions")}, ("opcode", "data")),
    Inside(uvicorn.Server, {"startup": ("sockets",), "serve": ("sockets",)}, ("servers", "should_exit", "started")),
    Inside(asyncio.selector_events._SelectorTransport, attributes=("max_size",)),  # type: ignore[attr-defined]
)
"""Tested with uvicorn 0.54.0 and websockets 17.4."""


def missing(inside: Inside) -> Iterator[str]:
    """What of the table's row the library has no more, or otherwise."""
    owner = inside.owner
    for name, wanted in inside.methods.items():
        own = vars(owner).get(name)  # not what asyncio.Protocol would answer in its place
        if own is None:
            yield f"{owner.__name__}.{name}: found no such method"
            continue
        found = tuple(inspect.signature(own).parameters)[1:]
        if found != wanted:
            yield f"{owner.__name__}.{name}: found parameters {found}, wanted {wanted}"
    for name in inside.attributes:
        if not hasattr(owner, name) and name not in _annotated(owner) and name not in _stored(owner):
            yield f"{owner.__name__}.{name}: found nothing that sets it"


def _annotated(owner: type) -> set[str]:
    return {name for base in owner.__mro__ for name in vars(base).get("__annotations__", {})}


@functools.cache
def _stored(owner: type) -> set[str]:
    """The attributes that a class's own functions set."""
    functions = [f for base in owner.__mro__ for f in vars(base).values() if inspect.isfunction(f)]
    steps = [step for f in functions for step in dis.get_instructions(f)]
    return {str(step.argval) for step in steps if step.opname == "STORE_ATTR"}

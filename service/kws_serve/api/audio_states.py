"""The life of one connection that feeds a stream, as a table: in which state what may happen, and which state follows.

What a client says (CLIENT) and its state does not list is refused. What happens to the connection otherwise and is not
listed changes nothing.

    OPEN -> HEARD -> ENDED -> DONE          as it should be: audio, `end`, `done`. Where a stream is resumed whose
      |       |        |                    client has said `end` it begins at ENDED_BEFORE, or at DONE
      +-------+--------+--> AWAY            broke off: whoever resumes has a new connection, and this one is REPLACED
      +-------+--------+--> REFUSED         an error is told, and the stream ends
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Of one connection; its stream may have had others before."""

    OPEN = "open"  # no audio yet: `resume` may still come
    HEARD = "heard"  # audio has come
    ENDED = "ended"  # the client has said `end`
    ENDED_BEFORE = "ended before"  # on a connection that broke off; the client may not know that it was heard
    DONE = "done"  # all is found: what waits is sent, then the connection is closed
    AWAY = "away"  # broke off: the stream waits for its client
    KEPT = "kept"  # broke off, and all is found: that waits for the client
    REPLACED = "replaced"  # a newer connection feeds the stream
    REFUSED = "refused"  # an error is told
    GONE = "gone"


class What(StrEnum):
    """Happens to a connection."""

    AUDIO = "audio"
    RESUME = "resume"
    AUTH = "auth"  # once more: the token was seen to before
    END = "end"
    FINISH = "finish"  # the engine has processed the stream's last sample
    BREAK = "break"  # without a word, or because this service restarts
    REPLACE = "replace"
    REFUSE = "refuse"
    LEAVE = "leave"


TEXTS = frozenset({What.RESUME, What.AUTH, What.END})
"""What a client says in JSON: the member's value is the message's `type`."""

CLIENT = TEXTS | {What.AUDIO}
"""All that a client says."""

_ENDS = {
    What.FINISH: State.DONE,
    What.BREAK: State.AWAY,
    What.REPLACE: State.REPLACED,
    What.REFUSE: State.REFUSED,
    What.LEAVE: State.GONE,
}
"""How a connection that stands can end."""

TRANSITIONS: dict[State, dict[What, State]] = {
    State.OPEN: {
        What.AUDIO: State.HEARD,
        What.RESUME: State.OPEN,  # of an epoch that nobody knows: begin anew
        What.AUTH: State.OPEN,
        What.END: State.ENDED,
        **_ENDS,
    },
    State.HEARD: {What.AUDIO: State.HEARD, What.AUTH: State.HEARD, What.END: State.ENDED, **_ENDS},
    State.ENDED: _ENDS,
    State.ENDED_BEFORE: {What.AUTH: State.ENDED_BEFORE, What.END: State.ENDED, **_ENDS},
    State.DONE: {What.REPLACE: State.REPLACED, What.LEAVE: State.GONE},  # nor refused: it has been heard to its end
    State.AWAY: {What.FINISH: State.KEPT, What.REPLACE: State.REPLACED, What.LEAVE: State.GONE},
    State.KEPT: {What.REPLACE: State.REPLACED, What.LEAVE: State.GONE},
    State.REPLACED: {},
    State.REFUSED: {What.LEAVE: State.GONE},
    State.GONE: {},
}
"""state -> what can happen -> the state that follows"""

STANDING = frozenset({State.OPEN, State.HEARD, State.ENDED, State.ENDED_BEFORE, State.DONE})
"""The connection is there, and it is the one that feeds the stream."""


class Life:
    """Where in the table a connection is."""

    def __init__(self, state: State = State.OPEN) -> None:
        self.state = state

    def on(self, what: What) -> bool:
        """Go on where the table lets it; False, and nothing changed, where it does not."""
        following = TRANSITIONS[self.state].get(what)
        if following is None:
            return False
        self.state = following
        return True

    @property
    def finished(self) -> bool:
        """Whether the stream has come to its end in the engine."""
        return self.state in (State.DONE, State.KEPT)

    @property
    def waiting(self) -> bool:
        """Whether the client has vanished and may come back."""
        return self.state in (State.AWAY, State.KEPT)

    @property
    def standing(self) -> bool:
        """Whether the client can be heard and told something."""
        return self.state in STANDING

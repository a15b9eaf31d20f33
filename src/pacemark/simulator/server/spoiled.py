"""Answers that go wrong on their way to the client, one class or function for each way."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable
from typing import ClassVar

import msgspec

from pacemark.simulator.server.delivery import Delivery, chunk
from pacemark.simulator.server.faults import Fault
from pacemark.simulator.server.http import Connection, head, response

__all__ = ["spoiled"]


class _Interrupted(Delivery):
    """Breaks off before the event that `after_events` names; a whole answer breaks off in the middle."""

    def __init__(self, connection: Connection, fault: Fault) -> None:
        super().__init__(connection)
        self._left = fault.after_events

    def events(self, data: bytes) -> None:
        if self._left <= 0:
            self.stop()
        else:
            self._left -= 1
            super().events(data)

    def finish(self, data: bytes) -> None:
        self.stop()

    def whole(self, body: bytes) -> None:
        answer = response(200, body)
        self.connection.send(answer[: -max(1, len(body) // 2)])
        self.stop()

    def stop(self) -> None:
        raise NotImplementedError


class _Reset(_Interrupted):
    def stop(self) -> None:
        self.connection.abort()


class _Cut(_Interrupted):
    def stop(self) -> None:
        self.connection.close()


class _ErrorInStream(_Interrupted):
    _error: ClassVar = {
        "error": {"message": "The engine died while it answered.", "type": "internal_server_error", "code": 500}
    }

    def whole(self, body: bytes) -> None:
        Delivery.whole(self, msgspec.json.encode(self._error))

    def stop(self) -> None:
        lost = self.connection.on_lost
        self.connection.on_lost = None
        Delivery.finish(self, b"data: " + msgspec.json.encode(self._error) + b"\n\n")
        if lost:  # The rest will never be sent, so the engine need not compute it.
            lost()


class _Held(Delivery):
    """Holds everything back for a while, then lets it go at once."""

    def __init__(self, connection: Connection, fault: Fault) -> None:
        super().__init__(connection)
        self._seconds = fault.seconds
        self._waiting: list[tuple[Callable[[bytes], None], bytes]] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, opening: bytes) -> None:
        self._do(super().start, opening)

    def events(self, data: bytes) -> None:
        self._do(super().events, data)

    def finish(self, data: bytes) -> None:
        self._do(super().finish, data)

    def whole(self, body: bytes) -> None:
        self._do(super().whole, body)

    def abandon(self) -> None:
        if self._timer:
            self._timer.cancel()

    def hold(self) -> None:
        self._waiting = []
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._let_go)

    def _do(self, call: Callable[[bytes], None], data: bytes) -> None:
        if self._waiting is None:
            call(data)
        else:
            self._waiting.append((call, data))

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for call, data in waiting:
            call(data)


class _Slow(_Held):
    def start(self, opening: bytes) -> None:
        self.hold()
        super().start(opening)

    def whole(self, body: bytes) -> None:
        self.hold()
        super().whole(body)


class _Stall(_Held):
    def __init__(self, connection: Connection, fault: Fault) -> None:
        super().__init__(connection, fault)
        self._left = fault.after_events

    def events(self, data: bytes) -> None:
        if self._left == 0:
            self.hold()
        self._left -= 1
        super().events(data)

    def finish(self, data: bytes) -> None:
        if self._left >= 0:
            self.hold()
        super().finish(data)

    def whole(self, body: bytes) -> None:
        self.hold()
        super().whole(body)


class _SplitBytes(Delivery):
    """One byte a chunk and a system call."""

    def events(self, data: bytes) -> None:
        for i in range(len(data)):
            self.connection.send(chunk(data[i : i + 1]))

    def finish(self, data: bytes) -> None:
        self.events(data)
        super().finish(b"")


class _Gzip(Delivery):
    """Each event compressed at once, so that it can be read at once."""

    headers = (*Delivery.headers, "content-encoding: gzip")

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._gzip = zlib.compressobj(wbits=31)

    def start(self, opening: bytes) -> None:
        super().start(self._squeeze(opening) if opening else b"")

    def events(self, data: bytes) -> None:
        super().events(self._squeeze(data))

    def finish(self, data: bytes) -> None:
        super().finish(self._squeeze(data) + self._gzip.flush())

    def whole(self, body: bytes) -> None:
        data = self._gzip.compress(body) + self._gzip.flush()
        self.connection.send(head(200, "application/json", "content-encoding: gzip", length=len(data)) + data)
        self.connection.done()

    def _squeeze(self, data: bytes) -> bytes:
        return self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)


_TEXT = re.compile(rb'("(?:content|text|arguments|reasoning_content|reasoning)":")')
_FINISH = re.compile(rb'"finish_reason":"')


class _Changed(Delivery):
    """Each event changed by a function of its bytes; `target` is said of the one that `after_events` names."""

    def __init__(self, connection: Connection, fault: Fault, change: Callable[[bytes, bool], bytes]) -> None:
        super().__init__(connection)
        self._left = fault.after_events
        self._change = change

    def start(self, opening: bytes) -> None:
        super().start(self._changed(opening, -1))

    def events(self, data: bytes) -> None:
        super().events(self._changed(data, 0 if self._left == 0 else -1))
        self._left -= 1

    def finish(self, data: bytes) -> None:
        super().finish(self._changed(data, 0 if self._left >= 0 else -1))

    def whole(self, body: bytes) -> None:
        changed = self._change(b"data: " + body + b"\n\n", True)
        super().whole(changed.removeprefix(b"data: ").removesuffix(b"\n\n"))

    def _changed(self, data: bytes, target: int) -> bytes:
        events = [event + b"\n\n" for event in data.split(b"\n\n") if event]
        return b"".join(self._change(event, index == target) for index, event in enumerate(events))


def _malformed(event: bytes, target: bool) -> bytes:
    return event[: len(event) // 2] + b"\n\n" if target else event


def _invalid_utf8(event: bytes, target: bool) -> bytes:
    return _TEXT.sub(rb"\1" + b"\xff\xfe", event, count=1) if target else event


def _crlf(event: bytes, target: bool) -> bytes:
    return event.replace(b"\n", b"\r\n")


def _comments(event: bytes, target: bool) -> bytes:
    return b": keep-alive\n\nretry: 3000\nid: 7\nevent: message\n: more follows\n" + event


def _no_done(event: bytes, target: bool) -> bytes:
    return b"" if event == b"data: [DONE]\n\n" else event


def _no_usage(event: bytes, target: bool) -> bytes:
    if b'"usage":{' not in event:
        return event
    body = msgspec.json.decode(event.removeprefix(b"data: "))
    del body["usage"]
    return b"data: " + msgspec.json.encode(body) + b"\n\n" if body.get("choices") else b""


def _usage_null(event: bytes, target: bool) -> bytes:
    if not event.endswith(b"}\n\n") or b'"usage":' in event:
        return event
    return event.removesuffix(b"}\n\n") + b',"usage":null}\n\n'


def _duplicate_finish(event: bytes, target: bool) -> bytes:
    return event + event if _FINISH.search(event) else event


_CHANGES = {
    "malformed_sse": _malformed,
    "invalid_utf8": _invalid_utf8,
    "crlf": _crlf,
    "comments": _comments,
    "no_done": _no_done,
    "no_usage": _no_usage,
    "usage_null": _usage_null,
    "duplicate_finish": _duplicate_finish,
}


def spoiled(connection: Connection, fault: Fault) -> Delivery:
    """The delivery for an answer that `fault` befalls."""
    if fault.kind == "huge_event":
        filling = b"x" * fault.size

        def change(event: bytes, target: bool) -> bytes:
            return _TEXT.sub(lambda match: match[0] + filling, event, count=1) if target else event

        return _Changed(connection, fault, change)
    if fault.kind in _CHANGES:
        return _Changed(connection, fault, _CHANGES[fault.kind])
    if fault.kind == "split_bytes":
        return _SplitBytes(connection)
    if fault.kind == "gzip":
        return _Gzip(connection)
    others = {
        "reset_mid_stream": _Reset,
        "cut_mid_stream": _Cut,
        "error_in_stream": _ErrorInStream,
        "stall": _Stall,
        "slow_first_byte": _Slow,
    }
    return others[fault.kind](connection, fault)

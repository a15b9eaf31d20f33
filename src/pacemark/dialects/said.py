"""What the events of one answer said, whatever the dialect: a reader fills it, `counting` and `reading` take it up."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pacemark.dialects.calls import Call, spelled

NOTHING, EMPTY, REASONING, ANSWER = range(4)
"""What an event carried: no output at all, an empty delta, reasoning, text (or tool arguments) for the reader."""


NO_JSON = (ValueError, OverflowError, RecursionError)
"""What decoding raises: for what is none, for a number beyond all bounds, and for what is nested too deeply."""


class Said:
    """Gathered while reading. `kinds`, `ends` and `texts` have one entry per event that could be read."""

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.ends: list[int] = []
        """Offset just past the event, in the body."""
        self.texts: list[str] = []
        self.apart: dict[int, str] = {}
        """Of events that hold reasoning too: what of their text is the answer."""
        self.running: list[tuple[int, int]] = []
        """(event, completion tokens so far) of each event that carried output and a count beside it."""
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.total_tokens: int | None = None
        self.finish_reason = ""
        self.model = ""
        """The model that says to have answered."""
        self.opened = False
        """The role header was seen."""
        self.done_at: int | None = None
        """Offset just past the event that said that the answer is complete."""
        self.over = False
        """`[DONE]` was said: what may follow is no part of the answer, and cannot make it a failure."""
        self.unread = 0
        """Events without a meaning that were passed over."""
        self.queue_ms: float | None = None
        """What the server says of this answer itself: how long it waited, its prompt took, its tokens took."""
        self.prefill_ms: float | None = None
        self.decode_ms: float | None = None
        self.filtered = False
        """A content filter annotated its events."""
        self.calls: dict[object, Call] = {}
        """Tools that it calls, in the order in which they begin, by what their pieces are told apart by."""
        self.error = ""
        self.detail = ""

    def add(self, kind: int, end: int, text: str = "") -> None:
        """One more event, which ended at the offset `end`."""
        self.kinds.append(kind)
        self.ends.append(end)
        self.texts.append(text)

    def add_parts(self, parts: Sequence[tuple[int, str]], end: int) -> None:
        """One more event, of several parts, each with its kind."""
        kinds = [kind for kind, _ in parts]
        if ANSWER in kinds and REASONING in kinds:
            self.apart[len(self.kinds)] = "".join(text for kind, text in parts if kind == ANSWER)
        self.add(max(kinds, default=NOTHING), end, "".join(text for _, text in parts))

    def by(self, model: Any) -> None:
        """Take which model says to have answered; the first name counts."""
        if isinstance(model, str) and not self.model:
            self.model = one_line(model)[:120]

    def answer(self) -> str:
        """The text of the answer, without its reasoning."""
        texts = zip(self.kinds, self.texts, strict=True)
        return "".join(self.apart.get(n, text) for n, (kind, text) in enumerate(texts) if kind == ANSWER)

    def call(self, key: object, arguments: str = "") -> None:
        """A piece of the call `key`, in the event that is added next."""
        event = len(self.kinds)
        call = self.calls.setdefault(key, Call(event))
        call.ended = event
        call.parts.append(arguments)

    def whole_call(self, arguments: Any) -> None:
        """A call that comes in one piece, in the event that is added next."""
        self.call(len(self.calls), spelled({} if arguments is None else arguments))

    def is_over(self, end: int) -> None:
        """The answer is complete with the event that ended at the offset `end`."""
        self.done_at, self.over = end, True

    @property
    def foreign(self) -> str:
        """What to say of a stream of which no event has a meaning, and which is another API's; empty for others."""
        told = self.opened or self.finish_reason or max(self.kinds, default=NOTHING) > NOTHING
        if told or not self.unread or len(self.kinds) > self.unread:
            return ""
        return f"none of its {self.unread} events is one of this API"

    def fail(self, error: str, detail: str) -> None:
        """The answer is no success; the first failure said is kept."""
        if not self.error and not self.over:
            self.error, self.detail = error, detail


def first_answer(said: Said) -> int | None:
    """Which event began the answer for the reader; None where all was reasoning. Models whose server does not part
    the two write their reasoning between <think> and </think>, whose opening their template may hold."""
    if ANSWER not in said.kinds:
        return None
    first = said.kinds.index(ANSWER)
    text = "".join(said.texts[first:])
    end = text.find("</think>")
    if end < 0:
        return None if text.lstrip().startswith("<think>") else first
    end += len("</think>")
    rest = len(text[end:].lstrip())
    if not rest:
        return None
    begin, at = len(text) - rest, 0
    for index in range(first, len(said.texts)):
        at += len(said.texts[index])
        if at > begin:
            return index
    return None


def loosely(payload: bytes) -> Any:
    """JSON as lenient clients read it, of NaN, lone surrogates, cut UTF-8 or byte order mark. Raises ValueError."""
    try:
        return json.loads(payload.decode("utf-8-sig", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_TAG = re.compile(rb"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.IGNORECASE | re.DOTALL)
"""What of a page nobody reads."""
_WORDS = ("error", "errors", "message", "error_message", "detail", "details", "reason", "msg", "fault", "title")


_MOST_TOLD = 1 << 20
"""Of what a server says of a failure, this is looked at."""
_LONGEST_SECRET = 16_384


def error_text(body: bytes) -> str:
    """What the server said went wrong, in one line; with the field that it names, if its message does not."""
    try:
        value = loosely(body[: _MOST_TOLD + 1])
    except ValueError:
        return line_of(_TAG.sub(b" ", body[: _MOST_TOLD + 1]))
    value = unwrapped(value)
    text, named = _words_of(value), _field_of(value)
    return f"{text} ({named})" if named and named not in text else text


def unwrapped(value: Any) -> Any:
    """What is in a list of one, as Gemini wraps its failures; else `value` itself."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _words_of(value: Any, depth: int = 4) -> str:
    """The message of an error object, however deep it lies."""
    if isinstance(value, dict):
        for key in _WORDS:
            inner = value.get(key)
            if not inner or isinstance(inner, bool) or (isinstance(inner, int | float) and len(value) > 1):
                continue
            return _words_of(inner, depth - 1) if depth else one_line(str(inner))
    if isinstance(value, str):
        return one_line(value)
    return one_line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _field_of(value: Any) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    named = error.get("param") if isinstance(error, dict) else None
    return one_line(named) if isinstance(named, str) else ""


def one_line(text: str) -> str:
    """Printable and on one line; whole, because half a secret could not be recognised and masked any more."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def line_of(text: bytes) -> str:
    """Bytes as one line; without the end of what is too much to be told, which may be half a secret."""
    line = one_line(text[:_MOST_TOLD].decode("utf-8", "replace"))
    return line if len(text) <= _MOST_TOLD else line[:-_LONGEST_SECRET]


_BUSY = {
    429: ("rate_limit", "ratelimit", "quota", "too_many_requests", "throttl"),
    503: ("overloaded", "unavailable", "engine_busy"),
}


def busy_code(value: Any) -> int | None:
    """429 or 503 where an error object under status 200 says that there is no room now; None for other failures."""
    if not isinstance(value := unwrapped(value), dict):
        return None
    error = inner if isinstance(inner := value.get("error"), dict) else value  # or beside a text, as TGI and Ollama do
    named = [str(error.get(key, "")).lower() for key in ("code", "status", "type", "error_type")]
    for code, words in _BUSY.items():
        if str(code) in named or any(word in name for name in named for word in words):
            return code
    return 503 if "529" in named else None


def otherwise(what: str, body: bytes, problem: object = "") -> str:
    """What to say of an answer that is not the JSON of `what`: what it is instead; or where JSON is broken."""
    text, begun = f"the answer is not the JSON of {what}", body.lstrip()[:1]
    if problem and begun in (b"{", b"["):
        return f"{text}: {problem}: {line_of(body)}"
    kind = "it is a web page: " if begun == b"<" else ""
    return f"{text}: {kind}{error_text(body)}" if begun else f"{text}: it is empty"


def says_failure(value: Any) -> bool:
    """Whether JSON without any output is an error object: the shapes that servers and gateways use."""
    if not isinstance(value, dict):
        return False
    if any(value.get(key) for key in ("error", "errors", "error_code", "error_message", "detail", "fault")):
        return True
    kind, status = str(value.get("object") or value.get("type") or "").lower(), str(value.get("status", "")).lower()
    if "error" in kind or status in ("error", "failed", "failure"):
        return True
    if status in ("queued", "pending", "processing", "running", "in_progress", "ok", "success"):
        return False
    code, message = value.get("code"), value.get("message") or value.get("msg")
    if code is None:
        return isinstance(message, str) and not kind
    return str(code) not in ("0", "200", "", "None", "False")


def broke(said: Said, payload: bytes) -> None:
    """Take an error object: a refusal where nothing came before it, and a stream that failed where something did."""
    try:
        code = busy_code(loosely(payload))
    except ValueError:
        code = None
    refused = code is not None and not any(kind > EMPTY for kind in said.kinds)
    if said.error:  # a finish_reason that says the same with fewer words
        said.detail = error_text(payload)
    said.fail(f"said_{code}" if refused else "stream_error", error_text(payload))


MOST_COUNTED = 2**53
"""No count is so large; what says so says nothing."""


def tally(value: Any) -> int | None:
    """A count, however it is written; None for what is none."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < MOST_COUNTED else None  # of infinity, and of what is no number, neither holds


def first_tally(counts: dict[str, Any], *names: str) -> int | None:
    """The first of `counts` by these names that is one; None where none is."""
    return next((n for name in names if (n := tally(counts.get(name))) is not None), None)


def duration_ms(value: Any, unit_ms: float = 1.0) -> float | None:
    """A time that a server tells, in ms; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_COUNTED:
        return None
    return value * unit_ms


def fields_of(value: Any) -> dict[str, Any]:
    """`value` where it is an object; an empty one for whatever else stands in its place."""
    return value if isinstance(value, dict) else {}


def entries_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def sound(text: str) -> str:
    """`text` without lone surrogates, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

"""Which key of a row holds what: the prompt, the lengths, the time and the session, by the names that peers take."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.records import parsed
from pacemark.workload.row import FileFound, Row, turns
from pacemark.workload.times import NS, instant, unit_of

__all__ = [
    "Keys", "LogKeys", "chat", "filled_key", "lengths_alone", "recorded", "settle", "tell_keys", "unit_for", "whole",
]  # fmt: skip

BODIES = ("body", "payload")
CHATS = ("messages", "conversations", "conversation", "turns")
TEXTS = ("prompt", "text", "text_input", "question", "instruction", "input", "query", "content")
SYSTEMS = ("system_prompt", "system")
INPUTS = ("input_tokens", "prompt_tokens", "input_length", "input_len", "input_tokens_count", "prompt_tokens_count")
OUTPUTS = (
    *("output_tokens", "completion_tokens", "output_length", "output_len", "max_tokens", "max_completion_tokens"),
    *("max_output_tokens", "output_tokens_count", "completion_tokens_count"),
)
TIMES = (
    *("timestamp", "timestamp_ms", "timestamp_s", "at_ms", "at_s", "request_time", "arrival_time", "datetime", "time"),
    *("relative_timestamp", "time_s", "time_ms", "arrival_s", "arrival_ms", "arrival", "arrived_at", "start_time"),
    *("started_at", "created_at", "ts"),
)
SESSIONS = ("session_id", "conversation_id", "session", "chat_id", "thread_id", "id")
REQUEST = frozenset(
    "messages tools tool_choice parallel_tool_calls functions function_call response_format temperature top_p seed "
    "stop max_tokens max_completion_tokens frequency_penalty presence_penalty reasoning_effort".split()
)
"""Keys that go into a request when a row has some that stand for one: tools, or the form of the answer."""
_MARKS = ("tools", "tool_choice", "functions", "response_format")
_WHOLE = re.compile(r"([0-9]{1,11})(?:\.0*)?")
"""A length as tables write it: pandas makes 12.0 of 12 in a column with gaps."""
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "ai": "assistant"}


class Keys(msgspec.Struct):
    """Which key holds what in the rows of one file. It reads a row's bytes, in any process."""

    kind: str
    """What the prompt is: `text`, `chat`, `conversation`, `body`, `request` (the row itself) or `line`."""
    prompt: str = ""
    system: str = ""
    input_tokens: str = ""
    output_tokens: str = ""
    at: str = ""
    unit: str = ""
    """That of the times; empty until a row has one, and where it cannot be known."""
    session: str = ""
    asked: str = ""
    """The unit that the user names."""
    aside: str = ""
    """Why the times are left aside."""
    lines: bool = False
    """Whether a row is a line of text and no JSON."""
    origin_ns: int | None = None
    """The time of the first row."""

    def __call__(self, line: bytes, number: int) -> Row:
        """The row that a line of the file is, read again."""
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        return self.row(line.decode().rstrip("\r\n") if self.lines else parsed(line), number)

    def row(self, value: Any, number: int) -> Row:
        """The row that `value` is; a conversation with all its messages. Raises BadInput for what cannot be one."""
        if not isinstance(value, Mapping):
            return self._bare(value, number)
        row = self._asked(value, number)
        at_ms = None
        if self._timed(value):
            at_ns = instant(value.get(self.at), self.unit)
            if self.origin_ns is None:
                self.origin_ns = at_ns
            at_ms = (at_ns - self.origin_ns) / 1e6
        session = value.get(self.session)
        if session in (None, ""):
            session = f"row {number}" if self.kind == "conversation" else None
        return msgspec.structs.replace(
            row,
            at_ms=at_ms,
            session=None if session is None else str(session),
            input_tokens=whole(value.get(self.input_tokens), self.input_tokens),
            output_tokens=row.output_tokens or whole(value.get(self.output_tokens), self.output_tokens),
        )

    def learn(self, value: Mapping[str, Any]) -> None:
        """Take the keys that no row before this had: what is null is left out by many who write JSON."""
        if self.kind == "text":
            self.system = self.system or filled_key(_spelt(SYSTEMS, value), value)
        self.input_tokens = self.input_tokens or _key(INPUTS, value)
        self.output_tokens = self.output_tokens or _key(OUTPUTS, value)
        self.at = self.at or _key(TIMES, value)
        self.session = self.session or _key(SESSIONS if self.kind == "conversation" else SESSIONS[:-1], value)

    def _timed(self, value: Mapping[str, Any]) -> bool:
        """Whether the row has a time that can be understood; the first that has one says in which unit."""
        if value.get(self.at) in (None, ""):
            return False
        if not self.unit and not self.aside:
            self.unit, self.aside = unit_for(self.at, value[self.at], self.asked)
        return bool(self.unit)

    def _bare(self, value: Any, number: int) -> Row:
        """A row without keys: a line of text, or a list of messages."""
        if self.kind == "line" and isinstance(value, str):
            return Row(number, prompt=_text(value, "the row"))
        if self.kind == "conversation" and not self.prompt:
            return Row(number, messages=chat(value, "the row"), session=f"row {number}")
        raise BadInput("it is no JSON object")

    def _asked(self, value: Mapping[str, Any], number: int) -> Row:
        """What the row asks."""
        if self.kind == "request" or (self.kind == "chat" and any(value.get(key) for key in _MARKS)):
            return recorded({key: x for key, x in value.items() if key in REQUEST and x is not None}, number)
        if value.get(self.prompt) is None:
            raise BadInput(f"it has no {self.prompt!r}, where the other rows have the prompt")
        asked = value[self.prompt]
        if self.kind == "body":
            return recorded(asked, number)
        if self.kind in ("chat", "conversation"):
            messages = chat(asked, self.prompt)
            if self.kind == "conversation":
                return Row(number, messages=messages)
            return _answered(messages, number)
        if isinstance(asked, list):  # the parts of one message, or messages under a name that mostly holds text
            if not all(isinstance(entry, Mapping) for entry in asked):
                raise BadInput(f"{self.prompt!r} is a list, where a row has one prompt")
            if asked and "role" not in asked[0]:
                return Row(number, messages=[{"role": "user", "content": asked}])
            return _answered(chat(asked, self.prompt), number)
        text = _text(asked, self.prompt)
        system = value.get(self.system)
        if system:
            return Row(number, messages=[{"role": "system", "content": _text(system, self.system)}, _user(text)])
        return Row(number, prompt=text)


def settle(value: Any, how: Mapping[str, str]) -> Keys:
    """Which keys the rows of a file have, by the first of them.

    `how` may name the prompt's `key` and the `unit` of the times. Raises BadInput where no key is one of a prompt.
    """
    if isinstance(value, str):
        return Keys("line", lines=True)
    if isinstance(value, list):
        return Keys("conversation")
    if not isinstance(value, Mapping):
        raise BadInput("it is no JSON object")
    keys = Keys(*_prompt_of(value, how.get("key", "")), asked=how.get("unit", ""))
    keys.learn(value)
    return keys


class LogKeys(NamedTuple):
    """Which keys a row has for its time, its two lengths and its session; empty where it has none."""

    at: str
    input_tokens: str
    output_tokens: str
    session: str


def lengths_alone(value: Mapping[str, Any]) -> LogKeys | None:
    """The keys of a row that has a time and both lengths, and no prompt; None for any other row."""
    keys = LogKeys(*(_key(names, value) for names in (TIMES, INPUTS, OUTPUTS, SESSIONS[:-1])))
    asks = filled_key(_spelt((*BODIES, *CHATS, *TEXTS), value), value)
    return keys if all(keys[:3]) and not asks else None


def unit_for(key: str, value: Any, asked: str) -> tuple[str, str]:
    """The unit of the times under `key`, of which `value` is one: that which is `asked` for, which the value itself has
    or the key names; and why there is none."""
    told, named = unit_of(value), unit_named(key)
    if asked or told == "date" or told == named:
        return asked or told, "" if asked or told else _unclear(value)
    if told and named:
        return "", f"its name says {named}, and as a time of this century it reads as {told}; --unit says it"
    return told or named, ""


def _unclear(value: Any) -> str:
    if isinstance(value, str) and not value.strip(" +-").replace(".", "", 1).isdecimal():
        return "it holds neither a number nor a date such as 2026-01-31 23:59:59"
    return "a number whose unit cannot be known; --unit says it"


def unit_named(key: str) -> str:
    """The unit in the name of a time, as in `arrival_ms`; empty where there is none."""
    if key.lower() == "relative_timestamp":
        return "s"
    return next((unit for unit in NS if key.lower().endswith(f"_{unit}")), "")


def _prompt_of(value: Mapping[str, Any], key: str) -> tuple[str, str]:
    """What kind of prompt a row has, and under which key."""
    if key:
        if key not in value:
            raise BadInput(f"it has no {key!r}; {_names(value)}")
        kind = "body" if key in BODIES else "text" if key in TEXTS else "chat" if key == "messages" else "conversation"
        return ("text" if key not in CHATS and isinstance(value[key], str) else kind), key
    if body := next((x for x in BODIES if isinstance(value.get(x), (Mapping, str))), ""):
        return "body", body
    if named := filled_key(_spelt(CHATS, value), value):
        if named.lower() != "messages":
            return "conversation", named
        return ("request" if any(map(value.get, _MARKS)) else "chat"), named
    if named := filled_key(_spelt(TEXTS, value), value):
        return "text", named
    raise BadInput(f"none of its keys is known for a prompt: {_names(value)}; name the right one with --key")


def _names(value: Mapping[str, Any]) -> str:
    """The keys of a row, as far as they can be names: the first row of a table without a header is what users wrote."""
    names = [str(key) for key in value if str(key).isprintable() and 0 < len(str(key)) <= 40]
    return f"it has {', '.join(names[:8])}" + (", ..." if len(value) > 8 else "") if names else "it has no keys"


def tell_keys(keys: Keys, named: Collection[str], found: FileFound) -> None:
    """Tell in `found` what was taken from where, and what of all the keys `named` in the file was not."""
    if keys.kind == "line":
        return
    kind = {"text": "prompt", "chat": "messages", "conversation": "messages", "request": "body"}.get(
        keys.kind, keys.kind
    )
    found.keys[kind] = keys.prompt or "the row"
    taken = {"system": keys.system, "input_tokens": keys.input_tokens, "output_tokens": keys.output_tokens}
    taken |= {"session": keys.session, "at_ms": keys.at if keys.unit else ""}
    found.keys |= {name: key for name, key in taken.items() if key}
    found.unit = keys.unit
    if keys.aside:
        found.said.append(f"{keys.at!r} was left aside: {keys.aside}")
    others = [key for key in (*CHATS, *TEXTS) if key in named and key != keys.prompt]
    if others and keys.kind in ("text", "chat", "conversation"):
        found.said.append(f"beside {keys.prompt!r} the rows have {', '.join(map(repr, others))}; --key takes another")


def filled_key(names: Iterable[str], value: Mapping[str, Any]) -> str:
    """The first of `names` that `value` has a value for; empty if none."""
    return next((name for name in names if value.get(name) not in (None, "")), "")


def _key(names: Iterable[str], value: Mapping[str, Any]) -> str:
    """The first of `names` that `value` has, whatever it holds in this row."""
    return next((key for key in _spelt(names, value) if key in value), "")


def _spelt(names: Iterable[str], value: Mapping[str, Any]) -> list[str]:
    """`names` as `value` spells them, which may have capitals, as the heads of tables do."""
    spelt = {str(key).lower(): key for key in value}
    return [name if name in value else spelt.get(name, name) for name in names]


def recorded(body: Any, number: int, session: str | None = None) -> Row:
    """A row that is a whole request, as an object or as its JSON. Raises BadInput for what holds no prompt."""
    if isinstance(body, (str, bytes)):
        body = parsed(body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body)
    if not isinstance(body, Mapping):
        raise BadInput("the body is no JSON object")
    if not any(body.get(key) for key in ("messages", "prompt", "input", "inputs", "dataframe_split", "instances")):
        raise BadInput("the body asks nothing: no messages, prompt or input")
    limit = filled_key(("max_tokens", "max_completion_tokens", "max_output_tokens"), body)
    return Row(number, body=dict(body), output_tokens=whole(body.get(limit), limit), session=session)


def chat(value: Any, name: str) -> list[dict[str, Any]]:
    """Messages as they are sent: of role and content, whatever the file calls them. Raises BadInput for others."""
    if isinstance(value, str):  # in a cell of a table
        value = parsed(value.encode("utf-8", "surrogatepass"))
    if not isinstance(value, list):
        raise BadInput(f"{name!r} is no list of messages")
    messages = [message for entry in value for message in _messages(entry, name)]
    if not messages and name != "conversations":
        raise BadInput(f"{name!r} is empty")
    return messages


def _messages(entry: Any, name: str) -> list[dict[str, Any]]:
    if isinstance(entry, str) and entry.lstrip().startswith("{"):  # some copies hold JSON in strings
        entry = parsed(entry.encode("utf-8", "surrogatepass"))
    if isinstance(entry, str):
        return [_user(entry)]
    if not isinstance(entry, Mapping):
        raise BadInput(f"{name!r} holds what is no message")
    if "human" in entry and "assistant" in entry:
        return [_user(entry["human"]), {"role": "assistant", "content": entry["assistant"]}]
    role = entry.get("role", entry.get("from"))
    if role is None and isinstance(entry.get("text"), str):
        return [_user(entry["text"])]
    if not isinstance(role, str):
        raise BadInput(f"{name!r} holds a message without a role")
    if "value" in entry or "from" in entry:
        return [{"role": _ROLES.get(role, role), "content": entry.get("value", entry.get("content"))}]
    return [dict(entry) | {"role": _ROLES.get(role, role)}]


def _user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _answered(messages: list[dict[str, Any]], number: int) -> Row:
    """One request; where an answer is recorded after it, apart from it."""
    ends = turns(messages)
    if not ends:
        raise BadInput("nothing is asked: no message of a user")
    answer = messages[ends[-1]].get("content") if ends[-1] < len(messages) else None
    return Row(number, messages=messages[: ends[-1]], answer=answer if isinstance(answer, str) else None)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{name!r} is no text")
    if not value.strip():
        raise BadInput(f"{name!r} is empty")
    return value


def whole(value: Any, name: str) -> int | None:
    """A length in tokens; None where there is none. Raises BadInput for what is no length."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and (found := _WHOLE.fullmatch(value.strip())):
        value = int(found[1])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise BadInput(f"{name} is no length in tokens")
    return int(value)

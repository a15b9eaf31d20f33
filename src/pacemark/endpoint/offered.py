"""What an endpoint offers: its models, and the APIs that it speaks."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

import msgspec

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.address import WireError, tls_context
from pacemark.endpoint.proxy import proxy_for
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput

_CONTEXTS = ("max_model_len", "context_length", "max_context_length", "context_window")
"""What lists of models call it: vLLM and SGLang; OpenRouter and Together; Mistral and LM Studio; Groq (2026)."""
_MOST_BYTES = 4 << 20
"""Of an answer that is looked at here; a longer one is none."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none."""


def fetched(target: Target, path: str, body: bytes | None = None, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Status and body of one request to `path` below the base URL, a POST where there is a `body`.

    Raises OSError, HTTPException or WireError where no answer comes in time; a status is none of these.
    """
    found: list[tuple[int, bytes] | Exception] = []

    def ask() -> None:
        try:
            found.append(_answered(target, path, body, timeout_s))
        except Exception as error:
            found.append(error)

    # A socket gives each read as long as the whole may take: a server could send a byte now and then, for ever.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    if not found:
        raise TimeoutError(f"no whole answer within {timeout_s:g} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _answered(target: Target, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
    request = urllib.request.Request(target.url + path, data=body)
    for name, value in ({"Content-Type": "application/json", "User-Agent": "pacemark"} | target.headers).items():
        request.add_header(name, value)
    proxy = proxy_for(target.url)
    ways: list[urllib.request.BaseHandler] = [
        _NoRedirect(),
        urllib.request.ProxyHandler({"http": proxy.url, "https": proxy.url} if proxy else {}),
    ]
    if target.tls:
        ways.append(urllib.request.HTTPSHandler(context=tls_context(target.ca_file, target.insecure)))
    try:
        with urllib.request.build_opener(*ways).open(request, timeout=timeout_s) as answer:
            return answer.status, answer.read(_MOST_BYTES)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(_MOST_BYTES)


def only_model(target: Target) -> str:
    """The model of an endpoint that lists exactly one, for users who did not name it; empty where none is listed.

    Adapters of a model are listed beside it and are not counted. Raises BadInput where there are several to choose
    from.
    """
    names = models_in(_listed(target))
    if len(names) > 1:
        raise BadInput(
            f"{target.redacted(target.url)} serves several models; choose with --model: {', '.join(names[:8])}"
        )
    return names[0] if names else ""


def unlisted(target: Target) -> str:
    """What to say where an endpoint lists models and the target's is none of them; empty else. Some servers answer with
    what they have, whatever the name."""
    listed = _listed(target, timeout_s=3.0)
    names, wanted = models_in(listed, adapters=True), target.model.casefold()
    known = {spelling for name in names for spelling in _spellings(name.casefold())}
    if not names or "*" in repr(listed) or wanted in known or _goes_on(listed):
        return ""
    return (
        f"{target.redacted(target.url)} does not list {target.model}, only {', '.join(names[:4])}"
        f"{' ...' if len(names) > 4 else ''}; if it answers all the same, it may be with another model"
    )


def _goes_on(listed: Any) -> bool:
    """Whether a list is one page of several, as Gemini's and Anthropic's are."""
    return isinstance(listed, dict) and any(listed.get(name) for name in ("has_more", "nextPageToken", "next"))


def _spellings(name: str) -> tuple[str, str, str]:
    """A name as it is listed, without its tag and without its maker."""
    return name, name.partition(":")[0], name.rpartition("/")[2]


def _listed(target: Target, timeout_s: float = 10.0) -> Any:
    """What an endpoint says of its models; None where it says nothing that can be read."""
    place = DIALECTS[target.api].models + (f"?{target.query}" if target.query else "")
    try:
        status, listed = fetched(target, place, timeout_s=timeout_s)
        return msgspec.json.decode(listed) if status == 200 else None
    except (OSError, ValueError, HTTPException, WireError):
        return None  # whatever is wrong will show, with a better message, in the first real request


def models_in(listed: Any, adapters: bool = False) -> list[str]:
    """The models of a list as servers give it: below `data` or `models` or bare, by id or name, or as plain texts.

    Entries with a parent are `adapters` of another, and are left out where it is listed; `*` is no model.
    """
    parents = {name: fields.get("parent") for name, fields in _entries(listed).items()}
    return [name for name, parent in parents.items() if adapters or not (isinstance(parent, str) and parent in parents)]


def context_in(listed: Any, model: str) -> int | None:
    """Tokens that `model` takes, prompt and answer together, as the list of models tells; None where it does not."""
    entries = _entries(listed)
    fields = entries.get(model) or (next(iter(entries.values())) if len(entries) == 1 else {})
    meta = fields.get("meta")
    told = [fields.get(name) for name in _CONTEXTS] + [meta.get("n_ctx") if isinstance(meta, dict) else None]
    return next((tokens for tokens in told if type(tokens) is int and tokens > 0), None)


def context_of(target: Target) -> int | None:
    """The same of a target, which is asked for its list."""
    return context_in(_listed(target, timeout_s=3.0), target.model)


def _entries(listed: Any) -> dict[str, dict[str, Any]]:
    """What a list of models says of each, by its name; the first of several of one name."""
    entries = listed
    if isinstance(listed, dict):
        entries = listed.get("data") or listed.get("models")
    if isinstance(entries, dict):  # by name
        entries = list(entries)
    found: dict[str, dict[str, Any]] = {}
    for entry in entries if isinstance(entries, list) else []:
        fields = entry if isinstance(entry, dict) else {"id": entry}
        name = next((v for k in ("id", "name", "model") if isinstance(v := fields.get(k), str)), "")
        if name and "*" not in name:
            found.setdefault(name.removeprefix("models/"), fields)  # Gemini's names are paths
    return found

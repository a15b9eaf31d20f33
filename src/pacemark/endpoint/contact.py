"""First contact: what a server accepts, how many words make a prompt, and whether it knows the prompts already.

Nothing here opens a connection. All is asked through `Way.ask`, which takes the body of a request and gives what came
of it, so that the rules can be tried on any answer.
"""

from __future__ import annotations

import re
import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import urljoin

import msgspec

from pacemark.dialects.bodies import with_system
from pacemark.dialects.dialect import (
    DIALECTS,
    Options,
    attached,
    best_options,
    fill,
    first_options,
    further,
    next_options,
    template,
)
from pacemark.dialects.documents import QUERY_WORDS
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput
from pacemark.trace import ABSENT, RATE_LIMITS, Exchange
from pacemark.values import text_of
from pacemark.workload.scripts import SCRIPTS
from pacemark.workload.words import (
    PROBES,
    Probing,
    Prompts,
    Workload,
    estimated,
    learn,
    probe_prompt,
    probings,
    prompt,
    tokenized,
)

PATIENCE_S = 60.0
"""How long a server is waited for in all that says when to come back, where the user did not say how long."""
LEAST_TOKENS = 16
"""The least limit of servers that have one (OpenAI's Responses API and Azure name it)."""
PROBE_TOKENS = 2
"""Asked of probes of the prompt's length: one token alone is more often swallowed, and passes where few do not."""
AGAIN_S = 1.0
"""Time between two looks at a server that is not there yet."""
_STREAMING = re.compile(r"\bstream(ing|ed)?\b", re.IGNORECASE)
_NO_TLS = re.compile("wrong.version.number|record.layer.failure", re.IGNORECASE)
"""What OpenSSL says, by version, of an answer in plain text."""
_LOADING = re.compile(r"load(?:ing|ed)|starting|warming|not (?:yet )?(?:ready|available)|unavailable", re.IGNORECASE)

_SIGN_IN = re.compile(r"log[-_]?in|sign[-_]?in|\b(?:sso|saml|oauth2?|auth|authorize)\b", re.IGNORECASE)
"""What the addresses of pages hold at which people, and no programs, say who they are."""

_CHANCE = ("closed", "reset", "truncated", "empty", "stalled")
"""Failures that may be one request's bad luck."""
_PASSING = tuple(f"http_{status}" for status in (408, 429, 500, 502, 503, 504, 520, 522, 524, 529))
"""Refusals that may be as well, of a server that was woken, or of a proxy before it; with a rest in between."""
_UNREADY = ("refused", "connect", "connect_timeout", "said_503", "http_502", "http_503", "http_504", "http_529")
"""No server there yet, or one that has no room; rate limits are as well."""


@dataclass(frozen=True)
class Way:
    """A way to an endpoint, and what the user said of it."""

    target: Target
    ask: Callable[[bytes], Exchange]
    """Send a request with this body; gives its answer."""
    stream: bool = True
    ignore_eos: bool = True
    wait_s: float = 0.0
    """How long to wait for a server that is not ready yet."""
    timeout_s: float = 600.0
    tell: Callable[[str], None] = lambda line: None
    pause: Callable[[float], None] = lambda seconds: None
    advice: Callable[[str, str], str | None] = lambda error, detail: None
    """What an error, and what was said of it, means at this very endpoint."""

    def patiently(self, body: bytes) -> Exchange:
        """The answer to `body`, after as many tries as the server asked for and the user allowed."""
        begun_s = monotonic()
        while True:
            answer = self.ask(body)
            left_s = max(self.wait_s, PATIENCE_S if answer.retry_after_s >= 0 else 0.0) - (monotonic() - begun_s)
            if not comes_back(answer) or not answer.error or left_s <= 0 or answer.retry_after_s > left_s:
                return answer
            rest_s = min(left_s, answer.retry_after_s if answer.retry_after_s > 0 else AGAIN_S)
            said = self.target.redacted(f": {answer.detail}" if answer.detail else "")
            self.tell(f"{self.target.url} is not ready ({answer.error}{said}); trying again in {rest_s:.0f} s")
            self.pause(rest_s)

    def twice(self, body: bytes) -> Exchange:
        """The answer to `body`; where it failed in a way that may be bad luck, that of another try."""
        answer = self.patiently(body)
        passing = answer.error in _PASSING and answer.retry_after_s < 0  # else it was waited for already
        if answer.error not in _CHANCE and not passing:
            return answer
        if passing:
            self.pause(AGAIN_S)
        again = self.patiently(body)
        if not again.error:
            said = self.target.redacted(f": {answer.detail}" if answer.detail else "")
            self.tell(f"a first request failed ({answer.error}{said}), the same again did not")
        return again


def comes_back(answer: Exchange) -> bool:
    """Whether the failure is one that passes by itself: no server there yet, a model being loaded, a rate limit."""
    if answer.error == "http_404":
        return bool(_LOADING.search(answer.detail))
    return answer.error in (*_UNREADY, *RATE_LIMITS) or (answer.error in _PASSING and answer.retry_after_s >= 0)


@dataclass(frozen=True)
class Found:
    """What first contact found out."""

    options: Options
    template: bytes
    """The body of every request, with holes."""
    prompts: Prompts
    first: Exchange
    """A whole request, as the run will send them."""
    known: float | None
    """See `recognised`; None also where nobody asked."""
    least_tokens: int = 1
    """Answers shorter than this were refused, or came back empty."""


def first_contact(
    way: Way, workload: Workload, count_tokens: Callable[[str], int] | None = None, seed_given: bool = False
) -> Found:
    """Find out how to ask. Raises BadInput where the target cannot be used as asked.

    `seed_given`: an earlier run may have sent the same prompts, so that it is worth asking whether they are known.
    """
    options, form, answer = negotiate(way, workload)
    prompts, probed = learn_prompts(way, form, workload, answer, count_tokens)
    if workload.system_prompt or workload.images or workload.audio:
        prompts = _with_tokens_beside(way, workload, options, prompts)
    text = prompt(workload.seed, PROBES, 100, prompts.words, workload.language)
    _say_if_of_letters(way, workload, text)
    whole = way.twice(fill(form, text, workload.output.typical))
    if options.ignore_eos and may_be_ignore_eos(whole.error):
        # Past the end of its text a model may write what its server's parser cannot read.
        tamer = msgspec.structs.replace(options, ignore_eos=False, min_tokens=False)
        plainer = _form(way, workload, tamer)
        again = way.patiently(fill(plainer, text, workload.output.typical))
        if not again.error:
            why = way.target.redacted(f"{whole.error}: {whole.detail}")
            way.tell(f"{way.target.url} fails with ignore_eos ({why}), so it is left out; answers may be short")
            options, form, whole = tamer, plainer, again
    refuse_if_bad(way, whole)
    whole = msgspec.structs.replace(whole, connect_ns=max(whole.connect_ns, answer.connect_ns))
    if way.stream and whole.first_event_ns == ABSENT:
        raise BadInput(f"{way.target.url} does not stream: its answer is no event stream; add --no-stream")
    if workload.input.fixed is None:
        _refuse_if_longest_is_refused(way, form, workload, prompts)
    known = recognised(way, form, probed, workload) if seed_given and probed is not None else None
    least = LEAST_TOKENS if probed is None or probed[1] > PROBE_TOKENS else PROBE_TOKENS
    return Found(options, form, prompts, whole, known, min(least, workload.output.typical))


def _say_if_of_letters(way: Way, workload: Workload, text: str) -> None:
    """Tell of a prompt that has not a word for each document, so that it is dealt out letter by letter."""
    documents = workload.output.typical
    by_words = DIALECTS[way.target.api].documents and SCRIPTS[workload.language].joiner
    if by_words and len(text.split()) < QUERY_WORDS + documents:
        way.tell(
            f"--input-tokens {workload.input_tokens} is too few for a query of {QUERY_WORDS} words and {documents} "
            "documents, so they are of letters and not of words; ask for more, or for fewer --documents"
        )


def _refuse_if_longest_is_refused(way: Way, form: bytes, workload: Workload, prompts: Prompts) -> None:
    """Raise BadInput where the longest prompt that is likely is not taken, before others are sent for nothing."""
    longest = workload.input.longest
    text = prompt(workload.seed, PROBES, 101, prompts.words_for(longest + prompts.beside_tokens), workload.language)
    answer = way.patiently(fill(form, text, min(LEAST_TOKENS, workload.output.typical)))
    if answer.status in (400, 413, 422):
        said = way.target.redacted(f": {answer.detail}" if answer.detail else "")
        raise BadInput(
            f"{way.target.url} refuses a prompt of {longest:,} tokens, which --input-tokens {workload.input_tokens} "
            f"makes likely (one in a thousand is longer, or it is its max=){said}; set a lower max="
        )
    refuse_if_bad(way, answer)


def _form(way: Way, workload: Workload, options: Options) -> bytes:
    """The body of every request, with holes."""
    dialect = DIALECTS[way.target.api]
    fields, beside = further(dialect, workload), attached(dialect, workload)
    form = template(dialect, way.target.model, options, fields, beside)
    if not workload.system_prompt:
        return form
    return with_system(form, text_of("--system-prompt", Path(workload.system_prompt)), way.target.api)


def _with_tokens_beside(way: Way, workload: Workload, options: Options, prompts: Prompts) -> Prompts:
    """What is known of lengths, with what the system prompt, and images and audio, have of them; and words for the
    prompts themselves."""

    def without(**nothing: str) -> int | None:
        """Tokens that the server counts where there are none of these."""
        form = _form(way, msgspec.structs.replace(workload, **nothing), options)
        counted = way.patiently(fill(form, probe_prompt(workload.seed, 300, 0), LEAST_TOKENS)).input_tokens
        return counted if counted > 0 and prompts.source == "usage" else None

    overhead, system, media = prompts.overhead_tokens, 0.0, 0.0
    if workload.system_prompt:
        if (bare := without(system_prompt="")) is not None:
            system = max(0.0, overhead - bare)
        else:
            text = text_of("--system-prompt", Path(workload.system_prompt))
            system = len(text.encode()) / 4  # some four letters each
            overhead += system
    if (workload.images or workload.audio) and (bare := without(images="", audio="")) is not None:
        media = max(0.0, overhead - bare)
    known = {"overhead_tokens": overhead, "system_tokens": system, "media_tokens": media}
    prompts = msgspec.structs.replace(prompts, **known)
    return msgspec.structs.replace(prompts, words=prompts.words_for(workload.input.mean + prompts.beside_tokens))


class Moved(Exception):
    """The server sent a first request elsewhere."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


def negotiate(way: Way, workload: Workload) -> tuple[Options, bytes, Exchange]:
    """The richest options that the server takes, the body that says them, and its answer to a few words.

    It is asked for as many tokens as the run will ask for: some servers refuse small limits, and a reasoning parser
    may swallow a short answer whole. Raises Moved where the server answers 307 or 308 and says where it is.
    """
    dialect = DIALECTS[way.target.api]
    tried: list[tuple[Options, Exchange]] = []
    options: Options | None = first_options(dialect, way.stream, way.ignore_eos)
    while options is not None:
        text = prompt(workload.seed, PROBES, 200 + len(tried), 4)
        body = fill(_form(way, workload, options), text, workload.output.typical)
        tried.append((options, way.patiently(body) if tried else way.twice(body)))
        options = next_options(tried)
    options, answer = best_options(tried) or tried[-1]
    # The connection is opened by the first request, whichever is kept.
    answer = msgspec.structs.replace(answer, connect_ns=max(x.connect_ns for _, x in tried))
    if answer.status in (307, 308) and answer.detail:
        raise Moved(answer.detail)
    refuse_if_bad(way, answer)
    return options, _form(way, workload, options), answer


def learn_prompts(
    way: Way,
    form: bytes,
    workload: Workload,
    first: Exchange,
    count_tokens: Callable[[str], int] | None = None,
) -> tuple[Prompts, tuple[int, int, Exchange] | None]:
    """How many words make a prompt of the wanted length, from the server's own counts where `first` had one.

    With it the longest probe: its number of words, the tokens it asked for, its answer.
    """
    wanted, seed, script = workload.input.typical, workload.seed, workload.language
    if count_tokens is not None:
        return tokenized(count_tokens, wanted, seed, script), None
    if first.input_tokens == ABSENT:
        return estimated(wanted, seed, script), None
    short, ladder = min(PROBE_TOKENS, workload.output.typical), probings(wanted, script)
    if DIALECTS[way.target.api].documents:  # each costs tokens of the input too, and needs a word
        short = workload.output.typical
        ladder = [[Probing(probe.words + QUERY_WORDS + short) for probe in probes] for probes in ladder]
    for probes in ladder:
        answers: list[Exchange] = []
        for i, probe in enumerate(probes):
            text = probe_prompt(seed, i, probe.words, script, probe.salts)
            answer = way.patiently(fill(form, text, short))
            if (answer.error or answer.input_tokens <= 0) and short < workload.output.typical:
                # That is less than some servers give; a whole answer was given before.
                short = workload.output.typical
                answer = way.patiently(fill(form, text, short))
            if answer.input_tokens <= 0:
                break
            answers.append(answer)
        if len(answers) == len(probes):
            prompts = learn(probes, [a.input_tokens for a in answers], wanted, seed, script)
            return prompts, (probes[-1].words, short, answers[-1])
    way.tell("the server did not count probes of the prompt's length, so that lengths are an estimate")
    return estimated(wanted, seed, script), None


def recognised(way: Way, form: bytes, probed: tuple[int, int, Exchange], workload: Workload) -> float | None:
    """TTFT of this seed's probe over that of probes that nobody ever sent.

    None where the server shows no memory for prompts, which is that it answers one sooner the second time, and
    where it tells what it had in its cache: then there is no need to guess.
    """
    words, tokens, before = probed
    if before.cached_tokens != ABSENT:
        return None
    texts = [probe_prompt(secrets.randbits(63), 0, words, workload.language) for _ in range(3)]
    answers = [before, *(way.ask(fill(form, text, tokens)) for text in texts * 2)]
    if any(x.error or not len(x.hi_ns) for x in answers):
        return None
    known, *rest = (int(x.hi_ns[0]) - x.sent_ns for x in answers)
    once, again = rest[:3], rest[3:]
    return known / statistics.median(once) if max(again) < 0.7 * min(once) else None


def may_be_ignore_eos(error: str) -> bool:
    """Whether a failure of this kind can come of tokens past the end of the text."""
    return error in ("stream_error", "server_error", "bad_stream", "bad_answer", "truncated", "http_400", "http_500")


def too_late(url: str, seconds: float) -> str:
    """What to say where no answer came in time."""
    needs = "a server that needs longer: --timeout, and --wait where it has to load its model first"
    return f"{url} did not answer a first request within {seconds:g} s; {needs}"


_MOST_LETTERS = 600
"""Of what a server says of a failure, so much is told."""


def refuse_if_bad(way: Way, answer: Exchange) -> None:
    """Turn a failed first request into one line about what to do. Raises BadInput with it."""
    if not answer.error:
        return
    told = way.target.redacted(answer.detail)  # before it is cut: half a secret could not be recognised
    told = f"{told[:_MOST_LETTERS]} ..." if len(told) > _MOST_LETTERS else told.rstrip(". ")
    where, said = way.target.url, told and f": {told}"
    hints = {
        "refused": f"no server at {where} (connection refused); is it running, and is the port right? See --wait",
        "connect": f"cannot connect to {where}{said}",
        "connect_timeout": f"cannot connect to {where}{said}",
        "tls": f"no TLS connection to {where}{said}; see --ca-file and --insecure",
        "timeout": too_late(where, way.timeout_s),
        "empty": f"{where} answered a first request with nothing{said}; reasoning may need more --output-tokens",
        "http_401": f"{where} answered 401, not authorised{said}; name the variable with the key: --api-key-env",
        "http_403": f"{where} answered 403, forbidden{said}; this key may not use the endpoint",
        "http_404": f"{where} answered 404{said}; check the URL (does it end in /v1?), --model and --api",
        "http_429": f"{where} answered 429, rate limit reached{said}; wait, or ask for a higher limit",
        "http_503": f"{where} did not answer a first request (http_503){said}; is it still loading? See --wait",
        "bad_http": f"{where} does not speak HTTP/1.1{said}",
        "http_426": f"{where} wants another protocol (426{said}); pacemark speaks HTTP/1.1",
        "bad_answer": f"{where} is no {way.target.api} endpoint{said}; check the URL and --api",
    }
    if not way.target.tls:
        hints["closed"] = hints["reset"] = (
            f"{where} closed the connection without an answer ({answer.error}); if it speaks TLS: use https://"
        )
        hints["bad_http"] += "; if it speaks TLS: use https://"
    elif _NO_TLS.search(answer.detail):
        hints["tls"] = f"no TLS connection to {where}{said}; if it speaks no TLS: use http://"
    place = urljoin(f"{where}/", answer.detail) if answer.detail else "an unnamed place"
    moved = f"{where} answered {answer.status}, moved to {place}; give that URL instead"
    if _SIGN_IN.search(place):
        moved = f"{where} answered {answer.status}, sign in at {place}; name the variable with the key: --api-key-env"
    hints |= {f"http_{status}": moved for status in (301, 302, 303, 307, 308)}
    text = hints.get(answer.error, f"{where} did not answer a first request ({answer.error}){said}")
    if way.stream and 400 <= answer.status < 500 and _STREAMING.search(answer.detail):
        text += "; if it does not stream: --no-stream"
    if answer.retry_after_s > 0:
        text += f"; it says to come back in {answer.retry_after_s:.0f} s"
    if advice := way.advice(answer.error, answer.detail):
        text = f"{advice}{said and f' (it said{said})'}"
    raise BadInput(way.target.redacted(text))

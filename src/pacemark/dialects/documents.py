"""A query and its documents, which rerank and score judge: made from one prompt's words, and counted in the answer."""

from __future__ import annotations

import math

import msgspec

from pacemark.dialects.said import ANSWER, Said, entries_of, first_tally, tally
from pacemark.dialects.streams import Fields, one_object

QUERY_MARK = "@query@"
DOCUMENTS_MARK = "@documents@"
QUERY_HOLE = b'"%b"' % QUERY_MARK.encode()
DOCUMENTS_HOLE = b'"%b"' % DOCUMENTS_MARK.encode()
QUERY_WORDS = 4
"""Of a prompt, its salt among them: they open every pair that the model judges, so that no two requests share one."""


def deal(template: bytes, prompt: str, documents: int) -> bytes:
    """`template` with its holes filled: the prompt's first words are the query, the others are dealt out evenly."""
    words, between = prompt.split(" "), " "
    if len(words) < QUERY_WORDS + documents:  # as in scripts that leave no blanks
        words, between = [*prompt], ""
    query, rest = between.join(words[:QUERY_WORDS]), words[QUERY_WORDS:]
    size = len(rest) / documents
    dealt = [between.join(rest[round(i * size) : round((i + 1) * size)]) or words[0] for i in range(documents)]
    filled = template.replace(DOCUMENTS_HOLE, msgspec.json.encode(dealt))
    return filled.replace(QUERY_HOLE, msgspec.json.encode(query))


def judged(body: bytes, what: str) -> Said:
    """What an answer that judged documents said, which `what` names; each that has a mark is counted as one token of
    output. A mark that is no number is none: a model that overflows gives NaN, or null.

    The answer may hold the tokens of the input: under `usage` as OpenAI counts them, or under `meta` as Cohere does.
    """
    said = Said()
    bare = body.lstrip()[:1] == b"["  # TEI gives the list alone
    whole = b'{"results":%b}' % body if bare else body
    form = "results" if b'"results"' in whole else "data"  # vLLM's scores, and Voyage's rankings
    answer = one_object(said, whole, what, form)
    if answer is None:
        return said
    documents = sum(_is_marked(entry) for entry in entries_of(answer[form]))
    if documents:
        said.add(ANSWER, len(body))
    said.completion_tokens = documents
    said.by(answer.get("model"))
    usage, meta = answer.get("usage"), answer.get("meta")
    if isinstance(usage, dict):
        # Jina counts the whole input as the total alone.
        said.prompt_tokens = first_tally(usage, "prompt_tokens", "input_tokens", "total_tokens")
    elif isinstance(meta, dict) and isinstance(meta.get("tokens"), dict):
        said.prompt_tokens = tally(meta["tokens"].get("input_tokens"))
    return said


def _is_marked(entry: Fields) -> bool:
    mark = entry.get("relevance_score", entry.get("score"))
    return isinstance(mark, int | float) and abs(mark) < math.inf

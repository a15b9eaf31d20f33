"""What a server speaks, found out from how it refuses: the shapes of refusals that servers give, and real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pacemark
from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.speaking import apis_spoken, recognised_api
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.simulator import serving
from support.cli_tools import Asked, Reply, as_json, server


def says(status: int, body: object) -> Reply:
    """A reply in JSON, or in plain text."""
    return Reply(status, body.encode(), "text/plain") if isinstance(body, str) else as_json(body, status)


UNKNOWN = says(404, {"detail": "Not Found"})
REFUSED = says(422, {"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]})


class Server:
    """Answers each path as told, all others with `other`, and remembers what it was asked."""

    def __init__(self, paths: dict[str, Reply], other: Reply = UNKNOWN) -> None:
        self.paths, self.other = paths, other
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return self.paths.get(asked.path.partition("?")[0], self.other)

    @property
    def seen(self) -> list[str]:
        return [asked.path.partition("?")[0] for asked in self.asked]


@pytest.mark.parametrize(
    ("paths", "api", "base"),
    [
        ({"/v1/chat/completions": REFUSED, "/v1/completions": REFUSED}, "chat", "/v1"),
        ({"/chat/completions": REFUSED}, "chat", ""),
        ({"/v1/completions": REFUSED}, "completions", "/v1"),
        ({"/v1/embeddings": REFUSED, "/v1/rerank": REFUSED}, "embeddings", "/v1"),
        ({"/v1/messages": says(400, {"error": {"message": "max_tokens: Field required"}})}, "messages", "/v1"),
        ({"/api/chat": says(404, {"error": "model '' not found"})}, "ollama", ""),
        ({"/generate_stream": says(422, "missing field `inputs`")}, "tgi", ""),
        ({"/v1beta/models/m:streamGenerateContent": says(400, {"error": {"code": 400}})}, "gemini", "/v1beta"),
    ],
    ids=lambda x: str(x) if isinstance(x, str) else "",
)
def test_the_api_and_the_base_url_are_found_from_the_host_alone(paths: dict[str, Reply], api: str, base: str) -> None:
    there = Server(paths)
    with server(there) as url:
        host = url.removesuffix("/v1")
        found = recognised_api(target(host, model="m"))
        assert (found.api, found.url) == (api, host + base)
        assert there.seen[-1] == next(iter(paths))  # nothing more was asked


@pytest.mark.parametrize(
    "refusal",
    [
        says(501, {"error": {"message": "This server does not support embeddings."}}),
        says(400, {"message": "The model does not support Embeddings API"}),
        says(404, {"status": 404, "error": "Not Found", "path": "/v1/chat/completions/models/m"}),
        says(405, {"detail": "Method Not Allowed"}),
        says(200, "<html>Welcome</html>"),
        says(404, "no model here"),
    ],
    ids=lambda reply: str(reply.status),
)
def test_what_is_no_answer_of_that_api(refusal: Reply) -> None:
    there = Server({"/v1/chat/completions": refusal, "/v1/completions": REFUSED})
    with server(there) as url:
        assert recognised_api(target(url, model="m")).api == "completions"


def test_a_server_that_speaks_none_is_refused_in_one_line() -> None:
    with server(Server({})) as url, pytest.raises(BadInput, match=r"speaks no API that pacemark knows \(chat, .*check"):
        recognised_api(target(url, model="m"))


def test_who_asks_for_a_key_is_asked_no_more_and_the_first_request_says_so() -> None:
    there = Server({}, says(401, {"error": {"message": "no key"}}))
    with server(there) as url:
        assert recognised_api(target(url, model="m")).api == "chat"
        assert len(there.seen) == 1
        with pytest.raises(BadInput, match="--api-key-env"):
            pacemark.check(url, model="m", api="auto")


def test_keys_go_under_the_names_of_each_api() -> None:
    there = Server({"/v1beta/models/m:streamGenerateContent": REFUSED})
    with server(there) as url:
        found = recognised_api(target(url.removesuffix("/v1"), model="m", headers={"Authorization": "Bearer word"}))
    sent = {asked.path: {name.lower(): text for name, text in asked.headers.items()} for asked in there.asked}
    assert sent["/v1/messages"]["x-api-key"] == "word"
    assert sent["/v1/messages"]["anthropic-version"]
    assert "x-api-key" not in sent["/v1/chat/completions"]
    assert found.headers == {"x-goog-api-key": "word"}


def test_a_server_that_is_loading_is_waited_for() -> None:
    replies = iter([says(503, "loading"), says(503, "loading")])
    told: list[str] = []
    with server(lambda asked: next(replies, REFUSED)) as url:
        assert recognised_api(target(url, model="m"), 10.0, told.append).api == "chat"
    assert len(told) == 2
    with server(lambda asked: says(503, "loading")) as url, pytest.raises(BadInput, match=r"ready within 0.1 s"):
        recognised_api(target(url, model="m"), 0.1)


def test_a_url_that_names_its_api_is_not_asked() -> None:
    place = target("http://127.0.0.1:9/v1/messages", model="m")
    assert recognised_api(place) is place
    assert place.api == "messages"


@pytest.mark.parametrize("odd", [lambda asked: REFUSED, lambda asked: says(200, {"ok": True})])
def test_a_server_that_answers_whatever_is_asked_shows_no_api_by_it(odd: Callable[[Asked], Reply]) -> None:
    with server(odd) as url:
        assert apis_spoken(target(url, model="m", api="messages")) == ["messages"]


def test_check_lists_all_that_the_endpoint_speaks() -> None:
    with serving("demo") as served:
        found = pacemark.check(served.url.removesuffix("/v1"), api="auto", output_tokens=3)
    assert found["target"]["api"] == "chat"
    assert found["speaks"] == [name for name in DIALECTS if name != "agent"]


@pytest.mark.slow(shared=True)
def test_a_run_is_stored_with_the_api_that_was_found(tmp_path: Path) -> None:
    run = pacemark.run(
        "sim:demo", concurrency=1, requests=2, api="auto", input_tokens=16, output_tokens=2, out=tmp_path
    )
    assert run.summary.target["api"] == "chat"
    assert run.summary.run["access"]["api"] == "chat"


def test_a_real_server(llama: str) -> None:
    place = target(llama, model="tiny")
    assert recognised_api(place).api == "chat"
    spoken = apis_spoken(place)
    assert {"chat", "completions", "responses", "messages"} <= set(spoken)
    assert not {"gemini", "tgi", "embeddings", "rerank"} & set(spoken)

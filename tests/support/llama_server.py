"""A real LLM server for tests: llama.cpp, from the `xllamacpp` wheel, over a tiny model written on the spot.

The model has the Llama architecture, random weights and a small vocabulary. It talks nonsense, but everything
round it is real: continuous batching over a few slots, the OpenAI-compatible HTTP server, Prometheus counters.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "tiny-llama"
WIDTH, LAYERS, HEADS, FEED_FORWARD = 256, 8, 4, 768
"""Seven million weights: about a millisecond per token on one core."""
CONTEXT_TOKENS = 4096
"""Room per slot for prompt and answer together."""
RANKED_TOKENS = 1024
"""The same of a server that judges documents: for a query and one of them."""
WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my
than first water been call who oil its now find long down day did get come made may part
""".split()
"""Each is one token, as is every beginning of it; other text is told letter by letter."""
CONTROL = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"
BEGINS_CALL, ENDS_CALL = ["<|use|>", "<|used|>"]
"""Round a call, of a model that has any. `<|call|>` would not do: llama.cpp takes that for an end of text."""
CALLING_TEMPLATE = (
    "{% if tools %}<|system|>{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] or '' }}{% for c in m['tool_calls'] or [] %}"
    "<|use|>{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}<|used|>"
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""From it llama.cpp finds out how a call is spelt, and holds a model that has to call a tool to that."""


def _vocabulary(calls: bool) -> tuple[list[str], list[float], list[int], NDArray[np.float32]]:
    """Texts, scores, GGUF token types and a bias on how readily each of the tokens is said."""
    from gguf import TokenType

    # The tokenizer joins neighbours while the joined text is a token, so a word needs every one of its beginnings.
    beginnings = list(dict.fromkeys("▁" + word[:end] for word in WORDS for end in range(1, len(word) + 1)))
    groups: list[tuple[list[str], TokenType, float]] = [
        (CONTROL, TokenType.CONTROL, -8.0),
        ([BEGINS_CALL, ENDS_CALL] if calls else [], TokenType.CONTROL, -8.0),
        ([f"<0x{byte:02X}>" for byte in range(128)], TokenType.BYTE, -8.0),
        # Bytes of multi-byte characters now and then, so that some text is held back until it is whole.
        ([f"<0x{byte:02X}>" for byte in range(128, 256)], TokenType.BYTE, -0.25),
        (["▁", *map(chr, range(33, 127))], TokenType.NORMAL, 0.0),
        (beginnings, TokenType.NORMAL, 0.0),
    ]
    texts = [text for members, _, _ in groups for text in members]
    types = [int(kind) for members, kind, _ in groups for _ in members]
    bias = np.array([group_bias for members, _, group_bias in groups for _ in members], np.float32)
    types[texts.index("<unk>")] = int(TokenType.UNKNOWN)
    bias[texts.index("</s>")] = 0.6  # an answer that nobody forces on ends after some tens of tokens
    if calls:  # where it has to call a tool it does so at once, and ends after that
        bias[texts.index(BEGINS_CALL)], bias[texts.index("</s>")] = 4.0, 8.0
    scores = [float(len(text)) for text in texts]
    return texts, scores, types, bias


def write_tiny_llama(path: Path, seed: int = 0, *, calls: bool = False) -> None:
    """Write a Llama GGUF with random weights to `path` (9 MB); the same seed gives the same file. `calls`: its
    template offers tools, and where one is required it calls it; elsewhere it says nothing."""
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    random = np.random.default_rng(seed)
    texts, scores, types, bias = _vocabulary(calls)

    writer = GGUFWriter(path, "llama")
    writer.add_name(MODEL)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(texts))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(texts.index("<unk>"))
    writer.add_bos_token_id(texts.index("<s>"))
    writer.add_eos_token_id(texts.index("</s>"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CALLING_TEMPLATE if calls else CHAT_TEMPLATE)

    def add_random(name: str, rows: int, columns: int) -> None:
        weights = random.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(columns))
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", quantize(weights, kind), raw_dtype=kind)

    def add_ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add_ones(f"{block}.attn_norm")
        for projection in ("q", "k", "v", "output"):
            add_random(f"{block}.attn_{projection}", WIDTH, WIDTH)
        add_ones(f"{block}.ffn_norm")
        add_random(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        add_random(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        add_random(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    add_ones("output_norm")
    # Llama has no bias on its output. The first number of every embedding is the same, which makes one.
    embedding = random.standard_normal((len(texts), WIDTH), np.float32)
    embedding[:, 0] = 8.0
    output = random.standard_normal((len(texts), WIDTH), np.float32) * np.float32(2.0 / np.sqrt(WIDTH))
    output[:, 0] = bias
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tiny_ranker(path: Path, seed: int = 0) -> None:
    """Write a BERT that judges pairs of texts, with random weights, to `path` (600 kB): of a query and a document it
    makes one number. Its words are those of `WORDS`; others are spelled letter by letter."""
    from gguf import GGUFWriter, PoolingType, TokenType

    random = np.random.default_rng(seed)
    width, heads, feed_forward = 64, 4, 128
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    # A word's first piece has a blank before it in llama.cpp's table; further pieces have none.
    texts = [*special, *(f"\u2581{text}" for text in dict.fromkeys([*WORDS, *signs])), *signs]
    types = [int(TokenType.CONTROL)] * len(special) + [int(TokenType.NORMAL)] * (len(texts) - len(special))

    writer = GGUFWriter(path, "bert")
    writer.add_name("tiny-ranker")
    writer.add_context_length(RANKED_TOKENS)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    marks = {"pad": "[PAD]", "unk": "[UNK]", "bos": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "eos": "[SEP]"}
    for name, mark in marks.items():
        getattr(writer, f"add_{name}_token_id")(special.index(mark))

    def add(name: str, *shape: int) -> None:
        weights = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
        writer.add_tensor(f"{name}.weight", weights)

    def add_with_bias(name: str, rows: int, columns: int) -> None:
        add(name, rows, columns)
        writer.add_tensor(f"{name}.bias", np.zeros(rows, np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))

    add("token_embd", len(texts), width)
    add("token_types", 2, width)
    add("position_embd", RANKED_TOKENS, width)
    add_norm("token_embd_norm")
    for block in ("blk.0", "blk.1"):
        for projection in ("q", "k", "v", "output"):
            add_with_bias(f"{block}.attn_{projection}", width, width)
        add_norm(f"{block}.attn_output_norm")
        add_with_bias(f"{block}.ffn_up", feed_forward, width)
        add_with_bias(f"{block}.ffn_down", width, feed_forward)
        add_norm(f"{block}.layer_output_norm")
    add_with_bias("cls", width, width)
    add_with_bias("cls.output", 1, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def llama_server(
    model: Path, slots: int = 4, cache_mib: int = 0, wait_s: float = 30.0, *, ranks: bool = False
) -> Iterator[str]:
    """Run llama.cpp over `model` in a process of its own; yields its base URL, `http://127.0.0.1:PORT/v1`. `ranks`: it
    judges documents, as with `--reranking`, and answers nothing else.

    A slot knows the prompt that it had last; what is pushed out of it is kept in `cache_mib` of memory. Raises
    `RuntimeError`, with what the server wrote, if it is not healthy within `wait_s` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        said, log = Path(folder, "stdout"), Path(folder, "stderr")
        with said.open("wb") as stdout, log.open("wb") as stderr:
            # The pipe to its standard input ends the server if this process dies without ending it.
            how = [str(slots), str(cache_mib), "ranks" if ranks else "talks"]
            command = [sys.executable, __file__, str(model), *how]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
        try:
            deadline = time.monotonic() + wait_s
            while not ((lines := said.read_text().splitlines()) and _healthy(lines[-1])):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"llama.cpp did not start within {wait_s} s:\n{log.read_text()[-4000:]}")
                time.sleep(0.02)
            yield f"{lines[-1]}/v1"
        finally:
            process.kill()
            process.communicate()


def server_counters(base_url: str) -> dict[str, float]:
    """The figures of the server's /metrics by name, without their `llamacpp:`."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.removeprefix("llamacpp:").split() for line in lines if line.startswith("llamacpp:"))
    return {name: float(value) for name, value in pairs}


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):  # not listening yet, or a line that is only half written
        return False


def _serve(model: str, slots: int, cache_mib: int, does: str) -> None:
    """Serve until standard input closes; the address goes to standard output."""
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the kernel picks a free one
    params.n_parallel = slots
    params.n_ctx = slots * CONTEXT_TOKENS
    params.cont_batching = True
    params.endpoint_metrics = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 64
    params.fit_params = False
    params.cache_ram_mib = cache_mib
    params.ui = False
    if does == "ranks":
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        params.n_ctx = params.n_batch = params.n_ubatch = slots * RANKED_TOKENS
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

"""llama.cpp's real server (from the package ``xllamacpp``) with a tiny model of random weights, in a process of its own.

The model talks nonsense, in words of a hand-written vocabulary, and never ends by itself: ``max_tokens`` decides.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WORDS = ["the", "a", "of", "and", "blue", "green", "river", "stone", "lake", "gentian", "alpine", "wind", "snow"]
WIDTH, LAYERS, HEADS, CONTEXT, SLOTS = 32, 1, 2, 4096, 64
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def vocabulary() -> list[tuple[bytes, int]]:
    special = [(b"<unk>", UNKNOWN), (b"<s>", CONTROL), (b"</s>", CONTROL)]
    single = [(b"<0x%02X>" % value, BYTE) for value in range(256)]  # so that any prompt can be read
    words = ["\u2581", *map(chr, range(ord("a"), ord("z") + 1)), *(f"\u2581{word}" for word in WORDS)]
    return special + single + [(word.encode(), NORMAL) for word in words]


def write_model(path: Path) -> None:
    """Write a llama of one layer, about 100 KiB."""
    import gguf
    import numpy as np

    tokens = vocabulary()
    draw = np.random.default_rng(7)

    def weights(rows: int, columns: int) -> np.ndarray:
        return (draw.standard_normal((rows, columns)) * 0.3).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_scores([0.0 if kind != NORMAL else -1.0 - at / 1000 for at, (_, kind) in enumerate(tokens)])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")

    # The first dimension is the same for every token and nothing adds to it, so it can tell words from the other tokens.
    embedding, output = weights(len(tokens), WIDTH), weights(len(tokens), WIDTH)
    embedding[:, 0] = 5.0
    output[:, 0] = [6.0 if kind == NORMAL else -6.0 for _, kind in tokens]
    mixed, fed = weights(WIDTH, WIDTH), weights(WIDTH, WIDTH)
    mixed[0, :] = fed[0, :] = 0.0
    ones = np.ones(WIDTH, np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(WIDTH, WIDTH))
    writer.add_tensor("blk.0.attn_output.weight", mixed)
    writer.add_tensor("blk.0.ffn_down.weight", fed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the server; give its address."""
    model = folder / "tiny.gguf"
    write_model(model)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, __file__, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert process.stdin is not None and process.stdout is not None
        try:
            address = process.stdout.readline().decode().strip()
            assert address.startswith("http://"), (folder / "server.log").read_text(errors="replace")
            yield address
        finally:
            process.stdin.close()
            process.wait(timeout=20)
            process.stdout.close()


def serve(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.warmup = False
    params.endpoint_slots = params.endpoint_metrics = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()  # until whoever started us closes it, or is gone


if __name__ == "__main__":
    serve(sys.argv[1])

"""Writes a tiny random model that llama.cpp can serve, so that tests meet a real model server without a download.

Its words are noise, but everything around them is real: tokenizer, chat template, grammar, sampling, usage, vectors.
The seed is fixed: each run writes the same weights.

    python scripts/make_tiny_gguf.py FILE
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

SEED = 7
WIDTH, LAYERS, HEADS, INNER_WIDTH, CONTEXT = 64, 2, 4, 128, 2048
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{TURN_START}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{TURN_END}\n"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{TURN_START}assistant\n{{% endif %}}"
)


def write_model(path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    write_shape(writer)
    tokens = write_tokenizer(writer)
    for name, weights in build_tensors(tokens).items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny random llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def write_tokenizer(writer: gguf.GGUFWriter) -> int:
    """One token for each byte: any text in, any text out. Returns how many tokens there are."""
    special = {UNKNOWN: gguf.TokenType.UNKNOWN, BEGIN: gguf.TokenType.CONTROL, END: gguf.TokenType.CONTROL}
    turns = dict.fromkeys((TURN_START, TURN_END), gguf.TokenType.CONTROL)
    tokens = special | turns | {f"<0x{byte:02X}>": gguf.TokenType.BYTE for byte in range(256)}
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(tokens))
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(list(tokens.values()))
    names = list(tokens)
    writer.add_unk_token_id(names.index(UNKNOWN))
    writer.add_bos_token_id(names.index(BEGIN))
    writer.add_eos_token_id(names.index(END))
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def build_tensors(tokens: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(SEED)

    def matrix(outputs: int, inputs: int) -> np.ndarray:
        return draw.normal(0.0, inputs**-0.5, (outputs, inputs)).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    tensors = {"token_embd.weight": matrix(tokens, WIDTH), "output_norm.weight": ones}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        tensors |= {f"{block}.{name}.weight": ones for name in ("attn_norm", "ffn_norm")}
        tensors |= {f"{block}.attn_{name}.weight": matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        tensors |= {f"{block}.ffn_{name}.weight": matrix(INNER_WIDTH, WIDTH) for name in ("gate", "up")}
        tensors[f"{block}.ffn_down.weight"] = matrix(WIDTH, INNER_WIDTH)
    return tensors | {"output.weight": matrix(tokens, WIDTH)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a tiny random model for llama.cpp.")
    parser.add_argument("file", type=Path)
    write_model(parser.parse_args().file)

"""Writes a tiny random model that mlx_lm.server can serve, so that tests meet a real model server without a download.

Its words are noise, but everything around them is real: tokenizer, chat template, prefill, sampling, usage.
The seed is fixed: each run writes the same weights.

    python scripts/make_tiny_model.py DIRECTORY
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.qwen3 import Model, ModelArgs
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SEED = 7
TURN_START, TURN_END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{TURN_START}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{TURN_END}\n"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{TURN_START}assistant\n{{% endif %}}"
)


def build_tokenizer() -> Tokenizer:
    """One token for each byte and no merges: any text in, any text out, nothing to train."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (TURN_START, TURN_END, PADDING)])
    return tokenizer


def build_model_config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "vocab_size": tokenizer.get_vocab_size(),
        "eos_token_id": tokenizer.token_to_id(TURN_END),
    }


def build_tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": TURN_END,
        "pad_token": PADDING,
        "model_max_length": 4096,
    }


def write_weights(path: Path, config: dict[str, object]) -> None:
    mx.random.seed(SEED)
    model = Model(ModelArgs.from_dict(config))
    # Without this entry the server does not take the file for MLX weights.
    mx.save_safetensors(str(path), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})


def write_model(directory: Path) -> None:
    """Everything a model directory needs; `hub` is where the server looks for further models."""
    (directory / "hub").mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    config = build_model_config(tokenizer)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(build_tokenizer_config(), indent=2))
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    write_weights(directory / "model.safetensors", config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a tiny random model for mlx_lm.server.")
    parser.add_argument("directory", type=Path)
    write_model(parser.parse_args().directory)

"""Write a tiny language model whose answers are known: `python tiny_model.py huggingface|gguf DIRECTORY`.

It runs with the Python of the server that is to serve it, whose packages it needs, and imports nothing of this project.

A llama of one layer with 128 dimensions. Attention and feed-forward write zeros, so the next token depends on the last
one alone; each token that is ever said is a dimension of its own, and the row of the output matrix that stands for its
successor points there. So the real server, tokenizer and sampler say SENTENCE and stop, at any temperature. Asked about
something that has "forever" in it, it says the words of CHORUS over and over.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

DIMENSIONS = 128
# Long enough for "forever" to last for seconds.
CONTEXT = 65536
# Pieces of one byte each (`你` in three tokens) are what a server must not send before the character is whole.
SENTENCE = [
    *("Hello", ",", " I", " am", " a", " tiny", " model", ".\n"),
    *("你".encode()),
    *(" и", " สวัส", "ดี", " 👩‍👩‍👧‍👦", "!"),
]
CHORUS = [" round", " and", " around", " it", " goes"]
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|forever|>"]
TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}"
    "{% if 'forever' in messages[-1]['content'] %}<|forever|>{% else %}<|assistant|>{% endif %}"
)

TEXT = b"".join(piece.encode() if isinstance(piece, str) else bytes([piece]) for piece in SENTENCE).decode()


def byte_letters() -> dict[int, str]:
    """Return GPT-2's letter for each byte: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


LETTERS = byte_letters()


def written(piece: str | int) -> str:
    """Return a piece in GPT-2's letters."""
    return "".join(LETTERS[byte] for byte in (piece.encode() if isinstance(piece, str) else [piece]))


def vocabulary() -> list[str]:
    """Return all tokens in order: the special ones, the bytes, what is said, and what the one merge needs."""
    words = [written(piece) for piece in (*SENTENCE, *CHORUS)]
    singles = list(LETTERS.values())
    return [*SPECIAL, *singles, *(word for word in words if word not in singles), "he"]


def weights() -> dict[str, Any]:
    """Return the matrices under Hugging Face's names."""
    numpy = importlib.import_module("numpy")
    tokens = vocabulary()
    place = {token: index for index, token in enumerate(tokens)}
    said = ["<|assistant|>", *map(written, SENTENCE), "<|end|>"]
    sung = ["<|forever|>", *map(written, CHORUS)]
    steps = [*itertools.pairwise(said), *itertools.pairwise([*sung, sung[1]])]
    dimension = {token: index for index, token in enumerate(dict.fromkeys(before for before, _ in steps))}
    assert len(dimension) < DIMENSIONS, "one for each token that has a successor, and one for the others"
    embeddings = numpy.zeros((len(tokens), DIMENSIONS), dtype="float32")
    embeddings[:, DIMENSIONS - 1] = 1
    output = numpy.zeros((len(tokens), DIMENSIONS), dtype="float32")
    for before, after in steps:
        embeddings[place[before]] = 0
        embeddings[place[before], dimension[before]] = 1
        output[place[after], dimension[before]] = 10
    zeros = numpy.zeros((DIMENSIONS, DIMENSIONS), dtype="float32")
    ones = numpy.ones(DIMENSIONS, dtype="float32")
    layer = "model.layers.0"
    return {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": ones,
        "lm_head.weight": output,
        f"{layer}.input_layernorm.weight": ones,
        f"{layer}.post_attention_layernorm.weight": ones,
        **{f"{layer}.self_attn.{name}_proj.weight": zeros for name in "qkvo"},
        **{f"{layer}.mlp.{name}_proj.weight": zeros for name in ("gate", "up", "down")},
    }


def huggingface(directory: Path) -> None:
    """Write what transformers and vLLM load."""
    torch = importlib.import_module("torch")
    tokenizers = importlib.import_module("tokenizers")
    transformers = importlib.import_module("transformers")
    tokens = vocabulary()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, [("h", "e")]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=SPECIAL[0], pad_token=SPECIAL[0], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    config = transformers.LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=DIMENSIONS,
        intermediate_size=DIMENSIONS,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict({name: torch.tensor(matrix) for name, matrix in weights().items()})
    model.save_pretrained(directory)


def gguf(directory: Path) -> None:
    """Write `tiny.gguf`, what llama.cpp loads."""
    package = importlib.import_module("gguf")
    tokens = vocabulary()
    writer = package.GGUFWriter(directory / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIMENSIONS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(DIMENSIONS)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(DIMENSIONS // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = package.TokenType
    writer.add_token_types([kinds.CONTROL if token in SPECIAL else kinds.NORMAL for token in tokens])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.0.input_layernorm": "blk.0.attn_norm",
        "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
        **{f"model.layers.0.self_attn.{name}_proj": f"blk.0.attn_{name}" for name in "qkv"},
        "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
        **{f"model.layers.0.mlp.{name}_proj": f"blk.0.ffn_{name}" for name in ("gate", "up", "down")},
    }
    for name, matrix in weights().items():
        writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    form, where = sys.argv[1:]
    {"huggingface": huggingface, "gguf": gguf}[form](Path(where))
    print(json.dumps({"text": TEXT, "chorus": "".join(CHORUS)}))

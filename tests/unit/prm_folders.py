"""Tiny PRM folders of the published architectures: random weights, tokenizers of some hundred tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

PROBLEM, STEPS = "What is 1+2-3?", ["Add 1+2.", "That is 3.", "So 0."]
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (  # with the default system turn and the trimmed contents of Llama 3.1
    "<|begin|><|head|>system<|/head|>\n\nToday<|eot|>"
    "{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)


def _write_tokenizer(
    folder: Path, tokenizer: Tokenizer, special: dict[str, str], template: str | None
) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab(with_added_tokens=True)


def byte_tokenizer(
    folder: Path, *added: str, template: str | None = None, bos: str | None = None
) -> dict[str, int]:
    """Write a byte-level BPE whose only merge is a full stop and a line feed; return its vocabulary.

    Bytes are tokens of their own: a letter, `Ġ` for a space, `Ċ` for a line feed.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, ".Ċ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(".", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<eos>", *added)])
    special = {"eos_token": "<eos>"} | ({} if bos is None else {"bos_token": bos})
    return _write_tokenizer(folder, tokenizer, special, template)


def space_tokenizer(folder: Path) -> dict[str, int]:
    """Write a BPE like SentencePiece's, as Mistral has: a text begins with a space, `▁`."""
    letters = "abcdefghijklmnopqrstuvwxyzSJ0123456789+-=.:?ки▁"
    pieces = ["▁к", "▁ки", "▁+", "▁-"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *pieces]
    merges = [("▁", "к"), ("▁к", "и"), ("▁", "+"), ("▁", "-")]
    vocabulary = {token: number for number, token in enumerate(names)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _write_tokenizer(folder, tokenizer, special, None)


def randomise(module: nn.Module) -> None:
    """Give biases, which start as zeros, random values too."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()


Maker = Callable[..., dict[str, int]]


def written_once(make: Maker) -> Maker:
    """Keep the files of each call: to write them again is quicker than to make a model again."""
    made: dict[Any, tuple[dict[str, int], dict[str, bytes]]] = {}

    @wraps(make)
    def write(folder: Path, *given: Any, **options: Any) -> dict[str, int]:
        key = (given, tuple(sorted(options.items())))
        folder.mkdir(parents=True, exist_ok=True)
        if key not in made:
            before = {path.name for path in folder.iterdir()}
            vocabulary = make(folder, *given, **options)
            new = [path for path in folder.iterdir() if path.name not in before]
            made[key] = vocabulary, {path.name: path.read_bytes() for path in new}
        vocabulary, files = made[key]
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return dict(vocabulary)

    return write


@written_once
def token_classifier(folder: Path, labels: int = 2, *added: str, **tokenizer: Any) -> dict[str, int]:
    """Write a classifier as TRL's PRMTrainer saves it."""
    vocabulary = byte_tokenizer(folder, *added, **tokenizer)
    torch.manual_seed(labels)
    config = Qwen2Config(vocab_size=len(vocabulary), num_labels=labels, **SIZES)
    model = Qwen2ForTokenClassification(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    return vocabulary


@written_once
def qwen_prm(folder: Path) -> dict[str, int]:
    """Write what Qwen2.5-Math-PRM's hub folder has, in two shards, less the code that it names."""
    vocabulary = byte_tokenizer(folder, "<|im_start|>", "<|im_end|>", "<extra_0>", template=CHATML)
    torch.manual_seed(3)
    backbone = Qwen2Model(Qwen2Config(vocab_size=len(vocabulary), **SIZES))
    head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    for module in (backbone, head):
        randomise(module)
    backbone.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
            "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    first = {f"model.{name}": value for name, value in backbone.state_dict().items()}
    second = {f"score.{name}": value for name, value in head.state_dict().items()}
    second["lm_head.weight"] = torch.zeros(len(vocabulary), 16)
    index: dict[str, str] = {}
    for number, tensors in enumerate((first, second), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return vocabulary


@written_once
def shepherd_prm(folder: Path, tie: bool = False) -> dict[str, int]:
    """Write a language model with the tokenizer of Math-Shepherd's kind."""
    vocabulary = space_tokenizer(folder)
    torch.manual_seed(4)
    config = MistralConfig(vocab_size=len(vocabulary), tie_word_embeddings=tie, sliding_window=None, **SIZES)
    MistralForCausalLM(config).save_pretrained(folder)
    return vocabulary


@written_once
def rlhflow_prm(folder: Path, template: str | None = HEADERS) -> dict[str, int]:
    """Write a language model with a chat template like Llama's."""
    specials = ("<|begin|>", "<|head|>", "<|/head|>", "<|eot|>")
    vocabulary = byte_tokenizer(folder, *specials, template=template, bos="<|begin|>")
    torch.manual_seed(5)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **SIZES)).save_pretrained(folder)
    return vocabulary


MAKERS = {
    "token_classification": token_classifier,
    "marker": qwen_prm,
    "plus_minus": shepherd_prm,
    "plus_minus_chat": rlhflow_prm,
}
"""Form to function that writes a folder of it."""

"""Run by test_weight_transfer.py: new weights in an engine of a mixture of experts, twice."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from tests.e2e.test_weight_transfer import CONTEXT, EOS, VOCABULARY, Pair, make_engine, prompts


def main() -> None:
    """Print how far the engine is from transformers after each change of the weights, in nats."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(
            MixtralConfig(
                vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT,
                num_local_experts=4, eos_token_id=EOS, pad_token_id=0, bos_token_id=None,
            )
        ).save_pretrained(folder)  # fmt: skip
        pair = Pair(make_engine(Path(folder)), AutoModelForCausalLM.from_pretrained(folder))
        for version in (1, 2):  # the second reload must start from the state that the first one left
            pair.engine.update_weights(pair.change(version))
            print("nats", pair.largest_difference(prompts(10)))


if __name__ == "__main__":
    main()

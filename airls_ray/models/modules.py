"""The two networks as training modules: log-probabilities of a policy, and the PRM's scalar head.

Both run the backbone first and then the output layer only at the positions that are asked for, so
that the logits of prompts and padding are never computed, and of many tokens they are computed in
chunks. The output layer is called as a module: DeepSpeed ZeRO-3 gathers its weights in the module's
hooks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from airls_ray.config.model_sections import LOGIT_CHUNK_MIB, logit_chunk_tokens
from airls_ray.errors import ConfigError, ModelError
from airls_ray.models.attention import row_ends, rows_stay_apart
from airls_ray.models.logits import LogitForm
from airls_ray.models.token_logprobs import TokenReader, read_in_chunks
from airls_ray.objectives.outcome_head import combined_logit


def hf_name(name: str) -> str | None:
    """Return the Hugging Face name of a parameter of an adapted model; None for one of an adapter's own."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def layers_of(model: Any) -> nn.ModuleList:
    """Return the transformer layers of a Hugging Face model.

    Raises:
        ModelError: it has them under another name, as older models do.
    """
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"a {type(model).__name__} does not call its transformer layers `layers`, which LoRA and "
            "compiling ask for: set lora.rank=0 and compile=false, or take another model"
        )
    return layers


class _WrappedModel(nn.Module):
    """A Hugging Face model whose parameters keep their Hugging Face names."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.adapter: Any = None
        """peft's settings, where the model has adapters (`airls_ray.models.lora`)."""

    def hf_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield (Hugging Face name, parameter); a tied output layer is named once, as the embeddings.

        Adapters are left out: they are no part of a Hugging Face model.
        """
        for own, parameter in self.model.named_parameters():
            name = hf_name(own)
            if name is not None:
                yield name, parameter

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield (name, parameter) of all that learns: everything, or adapters and a scalar head."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def compile_layers(self) -> None:
        """Let torch.compile fuse the kernels of each transformer layer, for any length of the rows.

        Layer by layer, since one graph serves them all; in place, so that no parameter changes its name.

        Raises:
            ConfigError: there is no C++ compiler, which a CPU needs.
            ModelError: as of `layers_of`.
        """
        self.check_compiler("learner.compile", "false")
        for layer in layers_of(self.model):
            layer.compile(dynamic=True)

    def check_compiler(self, setting: str, other: str) -> None:
        """Look for what torch.compile needs; `other` is the value of `setting` that does without.

        Raises:
            ConfigError: the weights are on a CPU, and there is no C++ compiler.
        """
        on_gpu = next(self.parameters()).is_cuda
        if not on_gpu and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise ConfigError(f"{setting} needs a C++ compiler on a CPU: install g++, or set it to {other}")

    @cached_property
    def packs(self) -> bool:
        """Whether the rows of a packed line stay apart; collective under ZeRO-3, as a forward pass is."""
        return rows_stay_apart(self.model.base_model)

    def _hidden(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return the backbone's last hidden states, flattened to [B * T, hidden].

        Padded layout ([B, T] with `attention_mask`, padded on the right): neither mask nor positions
        are passed on. Under causal attention no token sees the padding behind it, and positions
        simply count from 0, so the results are the same and attention takes its fast causal path.
        Packed layout ([1, total], no mask): positions restart at each row, from which transformers
        builds the block-diagonal mask; flash attention is told where the rows end.
        """
        positions = position_ids if attention_mask is None else None
        ends = {} if positions is None else row_ends(self.model.base_model, positions)
        output = self.model.base_model(
            input_ids=input_ids, attention_mask=None, position_ids=positions, use_cache=False, **ends
        )
        hidden: Tensor = output.last_hidden_state
        return hidden.flatten(0, 1)


class PolicyModule(_WrappedModel):
    """A causal language model; forward gives the log-probabilities of the response tokens."""

    def __init__(self, model: Any, *, logit_chunk_mib: int = LOGIT_CHUNK_MIB) -> None:
        """`logit_chunk_mib`: as `LearnerConfig` has it."""
        super().__init__(model)
        self._logit_form = LogitForm.of(model.config)
        vocabulary = model.config.get_text_config().vocab_size
        self._most_tokens = logit_chunk_tokens(vocabulary, logit_chunk_mib)

    def token_logprobs(
        self,
        hidden: Tensor,
        targets: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        entropy_gradient: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (log-probabilities [R], entropies [R] or None) in nats, fp32.

        Args:
            hidden: [R, hidden] last hidden states of the positions that predict the tokens.
            targets: [R] the tokens.
            temperature: divides the logits, as the sampler does.
            entropy: whether to compute the entropy of each predicted distribution.
            entropy_gradient: False where the entropy is only reported (saves memory).
        """
        read = TokenReader(self._logit_form, temperature, entropy, entropy_gradient)
        layer = self.model.get_output_embeddings()
        if self._most_tokens is None or targets.numel() <= self._most_tokens:
            return read(layer, hidden, targets)
        return read_in_chunks(layer, hidden, targets, read, self._most_tokens)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        predict_index: Tensor,
        targets: Tensor,
        attention_mask: Tensor | None = None,
        token_index: Tensor | None = None,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        entropy_gradient: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (log-probabilities [R], entropies [R] or None) in nats, fp32.

        Args:
            input_ids: [B, T] padded on the right, or [1, total] packed.
            position_ids: like `input_ids`; read in the packed layout only.
            predict_index: [R] flat index of the position that predicts response token r.
            targets: [R] the response tokens.
            attention_mask: [B, T] in the padded layout, None in the packed one.
            token_index: not used; taken so that both modules read the same inputs.
            temperature: divides the logits, as the sampler does.
            entropy: whether to compute the entropy of each predicted distribution.
            entropy_gradient: False where the entropy is only reported (saves memory).
        """
        hidden = self._hidden(input_ids, position_ids, attention_mask)
        return self.token_logprobs(
            hidden[predict_index],
            targets,
            temperature=temperature,
            entropy=entropy,
            entropy_gradient=entropy_gradient,
        )


class _ExactLinear(nn.Linear):
    """A linear layer of a head, computed in fp32 whatever its weights are.

    A product in bfloat16 has 8 bits: values from 4 to 8 would come in steps of 1/32.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Return fp32."""
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden.float(), self.weight.float(), bias)


class ScalarHeadModule(_WrappedModel):
    """A token classifier with one label (f), or two: with shaping g and the state value h; with an outcome
    head whether a step is right and how the solution ends."""

    def __init__(self, model: Any, *, outcome_beta: float | None = None) -> None:
        """`outcome_beta`: `prm.outcome_head`."""
        super().__init__(model)
        for layer in model.score.modules():
            if (
                type(layer) is nn.Linear
            ):  # the layer stays: its weights' names, and the hooks that gather them
                layer.__class__ = _ExactLinear
        self._outcome_beta = outcome_beta
        self.text_head: nn.Module | None = None
        """Output layer of the language model that the backbone was (`airls_ray.models.text_head`); no part of
        what is saved."""

    def values(self, hidden: Tensor) -> Tensor:
        """Return f of the hidden states [R, hidden] of tokens: fp32 [R]; of an outcome head both combined."""
        outputs = self.model.score(hidden).float()
        if self._outcome_beta is None:
            first: Tensor = outputs[:, 0]
            return first
        return combined_logit(outputs[:, 0], outputs[:, 1], self._outcome_beta)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        predict_index: Tensor,
        targets: Tensor,
        attention_mask: Tensor | None = None,
        token_index: Tensor | None = None,
        *,
        apart: bool = False,
        text_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (f [R], h [R] or None), fp32.

        Of an outcome head f is its two outputs combined, and with `apart` the logits of the step and of the
        outcome are returned. With `text_index` (int64 [K], of response tokens) the second value is their
        log-probabilities [K] by the text head, in nats.

        `f` (with shaping: g) is read AT response token r. `h` is the value of the state BEFORE token
        r, read at the position that predicts it; so the state after a step is the `h` of the next
        step's first token, and the state before the first step is read at the prompt's end.
        """
        if token_index is None:
            raise ValueError("ScalarHeadModule needs token_index")
        hidden = self._hidden(input_ids, position_ids, attention_mask)
        if self._outcome_beta is not None and not apart:
            return self.values(hidden[token_index]), None
        f = self.model.score(hidden[token_index]).float()
        if text_index is not None:
            return f[:, 0], self._text_logprobs(hidden[predict_index[text_index]], targets[text_index])
        if f.shape[1] == 1:
            return f.squeeze(1), None
        if self._outcome_beta is not None:
            return f[:, 0], f[:, 1]
        h = self.model.score(hidden[predict_index]).float()
        return f[:, 0], h[:, 1]

    def _text_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        assert self.text_head is not None
        read = TokenReader(LogitForm.of(self.model.config))
        most = logit_chunk_tokens(self.model.config.get_text_config().vocab_size, LOGIT_CHUNK_MIB)
        if most is None or targets.numel() <= most:
            return read(self.text_head, hidden, targets)[0]
        return read_in_chunks(self.text_head, hidden, targets, read, most)[0]


class PolicyHeadModule(ScalarHeadModule):
    """A head that learns on a frozen policy (`airls_ray.models.policy_head`)."""

    def __init__(self, model: Any, policy: str) -> None:
        """`policy`: folder or hub name of the backbone."""
        super().__init__(model)
        self.policy = policy

    def hf_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the head's alone: the policy has a folder of its own."""
        yield from self.trainable_parameters()

    def _hidden(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        with torch.no_grad():  # nothing below the head learns
            return super()._hidden(input_ids, position_ids, attention_mask)


PRMModule = PolicyModule | ScalarHeadModule
"""Either parameterisation of the PRM."""

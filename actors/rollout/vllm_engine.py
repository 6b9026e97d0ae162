"""The adapter to vLLM 0.32: an engine inside this process, tokens in, tokens and log-probabilities out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.cluster.host import no_collection
from actors.rollout.engine import GREEDY_BELOW, OpenSample, Request, Sample, Sampling
from actors.rollout.vllm_sampler import return_whole_logprobs
from actors.weights.adapter_slot import AdapterSlot, adapter_arguments
from airls_ray.config.schema import EngineConfig
from airls_ray.errors import RequestRefused
from airls_ray.truncation import Truncation
from airls_ray.weights import WeightBuffer

if TYPE_CHECKING:
    from vllm import LLM


_TRIED = 4
"""Tokens behind which it is tried whether the engine gives the policy's log-probabilities."""
_NO_WHOLE = (
    "this version of vLLM gives no log-probabilities of the whole policy where top_p, top_k or min_p leave "
    "tokens out: leave them at 1, 0 and 0, or take vLLM 0.32"
)
_SAME_NATS = 1e-3
"""Two log-probabilities of a token by one engine that are the same up to rounding."""
_CPU_BLOCK_TOKENS = 32
"""Prefixes are shared in whole blocks, and vLLM's own block on a CPU has 128 tokens: more than the whole
responses of small models, of which nothing was ever shared. 32 is the least that its CPU attention takes."""


def engine_environment(threads: int, *, compiles: bool = True) -> dict[str, str]:
    """Variables that must be set before the engine's process imports torch.

    `compiles`: False compiles nothing. vLLM compiles one small function of its sampler even where it is told
    to run eagerly: half a minute of a C++ compiler, once a machine, for what plain PyTorch does as well.
    """
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine and actor are one process: dies with it
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the learners share the cores
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": str(threads),
    }
    if not compiles:
        variables["TORCHDYNAMO_DISABLE"] = "1"
    return variables


class VLLMEngine:
    """vLLM without a server, a second process or a tokenizer of its own."""

    def __init__(
        self,
        model: str | Path,
        config: EngineConfig,
        *,
        dtype: str,
        context_tokens: int,
        eos_ids: Sequence[int],
        lora_rank: int = 0,
    ) -> None:
        """Load the model.

        Args:
            model: folder or hub name.
            config: of the engine.
            dtype: the model's data type.
            context_tokens: longest prompt and response together.
            eos_ids: any of them ends a response.
            lora_rank: of the adapters that come as weights; 0: all weights come.
        """
        for key, value in engine_environment(int(os.environ.get("OMP_NUM_THREADS", "0")) or 1).items():
            os.environ.setdefault(key, value)
        with no_collection():
            from actors.weights.weight_transfer import register_object_store_transfer

            register_object_store_transfer()
            from vllm import LLM
        from vllm.config import WeightTransferConfig

        self._eos_ids = list(eos_ids)
        self._requests = 0
        self._gives_whole = False
        arguments = adapter_arguments(lora_rank)
        if _on_cpu():
            arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
            # A prompt that is cut in two (too many tokens for one step) makes vLLM turn back its seeded
            # generator, which PyTorch's CPU generator cannot do: the engine dies.
            arguments["enable_chunked_prefill"] = False
            arguments["block_size"] = _CPU_BLOCK_TOKENS
        else:
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        self._llm: LLM = LLM(
            model=str(model),
            skip_tokenizer_init=True,
            dtype=_resolve_dtype(config.dtype, dtype),
            enforce_eager=config.enforce_eager,
            # "ray" would leave the actor's resources; tensor parallel engines fork workers of their own.
            distributed_executor_backend="uni" if config.tensor_parallel == 1 else "mp",
            tensor_parallel_size=config.tensor_parallel,
            max_model_len=context_tokens,
            max_num_seqs=config.max_sequences,
            enable_prefix_caching=config.prefix_caching,
            # Log-probabilities of the distribution that is sampled from: equal to the trainer's, as long as
            # it is not truncated (see `give_whole_logprobs`).
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            weight_transfer_config=WeightTransferConfig(backend=config.weight_transfer),
            seed=0,  # every request has its own seed
            disable_log_stats=not config.metrics,
            **arguments,
        )
        self._adapter = AdapterSlot(self._llm)
        if config.metrics:
            _show_metrics(self._llm)
        if config.weight_transfer == "object_store":
            self._llm.collective_rpc("init_weight_transfer_engine", args=({},))

    def warm_up(self) -> float:
        """Generate once, which compiles the sampler; returns seconds."""
        start = time.perf_counter()
        self.generate([[self._eos_ids[0]]], [0], Sampling(samples=2, temperature=1.0, max_tokens=2))
        self._llm.reset_prefix_cache()
        return time.perf_counter() - start

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        """See `Engine.generate`. Sample i of a prompt is drawn with seed + i."""
        limits = sampling.limits(len(seeds))
        return self.run(
            [
                Request(
                    prompt,
                    sampling.samples,
                    sampling.temperature,
                    limit,
                    seed,
                    truncation=sampling.truncation,
                )
                for prompt, seed, limit in zip(prompts, seeds, limits, strict=True)
            ]
        )

    def run(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """See `Engine.run`."""
        self._prepare(requests)
        with _refusals():
            parameters = [self._parameters(request) for request in requests]
            prompts: Any = [{"prompt_token_ids": list(request.prompt)} for request in requests]
            adapter = self._adapter.request
            outputs = self._llm.generate(prompts, parameters, use_tqdm=False, lora_request=adapter)
        return [[_to_sample(completion) for completion in output.outputs] for output in outputs]

    def _parameters(self, request: Request, **more: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=request.samples,
            temperature=request.temperature,
            top_p=request.truncation.top_p,
            top_k=request.truncation.top_k,
            min_p=request.truncation.min_p,
            max_tokens=request.max_tokens,
            seed=None if request.temperature < GREEDY_BELOW else request.seed,
            stop_token_ids=[*self._eos_ids, *request.stop_ids],
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
            **more,
        )

    def run_interruptible(
        self, requests: Sequence[Request], version: int, news: Callable[[], WeightBuffer | None]
    ) -> list[list[Sample]]:
        """See `Engine.run_interruptible`.

        A sample that is under way when weights come is taken out of the engine and begins again with its
        tokens as prompt, so that its keys and values are those of the new weights. The tokens after that
        have a seed of their own: which they are depends on when the weights came.
        """
        self._prepare(requests)
        samples = [OpenSample(request, index) for request in requests for index in range(request.samples)]
        live: dict[str, OpenSample] = {}
        try:
            with _refusals():
                for sample in samples:
                    self._add(sample, live)
        except RequestRefused:  # whoever asks next must not get the others' tokens
            self._llm.llm_engine.abort_request(list(live))
            raise
        while live:
            weights = news()
            if weights is not None:
                open_ones = list(live.values())
                self._llm.llm_engine.abort_request(list(live))
                live.clear()
                self.update_weights(weights)
                version = weights.version
                for sample in open_ones:
                    self._add(sample, live)
            for output in self._llm.llm_engine.step():
                self._take(output, live, version)
        sizes = iter(samples)
        return [[next(sizes).sample() for _ in range(request.samples)] for request in requests]

    def give_whole_logprobs(self) -> None:
        """Give the log-probabilities of all tokens also where some of them cannot be drawn.

        Raises:
            RequestRefused: this version of vLLM has another sampler, which gives others.
        """
        if self._gives_whole:
            return
        try:
            self._llm.collective_rpc(return_whole_logprobs)
        except (AttributeError, TypeError) as error:
            raise RequestRefused(f"{_NO_WHOLE} ({error})") from error
        self._gives_whole = True
        # Of the most probable token alone the sampler's own log-probability is 0, the policy's is not.
        prompts = [[self._eos_ids[0]], *([token] for token in range(_TRIED))]
        alone = self.run([Request(one, 1, 1.0, 1, 0, truncation=Truncation(top_k=1)) for one in prompts])
        greedy = self.run([Request(one, 1, 0.0, 1, 0) for one in prompts])
        self._llm.reset_prefix_cache()
        pairs = zip(alone, greedy, strict=True)
        if any(abs(one.logprobs[0] - other.logprobs[0]) > _SAME_NATS for [one], [other] in pairs):
            self._gives_whole = False
            raise RequestRefused(_NO_WHOLE)

    def _prepare(self, requests: Sequence[Request]) -> None:
        if not self._gives_whole and not all(request.truncation.off for request in requests):
            self.give_whole_logprobs()

    def _add(self, sample: OpenSample, live: dict[str, OpenSample]) -> None:
        from vllm.sampling_params import RequestOutputKind

        rest = sample.rest()
        self._requests += 1
        parameters = self._parameters(rest, output_kind=RequestOutputKind.DELTA)
        prompt: Any = {"prompt_token_ids": list(rest.prompt)}
        name = f"open-{self._requests}"
        self._llm.llm_engine.add_request(name, prompt, parameters, lora_request=self._adapter.request)
        live[name] = sample

    def _take(self, output: Any, live: dict[str, OpenSample], version: int) -> None:
        """Add the tokens of one engine step."""
        sample = live.get(output.request_id)
        if sample is None:  # of a request that was taken out
            return
        (completion,) = output.outputs
        sample.tokens += completion.token_ids
        sample.logprobs += completion.logprobs.logprobs
        sample.versions += [version] * len(completion.token_ids)
        if output.finished:
            sample.finish = completion.finish_reason
            del live[output.request_id]

    def forget_prefixes(self) -> None:
        """See `Engine.forget_prefixes`."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset: requests were still running")

    def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Open the transfer's communicator (NCCL)."""
        self._llm.collective_rpc("init_weight_transfer_engine", args=(init_info,))

    def start_weight_update(self) -> None:
        """Begin a weight update (vLLM's protocol)."""
        self._llm.collective_rpc("start_weight_update")

    def receive_weights(self, update_info: dict[str, Any]) -> None:
        """Receive one part of a weight update (vLLM's protocol)."""
        self._llm.collective_rpc("update_weights", args=(update_info,))

    def finish_weight_update(self, version: int) -> None:
        """End a weight update; cached keys and values of the old weights would be silent corruption."""
        self._llm.collective_rpc("finish_weight_update")
        self._now_has(version)

    def _now_has(self, version: int) -> None:
        self._llm.llm_engine.set_weight_version(str(version))
        self.forget_prefixes()

    def update_weights(self, weights: WeightBuffer) -> None:
        """Load weights, or an adapter, that lie in the object store; see `Engine.update_weights`."""
        if weights.adapter:
            self._adapter.take(weights)
            self._now_has(weights.version)
            return
        self.start_weight_update()
        self.receive_weights({"weights": weights})
        self.finish_weight_update(weights.version)


@contextmanager
def _refusals() -> Iterator[None]:
    """VLLM's word for what is wrong with a request, in the pool's.

    Raises:
        RequestRefused: vLLM refused it, and works as before.
    """
    from vllm.exceptions import VLLMClientError

    try:
        yield
    except VLLMClientError as error:
        raise RequestRefused(f"the engine refuses a request: {str(error).strip()[:300]}") from None


def _show_metrics(llm: LLM) -> None:
    """Put the engine's metrics on Ray's endpoint: `LLM` passes no stat loggers on, so its engine's manager is
    replaced by one whose only logger is Ray's."""
    from vllm.v1.metrics.loggers import StatLoggerManager
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    engine = llm.llm_engine
    engine.logger_manager = StatLoggerManager(
        vllm_config=engine.vllm_config,
        custom_stat_loggers=[RayPrometheusStatLogger],
        enable_default_loggers=False,
    )
    engine.logger_manager.log_engine_initialized()


def _to_sample(completion: Any) -> Sample:
    # With logprobs=0 the flat list holds exactly one entry per token: the sampled one.
    return Sample(completion.token_ids, completion.logprobs.logprobs, completion.finish_reason or "length")


def _resolve_dtype(asked: str, of_model: str) -> str:
    """On a CPU `auto` is float32 whatever the model is: for bfloat16 vLLM 0.32 takes AMX instructions where
    the processor names them, and on a virtual machine that died of an illegal instruction."""
    if asked != "auto":
        return asked
    return "float32" if _on_cpu() else of_model


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())

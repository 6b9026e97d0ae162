"""Log-probabilities of the whole policy from a vLLM sampler that draws from a part of it.

The engine's `processed_logprobs` are those of the distribution that is sampled from. With top-p, top-k or
min-p that is the tokens that are left, renormalised, and no learner computes such numbers. So the sampler of
each worker is given another `sample`: it draws as before, and returns the log-probabilities of all tokens at
each request's temperature. A batch without such a request takes the path that it took.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Sample = Callable[..., tuple[Any, Any]]


def return_whole_logprobs(worker: Any) -> None:
    """Change the sampler of a worker (`collective_rpc` calls this in each of them).

    Raises:
        TypeError: the sampler is none of those that are known.
    """
    sampler = worker.model_runner.sampler
    if getattr(sampler.sample, "gives_whole", False):
        return
    if hasattr(sampler, "sampling_states"):
        sampler.sample = _of_states(sampler)
    elif hasattr(sampler, "topk_topp_sampler"):
        sampler.sample = _of_metadata(sampler)
    else:
        raise TypeError(f"a sampler of {type(sampler).__module__} is not known")
    sampler.sample.gives_whole = True


def _of_metadata(sampler: Any) -> Sample:
    """For vLLM's model runner V1 (`vllm.v1.sample.sampler`), which runs on CPUs."""
    original: Sample = sampler.sample

    def sample(logits: Any, metadata: Any, *more: Any, **named: Any) -> tuple[Any, Any]:
        by_min_p = any(getattr(one, "min_p_count", 0) for one in metadata.logitsprocs.argmax_invariant)
        cuts = metadata.top_p is not None or metadata.top_k is not None or by_min_p
        if metadata.all_greedy or not cuts:
            return original(logits, metadata, *more, **named)
        # Sampling changes the logits in place.
        scaled = sampler.apply_temperature(logits.clone(), metadata.temperature, metadata.all_random)
        whole = sampler.compute_logprobs(scaled)
        sampled, processed = original(logits, metadata, *more, **named)
        return sampled, None if processed is None else whole

    return sample


def _of_states(sampler: Any) -> Sample:
    """For vLLM's model runner V2 (`vllm.v1.worker.gpu.sample.sampler`), whose caller makes log-probabilities
    of the logits that `sample` returns."""
    original: Sample = sampler.sample
    states = sampler.sampling_states

    def sample(
        logits: Any, rows: Any, slots: Any, slots_here: Any, *more: Any, **named: Any
    ) -> tuple[Any, Any]:
        top_k, top_p = states.get_top_k_top_p(rows, slots_here)
        by_min_p = bool((states.min_p.np[slots_here] != 0.0).any())
        cuts = top_k is not None or top_p is not None or by_min_p
        if not cuts or not named.get("return_logprobs", False):
            return original(logits, rows, slots, slots_here, *more, **named)
        whole = logits.float().clone()
        states.apply_temperature(whole, rows, slots_here)
        sampled, _ = original(logits, rows, slots, slots_here, *more, **named)
        return sampled, whole

    return sample

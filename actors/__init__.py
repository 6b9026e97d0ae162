"""Everything that touches Ray, vLLM or DeepSpeed: actors, pool, weight transfer, loop, search driver."""

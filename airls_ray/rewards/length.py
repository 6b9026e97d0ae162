"""Up to -1 for a response that is longer than `free` characters: -1 at `most`, in a straight line."""


def score(response: str, free: int = 1000, most: int = 4000) -> float:
    """Return 0 up to `free` characters, -1 from `most` on."""
    over = (len(response) - free) / max(most - free, 1)
    return 0.0 - min(max(over, 0.0), 1.0)

"""From 0 down to -1 for the share of runs of `words` words that the response has said before."""


def score(response: str, words: int = 4) -> float:
    """Return minus the share of repeated runs of `words` words; 0 where there are fewer words."""
    said = response.split()
    runs = [tuple(said[start : start + words]) for start in range(len(said) - words + 1)]
    return len(set(runs)) / len(runs) - 1.0 if runs else 0.0

"""From 0 down to -1 for the share of runs of `words` words that the response has said before."""


def score(response: str, correct: float = 0.0, words: int = 4, wrong_only: bool = False) -> float:
    """Return minus the share of repeated runs of `words` words; 0 where there are fewer words.

    The n-gram repetition penalty of "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373)
    in its authors' program, which has it for wrong responses alone (`wrong_only`) and runs of 20 words.
    """
    said = response.split()
    runs = [tuple(said[start : start + words]) for start in range(len(said) - words + 1)]
    if not runs or (wrong_only and correct > 0.5):
        return 0.0
    return len(set(runs)) / len(runs) - 1.0

"""Rewards of your own: a function of the names that it needs. `own_reward.yaml` trains with both."""


def brevity(response: str, correct: float) -> float:
    """For a right answer, up to 1 for few characters: 20 get 0.5."""
    return correct * 20 / (20 + len(response))


def steps_are_equations(steps: list[str]) -> list[float]:
    """One number a step: whether it says what something equals."""
    return [float("=" in step) for step in steps]

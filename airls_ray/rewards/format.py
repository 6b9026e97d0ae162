r"""1 for a response in which `pattern` is found, else 0; by default an answer in \boxed{} or after ####."""

import re


def score(response: str, pattern: str = r"\\boxed\{|####") -> float:
    """Return whether the regular expression `pattern` is found in the response, in any of its lines."""
    return float(re.search(pattern, response, re.MULTILINE) is not None)

"""Names that mean something in mathematical answers."""

from __future__ import annotations

from fractions import Fraction


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


FUNCTIONS = _set(
    "sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh",
    "exp ln log lg floor ceil abs sqrt",
)
CONSTANTS = {"pi": "pi", "infty": "oo", "oo": "oo", "infinity": "oo", "inf": "oo"}
SEPARATORS = (",", ";", "and", "or")
DOTS = ("\\ldots", "\\dots", "\\cdots", "...")
SCALES = {
    **{
        "hundred": Fraction(100),
        "thousand": Fraction(1000),
        "million": Fraction(10**6),
        "dozen": Fraction(12),
    },
    **{"billion": Fraction(10**9), "trillion": Fraction(10**12)},
}
SYMBOLS = _set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau",
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell",
)
NOT_FACTORS = _set(
    r"\pm \mp \cup \cap \} \rangle \end \\ \rfloor \rceil \rvert \| \vert \times \cdot \ast \div",
    r"\% \choose \{ \langle \& \ldots \dots \cdots",
)
SHORT_WORDS = _set("no yes odd all any one two six ten red none true false")
"""Words of two or three letters that are no products of letters."""
PROSE = _set(
    "so we is to of it in at by be as an if no he us my me up do go am on or the and for are was has had not",
    "our can all any one two may per get got its his her she you ans thus hence let put sum out how who why",
    "say see",
)
"""Words of two or three letters that are no products of letters where they stand beside something else."""

"""A strict parser of mathematical answers: all of the text counts, or it is not read."""

from __future__ import annotations

import re
from fractions import Fraction

from airls_ray.tasks.maths.cursor import Cursor
from airls_ray.tasks.maths.decimals import number
from airls_ray.tasks.maths.notation import tokens
from airls_ray.tasks.maths.relations import RELATIONS, join, relate
from airls_ray.tasks.maths.tree import Node, Unreadable, depth, expressions
from airls_ray.tasks.maths.words import (
    CONSTANTS,
    DOTS,
    FUNCTIONS,
    NOT_FACTORS,
    PROSE,
    SCALES,
    SEPARATORS,
    SYMBOLS,
)

_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "log": "ln", "lg": "ln"}
_PAIRS = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "\\langle": ("\\rangle",), "{": ("}",)}
_DEEPEST = 80
_BARS = ("|", "\\|", "\\lvert", "\\rvert", "\\vert")
_MATHS_TEXT = re.compile(r"[-+\d.,/()\s]+|\(?\s*[A-Za-z]\s*\)?")


def parse(clean: str) -> Node | None:
    """Return the tree of a plain text, None where any part of it cannot be read."""
    found = tokens(clean)
    if found is None:
        return None
    try:
        first = Parser(found, 1)
        answer = first.whole()
        if first.signs:  # plus or minus: both are meant
            answer = _both(answer, Parser(found, -1).whole())
    except (Unreadable, ArithmeticError, RecursionError):
        return None
    return answer if depth(answer) <= _DEEPEST else None


def _both(plus: Node, minus: Node) -> Node:
    if plus.op == "assign":
        return Node("assign", (plus.args[0], _both(plus.args[1], minus.args[1])))
    parts = [part for one in (plus, minus) for part in (one.args if one.op == "list" else (one,))]
    return Node("list", tuple(dict.fromkeys(parts)))


class Parser(Cursor):
    """Recursive descent over the tokens of one answer."""

    def __init__(self, found: list[tuple[str, str]], sign: int) -> None:
        """Read `found`; plus-minus means plus where `sign` is 1 and minus where it is -1."""
        super().__init__(found)
        self._sign = sign
        self.signs = 0
        """Plus-minus signs met."""

    # ----------------------------------------------------------------------------------- answers
    def whole(self) -> Node:
        """Return the answer that all tokens together are.

        Raises:
            Unreadable: they are none.
        """
        items, ordered = self._items()
        if self.kind() != "end":
            raise Unreadable(f"{self.peek()!r} is left over")
        return join(items, ordered)

    def _items(self) -> tuple[list[Node], bool]:
        """Return the items of a list, and whether dots say that their order counts."""
        items, ordered = [self._item()], False
        while self._separator():
            if self.take(*DOTS):
                items.append(Node("text", ("...",)))
                ordered = True
            else:
                items.append(self._item())
        return items, ordered

    def _separator(self) -> bool:
        found = self.peek().strip(" ,").lower() if self.kind() == "text" else self.take(*SEPARATORS)
        if self.kind() == "text" and found in SEPARATORS:
            self.next()
        elif found is None or found not in SEPARATORS:
            return False
        if found in (",", ";"):
            self._separator()  # 1, 2, and 3
        return True

    def _item(self) -> Node:
        """Return one answer of a list: an expression, or a chain of relations."""
        parts, signs = [self._union()], []
        while self.kind() in ("sign", "command") and self.peek() in RELATIONS:
            signs.append(RELATIONS[self.next()])
            parts.append(self._union())
        return relate(parts, signs)

    def _union(self) -> Node:
        parts = [self._ratio()]
        while self.take("\\cup"):
            parts.append(self._ratio())
        return Node("union", tuple(parts)) if len(parts) > 1 else parts[0]

    def _ratio(self) -> Node:
        parts = [self._sum()]
        while self.take(":"):
            parts.append(self._sum())
        return Node("ratio", expressions(parts)) if len(parts) > 1 else parts[0]

    # ------------------------------------------------------------------------------- expressions
    def _sum(self) -> Node:
        self.enter()
        terms = [self._product()]
        while sign := self.take("+", "-", "\\pm", "\\mp"):
            terms.append(self._signed(sign, self._product()))
        self.leave()
        return Node("add", expressions(terms)) if len(terms) > 1 else terms[0]

    def _signed(self, sign: str, term: Node) -> Node:
        if sign in ("\\pm", "\\mp"):
            self.signs += 1
            sign = "+" if (self._sign == 1) == (sign == "\\pm") else "-"
        if sign == "+":
            return term
        if term.op == "num":
            return Node("num", (-term.args[0], term.args[1]))
        return Node("neg", expressions([term]))

    def _product(self) -> Node:
        left = self._unary()
        while True:
            if self.take("*", "\\times", "\\cdot", "\\ast"):
                left = _times(left, self._unary())
            elif self.take("/", "\\div"):
                left = Node("div", expressions([left, self._unary()]))
            elif self.kind() in ("word", "text") and self.peek().strip().lower() in SCALES:
                left = _times(left, Node("num", (SCALES[self.next().strip().lower()], None)))
            elif self._begins_factor():
                left = self._times_next(left)
            else:
                return left

    def _times_next(self, left: Node) -> Node:
        """Return what a value and the factor behind it are: a product, a mixed number, or a named point."""
        if self.peek() != "\\frac":
            right = self._power()
            if left.op == "var" and right.op == "tuple":
                return Node("assign", (left.args[0], right))
            return _times(left, right)
        fraction = self._atom()
        mixed = _mixed(left, fraction)
        return _times(left, self._postfix(fraction)) if mixed is None else self._postfix(mixed)

    def _begins_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind == "number":
            if self.previous_kind() == "number":
                raise Unreadable("two numbers side by side")
            return True
        if kind in ("word", "text"):
            return text.strip(" ,").lower() not in SEPARATORS
        if kind == "command":
            return text not in RELATIONS and text not in NOT_FACTORS
        return text in ("(", "{")

    def _unary(self) -> Node:
        sign = self.take("+", "-", "\\pm", "\\mp")
        if sign is None:
            return self._power()
        self.enter()
        found = self._signed(sign, self._unary())
        self.leave()
        return found

    def _power(self) -> Node:
        return self._postfix(self._atom())

    def _postfix(self, base: Node) -> Node:
        while True:
            if self.take("!"):
                base = Node("fact", expressions([base]))
            elif self.take("%", "\\%"):
                base = Node("pct", expressions([base]))
            elif self.take("^", "**"):
                base = Node("pow", expressions([base, self._exponent()]))
            else:
                return base

    def _exponent(self) -> Node:
        sign = self.take("+", "-")
        power = self._atom()
        if self.take("^", "**"):
            power = Node("pow", expressions([power, self._exponent()]))
        return self._signed(sign, power) if sign else power

    # ------------------------------------------------------------------------------------- atoms
    def _atom(self) -> Node:
        self.enter()
        kind, text = self.kind(), self.peek()
        if kind == "number":
            found = number(self.next())
            if self.take("_"):
                found = Node("base", (found, self._label()))
        elif kind == "word":
            found = self._word()
        elif kind == "text":
            found = self._text(text.strip())
        elif text in _PAIRS:
            found = self._bracketed()
        elif text in _BARS:
            found = self._absolute()
        elif kind == "command":
            found = self._command()
        else:
            raise Unreadable(f"{text or 'the end'!r} is no value")
        self.leave()
        return found

    def _absolute(self) -> Node:
        self.need(*_BARS)
        found = Node("call", ("abs", *expressions([self._sum()])))
        self.need(*_BARS)
        return found

    def _text(self, text: str) -> Node:
        inner = tokens(text)
        if not text or not inner or not _MATHS_TEXT.fullmatch(text):
            raise Unreadable(f"the words {text!r}")
        self.replace([("sign", "("), *inner, ("sign", ")")])
        return self._atom()

    def _word(self) -> Node:
        """Return a function, a constant or a letter; short runs of letters are products of letters."""
        text = self.peek()
        low = text.lower()
        if low in FUNCTIONS:
            self.next()
            return self._function(low)
        if len(text) > 1 and low in CONSTANTS:
            self.next()
            return Node("const", (CONSTANTS[low],))
        letters = re.findall(r"[A-Za-z]'*", text)
        if text.startswith("pi") and len(letters) <= 4:
            letters = ["pi", *letters[2:]]
        if len(letters) > 3 or low in PROSE:
            raise Unreadable(f"the word {text!r}")
        if len(letters) > 1:
            self.replace([("word", one) for one in letters])
            return self._word()
        letter = self.next()
        return Node("const", (letter,)) if letter in ("e", "i") else self._subscripted(letter)

    def _subscripted(self, name: str) -> Node:
        return Node("var", (f"{name}_{self._label()}" if self.take("_") else name,))

    def _label(self) -> str:
        """Return the text of a subscript or of an environment's name, whatever it says."""
        if not self.take("{"):
            return self.next()
        depth, parts = 1, [""]
        while depth:
            parts.append(self.next())
            depth += {"{": 1, "}": -1}.get(parts[-1], 0)
        return "".join(parts[:-1])

    def _command(self) -> Node:
        text = self.next()
        name = text[1:]
        if name == "frac":
            return Node("div", expressions([self._argument(), self._argument()]))
        if name in ("binom", "dbinom", "tbinom"):
            return Node("binom", expressions([self._argument(), self._argument()]))
        if name in CONSTANTS:
            return Node("const", (CONSTANTS[name],))
        if name in FUNCTIONS:
            return self._function(name)
        if name in ("lfloor", "lceil"):
            inner = self._sum()
            self.need("\\r" + name[1:])
            return Node("call", (name[1:], *expressions([inner])))
        if name == "begin":
            return self._matrix()
        if name in ("mathbb", "overline", "bar", "vec", "hat", "mathcal"):
            return Node("var", (f"{name}({self._label()})",))
        if name in ("emptyset", "varnothing"):
            return Node("list")
        if name in SYMBOLS:
            return self._subscripted(name)
        raise Unreadable(f"the command {text!r}")

    def _argument(self) -> Node:
        r"""Return what a command such as `\frac` takes: a group, or a single digit or letter."""
        kind, text = self.kind(), self.peek()
        if len(text) > 1 and (kind == "word" or text.isdigit()):
            self.replace([(kind, text[0]), (kind, text[1:])])
        return self._atom()

    def _root(self) -> Node:
        degree = Node("num", (Fraction(2), None))
        if self.take("["):
            degree = self._sum()
            self.need("]")
        return Node("root", expressions([degree, self._argument()]))

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self._root()
        base = Node("num", (Fraction(10), None)) if name == "lg" else None
        if self.take("_"):
            base = self._argument()
        power = self._exponent() if self.take("^", "**") else None
        argument = self._atom() if self.peek() in ("(", "{") else self._bare_argument()
        found = Node("call", (_ALIASES.get(name, name), *expressions([argument])))
        if base is not None:
            if name not in ("log", "lg"):
                raise Unreadable("a base of what is no logarithm")
            found = Node("div", (found, Node("call", ("ln", *expressions([base])))))
        return Node("pow", (found, power)) if power is not None else found

    def _bare_argument(self) -> Node:
        """Return the argument of a function without brackets: factors up to a sign or another function."""
        found = self._unary()
        while (
            self._begins_factor() and self.peek() != "(" and self.peek().strip("\\").lower() not in FUNCTIONS
        ):
            found = _times(found, self._power())
        return found

    # ---------------------------------------------------------------------------------- brackets
    def _bracketed(self) -> Node:
        """Return a group, or a tuple, an interval or a set."""
        opening = self.need(*_PAIRS)
        if opening == "\\{" and self.take("\\}"):
            return Node("list")
        items, ordered = self._items()
        if len(items) == 1 and self.take("\\choose"):
            items = [Node("binom", expressions([items[0], self._sum()]))]
        closing = self.need(*_PAIRS[opening])
        if opening == "\\{" or (opening == "{" and len(items) > 1):
            return Node("tuple" if ordered else "list", tuple(items))
        if len(items) == 1 and opening != "\\langle" and closing == _PAIRS[opening][0]:
            if items[0].op in ("relation", "assign", "solution"):
                raise Unreadable("a relation in brackets")
            return items[0]
        if len(items) == 2 and (opening, closing) not in (("(", ")"), ("\\langle", "\\rangle")):
            return Node("interval", (*expressions(items), opening == "[", closing == "]"))
        return Node("tuple", tuple(items))

    def _matrix(self) -> Node:
        """Return a matrix as a tuple of its rows, a single row or column as a tuple."""
        kind = self._label()
        if not re.fullmatch(r"[pbB]?matrix|array", kind):
            raise Unreadable(f"the environment {kind}")
        if kind == "array":
            self._label()  # of the columns
        rows: list[list[Node]] = [[]]
        while not self.take("\\end"):
            rows[-1].append(self._sum())
            if self.take("\\\\"):
                rows.append([])
            elif self.peek() != "\\end":
                self.need("&")
        self._label()
        rows = [row for row in rows if row]
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("a matrix with rows of different lengths")
        if len(rows) == 1 or len(rows[0]) == 1:
            return Node("tuple", tuple(part for row in rows for part in row))
        return Node("tuple", tuple(Node("tuple", tuple(row)) for row in rows))


def _times(left: Node, right: Node) -> Node:
    before, factor = expressions([left, right])
    return Node("mul", (*(before.args if before.op == "mul" else (before,)), factor))


def _mixed(left: Node, right: Node) -> Node | None:
    """Return 1 1/2 as a sum: a whole number before a fraction below one."""
    if left.op != "num" or left.args[0].denominator != 1 or any(part.op != "num" for part in right.args):
        return None
    top, bottom = (part.args[0] for part in right.args)
    if not 0 < top < bottom:
        return None
    return Node("num", (left.args[0] + (1 if left.args[0] >= 0 else -1) * Fraction(top, bottom), None))

"""How many verdicts a text of tests has, counted by hand."""

import pytest

from airls_ray.data.code_formats import humaneval, leetcode, mbpp
from airls_ray.grading.sandbox.asserts import known_verdicts

CHECK = "def check(candidate):\n    assert candidate(1) == 1\n    assert candidate(2) == 4\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("assert f(1) == 2", 1),
        ("x = f(1)\nif x:\n    assert x\nelse:\n    assert not x", 2),
        ("try:\n    f(1)\n    assert False\nexcept ValueError:\n    assert True", 2),
        (CHECK + "check(f)", 2),
        (CHECK + "check(f)\ncheck(g)", 4),
        (CHECK, 0),
        (CHECK + "for one in (f, g):\n    check(one)", None),
        (CHECK + "list(map(check, [f, g]))", None),
        (CHECK + "again = check\nagain(f)", None),
        ("for x in range(9):\n    assert f(x)", None),
        ("for x in range(9):\n    f(x)\nassert f(x)", 1),
        ("def same(a, b):\n    return a == b or same(b, a)\nassert same(f(1), 2)", 1),
        ("def check(n):\n    assert f(n)\n    if n: check(n - 1)\ncheck(9)", None),
        ("assert all(f(x) for x in range(9))", 1),
        ("class T(TestCase):\n    def test_a(self): pass\n    def test_b(self):\n        assert f(1)", 3),
        ("class A(TestCase):\n    def test_a(self): pass\nclass B(A):\n    def test_b(self): pass", 3),
        ("class T(TestCase):\n    def check(self):\n        assert f(1)", None),
        ("def", None),
    ],
)
def test_the_asserts_of_a_text_are_counted_where_no_loop_hides_them(text, count):
    assert known_verdicts(text) == count


def test_every_assert_of_the_published_formats_is_known():
    row = {"task_id": 1, "prompt": "def f(x):\n    pass\n", "entry_point": "f", "test": CHECK}
    assert [known_verdicts(test) for test in humaneval.read("row", row).details["tests"]] == [2]
    row = {"task_id": 1, "query": "Square.", "entry_point": "Solution().f", "test": CHECK}
    assert [known_verdicts(test) for test in leetcode.read("row", row).details["tests"]] == [2]
    tests = ["assert f(1) == 1", "assert f(2) == 4"]
    row = {"task_id": 1, "text": "Square.", "code": "def f(x): return x * x", "test_list": tests}
    assert [known_verdicts(test) for test in mbpp.read("row", row).details["tests"]] == [1, 1]

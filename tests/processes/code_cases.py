"""Tests and programs of every kind that was seen, and the right outcome."""

from __future__ import annotations

from typing import Any, NamedTuple


class CodeCase(NamedTuple):
    """A problem's details, a response, and what must come out."""

    kind: str
    details: dict[str, Any]
    response: str
    outcome: float
    reason: str | None = None
    """None: it does not matter."""


_TREE = """\
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


def _asserts(test: str, **more: Any) -> dict[str, Any]:
    return {"form": "assert", "entry_point": "solve", "tests": [test], **more}


def _call(arguments: list[Any], expected: Any, entry: str = "solve") -> dict[str, Any]:
    return {"form": "call", "entry_point": entry, "tests": [{"arguments": arguments, "expected": expected}]}


def _stdin(text: str, output: str, **more: Any) -> dict[str, Any]:
    return {"form": "stdin", "tests": [{"input": text, "output": output}], **more}


def _python(program: str) -> str:
    return f"```python\n{program}\n```"


CASES = [
    CodeCase(
        "date",
        _asserts("""\
import datetime
assert candidate(2024) == datetime.date(2024,1,1)
"""),
        _python("""\
from datetime import date
def solve(y): return date(y,1,1)
"""),
        1.0,
    ),
    CodeCase(
        "datetime arg",
        _asserts("""\
from datetime import datetime, timedelta
assert candidate(datetime(2024,1,1)) == datetime(2024,1,2)
"""),
        _python("""\
from datetime import timedelta
def solve(d): return d+timedelta(days=1)
"""),
        1.0,
    ),
    CodeCase(
        "own hierarchy",
        _asserts(
            """\
try:
    candidate(-1)
except Base as e:
    ok = 'neg' in str(e)
assert ok
""",
            names=["Base"],
        ),
        _python("""\
class Base(ValueError): pass
class Sub(Base): pass
def solve(x):
    raise Sub('neg')
"""),
        1.0,
    ),
    CodeCase(
        "own error is ValueError",
        _asserts("""\
try:
    candidate(-1)
except ValueError:
    ok=True
assert ok
"""),
        _python("""\
class Base(ValueError): pass
def solve(x):
    raise Base('neg')
"""),
        1.0,
    ),
    CodeCase(
        "wrong dataclass",
        _asserts("assert candidate(1,2) == Point(1,2)", names=["Point"]),
        _python("""\
from dataclasses import dataclass
@dataclass
class Point:
    x:int
    y:int
def solve(a,b): return Point(a,b+1)
"""),
        0.0,
        "wrong_answer",
    ),
    CodeCase(
        "always equal class",
        _asserts("assert candidate(1,2) == Point(1,2)", names=["Point"]),
        _python("""\
class Point:
    def __init__(self,x,y): pass
    def __eq__(s,o): return True
    __hash__=None
def solve(a,b): return Point(9,9)
"""),
        0.0,
    ),
    CodeCase(
        "lying dataclass eq",
        _asserts("assert candidate(1,2) == Point(1,2)", names=["Point"]),
        _python("""\
from dataclasses import dataclass
@dataclass
class Point:
    x:int
    y:int
    def __eq__(s,o): return True
def solve(a,b): return Point(8,8)
"""),
        0.0,
    ),
    CodeCase(
        "callback raises",
        _asserts("""\
def f(x):
    raise KeyError('a')
assert candidate(f) == 'caught'
"""),
        _python("""\
def solve(f):
    try: f(1)
    except KeyError: return 'caught'
"""),
        1.0,
    ),
    CodeCase(
        "map callback",
        _asserts("assert candidate(str.upper, ['a']) == ['A']"),
        _python("def solve(f,xs): return [f(x) for x in xs]"),
        1.0,
    ),
    CodeCase(
        "callback calls candidate",
        _asserts("assert candidate(3, lambda n: candidate(n, None)) == 6"),
        _python("""\
def solve(n,f):
    if f is None: return n*2
    return f(n)
"""),
        1.0,
    ),
    CodeCase(
        "in place matrix",
        _asserts("""\
m=[[1,2],[3,4]]
row=m[0]
candidate(m)
assert m == [[2,4],[6,8]] and row == [2,4]
"""),
        _python("""\
def solve(m):
    for r in m:
        for i in range(len(r)): r[i]*=2
"""),
        1.0,
    ),
    CodeCase(
        "in place cheat",
        _asserts("""\
a=[3,1,2]
assert candidate(a) == sorted(a)
"""),
        _python("""\
def solve(a):
    a.clear()
    return []
"""),
        0.0,
    ),
    CodeCase(
        "in place dict",
        _asserts("""\
d={'a':1}
candidate(d)
assert d == {'a':1,'b':2}
"""),
        _python("def solve(d): d['b']=2"),
        1.0,
    ),
    CodeCase(
        "unittest right",
        _asserts("""\
import unittest
class T(unittest.TestCase):
    def test_a(self): self.assertEqual(solve(1),2)
    def test_b(self):
        with self.assertRaises(ValueError): solve(-1)
"""),
        _python("""\
def solve(x):
    if x<0: raise ValueError()
    return x+1
"""),
        1.0,
    ),
    CodeCase(
        "unittest half",
        _asserts("""\
import unittest
class T(unittest.TestCase):
    def test_a(self): self.assertEqual(solve(1),2)
    def test_b(self): self.assertEqual(solve(2),4)
"""),
        _python("def solve(x): return x+1"),
        0.0,
    ),
    CodeCase(
        "unittest setUp",
        _asserts("""\
import unittest
class T(unittest.TestCase):
    def setUp(self): self.x=1
    def test_a(self): self.assertAlmostEqual(solve(self.x),2.0)

if __name__=='__main__':
    unittest.main()
"""),
        _python("def solve(x): return x+1.0"),
        1.0,
    ),
    CodeCase(
        "numpy array",
        _asserts("""\
import numpy as np
assert np.array_equal(candidate([1,2]), np.array([2,4]))
"""),
        _python("""\
import numpy as np
def solve(x): return np.array(x)*2
"""),
        1.0,
    ),
    CodeCase(
        "numpy float",
        _call([[1, 2]], 1.5),
        _python("""\
import numpy as np
def solve(x): return np.mean(x)
"""),
        1.0,
    ),
    CodeCase(
        "numpy bool",
        _call([[1, 2]], True),
        _python("""\
import numpy as np
def solve(x): return np.all(np.array(x)>0)
"""),
        1.0,
    ),
    CodeCase(
        "numpy list",
        _call([[1, 2]], [2, 4]),
        _python("""\
import numpy as np
def solve(x): return np.array(x)*2
"""),
        1.0,
    ),
    CodeCase(
        "list of numpy",
        _call([[1, 2]], [2, 4]),
        _python("""\
import numpy as np
def solve(x): return [np.int64(v*2) for v in x]
"""),
        1.0,
    ),
    CodeCase(
        "gen list",
        _asserts("""\
import itertools
assert list(itertools.islice(candidate(),4)) == [1,2,4,8]
"""),
        _python("""\
def solve():
    n=1
    while True:
        yield n
        n*=2
"""),
        1.0,
    ),
    CodeCase(
        "gen for",
        _asserts("""\
out=[]
for v in candidate():
    if v>3: break
    out.append(v)
assert out==[1,2,3]
"""),
        _python("""\
import itertools
def solve(): return itertools.count(1)
"""),
        1.0,
    ),
    CodeCase(
        "generator end",
        _asserts("""\
g=candidate(2)
assert next(g)==0 and next(g)==1
try:
    next(g); ok=False
except StopIteration: ok=True
assert ok
"""),
        _python("""\
def solve(k):
    yield from range(k)
"""),
        1.0,
    ),
    CodeCase(
        "tree",
        _asserts(
            """\
t=TreeNode(1,TreeNode(2),TreeNode(3))
r=candidate(t)
assert (r.left.val,r.right.val)==(3,2)
""",
            setup=_TREE,
            prefix=_TREE,
        ),
        _python("""\
def solve(t):
    if t: t.left,t.right=solve(t.right),solve(t.left)
    return t
"""),
        1.0,
    ),
    CodeCase(
        "tree Solution",
        {
            **_asserts("assert candidate(TreeNode(1,TreeNode(2),None)) == 2", setup=_TREE, prefix=_TREE),
            "entry_point": "Solution.depth",
        },
        _python("""\
class Solution:
    def depth(self, root):
        return 0 if not root else 1+max(self.depth(root.left),self.depth(root.right))
"""),
        1.0,
    ),
    CodeCase(
        "indented in list deeper",
        _call([1], 2),
        """\
- Step

     ```py
     def solve(x):
         return x+1
     ```
Done
""",
        1.0,
    ),
    CodeCase(
        "tilde usage",
        _call([1], 2),
        """\
~~~
def solve(x):
    return x+1
~~~
Output:
```
2
```
""",
        1.0,
    ),
    CodeCase(
        "text output block",
        _call([1], 2),
        """\
```python
def solve(x):
    return x+1
```
```text
2
```
""",
        1.0,
    ),
    CodeCase(
        "two versions",
        _call([1], 2),
        """\
```python
def solve(x):
    return x
```
Better:
```python
def solve(x):
    return x+1
```
```python
assert solve(1)==2
```
""",
        1.0,
    ),
    CodeCase(
        "helper block",
        _call([1], 2),
        """\
```python
def helper(x):
    return x+1
```
```python
def solve(x):
    return helper(x)
```
""",
        1.0,
    ),
    CodeCase(
        "class Solution usage",
        _call([1], 2, "Solution.f"),
        """\
```python
class Solution:
    def f(self,x): return x+1
```
Test:
```python
s=Solution()
print(s.f(1))
```
""",
        1.0,
    ),
    CodeCase(
        "stdin with example block",
        _stdin("2\n", "4\n"),
        """\
```python
n=int(input())
print(n*2)
```
Example:
```
2
```
""",
        1.0,
    ),
    CodeCase(
        "stdin usage",
        _stdin("2\n", "4\n"),
        """\
```python
def main():
    n=int(input())
    print(n*2)
main()
```
For example
```python
print(2*2)
```
""",
        1.0,
    ),
    CodeCase(
        "lambda entry",
        _call([1], 2),
        """\
```python
solve = lambda x: x+1
```
```python
solve(3)
```
""",
        1.0,
    ),
    CodeCase(
        "async no",
        _call([1], 2),
        _python("""\
def solve(x): return x+1
if __name__=='__main__':
    print(solve(int(input())))
"""),
        1.0,
    ),
    CodeCase(
        "lcb decimals",
        _stdin(
            "1\n",
            "0.50\n",
            decimals=True,
            test_seconds=6.0,
            prefix="from math import *\nimport sys\nsys.setrecursionlimit(50000)",
        ),
        _python("print(gcd(4,2)/4)"),
        1.0,
    ),
    CodeCase(
        "lcb deep",
        _stdin(
            "20000\n",
            "20000\n",
            decimals=True,
            prefix="from math import *\nimport sys\nsys.setrecursionlimit(50000)",
        ),
        _python("""\
def f(k): return 0 if k==0 else 1+f(k-1)
print(f(int(input())))
"""),
        1.0,
    ),
    CodeCase(
        "object passed unsupported",
        _asserts("""\
class Foo: pass
assert candidate(Foo()) == 1
"""),
        _python("def solve(x): return 1"),
        0.0,
        "unsupported_test",
    ),
    CodeCase(
        "deque",
        _asserts("""\
from collections import deque
assert candidate() == deque([1,2])
"""),
        _python("""\
from collections import deque
def solve(): return deque([1,2])
"""),
        1.0,
    ),
    CodeCase(
        "namedtuple",
        _asserts("assert candidate(1) == (1,2)"),
        _python("""\
from collections import namedtuple
P=namedtuple('P','x y')
def solve(a): return P(a,2)
"""),
        1.0,
    ),
    CodeCase(
        "enum",
        _asserts("assert candidate(1) == Color.RED", names=["Color"]),
        _python("""\
from enum import Enum
class Color(Enum):
    RED=1
def solve(a): return Color(a)
"""),
        1.0,
    ),
    CodeCase(
        "counter",
        _asserts("assert candidate('aab') == {'a':2,'b':1}"),
        _python("""\
from collections import Counter
def solve(s): return Counter(s)
"""),
        1.0,
    ),
    CodeCase(
        "object methods",
        _asserts(
            """\
s=Stack()
s.push(1); s.push(2)
assert s.pop()==2 and len(s)==1
""",
            names=["Stack"],
        ),
        _python("""\
class Stack:
    def __init__(s): s.a=[]
    def push(s,x): s.a.append(x)
    def pop(s): return s.a.pop()
    def __len__(s): return len(s.a)
def solve(): pass
"""),
        1.0,
    ),
    CodeCase(
        "isinstance own",
        _asserts("assert isinstance(candidate(1), Point) and candidate(1).x == 1", names=["Point"]),
        _python("""\
class Point:
    def __init__(s,x): s.x=x
def solve(a): return Point(a)
"""),
        1.0,
    ),
    CodeCase(
        "plain objects equal by eq",
        _asserts("assert candidate(1) == Point(1)", names=["Point"]),
        _python("""\
class Point:
    def __init__(s,x): s.x=x
    def __eq__(s,o): return s.x==o.x
def solve(a): return Point(a)
"""),
        0.0,
        "unsupported_test",
    ),
    CodeCase(
        "exit code",
        _stdin("1\n", "1\n"),
        _python("""\
print(1)
import sys
sys.exit(0)
"""),
        1.0,
    ),
    CodeCase("crlf", _stdin("1\r\n2\r\n", "3\r\n"), _python("a=int(input());b=int(input());print(a+b)"), 1.0),
    CodeCase(
        "think then code",
        _call([1], 2),
        """\
<think>
```python
def solve(x):
    return x
```
</think>
```python
def solve(x):
    return x+1
```
""",
        1.0,
    ),
    CodeCase(
        "code in think only",
        _call([1], 2),
        """\
<think>
```python
def solve(x):
    return x+1
```
""",
        0.0,
    ),
    CodeCase(
        "defaultdict",
        _asserts("assert candidate() == {'a':[1]}"),
        _python("""\
from collections import defaultdict
def solve():
    d=defaultdict(list); d['a'].append(1); return d
"""),
        1.0,
    ),
    CodeCase(
        "complex expected list of tuples",
        _call([], [[1, "a"], [2, "b"]]),
        _python("def solve(): return [(1,'a'),(2,'b')]"),
        1.0,
    ),
]

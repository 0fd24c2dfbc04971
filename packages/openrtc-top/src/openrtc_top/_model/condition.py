"""A condition on workers and their sessions, as `openrtc wait --until` takes it.

    blocked or lag_p99 > 200
    agent == "restaurant" and (cpu_pct > 50 or idle > 30)
    count(slow or blocked) == 0

Python's parser reads the text, and only a few of its nodes are accepted; nothing of it is ever run as Python. A worker
fulfils a condition if it does so itself, or one of its sessions does: the whole condition is asked about one of them at
a time. A comparison with a value that is not known is false.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrtc_top._model.condition_words import Subject, Value, Word, accepted, words

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow, Snapshot

MAX_LENGTH = 1000
"""Characters."""
SYNTAX = (
    "accepted are words, numbers without a unit, texts in quotes, < <= == != >= >, and, or, not, count(…) "
    "and parentheses"
)

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
}
_Test = Callable[[Subject], bool]


class BadCondition(ValueError):
    """The text is no condition; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """Who fulfils a condition."""

    session: SessionRow | None
    """None: the worker itself."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that can be asked about snapshots."""

    text: str
    _test: _Test

    def by(self, snapshot: Snapshot) -> Fulfilled | None:
        """Return who fulfils it: the worker itself, or the first of its sessions that does. None: nobody."""
        counts: dict[int, int] = {}
        for session in (None, *snapshot.sessions):
            if self._test(Subject(snapshot, session, counts)):
                return Fulfilled(session)
        return None


def parse(text: str) -> Condition:
    """Return the condition. Raises BadCondition."""
    if len(text) > MAX_LENGTH:
        raise BadCondition(f"it has {len(text)} characters; accepted are {MAX_LENGTH}")
    if not text.strip():
        raise BadCondition(f"it is empty; {SYNTAX}")
    line = " ".join(text.splitlines()).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about what is refused below
            tree = ast.parse(line, mode="eval")
        return Condition(line, _Reader(line).truth(tree.body))
    except SyntaxError as error:
        at = (error.text or text)[max(0, (error.offset or 1) - 1) :].strip() or "its end"
        raise BadCondition(f"not understood at {at[:30]!r}; {SYNTAX}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, BadCondition):
            raise
        raise BadCondition(f"not understood; {SYNTAX}") from None


class _Reader:
    """Makes tests of nodes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = words()
        self._counting = False
        self._counts = 0

    def truth(self, node: ast.expr) -> _Test:
        """Return the test of a node that is true or false."""
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                tests = [self.truth(value) for value in values]
                return lambda subject: all(test(subject) for test in tests)
            case ast.BoolOp(values=values):
                tests = [self.truth(value) for value in values]
                return lambda subject: any(test(subject) for test in tests)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                test = self.truth(operand)
                return lambda subject: not test(subject)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._comparison([left, *others], ops)
            case ast.Name() | ast.Attribute():
                word = self._word(node)
                if word.kind != "truth":
                    example = "> 0" if word.kind == "number" else '== "…"'
                    said = self._said(node)
                    raise BadCondition(f"{said!r} is a {word.kind}: compare it, as in {said} {example}")
                read = word.read
                return lambda subject: bool(read(subject))
        raise BadCondition(f"{self._said(node)!r} is not accepted; {SYNTAX}")

    def _comparison(self, nodes: list[ast.expr], ops: list[ast.cmpop]) -> _Test:
        values = [self._value(node) for node in nodes]
        compare = [_COMPARISONS.get(type(op)) for op in ops]
        if None in compare:
            raise BadCondition(f"{self._text!r} compares in a way that is not accepted; {SYNTAX}")
        for (left, right), op in zip(itertools.pairwise(values), ops, strict=True):
            if left.kind != right.kind:
                raise BadCondition(f"{self._text!r} compares a {left.kind} with a {right.kind}{self._meant(nodes)}")
            if left.kind != "number" and not isinstance(op, (ast.Eq, ast.NotEq)):
                raise BadCondition(f"{self._text!r} orders a {left.kind}; accepted are == and !=")
            self._check_accepted(left, right)
        reads = [value.read for value in values]

        def test(subject: Subject) -> bool:
            left = reads[0](subject)
            for function, read in zip(compare, reads[1:], strict=True):
                right = read(subject)
                if left is None or right is None or function is None or not function(left, right):
                    return False
                left = right
            return True

        return test

    def _meant(self, nodes: list[ast.expr]) -> str:
        """Return the numbers that may be meant by a word that is a text, such as `cpu`."""
        names = [self._said(node) for node in nodes if isinstance(node, (ast.Name, ast.Attribute))]
        texts = [name for name in names if self._words[name].kind == "text"]
        meant = [name for text in texts for name in self._words if name.startswith(f"{text}_")]
        return f": {texts[0]} is a text; did you mean {' or '.join(meant)}?" if meant else ""

    def _check_accepted(self, left: Word, right: Word) -> None:
        """Refuse a text that a field never has: the comparison would always be the same."""
        for field, given in ((left, right), (right, left)):
            if field.values and given.constant is not None and given.constant not in field.values:
                raise BadCondition(f"{self._text!r}: {given.constant!r} is none of {', '.join(field.values)}")

    def _value(self, node: ast.expr) -> Word:
        """Return what a side of a comparison is."""
        match node:
            case ast.Name() | ast.Attribute():
                return self._word(node)
            case ast.Constant(value=bool(value)):
                return Word("truth", lambda subject: value)
            case ast.Constant(value=int(number) | float(number)):
                return Word("number", lambda subject: number)
            case ast.Constant(value=str(text)):
                return Word("text", lambda subject: text, constant=text)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number) | float(number))):
                return Word("number", lambda subject: -number)
            case ast.Call(func=ast.Name(id="count"), args=[what], keywords=[]):
                return self._count(what)
        raise BadCondition(f"{self._said(node)!r} is not accepted; {SYNTAX}")

    def _count(self, what: ast.expr) -> Word:
        """Return the number of the worker's sessions that fulfil a part."""
        if self._counting:
            raise BadCondition("a count within a count is not accepted")
        self._counting = True
        test, key = self.truth(what), self._counts
        self._counting = False
        self._counts += 1

        def count(subject: Subject) -> Value:
            counts = subject.counts
            if key not in counts:
                counts[key] = sum(test(subject._replace(session=each)) for each in subject.snapshot.sessions)
            return counts[key]

        return Word("number", count)

    def _word(self, node: ast.expr) -> Word:
        name = self._said(node)
        if name in self._words:
            return self._words[name]
        near = difflib.get_close_matches(name, self._words, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else "a text stands in quotes; "
        raise BadCondition(f"unknown word {name!r}; {hint}{accepted()}")

    def _said(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or ast.unparse(node)

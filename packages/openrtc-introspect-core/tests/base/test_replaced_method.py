"""Methods that are replaced on an instance for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core._base.replaced_method import Replaced


class Thing:
    def greet(self, name: str) -> str:
        """Says hello."""
        return f"hello {name}"


def marking(mark: str) -> Callable[[Callable[..., Any] | None], Callable[..., Any]]:
    """Makes a method that adds `mark` to what stands below it."""

    def make(before: Callable[..., Any] | None) -> Callable[..., Any]:
        def greet(thing: Thing, name: str) -> str:
            return mark + (before(name) if before is not None else type(thing).greet(thing, name))

        return greet

    return make


def test_it_calls_what_it_replaced_and_is_gone_once_put_back() -> None:
    """The instance has then no attribute of its own, as before."""
    thing = Thing()
    replaced = Replaced(thing, "greet", marking("1 "))
    assert thing.greet("you") == "1 hello you"
    assert replaced.put_back()
    assert vars(thing) == {}


def test_what_stood_on_the_instance_is_called_and_put_back() -> None:
    """Such as a test's fake."""
    thing: Any = Thing()
    thing.greet = fake = lambda name: f"fake {name}"
    replaced = Replaced(thing, "greet", marking("1 "))
    assert thing.greet("you") == "1 fake you"
    assert replaced.put_back()
    assert thing.greet is fake


def test_a_class_patched_since_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever patches the class meanwhile is called."""
    thing = Thing()
    Replaced(thing, "greet", marking("1 "))
    monkeypatch.setattr(Thing, "greet", lambda self, name: f"patched {name}")
    assert thing.greet("you") == "1 patched you"


def test_someone_else_s_on_top_stays() -> None:
    """It cannot be put back below that, and a call still comes to it."""
    thing: Any = Thing()
    replaced = Replaced(thing, "greet", marking("1 "))
    ours = thing.greet
    thing.greet = lambda name: "theirs " + ours(name)
    assert not replaced.is_reached()
    assert not replaced.put_back()
    assert thing.greet("you") == "theirs 1 hello you"


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_several_of_ours_leave_nothing_in_whatever_order(order: tuple[int, ...]) -> None:
    """Each is reached while it is in place."""
    thing = Thing()
    replaced = [Replaced(thing, "greet", marking(f"{number} ")) for number in range(3)]
    assert all(each.is_reached() for each in replaced)
    assert thing.greet("you") == "2 1 0 hello you"
    for number in order:
        replaced[number].put_back()
    assert vars(thing) == {}


def test_it_looks_like_the_original() -> None:
    """By name and docstring."""
    thing = Thing()
    plain = (thing.greet.__name__, thing.greet.__qualname__, thing.greet.__doc__)
    Replaced(thing, "greet", marking("1 "))
    assert (thing.greet.__name__, thing.greet.__qualname__, thing.greet.__doc__) == plain


def test_what_does_not_let_us_is_an_error() -> None:
    """As an object without a dictionary of its own."""
    with pytest.raises(AttributeError):
        Replaced([], "append", lambda before: lambda *_: None)


def test_an_object_that_hands_its_attributes_on() -> None:
    """Such as a proxy around a selector: its class has no such method."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            return getattr(Thing(), name)

    proxy: Any = Proxy()
    replaced = Replaced(proxy, "greet", marking("1 "))
    assert proxy.greet("you") == "1 hello you"
    assert replaced.put_back()
    assert proxy.greet("you") == "hello you"

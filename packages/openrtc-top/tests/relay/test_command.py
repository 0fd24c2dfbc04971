"""The value of `--via`: the words of a command, and the host's name."""

from __future__ import annotations

import pytest

from openrtc_top._relay.command import BadCommand, distinct, parse

RELAY = ["openrtc", "relay"]


@pytest.mark.parametrize(
    ("given", "label", "words"),
    [
        ("ssh voice-3", "voice-3", ["ssh", "voice-3", *RELAY]),
        (
            "ssh -p 2222 -C ops@voice-3.example",
            "voice-3.example",
            ["ssh", "-p", "2222", "-C", "ops@voice-3.example", *RELAY],
        ),
        ("kubectl exec -i pod-1 --", "pod-1", ["kubectl", "exec", "-i", "pod-1", "--", *RELAY]),
        ("web=docker exec -i 3f2a", "web", ["docker", "exec", "-i", "3f2a", *RELAY]),
        ("sh -c 'exec \"$@\"' --", "sh", ["sh", "-c", 'exec "$@"', "--", *RELAY]),
        ("/usr/bin/env", "env", ["/usr/bin/env", *RELAY]),
        ("ssh relay", "relay", ["ssh", "relay", *RELAY]),
        ("env HOME=/srv nice", "env", ["env", "HOME=/srv", "nice", *RELAY]),
    ],
)
def test_a_relay_is_put_behind_the_command(given: str, label: str, words: list[str]) -> None:
    """The label is the host's or the pod's name, unless one is given."""
    assert parse(given) == (label, words)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("ssh voice-3 /opt/venv/bin/openrtc relay", "voice-3"),
        ("ssh voice-3 openrtc relay --worker chat", "voice-3"),
        ("ssh voice-3 'cd /srv && exec openrtc relay'", "voice-3"),
        ("ssh voice-3 env LANG=C /usr/bin/python3 -m openrtc_top relay", "voice-3"),
        ("eu=ssh a openrtc-top relay", "eu"),
    ],
)
def test_a_command_with_a_relay_of_its_own_stays_as_it_is(given: str, label: str) -> None:
    """Wherever in it the relay is named."""
    name, words = parse(given)
    assert name == label
    assert words[-2:] != RELAY or given.endswith("openrtc relay")
    assert "openrtc relay openrtc relay" not in " ".join(words)


@pytest.mark.parametrize(
    ("given", "why"), [("", "no command"), ("x=", "no command"), ("ssh 'voice", "no closing quotation")]
)
def test_what_is_no_command(given: str, why: str) -> None:
    """The error says what was given and why."""
    with pytest.raises(BadCommand, match=why):
        parse(given)


def test_hosts_of_one_name() -> None:
    """Those that come later get a number."""
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]

from __future__ import annotations

import typing

import jsonschema
import msgspec
import pytest

from openrtc_introspect_core.wire import ERROR_CODES, Request, ServerMessage
from openrtc_introspect_core.wire.schema import schema


def test_it_is_a_valid_schema() -> None:
    """The schema is valid under JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_message_is_in_it() -> None:
    """Each message has a definition under its own name, with all its fields."""
    definitions = schema()["$defs"]
    for kind in (*typing.get_args(Request), *typing.get_args(ServerMessage)):
        fields = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert set(definitions[kind.__name__]["properties"]) == {"type", *fields}


def test_unknown_fields_are_allowed() -> None:
    """The schema allows unknown fields, because a reader must ignore them."""
    assert not [name for name, each in schema()["$defs"].items() if "additionalProperties" in each]


def test_the_error_codes_are_closed() -> None:
    """The schema lists exactly the known error codes."""
    assert schema()["$defs"]["Error"]["properties"]["code"]["enum"] == sorted(ERROR_CODES)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "snapshot"},
        {"type": "watch", "id": 1, "interval_s": 0},
        {"type": "cancel", "id": "x" * 65},
        {"type": "blocks", "id": 2**63},
        {"type": "reboot", "id": 1},
        {"type": "error", "code": "teapot"},
        [],
    ],
)
def test_what_is_no_message_is_not_valid(message: object) -> None:
    """Fields out of range, missing ids, unknown types and unknown error codes are invalid."""
    assert not jsonschema.Draft202012Validator(schema()).is_valid(message)

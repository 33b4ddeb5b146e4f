"""JSON without the module: the same as with it, whatever comes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redock import _json_text
from tests.unit.conftest import run_python

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
BROKEN = ["", " ", "[1", '"x" y', "{1: 2}", "[1,]", '"\x00"', "nul", "\x0b1", "\ufeff1", "'a'"]


@pytest.fixture(params=["with", "without"], autouse=True)
def accelerator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Without the parts in C, which no version of Python has promised.
    if request.param == "without":
        monkeypatch.setattr(_json_text, "scan", None)
        monkeypatch.setattr(_json_text, "encode", None)
    else:
        assert _json_text.scan is not None and _json_text.encode is not None
    yield


def test_what_was_written_is_read_and_written_as_json_does() -> None:
    @given(values)
    @example({"label": ["io.redock.kind=container", 'é"\\\n\U0001f600\ud800']})
    @example([math.inf, -0.0, 10**30, 1e-300])
    def check(value: object) -> None:
        text = _json_text.dumps(value)
        assert text == json.dumps(value)
        assert _json_text.indented(value) == json.dumps(value, indent=2)
        assert _json_text.loads(text) == _json_text.loads(text.encode()) == json.loads(text)
        assert _json_text.loads(f" \r\n{json.dumps(value, indent=3)}\t") == value

    check()


def test_any_text_is_read_or_refused_as_json_does() -> None:
    @given(st.one_of(st.text(), st.text('{}[]:,"\\u019.eE+- \n\ttrufalsn')))
    def check(text: str) -> None:
        compare(text)

    check()


def compare(text: str) -> None:
    try:
        expected = repr(json.loads(text))
    except ValueError as error:
        with pytest.raises(type(error)) as caught:
            _json_text.loads(text)
        assert str(caught.value) == str(error)
    else:
        assert repr(_json_text.loads(text)) == expected


@pytest.mark.parametrize("text", [*BROKEN, "NaN", "[NaN, -Infinity]", "1e400"])
def test_oddities_are_what_json_makes_of_them(text: str) -> None:
    compare(text)


@pytest.mark.parametrize("missing", ["make_scanner", "make_encoder"])
def test_a_python_without_the_parts_in_c_takes_longer_no_more(missing: str) -> None:
    program = (
        f"import _json; del _json.{missing}; from redock import _json_text as text;"
        ' print(text.scan, text.encode, text.loads(text.dumps(["a"])))'
    )
    assert run_python("-c", program).stdout == "None None ['a']\n"


def test_bytes_that_are_no_text_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        _json_text.loads(b'"\xff"')


@pytest.mark.parametrize("value", [{1, 2}, b"x", {"a": object()}, {(1, 2): 3}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(TypeError) as expected:
        json.dumps(value)
    with pytest.raises(TypeError) as caught:
        _json_text.dumps(value)
    assert str(caught.value) == str(expected.value)
    # And nothing of it is remembered.
    assert _json_text.dumps([1]) == "[1]"

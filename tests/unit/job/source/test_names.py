from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joyedit.job.source.names import fold, name_problem, safe_name
from joyedit.job.source.taken_names import TakenNames


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b/c",
        "Ünïcode 天 🐦",
        ".5",
        "a..b",
        "console",
        "com10",
        "x" * 200,
        "-",
        "%2e%2e/x",
        "{x}",
    ],
)
def test_allowed_names(name: str) -> None:
    assert name_problem(name) is None
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("name", "fault", "made"),
    [
        ("..", "has the part '..'", "picture"),
        ("a/./b", "has the part '.'", "a/b"),
        ("a/../b", "has the part '..'", "a/b"),
        ("/a", "is absolute", "a"),
        ("a/", "has an empty part", "a"),
        ("...", "has a part that ends with a dot or a space", "_"),
        ("COM1.png", "has the part 'COM1.png', which Windows reserves", "_COM1.png"),
        ("lpt² .x", "has the part 'lpt² .x', which Windows reserves", "_lpt² .x"),
        ("a\x7fb", "contains a control character", "a_b"),
        ("a\u2028b", "contains a control character", "a_b"),
        ("\udcff", "is not valid Unicode", "_"),
        ("\\\\server\\x", "contains a backslash", "__server_x"),
        ("x:y", "contains a colon", "x_y"),
        ("  ", "is empty", "_"),
        ("\xa0", "is empty", "_"),
        ("/".join(["abcdefghi"] * 101), "has more than 1000 bytes", None),
    ],
)
def test_names_that_are_refused_and_what_is_made_of_them(name: str, fault: str, made: str | None) -> None:
    assert name_problem(name) == fault
    assert made is None or safe_name(name) == made


@given(st.text(st.characters(), max_size=300))
@example("\xa0")
@settings(max_examples=100, deadline=None)
def test_whatever_is_made_is_allowed(name: str) -> None:
    made = safe_name(name)
    assert name_problem(made) is None
    assert safe_name(made) == made


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert safe_name("x" * 300 + "a") != safe_name("x" * 300 + "b")


def test_fold() -> None:
    assert fold("É") == fold("e\u0301") == fold("E\u0301") == fold("é")
    assert fold("A/b") == "a/b"
    assert fold("a") != fold("b")


def test_default_ids_do_not_look_through_all_that_were_given() -> None:
    taken = TakenNames(".png")
    for number in range(1, 3001):
        name = taken.default_id("a")
        assert name == ("a" if number == 1 else f"a-{number}")
        assert taken.take_id(name, number) is None
        assert taken.take_output(name + ".png", number) is None

"""Halves of surrogate pairs, which Python strings can hold and UTF-8 cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airls_ray.files import to_json, write_text
from airls_ray.text.characters import half_character, whole_characters


@pytest.mark.parametrize(
    ("value", "half"),
    [
        ("\ud83d", "\\ud83d"),
        (["fine", {"a": ["b\udc00"]}], "\\udc00"),
        ({"\ud800": 1}, "\\ud800"),
        ("\U0001f600 é", None),
        ([1, None, 2.5], None),
    ],
)
def test_halves_are_found_wherever_they_are(value: object, half: str | None) -> None:
    assert half_character(value) == half


def test_only_halves_are_replaced() -> None:
    assert whole_characters("a\ud83d\U0001f600é") == "a\ufffd\U0001f600é"


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", to_json({"\ud800": ["b\udfff"]}))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"\ufffd": ["b\ufffd"]}
    write_text(tmp_path / "a.html", "<p>\ud800</p>")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "<p>\ufffd</p>"

"""Escaped text against the rules of Markdown, and text that needs no escape."""

import html
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.markdown import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("smollm2_135m", "smollm2_135m"),
        ("60% per row (wanda + swaps), ≥ 2:4 → x", "60% per row (wanda + swaps), ≥ 2:4 → x"),
        ("<img src=x>", "&lt;img src=x>"),
        ("[a](javascript:b)", r"\[a\]\(javascript:b)"),
        ("![a](b)", r"!\[a\]\(b)"),
        ("a\n\n# b\r\n| c |", r"a # b \| c \|"),
        ("*a* **b** _c_ __d__ `e` ~~f~~", r"\*a\* \*\*b\*\* \_c\_ \_\_d\_\_ \`e\` \~\~f\~\~"),
        ("&lt; $x$ a\\b", r"&amp;lt; \$x\$ a\\b"),
    ],
)
def test_markup_is_shown_as_it_stands(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(alphabet=sorted(set(string.printable) - {"&"})))
def test_without_its_escapes_a_text_is_itself_on_one_line(text: str) -> None:
    found = escaped(text)
    assert "\n" not in found
    characters = iter(found)
    read = "".join(next(characters) if character == "\\" else character for character in characters)
    assert html.unescape(read) == " ".join(text.split())

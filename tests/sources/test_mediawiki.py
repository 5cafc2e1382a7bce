"""Wikipedia's markup as prose."""

import bz2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.errors import SourceError
from prunelib.sources.documents import Document
from prunelib.sources.mediawiki import articles, prose

PAGE = "<page><title>{title}</title><ns>{ns}</ns>{extra}<revision><text>{text}</text></revision></page>"


def dump(*pages):
    body = "".join(PAGE.format(**{"ns": 0, "extra": "", **page}) for page in pages)
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{body}</mediawiki>'.encode()


@pytest.mark.parametrize("compressed", [bytes, bz2.compress])
def test_articles_come_in_order_without_redirects_and_other_namespaces(compressed):
    content = dump(
        {"title": "Zebra", "text": "A '''zebra'''."},
        {"title": "Zeebra", "text": "#REDIRECT [[Zebra]]", "extra": '<redirect title="Zebra" />'},
        {"title": "Talk:Zebra", "text": "No, it is not.", "ns": 1},
        {"title": "Ant &amp; bee", "text": "Two &amp;ndash; insects."},
    )
    assert list(articles(compressed(content), "dump")) == [
        Document("Zebra", "A zebra."),
        Document("Ant & bee", "Two – insects."),
    ]


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''Bold''' and ''italic''", "Bold and italic"),
        ("[[Paris]] and [[Rome|the city]]", "Paris and the city"),
        ("[http://x.org a site] [http://x.org]", "a site"),
        ("before[[File:a.jpg|thumb|a [[caption]]]] after[[Category:Things]]", "before after"),
        ("fact<ref>a note</ref>, fact<ref name=x />", "fact, fact"),
        ("one<!-- hidden --> two", "one two"),
        ("{{Infobox|a=1}}text{{citation needed}}", "text"),
        ("{{convert|5|km|mi}} by {{lang|fr|[[route]]}}", "5 km by route"),
        ("{| class=x\n| cell\n|}\ntext", "text"),
        ("Mind ({{IPAc-en|m}}; Old {{respell|x}}) is ({{lang|la|mens}})", "Mind (Old) is (mens)"),
        ("* one\n* two<br>three", "one\ntwo\nthree"),
        ("<math>a^2</math> and x<sub>1</sub>", "a^2 and x1"),
        ("lead\n== History ==\nold\n=== Detail ===\nfine", "lead\n\nHistory\n\nold\n\nDetail\n\nfine"),
        ("lead\n== References ==\n* junk\n=== More ===\njunk\n== Use ==\nyes", "lead\n\nUse\n\nyes"),
        ("{| never closed\n| cell\n|- style=x\ntext", "text"),
        ("broken <ref>{{cite|a}</ref> note\n__TOC__", "broken note"),
        ("", ""),
    ],
)
def test_prose_is_what_a_reader_sees(wikitext, expected):
    assert prose(wikitext) == expected


@given(st.text(alphabet="{}[]|'<>!=*#:refbt/& \n", max_size=60))
def test_no_markup_however_broken_stops_it(wikitext):
    text = prose(wikitext)
    assert text == text.strip()
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda xml: xml[:-20],
        lambda xml: bz2.compress(xml)[:-20],
        lambda _: b"BZh9 no archive",
        lambda _: b"",
        lambda _: b"prose",
        lambda xml: b'<?xml version="1.0" encoding="no-such"?>' + xml,
        lambda xml: b'<?xml version="1.0" encoding="utf-16"?>' + xml,
    ],
)
def test_a_damaged_dump_is_refused(damage):
    content = damage(dump({"title": "Zebra", "text": "A zebra."}))
    with pytest.raises(SourceError, match=r"^pages\.xml: "):
        list(articles(content, "pages.xml"))

"""The articles of a MediaWiki XML dump (Wikipedia's ``pages-articles``) as plain prose."""

import bz2
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

from prunelib.errors import SourceError
from prunelib.sources.documents import Document

_MEDIA = {"category", "file", "image", "media"}
_UNREADABLE_TAGS = {
    "gallery",
    "imagemap",
    "ref",
    "references",
    "score",
    "source",
    "syntaxhighlight",
    "table",
    "timeline",
}
_APPENDICES = {
    "bibliography", "citations", "external links", "footnotes", "further reading", "gallery", "notes",
    "notes and references", "references", "see also", "sources", "works cited",
}  # fmt: skip
_SHOWN_PARAMETERS = {  # inline templates, and which of their positional parameters are visible
    "angbr": [1],
    "convert": [1, 2],
    "cquote": [1],
    "ipa": [1],
    "lang": [2],
    "nihongo": [1],
    "nowrap": [1],
    "quote": [1],
    "small": [1],
    "smaller": [1],
    "val": [1],
}
_UNPARSED = re.compile(r"<ref.*?</ref>|__[A-Z]+__|^\s*(?:\{\||\||!|\[\[).*$|^[ \t]*[:;*#]+", re.MULTILINE)


def articles(dump: bytes, name: str) -> Iterator[Document]:
    """Yield the articles of a dump in its order, with titles as ids; skip redirects and other namespaces.

    Parameters
    ----------
    dump
        The XML, plain or bz2-compressed.
    name
        Name of the dump in error messages.

    Raises
    ------
    SourceError
        If the dump is truncated or not XML.
    """
    try:
        xml = bz2.decompress(dump) if dump.startswith(b"BZh") else dump
        for _, element in ElementTree.iterparse(io.BytesIO(xml)):  # noqa: S314 - the file is pinned by its hash
            if element.tag.rpartition("}")[2] != "page":
                continue
            if element.findtext("{*}ns") == "0" and element.find("{*}redirect") is None:
                yield Document(element.findtext("{*}title", ""), prose(element.findtext("{*}revision/{*}text", "")))
            element.clear()
    except (ElementTree.ParseError, LookupError, ValueError, OSError, EOFError) as error:
        raise SourceError(f"{name}: truncated or not a MediaWiki XML dump ({error})") from None


def prose(wikitext: str) -> str:
    """Return the visible text: paragraphs, headings and list items, without tables, notes and appendices."""
    return _tidy("".join(_body(mwparserfromhell.parse(wikitext))))


def _body(page: Wikicode) -> Iterator[str]:
    appendix = False
    for node in page.nodes:
        if isinstance(node, Heading) and node.level <= 2:
            appendix = str(node.title).strip().lower() in _APPENDICES
        if not appendix:
            yield _visible(node)


def _visible(node: Node) -> str:
    shown = ""
    match node:
        case Text():
            shown = str(node.value)
        case HTMLEntity():
            shown = str(node.normalize())
        case Heading():
            shown = f"\n{_shown(node.title)}\n"
        case ExternalLink():
            shown = _shown(node.title)
        case Wikilink() if not _is_media(node):
            shown = _shown(node.text or node.title)
        case Tag():
            shown = _visible_tag(node)
        case Template():
            shown = _visible_template(node)
    return shown


def _shown(code: Wikicode | None) -> str:
    return "".join(map(_visible, code.nodes)) if code else ""


def _visible_tag(tag: Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _UNREADABLE_TAGS:
        return ""
    return "\n" if name == "br" else _shown(tag.contents)


def _visible_template(template: Template) -> str:
    shown = _SHOWN_PARAMETERS.get(str(template.name).strip().lower(), [])
    return " ".join(_shown(template.get(position).value).strip() for position in shown if template.has(position))


def _is_media(link: Wikilink) -> bool:
    return str(link.title).partition(":")[0].strip().lower() in _MEDIA


def _tidy(text: str) -> str:
    text = _UNPARSED.sub("", text)  # tables and notes whose markup is not closed
    text = re.sub(r"\([\s,;:]*\)", "", text)  # what is left of a pronunciation
    text = re.sub(r"\([\s,;:]+", "(", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" (?=[,.;:)\n])|(?<=\n) ", "", text)
    return re.sub(r"\n{2,}", "\n\n", text).strip()

"""Markdown text to safe HTML, for one place: the page puts it in through its one Trusted Types policy.

pyromark parses, nh3 sanitises; in between the parser's events are written out, because the decisions belong there,
before any HTML exists: raw HTML is shown as the text that it is, an image becomes a link that says its host, links
lead to http, https and mailto only, nesting has a limit. A pure function: no I/O, no state, no knowledge of the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlsplit

import nh3
import pyromark

LENGTH_MAX = 300_000  # characters; an attempt's text ends at 256 Ki
NESTING_MAX = 100  # 20,000 nested quotes would cost the sanitiser 0.7 s
EVENTS_MAX = 200_000  # 40 KB of table can mean millions of empty cells

_OPTIONS = pyromark.Options.ENABLE_TABLES | pyromark.Options.ENABLE_STRIKETHROUGH | pyromark.Options.ENABLE_TASKLISTS
_PLAIN = {"Paragraph": "p", "Item": "li", "Emphasis": "em", "Strong": "strong", "Strikethrough": "del"}
_BARE = {"SoftBreak": "\n", "HardBreak": "<br>", "Rule": "<hr>"}
_CODE = ("<pre><code>", "</code></pre>")
_LANGUAGE = re.compile(r"[\w+#.-]{1,32}", re.ASCII)
_UNSAFE_IN_LINK = re.compile(r"[\\\s\x00-\x20\x7f]")  # browsers and Python disagree about the host then
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_TAGS = "p li em strong del h1 h2 h3 h4 h5 h6 blockquote pre code ul ol a br hr table thead tbody tr th td"
_ATTRIBUTES = {"a": "href title", "pre": "data-language", "ol": "start", "th": "align", "td": "align"}
_CLEANER = nh3.Cleaner(
    tags=set(_TAGS.split()),
    attributes={tag: set(names.split()) for tag, names in _ATTRIBUTES.items()},
    set_tag_attribute_values={"a": {"target": "_blank"}},
    link_rel="noopener noreferrer nofollow ugc",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


def render(text: str) -> str:
    """Safe HTML for Markdown `text`. Raises `ValueError` when it is too long or too deeply nested to be rendered."""
    if len(text) > LENGTH_MAX:
        raise ValueError(f"The text is longer than {LENGTH_MAX} characters.")
    page = _Page()
    for event in pyromark.events(text, options=_OPTIONS):
        page.write(event)
    return _CLEANER.clean("".join(page.out))


def visible(text: str) -> str:
    """`text` with its bidi, zero-width and control characters written out, as in ⟦U+202E⟧."""
    return _INVISIBLE.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", text)


class _Page:
    """The HTML so far, the end tags of what is open, and how the columns of the current table are aligned."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.ends: list[str] = []
        self.aligns: tuple[str, ...] = ()
        self.row: Iterator[str] = iter(())
        self.cell = "td"

    def write(self, event: Any) -> None:
        match event:
            case {"Start": tag}:
                start, end = self._tags(tag)
                self.out.append(start)
                self.ends.append(end)
            case {"End": _}:
                self.out.append(self.ends.pop())
            case {"Text": text} | {"Html": text} | {"InlineHtml": text}:
                self.out.append(escape(visible(text) if self.ends[-1:] == [_CODE[1]] else text))
            case {"Code": text}:
                self.out.append(f"<code>{escape(visible(text))}</code>")
            case {"TaskListMarker": done}:
                self.out.append("☑ " if done else "☐ ")
            case str():
                self.out.append(_BARE[event])
        if len(self.ends) > NESTING_MAX or len(self.out) > EVENTS_MAX:
            raise ValueError("The text is nested too deeply, or too rich, to be rendered.")

    def _tags(self, tag: Any) -> tuple[str, str]:
        match tag:
            case {"Heading": {"level": level}}:
                return f"<{level.lower()}>", f"</{level.lower()}>"
            case {"CodeBlock": {"Fenced": info}} if language := _LANGUAGE.match(info):
                return f'<pre data-language="{language[0]}"><code>', _CODE[1]
            case {"CodeBlock": _} | "HtmlBlock":
                return _CODE
            case {"BlockQuote": _}:
                return "<blockquote>", "</blockquote>"
            case {"List": start}:
                return ("<ul>", "</ul>") if start is None else (f'<ol start="{start}">', "</ol>")
            case {"Link": {"dest_url": url}} | {"Image": {"dest_url": url}}:
                return _link(url, image="Image" in tag)
            case {"Table": aligns}:
                self.aligns = tuple("" if align == "None" else f' align="{align.lower()}"' for align in aligns)
                return "<table>", "</tbody></table>"
            case "TableHead" | "TableRow":
                self.cell, self.row = ("th" if tag == "TableHead" else "td"), iter(self.aligns)
                return ("<thead><tr>", "</tr></thead><tbody>") if tag == "TableHead" else ("<tr>", "</tr>")
            case "TableCell":
                return f"<{self.cell}{next(self.row, '')}>", f"</{self.cell}>"
        name = _PLAIN.get(tag, "") if isinstance(tag, str) else ""
        return (f"<{name}>", f"</{name}>") if name else ("", "")


def _link(url: str, *, image: bool) -> tuple[str, str]:
    """Start and end tag of a link that says where it leads; nothing around its words where it must lead nowhere."""
    try:
        parts = urlsplit(url)
        host = escape(visible(parts.hostname or parts.path))
    except ValueError:
        return "", ""
    if parts.scheme not in ("http", "https", "mailto") or _UNSAFE_IN_LINK.search(url):
        return "", ""
    start = f'<a href="{escape(url)}" title="{host}">'
    return (f"{start}Image: ", f" ({host})</a>") if image else (start, "</a>")

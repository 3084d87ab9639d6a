"""Markdown to HTML, against hostile words: what a model or a tool says never becomes anything but text and links."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.web.render import LENGTH_MAX, NESTING_MAX, render, visible

TEXT_TAGS = {"p", "em", "strong", "del", "code", "pre", "a", "br", "hr", "blockquote", "ul", "ol", "li"}
TAGS = TEXT_TAGS | {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"href", "title", "target", "rel", "data-language", "start", "align"}


class Seen(HTMLParser):
    """Every tag, attribute and link target of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.words += data


def assert_inert(html: str) -> Seen:
    seen = Seen(html)
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert all(re.match(r"(https?:|mailto:)", link) for link in seen.links)
    return seen


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "hello <img src=x onerror=alert(1)>",
        "<svg onload=alert(1)><style>*{display:none}</style></svg>",
        "<style>@import url(//evil.example)</style>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<a href='javascript:alert(1)'>x</a>",
        "<form action=//evil.example><button>go</button></form>",
        "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    ],
)
def test_raw_html_is_shown_as_the_text_that_it_is(text: str) -> None:
    """FAULTS security-xss."""
    seen = assert_inert(render(text))
    assert seen.tags <= {"p", "pre", "code"}
    assert seen.words.strip() == text


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "&#106;avascript:alert(1)",
        "java&Tab;script:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example/x",
        "/c/other",
        "http://evil.example\\\\@good.example/",
        "http://[broken",
    ],
)
def test_a_link_that_leads_elsewhere_than_the_web_or_mail_is_only_its_words(url: str) -> None:
    """FAULTS security-xss."""
    for text in (f"[words]({url})", f"![words]({url})", f"<{url}>", f"[words][r]\n\n[r]: {url}"):
        assert assert_inert(render(text)).links == []


def test_links_open_apart_and_say_where_they_lead() -> None:
    """FAULTS security-exfiltration."""
    html = render('[my bank](https://evil.example/login "my bank")')
    assert html == (
        '<p><a href="https://evil.example/login" title="evil.example" target="_blank"'
        ' rel="noopener noreferrer nofollow ugc">my bank</a></p>'
    )
    assert assert_inert(render("[m](mailto:a@b.example)")).links == ["mailto:a@b.example"]
    assert "⟦U+202E⟧" in render("[x](http://\u202eexample.com/)")


@pytest.mark.parametrize(
    "text", ["![a chart](https://evil.example/p?x=1)", "![a chart]\n\n[a chart]: https://evil.example/p?x=1"]
)
def test_a_remote_image_becomes_a_link_that_shows_its_host(text: str) -> None:
    """FAULTS security-exfiltration."""
    seen = assert_inert(render(text))
    assert "img" not in seen.tags
    assert seen.links == ["https://evil.example/p?x=1"]
    assert seen.words == "Image: a chart (evil.example)"


def test_what_people_write_looks_as_they_meant_it() -> None:
    assert render("# A *b* **c** ~~d~~ `e`") == ("<h1>A <em>b</em> <strong>c</strong> <del>d</del> <code>e</code></h1>")
    assert render("3. a\n4. b\n   - [x] c") == '<ol start="3"><li>a</li><li>b<ul><li>☑ c</li></ul></li></ol>'
    assert render("```py title=x\na < b\n```") == '<pre data-language="py"><code>a &lt; b\n</code></pre>'
    assert render("| a | b |\n|---|--:|\n| 1 | 2 |") == (
        '<table><thead><tr><th>a</th><th align="right">b</th></tr></thead>'
        '<tbody><tr><td>1</td><td align="right">2</td></tr></tbody></table>'
    )
    assert render("> a  \n> b\n\n---") == "<blockquote><p>a<br>b</p></blockquote><hr>"


def test_invisible_characters_are_written_out_in_code() -> None:
    assert render("`a\u202eb`") == "<p><code>a⟦U+202E⟧b</code></p>"
    assert render("    a\u200bb") == "<pre><code>a⟦U+200B⟧b</code></pre>"
    assert visible("plain\n\ttext é 漢字") == "plain\n\ttext é 漢字"


@pytest.mark.parametrize(
    "text",
    [
        "> " * 20_000 + "x",
        "- " * 20_000 + "x",
        "x" * (LENGTH_MAX + 1),
        "|a" * 10_000 + "\n" + "|-" * 10_000 + "\n" + "|b\n" * 20_000,
        "*a _b " * 40_000 + "_ *" * 40_000,
    ],
    ids=["quotes", "lists", "long", "table", "emphasis"],
)
def test_what_would_cost_too_much_is_refused_fast(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="text"):
        render(text)
    assert time.process_time() - started < 0.5


def test_the_nesting_limit_is_not_in_anyones_way() -> None:
    assert render("> " * (NESTING_MAX - 1) + "x").count("<blockquote>") == NESTING_MAX - 1


TAGGED = ["<script>", "</script>", "<img/src=x/onerror=a>", "<svg/onload=a>", "<style>", "<!--", "-->"]
MARKED = ["![", "](", ")", "[r]", "[r]: data:x\n", "javascript:", "http://", "`", "```\n", "> ", "*", "\\", "\n\n"]
HOSTILE = st.sampled_from([*TAGGED, *MARKED, "| a |\n|---|\n"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=8) | HOSTILE, max_size=30).map("".join))
def test_no_words_become_anything_but_text_and_links(text: str) -> None:
    assert_inert(render(text))

"""What counts as a word of a search: one rule for the person's input and for every variant of the archive.

Letters, digits and their marks make words; everything else only parts them, so that no input can be syntax of a query.
Case and accents do not count. SQLite's tokenizer `unicode61 remove_diacritics 2` sees to that by itself and gets the
words as they are; `folded` is the like for variants without one.
"""

from __future__ import annotations

import unicodedata


def words_of(text: str) -> list[str]:
    """The words of a text, in order; each has a letter or a digit."""
    parted = "".join(letter if letter.isalnum() or unicodedata.category(letter)[0] == "M" else " " for letter in text)
    return [word for word in parted.split() if any(letter.isalnum() for letter in word)]


def folded(word: str) -> str:
    """A word without case and accents."""
    letters = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))

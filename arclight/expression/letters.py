"""Upper and lower case, with the letters that change length: Arrow's kernels leave them out."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_SIGMA = "Σ"
_LOWER_OF_DOTTED_I = ("İ", "i\u0307")
# ß is SS in upper case, ﬁ is FI: Unicode's special casing
_LONGER = {
    letter: letter.upper()
    for letter in map(chr, (*range(0x80, 0xD800), *range(0xE000, 0x10000)))
    if len(letter.upper()) > 1
}
_ANY_LONGER = f"[{''.join(_LONGER)}]"


def upper(text: pa.Array) -> pa.Array:
    """Return the strings in upper case."""
    if pc.any(pc.match_substring_regex(text, _ANY_LONGER)).as_py():
        for letter, letters in _LONGER.items():
            text = _replaced(text, letter, letters)
    return pc.utf8_upper(text)


def lower(text: pa.Array) -> pa.Array:
    """Return the strings in lower case; a sigma at the end of a word is a final one."""
    lowered = pc.utf8_lower(_replaced(text, *_LOWER_OF_DOTTED_I))
    has_sigma = pc.match_substring(text, _SIGMA)
    if not pc.any(has_sigma).as_py():
        return lowered
    encoded = text.dictionary_encode()
    known = pa.array([value.lower() for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.if_else(has_sigma, known.take(encoded.indices), lowered)


def _replaced(text: pa.Array, letter: str, letters: str) -> pa.Array:
    if not pc.any(pc.match_substring(text, letter)).as_py():
        return text
    return pc.replace_substring(text, letter, letters)

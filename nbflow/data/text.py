"""Text as tokens: a UTF-8 file, one token a character."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow import _check
from nbflow._legible import legible
from nbflow.data._characters import code_points, decoded, numbered
from nbflow.data._files import read_bytes
from nbflow.data._parts import shares
from nbflow.data.text_streams import token_line

if TYPE_CHECKING:
    from nbflow.data.tasks import TextTask

MAX_TEXT_BYTES = 256 * 2**20


@legible
class Text(NamedTuple):
    """A text as tokens, and the characters that they stand for.

    Attributes
    ----------
    tokens : int32 array of shape (n,)
        ``vocabulary[tokens[i]]`` is character i.
    vocabulary : tuple of str
        The different characters, sorted by code point, one character each.

    Examples
    --------
    >>> text = Text(np.array([1, 0, 1], np.int32), ("a", "b"))
    >>> text.decode(text.tokens), text.encode("abba").tolist()
    ('bab', [0, 1, 1, 0])
    """

    tokens: NDArray[np.int32]
    vocabulary: tuple[str, ...]

    def encode(self, characters: str) -> NDArray[np.int32]:
        """Turn characters into tokens of this vocabulary.

        Parameters
        ----------
        characters : str
            n characters, each of the vocabulary; none is fine.

        Returns
        -------
        (n,) int32
            The tokens.

        Raises
        ------
        TypeError
            If `characters` is not a str.
        ValueError
            If a character is not in the vocabulary.

        Examples
        --------
        >>> Text(np.zeros(1, np.int32), ("a", "b")).encode("ba")
        array([1, 0], dtype=int32)
        """
        if not isinstance(characters, str):
            raise TypeError(f"characters is {type(characters).__name__}; expected a str. Decode bytes first.")
        codes, alphabet = code_points(characters), code_points("".join(self.vocabulary))
        tokens = np.searchsorted(alphabet, codes)
        known = alphabet[np.minimum(tokens, alphabet.size - 1)] == codes
        if not known.all():
            at = int(np.argmin(known))
            raise ValueError(
                f"characters[{at}] is {_check.said(characters[at])}; expected one of the "
                f"{len(self.vocabulary)} characters of the vocabulary. Replace it, or read a text that holds it."
            )
        return tokens.astype(np.int32)

    def decode(self, tokens: NDArray[np.integer[Any]]) -> str:
        """Turn tokens back into characters.

        Parameters
        ----------
        tokens : (n,) integers
            Each from 0 to ``len(vocabulary) - 1``.

        Returns
        -------
        str
            n characters.

        Raises
        ------
        TypeError, ValueError
            If `tokens` is not one line of integers, or one is not in the vocabulary.

        Examples
        --------
        >>> Text(np.zeros(1, np.int32), ("a", "b")).decode(np.array([1, 1, 0]))
        'bba'
        """
        tokens = token_line(tokens, len(self.vocabulary))
        alphabet = code_points("".join(self.vocabulary))
        return str(alphabet[tokens].tobytes(), "utf-32-le", "surrogatepass")

    def split(self, fractions: Sequence[float]) -> tuple[Text, ...]:
        """Cut the text into consecutive parts that share its vocabulary.

        Parameters
        ----------
        fractions : sequence of float
            The share of each part; above 0, adding up to 1. Each cut falls at the nearest character.

        Returns
        -------
        tuple of Text
            One a fraction; together, every character once. Their tokens are views of this text's.

        Raises
        ------
        TypeError, ValueError
            If the fractions are not positive numbers that add up to 1, or a part would be empty.

        Examples
        --------
        >>> text = Text(np.arange(10, dtype=np.int32), tuple("abcdefghij"))
        >>> [part.decode(part.tokens) for part in text.split((0.8, 0.1, 0.1))]
        ['abcdefgh', 'i', 'j']
        """
        parts = shares("fractions", fractions)
        size = self.tokens.size
        cuts = [0, *(round(size * math.fsum(parts[:k])) for k in range(1, len(parts))), size]
        found = tuple(Text(self.tokens[a:b], self.vocabulary) for a, b in pairwise(cuts))
        for k, part in enumerate(found):
            if not part.tokens.size:
                raise ValueError(
                    f"fractions[{k}] is {_check.said(parts[k])} of {size} characters, an empty part; expected at "
                    "least 1 character. Give it a larger share, or read a longer text."
                )
        return found

    def task(self, held_out: float = 0.1) -> TextTask:
        """Make a task that trains on the beginning of the text and is measured on its end.

        Parameters
        ----------
        held_out : float
            The share of the text that is held out, in (0, 1).

        Returns
        -------
        TextTask

        Raises
        ------
        TypeError, ValueError
            If `held_out` is no such number, or one of the parts too short.

        Examples
        --------
        >>> Text(np.arange(1000, dtype=np.int32) % 2, ("a", "b")).task(held_out=0.2)
        TextTask(800 characters, 200 held out)
        """
        from nbflow.data.tasks import TextTask

        if isinstance(held_out, bool) or not isinstance(held_out, Real):
            raise TypeError(f"held_out is {_check.said(held_out)}; expected a number in (0, 1). Give a share, as 0.1.")
        held_out = float(held_out)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {_check.said(held_out)}; expected a number in (0, 1). Give a share, as 0.1.")
        return TextTask(*self.split((1 - held_out, held_out)))


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES) -> Text:
    r"""Read a UTF-8 file as tokens, one a character (code point).

    Every character stays as it is in the file, line ends too: a ``\r\n`` is two tokens. A byte order mark at the very
    start is a mark on the file, no character of the text, and is dropped.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    max_bytes : int
        The largest file to read, in bytes; 256 MiB if not given.

    Returns
    -------
    Text
        tokens (n,) int32, vocabulary sorted by code point.

    Raises
    ------
    TypeError
        If `path` is no path or `max_bytes` no integer.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file, is empty, is larger than `max_bytes`, or is not UTF-8 (with the offset of the byte).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "play.txt")
    ...     _ = path.write_text("to be", encoding="utf-8")
    ...     text = read_text(path)
    >>> text.vocabulary, text.tokens.tolist()
    ((' ', 'b', 'e', 'o', 't'), [4, 3, 0, 1, 2])
    """
    data = read_bytes(path, max_bytes, "Give the path of the file itself, or read all of them by read_text_files.")
    characters = decoded(data, path)
    (tokens,), vocabulary = numbered([characters])
    return Text(tokens, vocabulary)

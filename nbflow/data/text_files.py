"""Texts in several files, each a stream of its own: tokens of one vocabulary."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow import _check
from nbflow._legible import legible
from nbflow.data._characters import code_points, decoded, numbered
from nbflow.data._files import check_count
from nbflow.data._folders import files_of, read_all
from nbflow.data._parts import cut, drawn
from nbflow.data.text import MAX_TEXT_BYTES, Text

if TYPE_CHECKING:
    from nbflow.data.text_files_task import TextFilesTask

WAYS = ("file", "within")


@legible
class TextFiles(NamedTuple):
    """Texts, each of a file, as tokens of one vocabulary.

    Attributes
    ----------
    names : tuple of str
        What each file is called: as it was given, or as it lies in the folder that was read, "act/scene2.txt", say.
    tokens : tuple of int32 arrays of shape (n_i,)
        Of each file.
    vocabulary : tuple of str
        The different characters of all files, sorted by code point.

    Examples
    --------
    >>> files = TextFiles(("a.txt", "b.txt"), (np.array([1, 0], np.int32), np.array([0], np.int32)), ("x", "y"))
    >>> text = files.joined()
    >>> text.decode(text.tokens)
    'yxx'
    """

    names: tuple[str, ...]
    tokens: tuple[NDArray[np.int32], ...]
    vocabulary: tuple[str, ...]

    def joined(self, between: str = "") -> Text:
        r"""Return all files as one text, one behind the other.

        Parameters
        ----------
        between : str
            Characters to stand between two files, ``"\n\n"`` or a mark that is in none of them, say.

        Returns
        -------
        Text
            Where `between` is empty, that of a file which holds all of them.

        Raises
        ------
        TypeError
            If `between` is not a str.

        Examples
        --------
        >>> a = np.zeros(1, np.int32)
        >>> text = TextFiles(("1", "2"), (a, a), ("x",)).joined("|")
        >>> text.decode(text.tokens), text.vocabulary
        ('x|x', ('x', '|'))
        """
        if not isinstance(between, str):
            raise TypeError(f"between is {_check.said(between)}; expected a str. Leave it out for nothing.")
        (tokens,), vocabulary = numbered([between.join(map(self._decoded, range(len(self.names))))])
        return Text(tokens, vocabulary)

    def select(self, pattern: str) -> TextFiles:
        """Return some of the files, with the vocabulary of all, so that they make parts of one task.

        Parameters
        ----------
        pattern : str
            For names, as a shell has it: ``"train/*"``. ``*`` stands for any characters, "/" among them.

        Returns
        -------
        TextFiles

        Raises
        ------
        TypeError, ValueError
            If `pattern` is not a str, or no name fits.

        Examples
        --------
        >>> a = np.zeros(1, np.int32)
        >>> TextFiles(("train/1", "test/1"), (a, a), ("x",)).select("test/*").names
        ('test/1',)
        """
        if not isinstance(pattern, str):
            raise TypeError(f"pattern is {_check.said(pattern)}; expected a str, as 'train/*'. Give one.")
        rows = [k for k, name in enumerate(self.names) if fnmatch.fnmatchcase(name, pattern)]
        if not rows:
            raise ValueError(
                f"pattern is {_check.said(pattern)} and fits none of {len(self.names)} names; expected at least 1. The "
                f"first name is {_check.said(self.names[0])}."
            )
        return self._some(rows)

    def task(self, held_out: float = 0.1, *, by: str = "file", seed: int = 0) -> TextFilesTask:
        """Make a task that trains on a part of the texts and is measured on another.

        Parameters
        ----------
        held_out : float
            The share that is held out, in (0, 1).
        by : "file" or "within"
            What is held out: whole files, drawn from their contents and `seed` (a share of their number, one at
            least), or the end of every file. By files a network is measured on texts it has never seen, from their
            beginnings; within, on how those go on that it was trained on.
        seed : int
            Which files are held out.

        Returns
        -------
        TextFilesTask

        Raises
        ------
        TypeError, ValueError
            If an argument makes no sense, there are too few files, or one of them is too short.

        Examples
        --------
        >>> words = [np.arange(k + 50, dtype=np.int32) % 2 for k in range(10)]
        >>> files = TextFiles(tuple(map(str, range(10))), tuple(words), ("a", "b"))
        >>> files.task(held_out=0.2)
        TextFilesTask(8 files of 441 characters, 2 held out of 104)
        >>> files.task(held_out=0.2, by="within")
        TextFilesTask(10 files of 436 characters, 10 held out of 109)
        """
        from nbflow.data.text_files_task import TextFilesTask

        share, seed = _check.part("held_out", held_out), _check.count("seed", seed, 0)
        if _check.choice("by", by, WAYS) == "within":
            borders = [round(len(tokens) * (1 - share)) for tokens in self.tokens]
            train = [tokens[:border] for tokens, border in zip(self.tokens, borders, strict=True)]
            rest = [tokens[border:] for tokens, border in zip(self.tokens, borders, strict=True)]
            return TextFilesTask(self._replace(tokens=tuple(train)), self._replace(tokens=tuple(rest)))
        count = len(self.names)
        measured = max(1, round(share * count))
        if measured >= count:
            raise ValueError(
                f"held_out is {share:g} of {count} files, {measured} of them; expected some to train on. Read more "
                f"files, give a smaller share, or hold out the end of each: by='within'."
            )
        order = drawn((self._decoded(k).encode("utf-32-le", "surrogatepass") for k in range(count)), seed)
        held, train_rows = cut(order, measured)
        return TextFilesTask(self._some(train_rows), self._some(held))

    def _some(self, rows: Sequence[int]) -> TextFiles:
        return TextFiles(tuple(self.names[k] for k in rows), tuple(self.tokens[k] for k in rows), self.vocabulary)

    def _decoded(self, k: int) -> str:
        alphabet = code_points("".join(self.vocabulary))
        return str(alphabet[self.tokens[k]].tobytes(), "utf-32-le", "surrogatepass")


def read_text_files(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    pattern: str = "*.txt",
    max_bytes: int = MAX_TEXT_BYTES,
) -> TextFiles:
    r"""Read several UTF-8 files as tokens of one vocabulary: those of a folder, a list of them, or one.

    Each is read as by `read_text`. Files of a folder come in natural order, scene2.txt before scene10.txt; those that
    are hidden (".name"), or lie in a hidden folder, are left out. Nothing else in a file's name matters: texts are
    known by what is in them.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        A folder, a file, or files in their order.
    pattern : str
        Which files of a folder: ``"*.txt"`` those in the folder itself, ``"**/*.txt"`` those in its folders too.
    max_bytes : int
        The most bytes to read, of all files together; 256 MiB if not given.

    Returns
    -------
    TextFiles

    Raises
    ------
    TypeError
        If `path` is no path, `pattern` no str or `max_bytes` no integer.
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If no file fits, one is given twice, is empty, is not UTF-8 (with its name and the offset of the byte), or all
        of them are larger than `max_bytes`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for k in (1, 2, 10):
    ...         _ = pathlib.Path(folder, f"scene{k}.txt").write_text(f"Scene {k}\n", encoding="utf-8")
    ...     files = read_text_files(folder)
    >>> files.names, [len(tokens) for tokens in files.tokens]
    (('scene1.txt', 'scene2.txt', 'scene10.txt'), [8, 8, 9])
    """
    max_bytes = check_count("max_bytes", max_bytes)
    found: list[tuple[str, Any]] = list(files_of(path, pattern))
    paths = [file for _, file in found]
    texts = [decoded(data, file) for file, data in zip(paths, read_all(paths, max_bytes), strict=True)]
    tokens, vocabulary = numbered(texts)
    return TextFiles(tuple(name for name, _ in found), tuple(tokens), vocabulary)

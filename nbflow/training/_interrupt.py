"""Ctrl-C, kept out of a few lines that must be done as a whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Guard:
    """`with guard:` puts off Ctrl-C until its end, where `guard.installed()` is around it.

    `torn` tells that an exception has left such lines half done.
    """

    def __init__(self) -> None:
        self.inside = self.asked = self.torn = False

    def __enter__(self) -> None:
        self.inside = True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.inside = False
        if kind is not None:
            self.torn = True
        elif self.asked:
            self.asked = False
            raise KeyboardInterrupt

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signal of Ctrl-C; a thread other than the main one gets none, and nothing is done there."""
        usual = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(usual):
            yield
            return

        def handle(number: int, frame: FrameType | None) -> Any:
            if not self.inside:
                return usual(number, frame)
            self.asked = True

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

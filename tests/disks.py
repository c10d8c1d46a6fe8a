"""A small disk that can be filled and made read-only, where the system lets us mount one."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess

import pytest


class Disk:
    """A tmpfs."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self):
        """Leave no room for a single block."""
        with open(self.folder / "ballast", "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017

    @contextlib.contextmanager
    def full(self):
        self.fill()
        try:
            yield
        finally:
            os.unlink(self.folder / "ballast")

    def make_read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def make_writable(self):
        subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)


@contextlib.contextmanager
def small_disk(tmp_path, size="256k"):
    """Give a disk of its own; the test is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    try:
        failed = subprocess.run(command, capture_output=True).returncode
    except FileNotFoundError:
        failed = True
    if failed:
        pytest.skip("no disk can be mounted here")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", folder], check=True)

"""Servers that are processes of their own, and that a failed test does not wait for."""

import os
import subprocess
import sys

from tests.conftest import ROOT

PATIENCE_S = 60  # the machine may have much else to do


class ServerProcess(subprocess.Popen):
    """A script with its arguments; leaving the context with an error kills it."""

    def __init__(self, script, *arguments):
        super().__init__(
            [sys.executable, "-c", script, *arguments],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)

    def address(self):
        """Where it listens, as soon as it does."""
        for line in self.stderr:
            if "listening on" in line:
                return line.split("listening on ")[1].split()[0]
        raise AssertionError("it ended before it listened")

"""How gRPC is told to read."""

import os
import subprocess
import sys

_SCRIPT = """
import os
from concurrent.futures import ThreadPoolExecutor
import serving
import grpc
grpc.server(ThreadPoolExecutor(1)).add_insecure_port("127.0.0.1:0")
print(os.environ["GRPC_EXPERIMENTS"])
"""


def _said(settings):
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def test_grpc_knows_what_it_is_told():
    told, complaints = _said({})
    assert told == "-event_engine_listener"
    assert "Unknown experiment" not in complaints


def test_what_was_set_before_stays():
    told, complaints = _said({"GRPC_EXPERIMENTS": "no_such_thing"})
    assert told == "no_such_thing"
    assert "Unknown experiment: no_such_thing" in complaints

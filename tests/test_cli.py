"""The command line finds its commands, and every failure is one line with its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import pytest
import typer

import ovperception
from ovperception import cli
from ovperception.errors import InvalidImage, ResourceExhausted


def _fine(name: str = "you") -> None:
    """Say hello."""
    print(f"hello {name}")


def _rejects(as_json: bool = typer.Option(False, "--json")) -> None:
    raise InvalidImage("[0] is not\na picture", field="image", mend="Send a picture")


def _is_full() -> None:
    raise ResourceExhausted("The disk is full")


def _crashes() -> None:
    raise RuntimeError("first line\nsecond line")


def _is_interrupted() -> None:
    raise KeyboardInterrupt


def _needs_torch() -> None:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def _needs_something() -> None:
    raise ModuleNotFoundError("No module named 'something.else'", name="something.else")


def _exits() -> None:
    raise typer.Exit(3)


group = typer.Typer()
group.command("only")(_fine)

COMMANDS = {
    "crashes": "_crashes",
    "exits": "_exits",
    "fine": "_fine",
    "group": "group",
    "is-full": "_is_full",
    "is-interrupted": "_is_interrupted",
    "needs-something": "_needs_something",
    "needs-torch": "_needs_torch",
    "no-attribute": "nothing_of_this_name",
    "rejects": "_rejects",
}


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of this file instead of the installed ones."""
    points = {n: EntryPoint(n, f"{__name__}:{v}", cli.GROUP) for n, v in COMMANDS.items()}
    points["no-module"] = EntryPoint("no-module", "ovperception.nothing_of_this_name:run", cli.GROUP)
    monkeypatch.setattr(cli, "_find_commands", lambda: points)
    monkeypatch.delenv("OVP_DEBUG", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_runs_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fine", "--name", "me") == (0, "hello me\n", "")


def test_a_group_of_one_command_is_still_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "group", "only") == (0, "hello you\n", "")


def test_help_of_a_command_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "fine", "--help")
    assert status == 0
    assert "Say hello." in out
    assert "--name" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"ovperception {ovperception.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rejects"], 2, "error: [0] is not a picture. Send a picture.\n"),
        (["is-full"], 1, "error: The disk is full.\n"),
        (
            ["crashes"],
            1,
            "error: RuntimeError: first line second line (run with OVP_DEBUG=1 for the trace)\n",
        ),
        (["is-interrupted"], 130, ""),
        (["exits"], 3, ""),
        (
            ["needs-torch"],
            2,
            "error: This command needs torch, which is not installed. "
            "Install it with: pip install 'ovperception[server]'.\n",
        ),
        (
            ["needs-something"],
            2,
            "error: This command needs something, which is not installed. Install something.\n",
        ),
    ],
)
def test_a_failure_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert run(capsys, *arguments) == (status, "", message)


@pytest.mark.parametrize("name", ["no-module", "no-attribute"])
def test_a_command_that_cannot_be_loaded_says_so(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, _, err = run(capsys, name)
    assert status == 2
    assert err.startswith(f"error: ovp {name} cannot be loaded from ")
    assert "nothing_of_this_name" in err
    assert err.count("\n") == 1


def test_a_command_that_cannot_be_loaded_does_not_break_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--help")
    assert (status, err) == (0, "")
    assert all(name in out for name in (*COMMANDS, "no-module"))


def test_an_unknown_command_names_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "finee")
    assert (status, out) == (2, "")
    assert "Did you mean 'fine'?" in err


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "rejects", "--json")
    assert (status, out) == (2, "")
    assert json.loads(err) == {
        "error": {
            "reason": "INVALID_IMAGE",
            "message": "[0] is not\na picture. Send a picture.",
            "field": "image",
        }
    }


def test_usage_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "rejects", "--json", "--nothing")
    assert (status, out) == (2, "")
    assert json.loads(err)["error"]["reason"] == "USAGE"


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVP_DEBUG", "1")
    status, _, err = run(capsys, "crashes")
    assert status == 1
    assert "Traceback" in err
    assert "in _crashes" in err


def test_a_closed_pipe_is_silent() -> None:
    code = "from ovperception.cli import main; print('x' * 100_000); raise SystemExit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert b"Exception ignored" not in process.stderr.read()


def test_python_m_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ovperception", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"ovperception {ovperception.__version__}\n"


@pytest.mark.parametrize("point", entry_points(group=cli.GROUP), ids=lambda point: point.name)
def test_every_installed_command_loads_and_is_described(point: EntryPoint) -> None:
    assert cli._load(point) is not None
    assert point.name in cli._HELP

"""Check the protos, offline: ``python protos/check.py [--base COMMIT]``.

Three questions, each answered from descriptors that the installed protoc compiles:

- Is the code in `ovperception/v1` what the protos give? Compared as descriptors, so that any release of
  protoc can tell; the bytes of the generated files belong to the release that `generate.py` names.
- Do names follow buf's STANDARD rules (those about packages, enums, fields, services and requests)?
- Would a client built from the base still be understood? Nothing may be removed, unless its number is
  reserved, nor renumbered, renamed or retyped. The base is the newest release, or else `main`; `--base none`
  skips this for a change that is meant to break, before the first release.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path, PurePosixPath

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent

PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def compile_protos(folder: Path) -> dict[str, FileDescriptorProto]:
    """The descriptors of every proto under `folder`, by file name."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    with tempfile.NamedTemporaryFile(suffix=".binpb") as out:
        roots = (folder, files("grpc_tools") / "_proto", files("google.rpc") / "../..")
        paths = [f"--proto_path={root}" for root in roots]
        if protoc.main(["protoc", *paths, f"--descriptor_set_out={out.name}", *names]):
            sys.exit(f"the protos in {folder} do not compile")
        return {file.name: file for file in FileDescriptorSet.FromString(Path(out.name).read_bytes()).file}


def stale(protos: dict[str, FileDescriptorProto]) -> Iterator[str]:
    """Generated modules that are missing or were made from other protos."""
    sys.path.insert(0, str(ROOT))
    for name, file in protos.items():
        module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        made = FileDescriptorProto()
        try:
            import_module(module).DESCRIPTOR.CopyToProto(made)
        except ModuleNotFoundError:
            yield f"{module} is missing: run `make protos`"
            continue
        if _canonical(made) != _canonical(file):
            yield f"{module} was made from other protos: run `make protos`"


def _canonical(file: FileDescriptorProto) -> bytes:
    """Without the JSON names, which some releases of protoc write and some leave to be derived."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    for _, message in _messages(copy):
        for field in message.field:
            field.ClearField("json_name")
    return copy.SerializeToString(deterministic=True)


def _messages(
    parent: FileDescriptorProto | DescriptorProto, prefix: str = ""
) -> Iterator[tuple[str, DescriptorProto]]:
    nested = parent.message_type if isinstance(parent, FileDescriptorProto) else parent.nested_type
    for message in nested:
        yield prefix + message.name, message
        yield from _messages(message, f"{prefix}{message.name}.")


def _enums(file: FileDescriptorProto) -> Iterator[tuple[str, EnumDescriptorProto]]:
    yield from ((enum.name, enum) for enum in file.enum_type)
    for name, message in _messages(file):
        yield from ((f"{name}.{enum.name}", enum) for enum in message.enum_type)


def lint(file: FileDescriptorProto) -> Iterator[str]:
    """What does not follow the naming rules, each with its place."""

    def named(kind: str, name: str, style: re.Pattern[str], owner: str = "") -> Iterator[str]:
        if not style.fullmatch(name.rpartition(".")[2]):
            yield f"{file.name}: {kind} {owner}{name} is not written as {style.pattern}"

    path = PurePosixPath(file.name)
    if str(path.parent) != file.package.replace(".", "/") or not re.search(r"\.v\d+$", file.package):
        yield f"{file.name}: package {file.package!r} is not its folder, or does not end in a version"
    yield from named("file", path.stem, SNAKE)
    for name, message in _messages(file):
        yield from named("message", name, PASCAL)
        for member in (*message.field, *(o for o in message.oneof_decl if not o.name.startswith("_"))):
            yield from named("field", member.name, SNAKE, f"{name}.")
    for name, enum in _enums(file):
        yield from named("enum", name, PASCAL)
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
        for value in enum.value:
            yield from named("value", value.name, UPPER, f"{name}.")
            if not value.name.startswith(prefix):
                yield f"{file.name}: value {name}.{value.name} does not start with {prefix}"
        if enum.value[0].name != f"{prefix}UNSPECIFIED" or enum.value[0].number:
            yield f"{file.name}: enum {name} does not begin with {prefix}UNSPECIFIED = 0"
    for service in file.service:
        yield from named("service", service.name, PASCAL)
        if not service.name.endswith("Service"):
            yield f"{file.name}: service {service.name} does not end in Service"
        for method in service.method:
            yield from named("rpc", method.name, PASCAL)
            for type_name, suffix in ((method.input_type, "Request"), (method.output_type, "Response")):
                if type_name.rpartition(".")[2] != method.name + suffix:
                    yield f"{file.name}: rpc {method.name} does not use {method.name}{suffix}"


def breaking(old: FileDescriptorProto, new: FileDescriptorProto | None) -> Iterator[str]:
    """What a client built from `old` would miss or misread in `new`."""
    if new is None:
        yield f"{old.name} was removed"
        return
    messages = dict(_messages(new))
    for name, message in _messages(old):
        if name not in messages:
            yield f"{old.name}: message {name} was removed"
        else:
            yield from _breaking_fields(f"{old.name}: {name}", message, messages[name])
    enums = dict(_enums(new))
    for name, enum in _enums(old):
        if name not in enums:
            yield f"{old.name}: enum {name} was removed"
            continue
        values = {value.name: value.number for value in enums[name].value}
        for value in enum.value:
            reserved = any(r.start <= value.number <= r.end for r in enums[name].reserved_range)
            if values.get(value.name) != value.number and not reserved:
                yield f"{old.name}: {name}.{value.name} = {value.number} was removed or renumbered"
    calls = {(service.name, method.name): method for service in new.service for method in service.method}
    for service in old.service:
        for method in service.method:
            if calls.get((service.name, method.name)) != method:
                yield f"{old.name}: rpc {service.name}.{method.name} was removed or changed"


def _breaking_fields(place: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in new.field}
    for field in old.field:
        now = fields.get(field.number)
        if now is None:
            if not any(r.start <= field.number < r.end for r in new.reserved_range):
                yield f"{place}.{field.name} = {field.number} was removed and its number is not reserved"
        elif _shape(field, old) != _shape(now, new):
            yield f"{place}.{field.name} = {field.number} was renamed or retyped"


def _shape(field: FieldDescriptorProto, owner: DescriptorProto) -> tuple[object, ...]:
    oneof = owner.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    return field.name, field.type, field.type_name, field.label, field.proto3_optional, oneof


def find_base() -> str | None:
    """The newest release reachable from here, else where this branch left `main`; None without either."""
    for command in (
        ["git", "describe", "--tags", "--abbrev=0", "--match=v*"],
        ["git", "merge-base", "HEAD", "origin/main"],
        ["git", "merge-base", "HEAD", "main"],
    ):
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def protos_at(commit: str) -> dict[str, FileDescriptorProto]:
    """The descriptors of the protos as they were at `commit`."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"git cannot read the protos at {commit}: {done.stderr.decode().strip()}")
        return done.stdout

    names = [
        n
        for n in git("ls-tree", "-r", "--name-only", commit, "protos/").decode().split()
        if n[-6:] == ".proto"
    ]
    if not names:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(git("show", f"{commit}:{name}"))
        return compile_protos(Path(folder) / "protos")


def main() -> int:
    """Print what is wrong, one line each; exit 1 if anything is."""
    parser = argparse.ArgumentParser(description="Check the protos.")
    parser.add_argument("--base", default="", help="commit to stay compatible with; none = do not ask")
    base = parser.parse_args().base or find_base()
    protos = compile_protos(PROTOS)
    problems = [*stale(protos), *(line for file in protos.values() for line in lint(file))]
    if base is None:
        print("no release and no main branch to stay compatible with: not checked")
    elif base != "none":
        for name, old in protos_at(base).items():
            problems += breaking(old, protos.get(name))
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a process of ours finds at its start, whatever started it: streams, an encoding, a way to itself."""

from __future__ import annotations

import io
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# gRPC reads the first that is there, urllib and requests either of the others.
_NO_PROXY = ("no_grpc_proxy", "no_proxy", "NO_PROXY")


def prepare() -> None:
    """Call it before anything else; child processes inherit what it sets up."""
    open_standard_streams()
    speak_utf8()
    watch_output()
    name_a_home()
    os.environ.update(loopback_without_proxy(os.environ))


def open_standard_streams() -> None:
    """Put the null device where standard input, output or error is closed.

    The next file that is opened would get its number, and everything written there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def name_a_home() -> None:
    """Name a home folder and a user where there is no variable and no passwd entry, as in some containers.

    Libraries ask for both when they are imported, and fail; nothing of ours is written there.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", "/nonexistent")  # as Debian has it for users without one
        os.environ.setdefault("USER", str(os.getuid()))


@contextmanager
def silent_errors() -> Iterator[None]:
    """Nothing reaches standard error meanwhile: C++ libraries speak when they are imported."""
    sys.stderr.flush()
    saved, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silence)


class OutputError(OSError):
    """Standard output takes nothing more, as a full disk; that its reader has gone is a BrokenPipeError."""

    exit_code = 1


class _Output(io.FileIO):
    """Standard output; what is left for it after a failure is thrown away."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            # Python tries again at its end, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise OutputError(f"standard output: {error.strerror}") from None


def watch_output() -> None:
    """Let a failure to write to standard output be told from every other one."""
    text = sys.stdout
    if isinstance(text, io.TextIOWrapper) and text.isatty() is False:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(1, "w", closefd=False)),
            encoding=text.encoding,
            errors=text.errors,
            write_through=text.write_through,
        )


def speak_utf8() -> None:
    """Begin again in UTF-8 where the locale has another encoding: paths could not be written down in it."""
    if sys.getfilesystemencoding().lower() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to set so that a proxy is asked for other machines alone.

    gRPC, urllib and requests would send even what is for this machine to the proxy that `http_proxy` names.
    """
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    changed = {}
    for name in _NO_PROXY:
        if name != "no_grpc_proxy" or name in environment:
            hosts = [host for host in (environment.get(name) or given).split(",") if host.strip()]
            hosts += [host for host in LOOPBACK if host not in hosts]
            changed[name] = ",".join(hosts)
    return changed

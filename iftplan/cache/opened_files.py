"""Which files a process opens, whoever opens them: Python, a library in C or Rust, or a process that it starts.

Python's audit hooks see what Python opens and nothing else. Linux can tell a second process about system calls before
they happen (seccomp user notifications), without privileges and for the process itself and all that it begins later.
A watcher is forked, notes the path, and lets every call go on as it was.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NUMBERS = {
    "x86_64": {"seccomp": 317, "open": 2, "openat": 257, "openat2": 437, "connect": 42},
    "aarch64": {"seccomp": 277, "openat": 56, "openat2": 437, "connect": 203},
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# linux/prctl.h, linux/seccomp.h, linux/filter.h
_SET_NO_NEW_PRIVS, _SET_PTRACER = 38, 0x59616D61
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RETURN, _LOAD, _EQUAL = 0x06, 0x20, 0x15
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION, _ANSWER = struct.Struct("QII iI Q 6Q"), struct.Struct("QqiI")
_CONTINUE = 1

_WORKING_DIRECTORY = -100 & 0xFFFFFFFF
_LONGEST = 4096  # of a path, with the zero that ends it
_NAME_SERVICE = b"/var/run/nscd/socket"  # asked by the C library for names of users


@dataclass(frozen=True, slots=True)
class Opened:
    """Files, folders and connections that were opened up to a moment.

    Attributes:
        files: paths, also of what was not there.
        folders: paths of folders that were listed.
        outward: connections, and calls whose path could not be read.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    outward: tuple[str, ...]


class Opens:
    """Watcher of what this process opens; nothing ends it but the end of the process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def pause(self) -> Opened:
        """Everything that was opened before; what is opened from now on is not noted."""
        self._control.sendall(b"?")
        size = int.from_bytes(_exactly(self._control, 8), "little")
        return Opened(*(tuple(part) for part in json.loads(_exactly(self._control, size))))

    def resume(self) -> None:
        """Go on noting what is opened."""
        self._control.sendall(b"!")
        _exactly(self._control, 1)


def watch() -> Opens | None:
    """The watcher of this process; None where the system has none, or does not allow it.

    To be called before there are other threads, for only what begins later is watched beside the caller.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _NUMBERS or sys.byteorder != "little":
        return None
    mine, theirs = socket.socketpair()
    if (child := os.fork()) == 0:  # twice, so that no child of ours is waited for by others
        if os.fork() == 0:
            _serve(theirs)
        os._exit(0)
    theirs.close()
    os.waitpid(child, 0)
    try:
        watcher = int.from_bytes(_exactly(mine, 8), "little")
        listener = _listen(machine, watcher)
    except OSError:
        mine.close()  # ends the watcher
        return None
    socket.send_fds(mine, [b"L"], [listener])
    os.close(listener)
    return Opens(mine)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("yes", ctypes.c_ubyte),
        ("no", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def _listen(machine: str, watcher: int) -> int:
    """A descriptor that tells of every file that is opened; every call waits for its answer.

    Raises:
        OSError: the system does not allow it.
    """
    numbers = dict(_NUMBERS[machine])
    seccomp = numbers.pop("seccomp")
    lines = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, 0),
    ]
    for left, number in reversed(list(enumerate(numbers.values()))):
        lines.append((_EQUAL, left + 1, 0, number))
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    program = _Program(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_SET_PTRACER, watcher, 0, 0, 0)  # needed, and known, on systems with Yama alone
    if system.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    found: int = system.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return found


def _exactly(control: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        if not (part := control.recv(size - len(found))):
            raise OSError("the watcher of opened files has ended")
        found += part
    return bytes(found)


# --- the watcher -------------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Note what is told until nobody is left who could tell it."""
    with suppress(BaseException):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends with those it watches, never before them
        _detach(control.fileno())
        control.sendall(os.getpid().to_bytes(8, "little"))
        _, listeners, _, _ = socket.recv_fds(control, 1, 1)
        if listeners:
            _Watcher(control, listeners[0]).run()
    os._exit(0)


def _detach(kept: int) -> None:
    """Hold no pipe open that others wait for the end of."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


class _Watcher:
    def __init__(self, control: socket.socket, listener: int) -> None:
        from fcntl import ioctl  # of Linux

        self._ioctl = ioctl
        self._control, self._listener = control, listener
        self._notes = True
        self._files: dict[str, None] = {}
        self._folders: dict[str, None] = {}
        self._outward: dict[str, None] = {}
        numbers = _NUMBERS[platform.machine()]
        self._named = {number: name for name, number in numbers.items()}

    def run(self) -> None:
        ready = select.poll()
        ready.register(self._listener, select.POLLIN)
        ready.register(self._control, select.POLLIN)
        while True:
            for descriptor, event in ready.poll():
                if descriptor == self._listener:
                    if not event & select.POLLIN:
                        return  # all that were watched have ended
                    self._hear()
                elif asked := self._control.recv(1):
                    self._answer(asked)
                else:
                    ready.unregister(self._control)  # the first has ended; those that it began may go on

    def _answer(self, asked: bytes) -> None:
        self._notes = asked == b"!"
        if self._notes:
            self._control.sendall(b"!")
            return
        told = json.dumps([list(self._files), list(self._folders), list(self._outward)]).encode()
        self._control.sendall(len(told).to_bytes(8, "little") + told)

    def _hear(self) -> None:
        heard = bytearray(_NOTIFICATION.size)
        try:
            self._ioctl(self._listener, _RECEIVE, heard)
        except OSError:  # whoever called was killed
            return
        identity, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(heard)
        if self._notes:
            self._note(pid, self._named.get(number, ""), arguments)
        with suppress(OSError):
            self._ioctl(self._listener, _SEND, _ANSWER.pack(identity, 0, 0, _CONTINUE))

    def _note(self, pid: int, call: str, arguments: list[int]) -> None:
        try:
            if call == "connect":
                self._note_connection(_memory(pid, arguments[1], min(arguments[2], 128)))
                return
            folder, place, flags = (_WORKING_DIRECTORY, *arguments[:2]) if call == "open" else arguments[:3]
            if call == "openat2":
                flags = int.from_bytes(_memory(pid, flags, 8), "little")
            if (flags & os.O_ACCMODE) == os.O_WRONLY:
                return
            path, ended, _ = _memory(pid, place, _LONGEST).partition(b"\0")
            if not ended:
                raise OSError
            if not path.startswith(b"/"):
                path = _folder(pid, folder) + b"/" + path
        except (OSError, ValueError):
            self._outward[f"a {call} whose path cannot be read"] = None
            return
        seen = self._folders if flags & os.O_DIRECTORY else self._files
        seen[os.path.normpath(os.fsdecode(path))] = None

    def _note_connection(self, address: bytes) -> None:
        family = int.from_bytes(address[:2], "little")
        inward = family == socket.AF_UNIX and address[2:].partition(b"\0")[0] == _NAME_SERVICE
        if family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) and not inward:
            self._outward["connect"] = None


def _memory(pid: int, place: int, size: int) -> bytes:
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(descriptor, size, place)
    finally:
        os.close(descriptor)


def _folder(pid: int, descriptor: int) -> bytes:
    here = descriptor & 0xFFFFFFFF
    at = "cwd" if here == _WORKING_DIRECTORY else f"fd/{here}"
    return os.fsencode(Path(f"/proc/{pid}/{at}").readlink())


__all__ = ["Opened", "Opens", "watch"]

"""Ctrl-C ends the command within two seconds, even while the compiler is busy."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 130
PATIENCE = 1.5
AGAIN = 0.05
"""Seconds until an interrupt that came inside compiled code is tried again."""


@dataclass
class Interruption:
    """Whether an interrupt ``came``, and whether ``KeyboardInterrupt`` was ``raised`` for it."""

    came: bool = False
    raised: bool = False


@contextmanager
def prompt_exit(message: str, interruption: Interruption | None = None) -> Iterator[None]:
    """Inside, an interrupt that Python has not acted upon after ``PATIENCE`` seconds ends us.

    Python raises ``KeyboardInterrupt`` only between its own instructions, which TVM may not reach
    for many seconds; a thread that waits for the signal can, since TVM lets other threads run.
    ``message`` is printed then. Ending like this loses nothing: each record is written durably when
    it is made, and the measuring processes end with us. ``interruption`` tells what came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted = Interruption() if interruption is None else interruption
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    finished = threading.Event()
    main = threading.get_ident()

    def note(number: int, frame: FrameType | None) -> None:
        noted.came = True
        if not _inside_native(frame):
            noted.raised = True
            signal.default_int_handler(number, frame)

    def watch() -> None:
        while not finished.is_set():
            numbers = receiving.recv(64)
            if not numbers:
                return
            if signal.SIGINT in numbers and not _finishes(finished, noted, main):
                print(message, file=sys.stderr, flush=True)
                os._exit(INTERRUPTED)

    handler = signal.getsignal(signal.SIGINT)
    replaced = handler is signal.default_int_handler  # not where interrupts are ignored
    if replaced:
        signal.signal(signal.SIGINT, note)
    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        if replaced:
            signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(before)
        sending.close()
        watcher.join()
        receiving.close()


def _finishes(finished: threading.Event, noted: Interruption, main: int) -> bool:
    """Whether the block ends in time; until the interrupt is acted upon it is sent again."""
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        if finished.wait(min(left, AGAIN)):
            return True
        if noted.came and not noted.raised:
            signal.pthread_kill(main, signal.SIGINT)
    return False


def _inside_native(frame: FrameType | None) -> bool:
    """Whether compiled code that cannot cope with our exception may be waiting for what runs now.

    TVM makes an ordinary error of it, which whoever tries one thing after another takes for a
    failure of what it tried; an extension module that is being loaded may take the process down.
    """
    imported = False  # by Python's own code, which can be broken off
    while frame is not None:
        code = frame.f_code
        if code.co_qualname.startswith("ExtensionFileLoader."):
            return True
        imported = imported or code.co_name == "<module>"
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in ("tvm", "tvm_ffi") and not imported:
            return True
        frame = frame.f_back
    return False

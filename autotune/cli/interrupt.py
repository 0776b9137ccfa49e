"""Ctrl-C ends the command within two seconds, even while the compiler is busy."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
PATIENCE = 1.5


@contextmanager
def prompt_exit(message: str) -> Iterator[None]:
    """Inside, an interrupt that Python has not acted upon after ``PATIENCE`` seconds ends us.

    Python raises ``KeyboardInterrupt`` only between its own instructions, which TVM may not reach
    for many seconds; a thread that waits for the signal can, since TVM lets other threads run.
    ``message`` is printed then. Ending like this loses nothing: each record is written durably when
    it is made, and the measuring processes end with us.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    finished = threading.Event()

    def watch() -> None:
        while not finished.is_set():
            numbers = receiving.recv(64)
            if not numbers:
                return
            if signal.SIGINT in numbers and not finished.wait(PATIENCE):
                print(message, file=sys.stderr, flush=True)
                os._exit(INTERRUPTED)

    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        sending.close()
        watcher.join()
        receiving.close()

"""For every test."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background lets Ctrl-C be ignored, which would be inherited
# by the programs whose answer to Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

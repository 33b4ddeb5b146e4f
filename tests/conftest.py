"""What all tests share."""

from __future__ import annotations

import signal

# A shell starts what runs in its background with interrupts ignored, and so would everything that
# the tests start, interrupt and expect to end. exec(2) puts the default in the place of a handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

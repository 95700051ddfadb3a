"""What holds for the whole suite."""

from __future__ import annotations

import signal

# A shell starts a background job with Ctrl-C ignored, and so would be all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

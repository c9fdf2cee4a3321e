"""Ctrl-C and SIGTERM end training between two steps."""

import signal
import threading
from collections.abc import Callable


class Interruption:
    """Notes the first signal, and calls a function. A second signal has its usual effect.

    Attributes
    ----------
    received
        The signal; ``None`` if there was none.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict = {}

    def listen(self, then: Callable[[], None] = lambda: None) -> None:
        """Call ``then`` at the first signal, until `forget`. In other threads than the main one, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number, frame):
            self.received = signal.Signals(number)
            then()
            self.forget()

        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):  # None: set by C code, cannot be restored
                self._before[number] = signal.signal(number, stop)

    def forget(self) -> None:
        """Restore the usual handlers of the signals."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

"""What a command shows and how it ends."""

import logging
import signal
import warnings

import pytest
import typer

from mixvi._terminal import errors_as_lines, terminal
from mixvi._warnings import warn


@pytest.mark.parametrize(
    ("error", "code"),
    [(ValueError("wrong"), 1), (KeyError("wrong"), 1), (OSError("wrong"), 1), (KeyboardInterrupt(), 130)],
)
def test_an_error_is_one_line(error, code, capsys):
    with pytest.raises(typer.Exit) as found, errors_as_lines():
        raise error
    assert found.value.exit_code == code
    said = capsys.readouterr().err.strip()
    assert said.startswith("mixvi: ")
    assert "\n" not in said


def test_only_messages_of_mixvi_are_shown(capfd):
    before = signal.getsignal(signal.SIGTERM), logging.getLogger("mixvi").handlers[:]
    with terminal():
        logging.getLogger("mixvi.test").info("a message")
        logging.getLogger("mixvi.test").warning("Stopped by SIGTERM; train() goes on")
        warn("a reason")
        warn("a reason")
        warnings.warn("of another package", stacklevel=1)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    said = capfd.readouterr().err
    assert "a message" in said
    assert said.count("a reason") == 1
    assert "another package" not in said
    assert "train()" not in said
    assert (signal.getsignal(signal.SIGTERM), logging.getLogger("mixvi").handlers) == before

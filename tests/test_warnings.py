"""Warnings have a category of their own, and name the line that caused them."""

import inspect
import warnings

from mixvi._warnings import MixviWarning, warn


def work():
    warn("look here")


def test_a_warning_names_the_line_that_called_the_function(recwarn):
    work()
    here = inspect.currentframe().f_lineno
    (found,) = recwarn
    assert (found.category, str(found.message)) == (MixviWarning, "look here")
    assert (found.filename, found.lineno) == (__file__, here - 1)


def test_warnings_can_be_silenced_by_their_category():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", MixviWarning)
        work()
        warnings.warn("of another package", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in found] == ["of another package"]


def test_a_warning_is_logged_only_where_warnings_are_ignored(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="something else")
        work()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", "look here")]
    caplog.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        work()
    assert [str(warning.message) for warning in found] == ["look here"]
    assert not caplog.records

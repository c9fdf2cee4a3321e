"""``python -m mixvi`` is the command line, as ``mixvi`` is."""

from mixvi.cli import app

app()

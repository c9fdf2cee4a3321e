"""One HTML page on a trained model: what was fitted, what was found, and what not to trust."""

from mixvi.report._sections import page

__all__ = ["page"]

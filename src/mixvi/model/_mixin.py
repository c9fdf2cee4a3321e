"""Base class of the mixins: an empty class, but type checkers see the model that uses the mixin."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel as Mixin
else:
    Mixin = object

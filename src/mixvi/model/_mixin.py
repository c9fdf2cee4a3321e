"""What the mixins of models derive from: nothing, but type checkers see the model that they are mixed into."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel as Mixin
else:
    Mixin = object

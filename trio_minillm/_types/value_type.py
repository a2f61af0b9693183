"""The type variable of everything that holds an answer's value.

Its default is ``Any``, so that `CompletionResponse` alone means one of any type. Only type checkers know
defaults before Python 3.13: they bring typing_extensions along, which is no requirement of this package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Value = TypeVar("Value", default=Any, covariant=True)
    """The type of the value; one that is read only."""
    Asked = TypeVar("Asked", default=Any)
    """The type that a call asks for."""
else:
    from typing import TypeVar

    Value = TypeVar("Value", covariant=True)
    Asked = TypeVar("Asked")

__all__ = ["Asked", "Value"]

"""A text with the type of its JSON, and all the ways to look at it while it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._types.response import FINISHED
from ..._types.schemas import is_wrapped, read_answer
from .elements import ElementShape
from .field_types import element_of, fields_of, holds_list
from .partial import Partial, PartialShape
from .repair import Mender, needs_library
from .shapes import Field, FieldShape, Shape
from .sources import Source
from .views import Pump, TextView


class Target:
    """One text to be read, with the type of its JSON: what all the ways to look at it share."""

    def __init__(
        self,
        pump: Pump,
        source: Callable[[], Source],
        type: Any,
        *,
        asked: Any = None,
        call: bool = False,
    ) -> None:
        self.pump: Pump = pump
        self._source = source
        self._type = type
        self._asked = asked
        self._call = call
        self._wrapped = asked is not None and not call and is_wrapped(asked)
        self._partials: list[Partial[Any]] = []

    def fields(self, *, repair: bool) -> TextView[Field]:
        """Return the fields of the object."""

        def make() -> FieldShape:
            types = {} if self._wrapped or self._type is None else fields_of(self._type)
            return FieldShape(types, wrapped=self._wrapped, type=self._type, loose=self._call)

        return self._view(make, repair=repair)

    def values(self, type: Any, field: str | None, *, repair: bool) -> TextView[Any]:
        """Return the elements of a list."""
        mine, wrapped = self._type, self._wrapped and field is None
        if field is not None and mine is not None:
            types = fields_of(mine)
            if types and field not in types:
                raise ValueError(f"the type has no field {field!r}")
            mine = types.get(field)
        elif field is None and mine is not None and fields_of(mine):
            raise ValueError("the answer is an object: name the field with the list, field=…")
        if mine is not None and not holds_list(mine):
            raise ValueError("that value is not a list")
        element = element_of(mine) if type is None and mine is not None else type

        def make() -> ElementShape:
            return ElementShape(element, field=field, wrapped=wrapped, loose=self._call)

        return self._view(make, repair=repair)

    def partial(self, type: Any, *, repair: bool) -> Partial[Any]:
        """Return the partial of a type, with all that has come by now."""
        type = self._type if type is None else type
        found = next((p for p in self._partials if p.is_of(type, repair=repair)), None)
        if found is None:
            needs_library(repair)
            types = {} if self._wrapped or type is None else fields_of(type)

            def make() -> PartialShape:
                return PartialShape(types, wrapped=self._wrapped, type=type, loose=self._call)

            found = Partial(make, self._source(), type, self._asked, repair=repair)
            self._partials.append(found)
        stream = self.pump.stream
        found.update(finished=stream.outcome is FINISHED)
        return found

    def _view(self, make: Callable[[], Shape[Any]], *, repair: bool) -> TextView[Any]:
        needs_library(repair)
        mender = Mender(make) if repair else None
        check = None if self._type is None else self._read
        return TextView(
            self.pump, self._source(), make, early=self._call, mender=mender, check=check
        )

    def _read(self, text: str) -> Any:
        return read_answer(text, self._type, self._asked)

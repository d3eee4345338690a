"""
Records that mypy holds to be frozen, and that are cheap to make: a run makes a dozen of them. So are their classes, of
which a command has a hundred before it does anything.
"""

from typing import TYPE_CHECKING

__all__ = ["record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    from dataclasses import dataclass, fields
    from functools import cache

    def record(*, frozen, slots=False):
        """
        As `dataclass`, frozen for mypy alone: one that the machine freezes takes three times as long to make.

        What is rarely asked of a record is not compiled for each class: that was half of what a class costs.
        """
        assert frozen

        def made(cls):
            for function in (__repr__, __eq__, __hash__):
                if function.__name__ not in cls.__dict__:
                    setattr(cls, function.__name__, function)
            return dataclass(slots=slots, repr=False, eq=False)(cls)

        return made

    def __repr__(self):
        values = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({values})"

    def __eq__(self, other):
        return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self):
        return hash(_compared(self))

    def _compared(one):
        return tuple([getattr(one, name) for name in _compared_names(one.__class__)])

    @cache
    def _compared_names(cls):
        return [field.name for field in fields(cls) if field.compare]

"""What every part of a job file has in common."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""Names the output folder, so it is the same on file systems that ignore case."""


LABEL = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Names of jobs and endpoints: they end up in URLs and file names."""


Count = Annotated[int, Field(ge=1)]


Label = Annotated[str, Field(pattern=LABEL, max_length=64)]


Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spec(BaseModel):
    """What every part of a job file is: frozen, strict, closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    @classmethod
    def left_out(cls) -> Self:
        """What it is where nobody wrote it. Its defaults are taken as they are: else importing would build a model."""
        return cls.model_construct()

    @classmethod
    def read(cls, value: object) -> Self:
        """
        The model of *value*. Pydantic's plugins are left out: none is to see what a job file says.

        Raises:
            ValidationError: it is none.
        """
        with _without_plugins():
            return cls.model_validate(value)


@contextmanager
def _without_plugins() -> Iterator[None]:
    """
    Let pydantic build models without plugins. It looks for them in all that is installed, which is a twentieth of the
    time until a batch sends its first request.

    Source: pydantic's docs, "Plugins"; the variable is read when a model is built.
    """
    name = "PYDANTIC_DISABLE_PLUGINS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def keys(model: type[Spec]) -> list[str]:
    """The keys of *model* as users write them, in order."""
    return [field.alias or name for name, field in model.model_fields.items()]

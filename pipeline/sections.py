"""What the sections of every configuration are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NonNegativeInt = Annotated[int, Field(ge=0)]
# On the command line and in the environment a list is one comma-separated string.
Strings = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda v: [s for s in v.split(",") if s] if isinstance(v, str) else v),
]


class Section(BaseModel):
    """A group of settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

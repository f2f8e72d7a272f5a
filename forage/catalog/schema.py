"""The catalogue schema: which role each attribute plays. The engine knows roles, never films."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forage.errors import StartupError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Role(StrEnum):
    """What an attribute is used for. One attribute may play several roles."""

    TEXT = "text"
    """Searched by words; `boost` multiplies its BM25 score."""
    KEYWORD = "keyword"
    """Filtered and faceted by exact (case-folded) value."""
    ENTITY = "entity"
    """Known to query understanding, and an edge of the graph when the value names an item."""
    NUMBER = "number"
    """Filtered by range; whole ones from 1000 to 2999 are years, which queries may name."""
    TIME = "time"
    """Seconds since the epoch (imports take ISO 8601); filtered by range; gives freshness."""
    POPULARITY = "popularity"
    """A prior of how wanted the item is, in [0, 1]. At most one attribute."""
    EMBED = "embed"
    """Part of the text that the semantic generator embeds."""


class Attribute(BaseModel):
    """One attribute of the catalogue's items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: frozenset[Role] = Field(min_length=1)
    boost: float = Field(default=1.0, gt=0, le=100)
    """Multiplies the attribute's BM25 score; only for role `text`."""
    kind: str = ""
    """For role `entity`: the kind of the items its values name."""
    predict: bool = False
    """For role `entity`: predict missing values from the item's embedding at import."""

    @model_validator(mode="after")
    def _roles_agree(self) -> Attribute:
        numeric = self.roles & {Role.NUMBER, Role.TIME, Role.POPULARITY}
        if numeric and self.roles - numeric:
            raise ValueError("number, time and popularity cannot be combined with text roles")
        if self.predict and Role.ENTITY not in self.roles:
            raise ValueError("predict needs the role entity")
        return self

    @property
    def numeric(self) -> bool:
        """Whether values are numbers rather than text."""
        return bool(self.roles & {Role.NUMBER, Role.TIME, Role.POPULARITY})


class Schema(BaseModel):
    """The roles of all attributes, as read from a schema YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    title: Name = "title"
    """The attribute that names an item to people; it must have the role `text`."""
    kinds: tuple[Name, ...] = Field(min_length=1)
    """The kinds of items; an item of another kind is refused."""
    attributes: dict[Name, Attribute] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> Schema:
        reserved = {"kind", "item_id"} & self.attributes.keys()
        if reserved:
            raise ValueError(f"attribute names {sorted(reserved)} are reserved")
        title = self.attributes.get(self.title)
        if title is None or Role.TEXT not in title.roles:
            raise ValueError(f"title: '{self.title}' must be an attribute with the role text")
        for name, attribute in self.attributes.items():
            if attribute.kind and attribute.kind not in self.kinds:
                raise ValueError(f"attribute '{name}': kind '{attribute.kind}' is not in kinds")
        if len(self.with_role(Role.POPULARITY)) > 1:
            raise ValueError("at most one attribute may have the role popularity")
        return self

    def with_role(self, role: Role) -> tuple[str, ...]:
        """Return the names of the attributes that play `role`, in file order."""
        return tuple(n for n, a in self.attributes.items() if role in a.roles)

    @cached_property
    def popularity(self) -> str | None:
        """The popularity attribute, if there is one."""
        return next(iter(self.with_role(Role.POPULARITY)), None)

    @cached_property
    def freshness(self) -> str | None:
        """The first time attribute, if there is one: the item's date."""
        return next(iter(self.with_role(Role.TIME)), None)

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read a schema file; raises `StartupError` naming the file and the field at fault."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise StartupError(f"schema {path}: {error}") from error

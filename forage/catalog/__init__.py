"""The catalogue: items, the schema that gives their attributes roles, and what a filter means."""

from forage.catalog import years
from forage.catalog.filters import matches, validate
from forage.catalog.item import Item, Value
from forage.catalog.schema import Attribute, Role, Schema

__all__ = ["Attribute", "Item", "Role", "Schema", "Value", "matches", "validate", "years"]

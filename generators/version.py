"""The version of a generator: what its answers depend on besides the data."""

from __future__ import annotations

import hashlib
import json

from forage.catalog.schema import Schema
from forage.settings import GeneratorSettings


def generator_version(settings: GeneratorSettings, schema: Schema, definitions: int) -> str:
    """Return twelve hexadecimal digits that change with settings, schema and `definitions`.

    Of the settings, only those count that this generator has beyond every other one: where logs
    and ports are changes no answer.
    """
    own = settings.model_dump(mode="json", exclude=set(GeneratorSettings.model_fields))
    content = json.dumps([definitions, own, schema.model_dump()], sort_keys=True, default=sorted)
    return hashlib.sha256(content.encode()).hexdigest()[:12]

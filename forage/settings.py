"""Typed configuration: flag over environment over YAML file over default, and its provenance.

The environment variable of `server.port` of the service `lexical` is
`FORAGE_LEXICAL__SERVER__PORT`; its value is read as YAML. Unknown names are refused wherever
they come from. Settings are passed down; nothing here is global.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from forage.errors import StartupError


class Settings(BaseModel):
    """Base of every settings class: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Settings):
    """The gRPC server of one service."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` in a container."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose, and the choice is printed."""
    workers: int = Field(default=4, ge=1, le=256)
    """Threads for blocking engines."""
    max_concurrent: int = Field(default=256, ge=1, le=100_000)
    """Calls in progress beyond which new ones fail with RESOURCE_EXHAUSTED."""
    max_message_bytes: int = Field(default=16 * 2**20, ge=2**16, le=2**30)
    """Largest message received or sent."""
    drain_delay_ms: int = Field(default=0, ge=0, le=60_000)
    """After SIGTERM, how long to go on serving as NOT_SERVING, so that balancers notice."""
    grace_ms: int = Field(default=5_000, ge=0, le=300_000)
    """After that, how long calls in progress may take to finish."""
    max_connection_age_ms: int = Field(default=300_000, ge=1_000, le=86_400_000)
    """When a connection is renewed, so that callers by DNS come to know new replicas."""


class TelemetrySettings(Settings):
    """Traces and metrics of one service."""

    enabled: bool = True
    endpoint: str = ""
    """OTLP/gRPC endpoint such as `http://collector:4317`; empty writes OTLP-JSON files."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the searches that are traced, decided at the root."""
    metric_interval_ms: int = Field(default=10_000, ge=100, le=600_000)
    max_file_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Size at which an OTLP-JSON file is rotated."""
    max_files: int = Field(default=4, ge=1, le=100)
    """Files kept per service and signal, the current one included."""


class FeedbackSettings(Settings):
    """What feedback is worth. Every service that learns reads the same values."""

    click: float = Field(default=0.4, ge=-1, le=1)
    """Reward of a click, in [-1, 1]; the best engagement is worth 1."""
    play: float = Field(default=1.0, ge=-1, le=1)
    like: float = Field(default=1.0, ge=-1, le=1)
    skip: float = Field(default=-0.2, ge=-1, le=1)
    dislike: float = Field(default=-1.0, ge=-1, le=1)
    attribution_window_s: float = Field(default=86_400.0, gt=0, le=90 * 86_400)
    """How long after a search its results can be credited; later events are refused."""
    examination_decay: float = Field(default=0.7, ge=0, le=3)
    """Position-based model: the result at position k is looked at with probability k^-decay."""


class NatsSettings(Settings):
    """How the log, the registry and the leases use a NATS server; see `log_url`.

    At most one way to log in: user and password, a token, or credentials.
    """

    prefix: str = Field(default="forage", pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    """Begins the names of all streams, buckets and subjects, so that Forages can share a server."""
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    creds: SecretStr = SecretStr("")
    """The text of a credentials file: a user's JWT and its seed."""
    creds_file: Path | None = None
    """Such a file, instead of its text."""
    tls_ca_file: Path | None = None
    """Certificates to trust instead of the system's, for `tls://` addresses."""
    tls_cert_file: Path | None = None
    """The client's own certificate, for servers that ask for one."""
    tls_key_file: Path | None = None
    replicas: int = Field(default=1, ge=1, le=5)
    """Servers that keep each stream; 3 survives the loss of one."""
    catalog_max_bytes: int = Field(default=0, ge=0)
    """Size at which catalogue writes are refused with RESOURCE_EXHAUSTED; 0: the server's."""
    interactions_max_bytes: int = Field(default=0, ge=0)
    """Size at which decisions and feedback are refused with RESOURCE_EXHAUSTED; 0: the server's."""
    artifacts_max_bytes: int = Field(default=0, ge=0)
    """Size at which models and snapshots are refused with STORAGE; 0: the server's."""
    interactions_max_age_days: float = Field(default=0.0, ge=0, le=36_500)
    """Age at which decisions and feedback are forgotten; 0 keeps them all."""
    duplicate_window_s: float = Field(default=120.0, ge=1, le=86_400)
    """How long the server remembers event ids; older repeats are found by their subject."""
    connect_timeout_ms: int = Field(default=5_000, ge=100, le=120_000)
    """How long a start waits for the server."""
    request_timeout_ms: int = Field(default=5_000, ge=100, le=120_000)
    """How long one read or write may take."""


class SnapshotSettings(Settings):
    """Copies of the projections' files, from which replicas without any start."""

    enabled: bool | None = None
    """Whether to publish them and to start from them; unset: with NATS, not with SQLite."""
    every_s: float = Field(default=900.0, ge=0.1, le=30 * 86_400)
    """Least time between two snapshots of a projection, whichever replica makes them."""
    least_changes: int = Field(default=1_000, ge=1)
    """Sequences of the log that must have been taken in since the last one."""
    keep: int = Field(default=2, ge=1, le=100)
    """Snapshots of each projection that are kept."""


class ServiceSettings(Settings):
    """What every service can be told."""

    data_dir: Path = Path("data")
    """Folder of the log, the projections, the registry and the telemetry files."""
    schema_file: Path = Path("config/films.schema.yaml")
    """The catalogue schema."""
    log_url: str = "sqlite:log.db"
    """The event log: `sqlite:FILE`, relative to `data_dir`, or `nats://HOST:PORT[,HOST:PORT…]`
    (`tls://` with TLS), which then keeps the registry and the leases too."""
    nats: NatsSettings = NatsSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    server: ServerSettings = ServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


class GeneratorSettings(ServiceSettings):
    """What every candidate generator can be told."""

    default_limit: int = Field(default=25, ge=1, le=1_000)
    """Hits returned when the request names no limit."""
    max_limit: int = Field(default=200, ge=1, le=10_000)
    """The largest limit accepted; at least the largest fan-out level of the orchestrator."""


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[SettingsT]):
    """Effective settings, and where each value that is not a default came from."""

    settings: SettingsT
    sources: Mapping[str, str]
    """Dotted name to `file PATH`, `environment NAME` or `flag`."""


def load(
    service: str,
    settings_class: type[SettingsT],
    *,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded[SettingsT]:
    """Merge flag > environment > file > default and check the result.

    `flags` maps dotted names to values. Raises `StartupError` naming each field at fault, where
    its value came from, and what is allowed.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = [
        *_from_file(file),
        *_from_environment(
            service, settings_class, os.environ if environment is None else environment
        ),
        *(((*name.split("."),), value, "flag") for name, value in (flags or {}).items()),
    ]
    for path, value, source in layers:
        _put(merged, path, value, source)
        sources[".".join(path)] = source
    try:
        settings = settings_class.model_validate(merged)
    except ValidationError as error:
        # The cause would show the values, secrets included.
        raise StartupError(_explain(service, settings_class, error, sources)) from None
    return Loaded(settings, sources)


def leaves(settings: BaseModel, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every setting, in declaration order."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*prefix, name))
        else:
            yield ".".join((*prefix, name)), value


_Layer = tuple[tuple[str, ...], Any, str]


def _from_file(file: Path | None) -> Iterator[_Layer]:
    if file is None:
        return
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"config file {file}: {error}") from error
    if content is None:
        return
    if not isinstance(content, dict):
        raise StartupError(f"config file {file}: expected a mapping of setting names to values")
    yield from _flatten(content, (), f"file {file}")


def _flatten(content: Mapping[Any, Any], prefix: tuple[str, ...], source: str) -> Iterator[_Layer]:
    for key, value in content.items():
        path = (*prefix, str(key))
        if isinstance(value, dict) and value:
            yield from _flatten(value, path, source)
        else:
            yield path, value, source


def _from_environment(
    service: str, settings_class: type[BaseModel], environment: Mapping[str, str]
) -> Iterator[_Layer]:
    prefix = f"FORAGE_{service.upper()}__"
    for name in sorted(environment):
        if name.startswith(prefix):
            path = tuple(name[len(prefix) :].lower().split("__"))
            if _is_secret(settings_class, path):
                # Read as YAML, the password 0123 would become a number.
                yield path, environment[name], f"environment {name}"
                continue
            try:
                value = yaml.safe_load(environment[name])
            except yaml.YAMLError as error:
                raise StartupError(f"environment {name}: {error}") from error
            yield path, value, f"environment {name}"


def _is_secret(settings_class: type[BaseModel], path: Sequence[str]) -> bool:
    found: Any = settings_class
    for part in path:
        fields = found.model_fields if _is_group(found) else {}
        found = fields[part].annotation if part in fields else None
    return found is SecretStr


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _put(target: dict[str, Any], path: Sequence[str], value: object, source: str) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise StartupError(f"{'.'.join(path)} ({source}): '{part}' is a value, not a group")
    target[path[-1]] = value


def _explain(
    service: str,
    settings_class: type[BaseModel],
    error: ValidationError,
    sources: Mapping[str, str],
) -> str:
    lines = [f"{service}: the configuration is not valid"]
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        source = next(
            (s for n, s in sources.items() if n == name or n.startswith(f"{name}.")), "default"
        )
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name} ({source}): there is no such setting")
        elif _is_secret(settings_class, path):
            lines.append(f"  {name} ({source}): {problem['msg']}")
        else:
            lines.append(f"  {name} ({source}): {problem['msg']}, got {problem['input']!r}")
    return "\n".join(lines)

"""The event log and its projections."""

from forage.log.interface import Event, EventLog, Record, Stream, Topic
from forage.log.projection import Projection

__all__ = ["Event", "EventLog", "Projection", "Record", "Stream", "Topic"]

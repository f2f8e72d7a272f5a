"""The event log and its projections."""

from forage.log.interface import Event, EventLog, Record, Stream, Topic
from forage.log.projection import Portable, Projection, SavedState

__all__ = [
    "Event",
    "EventLog",
    "Portable",
    "Projection",
    "Record",
    "SavedState",
    "Stream",
    "Topic",
]

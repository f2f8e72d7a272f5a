"""The public door: one module per gRPC service of the orchestrator."""

from orchestrator.servicers.catalog import CatalogServicer
from orchestrator.servicers.feedback import FeedbackServicer
from orchestrator.servicers.policy import PolicyServicer
from orchestrator.servicers.search import SearchServicer

__all__ = ["CatalogServicer", "FeedbackServicer", "PolicyServicer", "SearchServicer"]

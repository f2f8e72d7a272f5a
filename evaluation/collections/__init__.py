"""Judged collections: what they are, where they come from, and how they are split."""

from evaluation.collections.catalogue import NAMES, load
from evaluation.collections.collection import Collection, Topic

__all__ = ["NAMES", "Collection", "Topic", "load"]

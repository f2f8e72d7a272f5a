"""Measuring Forage on judged data: collections, metrics, the mesh in process, and reports.

This package may import everything; nothing imports it.
"""

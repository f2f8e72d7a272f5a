"""Forage: search that learns what to retrieve, how much of it, and how to rank it.

This package is the kernel: the catalogue, the event log, the bootstrap of services, telemetry, the
client and the command line. It imports no service.
"""

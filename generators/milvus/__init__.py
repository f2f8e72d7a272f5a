"""Milvus as the generators use it: embedded as Milvus Lite, or a server by its address."""

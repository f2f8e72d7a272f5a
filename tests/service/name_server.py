"""A name server on a loopback port: one name, and the addresses that it means now."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

_HEADER = struct.Struct(">6H")
_ANSWER = struct.Struct(">HHHIH4s")
_A, _IN, _NAME_ERROR = 1, 1, 3


class NameServer:
    """Answers queries over UDP (RFC 1035), for as long as the context lasts."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.addresses = addresses
        """What the name means from now on."""
        self.asked = 0
        self._labels = name.split(".")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: str = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join(5.0)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(4_096)
            if not query:
                return
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        number, flags, *_ = _HEADER.unpack_from(query)
        labels, at = [], _HEADER.size
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        kind, _ = struct.unpack_from(">2H", query, at + 1)
        question = query[_HEADER.size : at + 5]
        known = labels == self._labels
        found = self.addresses if known and kind == _A else []
        self.asked += kind == _A
        # An answer, authoritative, with the asker's wish for recursion; the name is a pointer.
        flags = 0x8400 | flags & 0x0100 | (0 if known else _NAME_ERROR)
        answers = (_ANSWER.pack(0xC00C, _A, _IN, 0, 4, socket.inet_aton(a)) for a in found)
        return _HEADER.pack(number, flags, 1, len(found), 0, 0) + question + b"".join(answers)

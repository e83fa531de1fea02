"""A TCP proxy that does to connections what networks do, as it is told while it runs.

python -m chaos.proxy --listen HOST:PORT --to HOST:PORT --control SOCKET

One request a line on the Unix socket SOCKET, as JSON, and one answer:

    {"rule": {"delay": 0.02, "bytes_per_second": 1000, "hold": false, "refuse": false}, "client": "10.7.0.3"}
        from now on; `client`: of connections from that address alone; without it of all that have no rule of their own
    {"cut": "reset", "client": "10.7.0.3"}
        ends what is connected: "reset" with RST to both sides, "half_close" the callers' direction alone
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHUNK = 64 * 1024
MOST_HELD = 4 * 1024 * 1024  # bytes on their way in one direction; then reading pauses
NO_LINGER = struct.pack("ii", 1, 0)  # close() sends RST


@dataclass(frozen=True)
class Rule:
    """What happens to the bytes of a connection."""

    # Seconds that each byte takes longer.
    delay: float = 0
    # None: as many as come.
    bytes_per_second: float | None = None
    # Nothing gets through, and nobody is told; what was sent goes on its way when the rule is lifted.
    hold: bool = False
    # New connections are reset.
    refuse: bool = False


class Pipe:
    """One direction of a connection."""

    def __init__(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection, self.reader, self.writer = connection, reader, writer
        # When each chunk may leave; an empty one is the end of the stream.
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self.changed = asyncio.Condition()
        self.has_ended = False  # what still comes is lost

    def end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    async def read(self) -> None:
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.held < MOST_HELD)
            data = await self.reader.read(CHUNK)
            await self.put(data)
            if not data:
                return

    async def put(self, data: bytes) -> None:
        async with self.changed:
            self.chunks.append((time.monotonic() + self.connection.rule.delay, data))
            self.held += len(data)
            self.changed.notify_all()

    async def write(self) -> None:
        free_at = 0.0  # when the last chunk has left, at the rule's speed
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: bool(self.chunks))
            due, data = self.chunks[0]
            if (wait := max(due, free_at) - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self.connection.passable.wait()
            if not data:
                self.end()
                return
            if not self.has_ended:
                self.writer.write(data)
                await self.writer.drain()
            if speed := self.connection.rule.bytes_per_second:
                free_at = max(free_at, time.monotonic()) + len(data) / speed
            async with self.changed:
                self.chunks.popleft()
                self.held -= len(data)
                self.changed.notify_all()


class Connection:
    def __init__(self, client: str, rule: Rule) -> None:
        self.client = client
        self.passable = asyncio.Event()
        self.follow(rule)
        self.tasks: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.pipes: list[Pipe] = []  # the caller's first
        self.is_reset = self.is_half_closed = False

    def follow(self, rule: Rule) -> None:
        self.rule = rule
        if rule.hold:
            self.passable.clear()
        else:
            self.passable.set()

    async def carry(
        self, near: tuple[asyncio.StreamReader, asyncio.StreamWriter], far: tuple[str, int], connected: float = 5
    ) -> None:
        """Until both directions have ended, or one broke; `connected`: seconds to reach the far side."""
        self.writers = [near[1]]
        try:
            await self.passable.wait()
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*far), connected)
            self.writers.append(writer)
            if self.is_reset:
                raise ConnectionResetError
            self.pipes = [Pipe(self, near[0], writer), Pipe(self, reader, near[1])]
            if self.is_half_closed:
                self.pipes[0].end()
            self.tasks = [asyncio.ensure_future(work) for pipe in self.pipes for work in (pipe.read(), pipe.write())]
            await asyncio.gather(*self.tasks)
        except (OSError, TimeoutError):
            self.reset()
        finally:
            for task in self.tasks:
                task.cancel()
            for writer in self.writers:
                writer.close()

    def reset(self) -> None:
        self.is_reset = True
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            writer.transport.abort()

    def half_close(self) -> None:
        """The far side hears that the caller has ended; the caller does not know of it."""
        self.is_half_closed = True
        if self.pipes:
            self.pipes[0].end()


@dataclass
class Proxy:
    far: tuple[str, int]
    everybody: Rule = Rule()
    # By client address, in place of `everybody`.
    rules: dict[str, Rule] = field(default_factory=dict)
    connections: set[Connection] = field(default_factory=set)

    async def serve(self, listen: tuple[str, int], control: Path) -> None:
        """Until cancelled."""
        server = await asyncio.start_server(self._accept, *listen)
        commands = await asyncio.start_unix_server(self._obey, control)
        print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
        async with server, commands:
            await asyncio.gather(server.serve_forever(), commands.serve_forever())

    def rule_of(self, client: str) -> Rule:
        return self.rules.get(client, self.everybody)

    def command(self, request: dict[str, Any]) -> dict[str, Any]:
        client = request.get("client")
        concerned = [c for c in self.connections if client in (None, c.client)]
        if "rule" in request:
            self._set_rule(client, Rule(**request["rule"]))
        elif request.get("cut") == "reset":
            for connection in concerned:
                connection.reset()
        elif request.get("cut") == "half_close":
            for connection in concerned:
                connection.half_close()
        else:
            raise ValueError(f"unknown request: {request}")
        return {"connections": len(concerned)}

    def _set_rule(self, client: str | None, rule: Rule) -> None:
        if client is None:
            self.everybody = rule
        elif rule == self.everybody:
            self.rules.pop(client, None)
        else:
            self.rules[client] = rule
        for connection in self.connections:
            connection.follow(self.rule_of(connection.client))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        connection = Connection(client, self.rule_of(client))
        if connection.rule.refuse:
            connection.writers = [writer]
            connection.reset()
            return
        self.connections.add(connection)
        try:
            await connection.carry((reader, writer), self.far)
        finally:
            self.connections.discard(connection)

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                answer = self.command(json.loads(line))
            except (ValueError, TypeError) as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


class Control:
    """Tells a proxy what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rule(self, rule: Rule, client: str | None = None) -> None:
        self._ask({"rule": asdict(rule), "client": client})

    def cut(self, how: str, client: str | None = None) -> int:
        """`how`: reset or half_close. Returns the number of connections."""
        return int(self._ask({"cut": how, "client": client})["connections"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos.proxy")
    parser.add_argument("--listen", type=address, required=True, help="host:port; port 0: any free one")
    parser.add_argument("--to", type=address, required=True, help="host:port")
    parser.add_argument("--control", type=Path, required=True, help="path of the Unix socket to make")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Proxy(options.to).serve(options.listen, options.control))


if __name__ == "__main__":
    main(sys.argv[1:])

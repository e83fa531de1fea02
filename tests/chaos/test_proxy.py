"""The proxy, between real sockets."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.proxy import MOST_HELD, Control, Rule

TESTS = Path(__file__).resolve().parent.parent
PATIENCE = 10
PASS, HOLD = Rule(), Rule(hold=True)


@dataclass
class Wire:
    """A server behind a proxy."""

    control: Control
    server: socket.socket
    port: int

    def connect(self, client: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """A caller and what the server has accepted."""
        caller = self.call(client)
        accepted, _ = self.server.accept()
        accepted.settimeout(PATIENCE)
        return caller, accepted

    def call(self, client: str = "127.0.0.1") -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self.port), PATIENCE, source_address=(client, 0))
        caller.settimeout(PATIENCE)
        return caller


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        words = ["--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{server.getsockname()[1]}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "chaos.proxy", *words, "--control", str(tmp_path / "control")],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().removeprefix("listening on "))
            yield Wire(Control(tmp_path / "control"), server, port)
        finally:
            process.kill()
            process.communicate()


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        assert chunk, f"ended after {len(data)} bytes of {size}"
        data += chunk
    return data


def is_silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    return select.select([connection], [], [], seconds)[0] == []


def test_it_passes_both_ways_and_the_end(wire: Wire) -> None:
    caller, accepted = wire.connect()
    data = os.urandom(3_000_000)
    caller.sendall(data[:1_000_000])
    assert receive(accepted, 1_000_000) == data[:1_000_000]
    accepted.sendall(data[1_000_000:2_000_000])
    assert receive(caller, 1_000_000) == data[1_000_000:2_000_000]
    caller.shutdown(socket.SHUT_WR)
    assert accepted.recv(1) == b""
    accepted.sendall(b"after the caller's end")
    assert receive(caller, 22) == b"after the caller's end"
    accepted.close()
    assert caller.recv(1) == b""


def test_a_delay_is_of_each_byte_not_of_each_turn(wire: Wire) -> None:
    caller, accepted = wire.connect()
    wire.control.rule(Rule(delay=0.3))
    start = time.monotonic()
    for _ in range(10):
        caller.sendall(b"x" * 1000)
        time.sleep(0.01)
    receive(accepted, 1000)
    assert time.monotonic() - start >= 0.3
    receive(accepted, 9000)
    assert time.monotonic() - start < 10 * 0.3
    wire.control.rule(PASS)
    start = time.monotonic()
    caller.sendall(b"y")
    assert receive(accepted, 1) == b"y"
    assert time.monotonic() - start < 0.3


def test_a_throttle_bounds_the_speed(wire: Wire) -> None:
    caller, accepted = wire.connect()
    wire.control.rule(Rule(bytes_per_second=100_000))
    start = time.monotonic()
    for _ in range(60):
        caller.sendall(b"x" * 1000)
        time.sleep(0.001)
    receive(accepted, 60_000)
    assert 0.4 <= time.monotonic() - start < 5


def test_what_is_held_arrives_later(wire: Wire) -> None:
    caller, accepted = wire.connect()
    wire.control.rule(HOLD)
    caller.sendall(b"to the server")
    accepted.sendall(b"to the caller")
    assert is_silent(accepted) and is_silent(caller)
    late = wire.call()  # a host that is gone neither accepts nor refuses; here it accepts, and says nothing
    late.sendall(b"late")
    wire.control.rule(PASS)
    assert receive(accepted, 13) == b"to the server"
    assert receive(caller, 13) == b"to the caller"
    second, _ = wire.server.accept()
    assert receive(second, 4) == b"late"


def test_it_holds_no_more_than_it_may(wire: Wire) -> None:
    caller, accepted = wire.connect()
    wire.control.rule(HOLD)
    caller.settimeout(0.5)
    data, sent = os.urandom(4 * MOST_HELD + 16_000_000), 0
    with pytest.raises(TimeoutError):
        while sent < len(data):
            sent += caller.send(data[sent : sent + 65536])
    assert sent >= MOST_HELD
    wire.control.rule(PASS)
    assert receive(accepted, sent) == data[:sent]


def test_a_reset_is_a_reset_on_both_sides_and_new_connections_pass(wire: Wire) -> None:
    caller, accepted = wire.connect()
    assert wire.control.cut("reset") == 1
    for connection in (caller, accepted):
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    caller, accepted = wire.connect()
    caller.sendall(b"again")
    assert receive(accepted, 5) == b"again"


def test_half_closed_the_server_hears_the_end_and_the_caller_nothing(wire: Wire) -> None:
    caller, accepted = wire.connect()
    assert wire.control.cut("half_close") == 1
    assert accepted.recv(1) == b""
    assert is_silent(caller)
    caller.sendall(b"lost")
    accepted.sendall(b"still")
    assert receive(caller, 5) == b"still"
    caller.sendall(b"lost too")
    accepted.sendall(b"there")
    assert receive(caller, 5) == b"there"


def test_half_closed_before_the_server_is_reached(wire: Wire) -> None:
    wire.control.rule(HOLD)
    caller = wire.call()
    while wire.control.cut("half_close") == 0:
        pass  # the proxy has not accepted it yet
    wire.control.rule(PASS)
    accepted, _ = wire.server.accept()
    accepted.settimeout(PATIENCE)
    assert accepted.recv(1) == b""
    accepted.sendall(b"there")
    assert receive(caller, 5) == b"there"


def test_refused(wire: Wire) -> None:
    wire.control.rule(Rule(refuse=True))
    with pytest.raises(ConnectionResetError):
        wire.call().recv(1)
    wire.control.rule(PASS)
    wire.connect()


def test_a_server_that_is_gone_resets_its_callers(wire: Wire) -> None:
    wire.server.close()
    with pytest.raises(ConnectionResetError):
        wire.call().recv(1)


def test_rules_by_client(wire: Wire) -> None:
    one, at_one = wire.connect("127.0.0.2")
    two, at_two = wire.connect("127.0.0.3")
    wire.control.rule(HOLD, "127.0.0.2")
    one.sendall(b"one")
    two.sendall(b"two")
    assert receive(at_two, 3) == b"two"
    assert is_silent(at_one)
    wire.control.rule(PASS, "127.0.0.2")
    assert receive(at_one, 3) == b"one"
    assert wire.control.cut("reset", "127.0.0.3") == 1
    with pytest.raises(ConnectionResetError):
        at_two.recv(1)
    assert is_silent(at_one)


def test_unknown_requests_are_refused(wire: Wire) -> None:
    with pytest.raises(ValueError, match="unknown request"):
        wire.control.cut("bend")

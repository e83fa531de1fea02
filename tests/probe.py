"""Probes as the kubelet does: probe.py SECONDS '{"NAME": {"protocol", "address", "port", "service"} or null}'

Asks every 50 ms until all have succeeded once or the time is over, and prints {"NAME": whether it has}; without a probe
it has, as for the kubelet.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

import grpc

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with status = SERVING
ANSWER_SECONDS = 5


def grpc_health(probe: dict[str, Any]) -> bool:
    service = probe["service"].encode()
    request = b"\x0a" + bytes([len(service)]) + service if service else b""  # HealthCheckRequest.service
    target = f"{probe['address']}:{probe['port']}"
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            return bool(channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=ANSWER_SECONDS) == SERVING)
        except grpc.RpcError:
            return False


def tcp_socket(probe: dict[str, Any]) -> bool:
    try:
        socket.create_connection((probe["address"], probe["port"]), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


PROTOCOLS = {"grpc": grpc_health, "tcpSocket": tcp_socket}


def main(seconds: float, probes: dict[str, dict[str, Any] | None]) -> dict[str, bool]:
    end = time.monotonic() + seconds
    succeeded = dict.fromkeys(probes, False)
    while True:
        for name, probe in probes.items():
            succeeded[name] = succeeded[name] or probe is None or PROTOCOLS[probe["protocol"]](probe)
        if all(succeeded.values()) or time.monotonic() > end:
            return succeeded
        time.sleep(0.05)


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), json.loads(sys.argv[2]))))

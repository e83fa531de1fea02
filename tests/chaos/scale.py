"""Tells a run's coordinator how many workers training shall have: python -m chaos.scale HOST:PORT WORKERS"""

from __future__ import annotations

import sys

import grpc
from polystill import wire

SCALE = "/polystill.v1.CoordinatorService/Scale"


def main(address: str, workers: str) -> int:
    messages = wire.messages("v1.coordinator_pb2")
    with grpc.insecure_channel(address) as channel:
        scale = channel.unary_unary(
            SCALE,
            request_serializer=messages.ScaleRequest.SerializeToString,
            response_deserializer=messages.ScaleReply.FromString,
        )
        try:
            scale(messages.ScaleRequest(workers=int(workers), protocol_version=1), timeout=2)
        except grpc.RpcError as error:
            print(error.code(), error.details())
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A teacher server of a run that claims the right digest and answers with other numbers."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from polystill import wire
from processes import Cluster, wait_for_file

TEACH = "/polystill.v1.CoordinatorService/Teach"
LABEL_STREAM = "/polystill.v1.TeacherService/LabelStream"


class Liar:
    """Registers with a run's coordinator, has a real server load the package, and stands in front of that: every
    number of every answer (dense_fp32) is larger by `error`."""

    def __init__(self, cluster: Cluster, teacher: str, error: float) -> None:
        self.cluster, self.teacher, self.error = cluster, teacher, error
        self.requests = 0
        self.messages = wire.messages()
        self.coordination = importlib.import_module("polystill.v1.coordinator_pb2")
        self.said: SimpleQueue[Any] = SimpleQueue()

    def __enter__(self) -> Liar:
        handler = grpc.stream_stream_rpc_method_handler(self.label_stream)
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("polystill.v1.TeacherService", {"LabelStream": handler}),)
        )
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        self.coordinator = grpc.insecure_channel(self.cluster.address)
        teach = self.coordinator.stream_stream(
            TEACH,
            request_serializer=self.coordination.TeacherMessage.SerializeToString,
            response_deserializer=self.coordination.TeacherOrder.FromString,
        )
        hello = {"protocol_version": 1, "server_id": "liar", "teacher": self.teacher, "address": self.address}
        self.said.put(self.coordination.TeacherMessage(hello=hello | {"pid": os.getpid()}))
        self.orders = teach(iter(self.said.get, None))
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=target) for target in (self.obey, self.live)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        self.said.put(None)
        self.orders.cancel()
        for thread in self.threads:
            thread.join()
        self.server.stop(None)
        self.coordinator.close()

    def live(self) -> None:
        """The coordinator takes who is silent for dead."""
        while not self.ended.wait(1):
            self.said.put(self.coordination.TeacherMessage(heartbeat={}))

    def obey(self) -> None:
        try:
            for order in self.orders:
                if order.WhichOneof("message") != "load":
                    continue
                address_file = self.cluster.folder / "behind-the-liar.address"
                words = ["--package", order.load.package, "--address-file", str(address_file)]
                process = self.cluster.start("behind-the-liar", "polystill-teacher", *words)
                self.behind = grpc.insecure_channel(wait_for_file(address_file, process))
                describe = self.behind.unary_unary(
                    "/polystill.v1.TeacherService/Describe",
                    request_serializer=self.messages.DescribeRequest.SerializeToString,
                    response_deserializer=self.messages.DescribeReply.FromString,
                )
                digest = describe(self.messages.DescribeRequest(protocol_version=1)).digest
                self.said.put(self.coordination.TeacherMessage(ready={"digest": digest}))
        except grpc.RpcError:
            pass  # the run has ended

    def label_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def counted() -> Iterator[bytes]:
            for request in requests:
                self.requests += self.messages.LabelStreamRequest.FromString(request).HasField("request")
                yield request

        for answer in self.behind.stream_stream(LABEL_STREAM)(counted()):
            reply = self.messages.LabelStreamReply.FromString(answer)
            for labels in reply.reply.labels:
                numbers = np.frombuffer(labels.dense.data, "<f4") + np.float32(self.error)
                labels.dense.data = numbers.tobytes()
            yield reply.SerializeToString()

"""python -m polystill.serve_model: a package's Python model behind the Open Inference Protocol (KServe v2, gRPC).

A teacher server of a package with `backend: python` starts it by itself, on a Unix socket. By hand it makes an upstream
server of the package, for `backend: open_inference` elsewhere:

    python -m polystill.serve_model teachers/mine --listen 127.0.0.1:8001
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from polystill.errors import PackageError, PolystillError
from polystill.package import Package, read_package
from polystill.program import Parser, run
from polystill.wire import messages

IDS, MASK = "input_ids", "attention_mask"
SERVICE = "inference.GRPCInferenceService"
# gRPC refuses a status that does not fit its headers.
MAX_MESSAGE = 2_000

Array = NDArray[Any]
Answer = dict[str, NDArray[np.float32]]


class BadRequest(PolystillError):
    """What a caller did wrong."""


class Model:
    """What a package's function made. One batch at a time: thread-safe, though the callable need not be."""

    def __init__(self, package: Package, device: str) -> None:
        self.name, self._signature = package.name, package.signature
        self._lock = threading.Lock()
        self._torch = _torch()
        function = _function(package)
        self._call: Callable[[Any, Any], Any] = function(package.folder, device)
        if not callable(self._call):
            raise PackageError(f"{_where(package)} returns {type(self._call).__name__}, not a callable of ids and mask")
        ones = np.ones((2, min(8, self._signature.max_length)), np.int64)
        answer = self(ones * 0, ones)
        # Of each output its shape, -1 where it is a batch's.
        self.outputs = {name: [-1] * (value.ndim - 1) + [value.shape[-1]] for name, value in answer.items()}

    def __call__(self, ids: Array, mask: Array) -> Answer:
        """ids, mask: int64 [rows, tokens]. The outputs by name, float32 [rows, ...]."""
        with self._lock:
            if self._torch is None:
                given = self._call(ids, mask)
            else:
                with self._torch.no_grad():
                    given = self._call(self._torch.from_numpy(ids), self._torch.from_numpy(mask))
        named = given if isinstance(given, Mapping) else {"logits": given}
        return {str(name): self._array(str(name), value, len(ids)) for name, value in named.items()}

    def _array(self, name: str, value: Any, rows: int) -> NDArray[np.float32]:
        if self._torch is not None and isinstance(value, self._torch.Tensor):
            value = (
                value.detach().to("cpu", self._torch.float32).numpy() if value.is_floating_point() else value.numpy()
            )
        array = np.asarray(value)
        known = name in ("logits", "embedding") or (name.startswith("hidden.") and name[7:].isdigit())
        if not known or array.ndim < 2 or array.shape[0] != rows or not np.issubdtype(array.dtype, np.floating):
            raise TypeError(
                f"the model gives {name} {list(array.shape)} of {array.dtype} for {rows} rows; it may give logits, "
                "embedding and hidden.N of floating numbers, a row first for each row"
            )
        return np.ascontiguousarray(array, np.float32)


def _torch() -> Any:
    """PyTorch where the interpreter has it: then models get its tensors, otherwise numpy's."""
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def _where(package: Package) -> str:
    return f"{package.folder / package.python['module']}.py: {package.python.get('function', 'load')}"


def _function(package: Package) -> Callable[[Path, str], Any]:
    if package.backend != "python" or not package.python.get("module"):
        raise PackageError(f"{package.folder}/teacher.yaml: has no Python model: backend is {package.backend}")
    path = package.folder / f"{package.python['module']}.py"
    sys.path.insert(0, str(package.folder))  # for what lies beside it
    spec = importlib.util.spec_from_file_location(package.python["module"], path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PackageError(f"{path}: there is no such file")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[package.python["module"]] = module
    spec.loader.exec_module(module)
    name = package.python.get("function", "load")
    function = getattr(module, name, None)
    if not callable(function):
        raise PackageError(f"{path}: has no function '{name}' (teacher.yaml: python.function)")
    made: Callable[[Path, str], Any] = function
    return made


def tensor_of(request: Any, name: str) -> Array:
    """An input of a request, int64 [rows, tokens]. BadRequest says what is wrong with it."""
    places = [place for place, given in enumerate(request.inputs) if given.name == name]
    if len(places) != 1:
        raise BadRequest(f"the request holds the input '{name}' {len(places)} times")
    given, shape = request.inputs[places[0]], list(request.inputs[places[0]].shape)
    if given.datatype != "INT64" or len(shape) != 2 or min(shape) < 1:
        raise BadRequest(f"input '{name}' is {given.datatype} {shape}, it must be INT64 [rows, tokens]")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"the request holds {len(request.inputs)} inputs and the contents of {len(raw)}")
    if raw and len(raw[places[0]]) % 8:
        raise BadRequest(f"input '{name}' of shape {shape} comes with {len(raw[places[0]])} bytes")
    numbers = np.frombuffer(raw[places[0]], "<i8") if raw else np.array(given.contents.int64_contents, np.int64)
    if numbers.size != shape[0] * shape[1]:
        raise BadRequest(f"input '{name}' of shape {shape} comes with {numbers.size} numbers")
    return numbers.reshape(shape).astype(np.int64)


class Service:
    """The protocol's methods, for one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._wire = messages("open_inference.grpc_service_pb2")

    def handlers(self) -> Any:
        methods = {
            "ServerLive": lambda request: self._wire.ServerLiveResponse(live=True),
            "ServerReady": lambda request: self._wire.ServerReadyResponse(ready=True),
            "ModelReady": self.ready,
            "ModelMetadata": self.metadata,
            "ModelInfer": self.infer,
        }
        made = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(method),
                request_deserializer=getattr(self._wire, f"{name}Request").FromString,
                response_serializer=getattr(self._wire, f"{name}Response").SerializeToString,
            )
            for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, made)

    def ready(self, request: Any) -> Any:
        return self._wire.ModelReadyResponse(ready=request.name == self._model.name)

    def metadata(self, request: Any) -> Any:
        self._check_name(request.name)
        made = self._wire.ModelMetadataResponse(name=self._model.name, platform="polystill_python")
        for name in (IDS, MASK):
            made.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
        for name, shape in self._model.outputs.items():
            made.outputs.add(name=name, datatype="FP32", shape=shape)
        return made

    def infer(self, request: Any) -> Any:
        self._check_name(request.model_name)
        ids, mask = tensor_of(request, IDS), tensor_of(request, MASK)
        if ids.shape != mask.shape:
            raise BadRequest(f"'{IDS}' is {list(ids.shape)}, '{MASK}' {list(mask.shape)}")
        answer = self._model(ids, mask)
        made = self._wire.ModelInferResponse(model_name=self._model.name, id=request.id)
        for name in [wanted.name for wanted in request.outputs] or answer:
            if name not in answer:
                raise BadRequest(f"the model gives no '{name}'; it gives {', '.join(answer)}")
            made.outputs.add(name=name, datatype="FP32", shape=answer[name].shape)
            made.raw_output_contents.append(answer[name].astype("<f4", copy=False).tobytes())
        return made

    def _check_name(self, name: str) -> None:
        if name not in ("", self._model.name):
            raise BadRequest(f"there is no model '{name}'; this is '{self._model.name}'")


def _answering(method: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: Any) -> Any:
        try:
            return method(request)
        except BadRequest as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:MAX_MESSAGE])
        except Exception as error:  # the model's own
            traceback.print_exc()
            said = traceback.format_exception_only(error)[-1].strip()
            context.abort(grpc.StatusCode.INTERNAL, said[:MAX_MESSAGE])

    return answer


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="polystill.serve_model", description=__doc__.splitlines()[0], epilog="")
    made.add_argument("package", type=Path, help="folder of a package with backend: python")
    made.add_argument("--listen", required=True, help="host:port, or unix:PATH")
    made.add_argument("--insecure", action="store_true", help="allow an address other than loopback, without TLS")
    made.add_argument("--device", default="cpu", help="what the package's function is told (default cpu)")
    return made


def serve(arguments: argparse.Namespace) -> int:
    host = arguments.listen.rpartition(":")[0]
    if not (arguments.insecure or host in ("localhost", "[::1]", "unix") or host.startswith("127.")):
        raise PolystillError(f"--listen {arguments.listen}: is not loopback; give --insecure to serve without TLS")
    # Whoever started this has checked the files.
    model = Model(read_package(arguments.package.absolute(), check_files=False), arguments.device)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=options)
    server.add_generic_rpc_handlers((Service(model).handlers(),))
    if server.add_insecure_port(arguments.listen) == 0:
        raise PolystillError(f"cannot listen on {arguments.listen}")
    server.start()
    print(f"serving '{model.name}' with {', '.join(model.outputs)} on {arguments.device}", flush=True)
    server.wait_for_termination()
    return 0


def main(arguments: list[str] | None = None) -> int:
    return run(parser(), serve, arguments)


if __name__ == "__main__":
    sys.exit(main())

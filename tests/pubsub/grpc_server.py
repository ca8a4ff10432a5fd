"""Pub/Sub at the wire, for tests that need answers which Google's emulator does not give."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

# Of each method: what answers it, and the type of its request.
Methods = Mapping[str, tuple[Callable[[Any, grpc.ServicerContext], Any], Any]]


@contextmanager
def serve(services: Mapping[str, Methods]) -> Iterator[str]:
    """Serve services of Pub/Sub (``Publisher``, ``Subscriber``, ``SchemaService``); give host and port."""
    server = grpc.server(ThreadPoolExecutor(4))
    for name, methods in services.items():
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=request.deserialize,
                response_serializer=lambda response: type(response).serialize(response),
            )
            for method, (answer, request) in methods.items()
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"google.pubsub.v1.{name}", handlers)]
        )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()

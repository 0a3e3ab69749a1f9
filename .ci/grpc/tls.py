"""Calls the shop over TLS: a client that knows its certificate is served, one that doesn't is not."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

port, certificate = sys.argv[1].rsplit(":", 1)[1], sys.argv[2]


def check(roots):
    credentials = grpc.ssl_channel_credentials(roots)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


with open(certificate, "rb") as file:
    assert check(file.read()) == health_pb2.HealthCheckResponse.SERVING
try:
    check(None)
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
else:
    raise AssertionError("a client without the certificate was served")
print("gRPC over TLS: ok")

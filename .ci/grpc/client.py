"""Calls the shop as any gRPC client would: every method, reflection, health, rich errors, one port with HTTP."""

import json
import os
import queue
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import shop_pb2 as pb
import shop_pb2_grpc

http, admin, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
channel = grpc.insecure_channel(http)
orders = shop_pb2_grpc.OrdersStub(channel)
WAIT = 20


def refusal(call):
    """The error that `call` ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def details(error, kind):
    """The messages of the type `kind` among the details of `error`."""
    found = []
    for packed in rpc_status.from_call(error).details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def products(count):
    for number in range(count):
        yield pb.Product(sku=f"tea-{number}", name=f"Tea {number}", price_cents=450, stock=50)
    yield pb.Product(sku="no key", name="", price_cents=-1, stock=1)


def import_products():
    answer = orders.ImportProducts(products(1200), timeout=WAIT)
    assert (answer.created, answer.replaced, len(answer.bad)) == (1200, 0, 1), answer
    assert answer.bad[0].index == 1200 and "sku" in answer.bad[0].message, answer.bad
    again = orders.ImportProducts(products(3), timeout=WAIT)
    assert (again.created, again.replaced) == (0, 3), again


def place(quantity=2, sku="tea-1", **more):
    return orders.PlaceOrder(
        pb.PlaceOrderRequest(customer="Ada", lines=[pb.Line(sku=sku, quantity=quantity)]), timeout=WAIT, **more
    )


def place_show_list_cancel():
    order = place()
    assert (order.status, order.total_cents, order.customer) == (pb.PENDING, 900, "Ada"), order
    assert abs(order.created_at.ToSeconds() - time.time()) < 60
    assert orders.GetOrder(pb.GetOrderRequest(id=order.id), timeout=WAIT).id == order.id
    for _ in range(2):
        place()
    first = orders.ListOrders(pb.ListOrdersRequest(customer="Ada", limit=2), timeout=WAIT)
    assert len(first.items) == 2 and first.next_cursor, first
    rest = orders.ListOrders(pb.ListOrdersRequest(customer="Ada", limit=2, cursor=first.next_cursor), timeout=WAIT)
    assert [item.id for item in rest.items] == [order.id] and not rest.next_cursor, rest
    cancelled = orders.CancelOrder(pb.CancelOrderRequest(id=order.id), timeout=WAIT)
    assert cancelled.status == pb.CANCELLED, cancelled
    some = orders.ListOrders(pb.ListOrdersRequest(status=pb.CANCELLED), timeout=WAIT)
    assert [item.id for item in some.items] == [order.id], some


def watch():
    order = place()
    seen = []
    for change in orders.WatchOrder(pb.WatchOrderRequest(id=order.id), timeout=WAIT):
        seen.append(change.status)
        if change.status == pb.CONFIRMED:
            orders.CancelOrder(pb.CancelOrderRequest(id=order.id), timeout=WAIT)
    assert seen in ([pb.PENDING, pb.CONFIRMED, pb.CANCELLED], [pb.CONFIRMED, pb.CANCELLED]), seen
    rejected = place(quantity=1000)
    last = list(orders.WatchOrder(pb.WatchOrderRequest(id=rejected.id), timeout=WAIT))[-1]
    assert last.status == pb.REJECTED and "tea-1" in last.reason, last


def sync_stock():
    waiting = queue.Queue()
    levels = orders.SyncStock(iter(waiting.get, None), timeout=WAIT)
    once = str(uuid.uuid4())
    for request, delta, stock in [(once, 5, 55), (str(uuid.uuid4()), -3, 52), (once, 5, 52)]:
        waiting.put(pb.StockChange(request_id=request, sku="tea-7", delta=delta))
        level = next(levels)
        assert (level.request_id, level.sku, level.stock) == (request, "tea-7", stock), level
    waiting.put(pb.StockChange(request_id=str(uuid.uuid4()), sku="tea-7", delta=-100))
    error = refusal(lambda: next(levels))
    waiting.put(None)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error


def rich_errors():
    error = refusal(lambda: orders.PlaceOrder(pb.PlaceOrderRequest(lines=[pb.Line(sku="tea-1", quantity=0)])))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    bad = details(error, error_details_pb2.BadRequest)
    fields = [violation.field for violation in bad[0].field_violations]
    assert fields == ["customer", "lines[0].quantity"], fields
    assert all(violation.description for violation in bad[0].field_violations), bad
    error = refusal(lambda: place(sku="nothing"))
    assert details(error, error_details_pb2.BadRequest)[0].field_violations[0].field == "lines[0].sku", error
    unknown = pb.GetOrderRequest(id=str(uuid.uuid4()))
    assert refusal(lambda: orders.GetOrder(unknown, timeout=WAIT)).code() == grpc.StatusCode.NOT_FOUND
    assert dict(error.initial_metadata() or error.trailing_metadata()).get("x-request-id"), "no request id"


def answers_of_the_pipeline():
    call = channel.unary_unary("/shop.v1.Nothing/Call")
    assert refusal(lambda: call(b"")).code() == grpc.StatusCode.UNIMPLEMENTED
    call = channel.unary_unary("/shop.v1.Orders/Nothing")
    assert refusal(lambda: call(b"")).code() == grpc.StatusCode.UNIMPLEMENTED
    call = channel.unary_unary("/shop.v1.Orders/GetOrder")
    assert refusal(lambda: call(b"\xff\xff")).code() == grpc.StatusCode.INVALID_ARGUMENT
    large = pb.GetOrderRequest(id="x" * 2_000_000)
    assert refusal(lambda: orders.GetOrder(large, timeout=WAIT)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    many = tuple((f"x-{number}", "y") for number in range(100))
    error = refusal(lambda: orders.GetOrder(pb.GetOrderRequest(id="x"), metadata=many, timeout=WAIT))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    endless = pb.WatchOrderRequest(id=place(sku="tea-9").id)
    idle = refusal(lambda: list(orders.WatchOrder(endless, timeout=0.3)))
    assert idle.code() == grpc.StatusCode.DEADLINE_EXCEEDED, idle


def compression():
    answer = orders.ListOrders(pb.ListOrdersRequest(customer="A" * 150), compression=grpc.Compression.Gzip, timeout=WAIT)
    assert not answer.items


def health_and_reflection():
    checks = health_pb2_grpc.HealthStub(channel)
    for name in ["", "shop.v1.Orders"]:
        answer = checks.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (name, answer)
    unknown = health_pb2.HealthCheckRequest(service="shop.v2.Orders")
    assert refusal(lambda: checks.Check(unknown, timeout=WAIT)).code() == grpc.StatusCode.NOT_FOUND
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    wanted = {"shop.v1.Orders", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
    assert wanted | {"grpc.reflection.v1alpha.ServerReflection"} == services, services
    file = database.FindFileContainingSymbol("shop.v1.Orders")
    assert [service.name for service in file.service] == ["Orders"], file
    # Version 1 has the same messages under another name.
    listing = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    (answer,) = listing(iter([b"\x3a\x01*"]), timeout=WAIT)
    assert b"shop.v1.Orders" in answer


def the_same_port_speaks_json():
    order = place()
    with urllib.request.urlopen(f"http://{http}/v1/orders/{order.id}") as answer:
        assert json.load(answer)["id"] == order.id
    request = urllib.request.Request(
        f"http://{http}/shop.v1.Orders/GetOrder", data=b"", headers={"content-type": "application/grpc"}
    )
    for kind, status in [("application/grpc", 505), ("application/json", 415)]:
        request.add_header("content-type", kind)
        try:
            urllib.request.urlopen(request)
            raise AssertionError(f"{kind} was answered")
        except urllib.error.HTTPError as error:
            assert error.code == status, (kind, error.code)


def metrics():
    with urllib.request.urlopen(f"http://{admin}/metrics") as answer:
        text = answer.read().decode()
    for method, code in [("shop.v1.Orders/PlaceOrder", "OK"), ("shop.v1.Orders/GetOrder", "NOT_FOUND"), ("_OTHER", "UNIMPLEMENTED")]:
        wanted = ["rpc_server_call_duration_seconds_count", f'rpc_method="{method}"', f'rpc_response_status_code="{code}"']
        assert any(all(part in line for part in wanted) for line in text.splitlines()), (method, code)


def the_end_is_told():
    order = place(sku="tea-3")
    began, ended = threading.Event(), []

    def watch_on():
        try:
            for _ in orders.WatchOrder(pb.WatchOrderRequest(id=order.id), timeout=WAIT):
                began.set()
            ended.append(None)
        except grpc.RpcError as error:
            ended.append(error)

    watcher = threading.Thread(target=watch_on)
    watcher.start()
    assert began.wait(WAIT)
    os.kill(pid, signal.SIGTERM)
    watcher.join(WAIT)
    error = ended[0]
    assert error is not None and error.code() == grpc.StatusCode.UNAVAILABLE, error
    assert details(error, error_details_pb2.RetryInfo)[0].retry_delay.ToMilliseconds() > 0, error


STEPS = [
    import_products,
    place_show_list_cancel,
    watch,
    sync_stock,
    rich_errors,
    answers_of_the_pipeline,
    compression,
    health_and_reflection,
    the_same_port_speaks_json,
    metrics,
    the_end_is_told,
]
for step in STEPS:
    step()
    print(f"ok {step.__name__}")

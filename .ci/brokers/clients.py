"""The shop's events in the hands of nats-py, aio-pika, confluent-kafka and the CloudEvents SDK of others.

For each broker: a customer orders at a shop that runs on it, a client reads the event and the SDK understands it; then a
client publishes an event of its own, made by the SDK, and the shop does what it says: confirms an order, takes its stock.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
import uuid

import aio_pika
import confluent_kafka
import nats
from cloudevents.core.bindings import amqp, http, kafka, rabbitmq
from cloudevents.core.bindings.amqp import AMQPMessage
from cloudevents.core.bindings.http import HTTPMessage
from cloudevents.core.bindings.kafka import KafkaMessage
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka.admin import AdminClient

TOPIC = "shop.order.placed"
TOPICS = [TOPIC, "shop.order.confirmed", "shop.order.rejected", "shop.order.cancelled"]
PARTITIONS = 16
# A net against what never comes; nothing is measured with it.
PATIENCE = 60


class Shop:
    """A shop on SQLite in a folder of its own."""

    def __init__(self, program, broker, folder):
        self.folder = folder
        environment = {
            "EVENTS_URL": broker,
            "SHOP_HTTP__ADDR": "127.0.0.1:0",
            "SHOP_ADMIN__ADDR": "127.0.0.1:0",
            "SHOP_SHUTDOWN__SETTLE": "0s",
        }
        self.process = subprocess.Popen([program], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            said = json.loads(line)
            if said["message"] == "ready":
                self.address = f"http://{said['http']}"
                return
        raise SystemExit(f"the shop ended before it was ready: {said}")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def pending_order(self, sku):
        """An order that no event tells of, as only another service's could."""
        order = uuid.uuid4()
        with contextlib.closing(sqlite3.connect(os.path.join(self.folder, "data", "shop.db"), timeout=PATIENCE)) as db, db:
            row = (order.bytes, "Grace", "pending", 450, "2026-01-01T00:00:00.000000Z")
            db.execute("INSERT INTO orders (id, customer, status, total_cents, created_at) VALUES (?, ?, ?, ?, ?)", row)
            db.execute("INSERT INTO order_lines VALUES (?, 1, ?, 1, 450)", (order.bytes, sku))
            db.execute("INSERT INTO order_changes VALUES (?, 1, 'pending', NULL, ?)", (order.bytes, row[4]))
        return str(order)

    async def settled(self, order):
        async with asyncio.timeout(PATIENCE):
            while (found := self.ask("GET", f"/v1/orders/{order}"))["status"] == "pending":
                await asyncio.sleep(0.05)
        return found["status"]

    def end(self):
        self.process.terminate()
        self.process.stdout.read()
        assert self.process.wait(PATIENCE) == 0, "the shop did not end in order"


class Nats:
    name = "NATS"
    # That of NATS takes over the names and the encoding of HTTP's.
    bindings = ["http"]

    def __init__(self, url, prefix):
        self.url, self.prefix, self.query = url, prefix, f"prefix={prefix}"

    async def open(self):
        self.client = await nats.connect(self.url)
        self.stream = self.client.jetstream()

    async def read(self):
        reading = await self.stream.subscribe(f"{self.prefix}.{TOPIC}.*", ordered_consumer=True)
        message = await reading.next_msg(timeout=PATIENCE)
        return http.from_http_event(HTTPMessage(message.headers, message.data))

    async def publish(self, event, binding):
        message = http.to_binary_event(event)
        await self.stream.publish(f"{self.prefix}.{TOPIC}.0", message.body, headers=message.headers)

    async def close(self):
        for topic in TOPICS:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await self.stream.delete_stream(f"{self.prefix}.{topic}".replace(".", "_"))
        await self.client.close()


class RabbitMQ:
    name = "RabbitMQ"
    # That of AMQP 1.0, which is ours, and that of Knative.
    bindings = ["amqp", "rabbitmq"]

    def __init__(self, url, prefix):
        self.url, self.prefix, self.query = url, prefix, f"prefix={prefix}"

    async def open(self):
        self.client = await aio_pika.connect(self.url)
        self.channel = await self.client.channel()

    async def read(self):
        queues = [await self.channel.get_queue(f"{self.prefix}.{TOPIC}.{number}") for number in range(PARTITIONS)]
        await self.channel.set_qos(prefetch_count=10)
        came = asyncio.Queue()
        first = {"x-stream-offset": "first"}
        tags = [await queue.consume(came.put, arguments=first) for queue in queues]
        message = await asyncio.wait_for(came.get(), PATIENCE)
        for queue, tag in zip(queues, tags):
            await queue.cancel(tag)
        properties = {"content-type": message.content_type}
        return amqp.from_amqp_event(AMQPMessage(properties, message.headers, message.body))

    async def publish(self, event, binding):
        exchange = await self.channel.get_exchange(f"{self.prefix}.{TOPIC}")
        if binding == "amqp":
            message = amqp.to_binary_event(event)
            content_type, headers = message.properties["content-type"], message.application_properties
            body = message.application_data
        else:
            message = rabbitmq.to_binary_event(event)
            content_type, headers, body = message.content_type, message.headers, message.body
        await exchange.publish(aio_pika.Message(body, content_type=content_type, headers=headers), "0")

    async def close(self):
        for topic in TOPICS:
            for number in range(PARTITIONS):
                await self.channel.queue_delete(f"{self.prefix}.{topic}.{number}")
            await self.channel.exchange_delete(f"{self.prefix}.{topic}")
        await self.client.close()


class Kafka:
    """At a URL, or the cluster that librdkafka keeps in a process: its program is started.

    That one can't make topics by the protocol or show their settings: it is given them, and they aren't verified.
    """

    name = "Kafka"
    bindings = ["kafka"]

    def __init__(self, place, prefix):
        self.prefix, self.query, self.cluster = prefix, f"prefix={prefix}", None
        if place.startswith("kafka://"):
            self.url = place
        else:
            words = [place, str(PARTITIONS), *(f"{prefix}.{topic}" for topic in TOPICS)]
            self.cluster = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.url = f"kafka://{self.cluster.stdout.readline().strip()}"
            self.query += "&verify=false"
        self.servers = {"bootstrap.servers": self.url.removeprefix("kafka://")}

    async def open(self):
        self.producer = confluent_kafka.Producer(self.servers)

    async def read(self):
        # A group of its own, as another service would have.
        group = {"group.id": f"{self.prefix}-reading", "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer(self.servers | group)
        consumer.subscribe([f"{self.prefix}.{TOPIC}"])
        message = consumer.poll(PATIENCE)
        consumer.close()
        assert message is not None and message.error() is None, message and message.error()
        return kafka.from_kafka_event(KafkaMessage(dict(message.headers()), message.key(), message.value()))

    async def publish(self, event, binding):
        message = kafka.to_binary_event(event)
        answers = []
        # Where the client's own partitioner puts it.
        self.producer.produce(
            f"{self.prefix}.{TOPIC}",
            message.value,
            message.key,
            headers=message.headers,
            on_delivery=lambda error, _: answers.append(error),
        )
        assert self.producer.flush(PATIENCE) == 0 and answers == [None], answers

    async def close(self):
        self.producer = None  # which would miss the cluster
        if self.cluster is None:
            admin = AdminClient(self.servers)
            for gone in admin.delete_topics([f"{self.prefix}.{topic}" for topic in TOPICS]).values():
                gone.result(PATIENCE)
        else:
            self.cluster.stdin.close()
            assert self.cluster.wait(PATIENCE) == 0, "the cluster did not end in order"


async def meet(program, kind, place):
    broker = kind(place, f"mainstay-test-{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(program, f"{broker.url}?{broker.query}", folder)
        try:
            shop.ask("PUT", "/v1/products/tea", {"name": "Tea", "price_cents": 450, "stock": 10})
            order = shop.ask("POST", "/v1/orders", {"customer": "Ада", "lines": [{"sku": "tea", "quantity": 2}]})["id"]
            assert await shop.settled(order) == "confirmed"
            await broker.open()

            event = await broker.read()
            uuid.UUID(event.get_id())
            assert (event.get_type(), event.get_source(), event.get_specversion()) == (TOPIC, "shop", "1.0")
            assert event.get_datacontenttype() == "application/json" and event.get_time() is not None
            assert event.get_extension("partitionkey") == order
            expected = {"id": order, "customer": "Ада", "items": {"tea": 2}, "total_cents": 900}
            assert event.get_data() == expected, event.get_data()
            print(f"{broker.name}: the SDK understands {event.get_type()} {event.get_id()}")

            for binding in broker.bindings:
                order = shop.pending_order("tea")
                attributes = {"type": TOPIC, "source": "/elsewhere", "partitionkey": order}
                attributes["datacontenttype"] = "application/json"
                data = {"id": order, "customer": "Grace", "items": {"tea": 1}, "total_cents": 450}
                await broker.publish(CloudEvent(attributes=attributes, data=data), binding)
                assert await shop.settled(order) == "confirmed"
                print(f"{broker.name}: the shop took an order that a client published by the binding of {binding}")
            stock = shop.ask("GET", "/v1/products/tea")["stock"]
            assert stock == 8 - len(broker.bindings), stock
            dead = subprocess.run([program, "events", "dead", "list"], cwd=folder, env={}, check=True, capture_output=True)
            assert len(dead.stdout.splitlines()) == 1, dead.stdout
        finally:
            shop.end()
            await broker.close()


def main():
    program, *places = sys.argv[1:]
    for kind, place in zip([Nats, RabbitMQ, Kafka], places, strict=True):
        asyncio.run(meet(program, kind, place))


main()

"""What the receiver has printed: one trace, HTTP, SQL, publish, consume, SQL, each the right one's child; the log lines of
that trace; a counter, a gauge and a histogram, the same as /metrics had."""

import re
import sys

text, trace, shown = open(sys.argv[1]).read(), sys.argv[2], open(sys.argv[3]).read()
# Each kind of request is printed by itself.
requests = re.split(r"^(?=Resource\w+ #0$)", text, flags=re.M)
of_kind = lambda kind: "".join(request for request in requests if request.startswith(kind))
spans = []
for part in re.split(r"^Span #\d+$", of_kind("ResourceSpans"), flags=re.M)[1:]:
    field = lambda name: re.search(rf"{name} *: (.*)", part).group(1).strip()
    if field("Trace ID") != trace:
        continue
    attributes = dict(re.findall(r"-> ([\w.]+): (?:Str|Int)\((.*)\)$", part, re.M))
    links = re.findall(r"-> Trace ID: (\w+)\n *-> ID: (\w+)", part)
    head = part.split("Links:")[0]
    own = re.search(r"^ *ID +: (\w+)", head, re.M).group(1)
    spans.append({"id": own, "parent": field("Parent ID"), "name": field("Name"), "kind": field("Kind"),
                  "attributes": attributes, "links": links})


def one(name, kind, parent=None):
    found = [s for s in spans if s["name"] == name and s["kind"] == f"SPAN_KIND_{kind}" and parent in (None, s["parent"])]
    assert len(found) == 1, f"{name} {kind} under {parent}: {found} of {[(s['name'], s['parent']) for s in spans]}"
    return found[0]


def statement(parent, beginning):
    found = [s for s in spans if s["parent"] == parent and s["attributes"].get("db.query.text", "").startswith(beginning)]
    assert found and all(s["kind"] == "SPAN_KIND_CLIENT" for s in found), f"{beginning} under {parent}"


request = one("POST /v1/orders", "SERVER", "00f067aa0ba902b7")
statement(request["id"], "INSERT INTO orders")
sent = one("send shop.order.placed", "PRODUCER", request["id"])
statement(request["id"], "INSERT INTO mainstay_outbox")
processed = one("process shop.order.placed", "CONSUMER", sent["id"])
assert processed["links"] == [(trace, sent["id"])], processed
statement(processed["id"], "UPDATE products")
one("send shop.order.confirmed", "PRODUCER", processed["id"])
print(f"the receiver has one trace of {len(spans)} spans: request, statements, event, its handler, and what that publishes")

lines = [part for part in re.split(r"^LogRecord #\d+$", of_kind("ResourceLog"), flags=re.M)[1:] if trace in part]
access = [line for line in lines if "-> target: Str(mainstay::access)" in line]
assert len(access) == 1 and "-> status: Int(201)" in access[0] and "SEVERITY_NUMBER_INFO(9)" in access[0], lines
assert re.search(r"Span ID *: \w{16}$", access[0], re.M), access

metrics = re.split(r"^Metric #\d+$", of_kind("ResourceMetrics"), flags=re.M)[1:]


def last(name, kind):
    """The newest of the metrics `name`."""
    found = [part for part in metrics if f"-> Name: {name}\n" in part and f"-> DataType: {kind}\n" in part]
    assert found, f"{name}: no {kind}"
    return found[-1]


def value(name):
    return float(re.search(rf"^{name}(?:{{.*}})? (\S+)", shown, re.M).group(1))


total = last("events_published_total", "Sum")
assert "-> IsMonotonic: true" in total and "TEMPORALITY_CUMULATIVE" in total, total
assert float(re.search(r"^Value: (\S+)", total, re.M).group(1)) >= value("events_published_total") > 0, total
workers = last("runtime_workers", "Gauge")
assert float(re.search(r"^Value: (\S+)", workers, re.M).group(1)) == value("runtime_workers"), workers
durations = last("http_server_request_duration_seconds", "Histogram")
points = re.split(r"^HistogramDataPoints #\d+$", durations, flags=re.M)[1:]
for point in points:
    count = int(re.search(r"^Count: (\d+)", point, re.M).group(1))
    buckets = [int(n) for n in re.findall(r"^Buckets? #\d+,? .*?(\d+)$", point, re.M)]
    bounds = re.findall(r"^ExplicitBounds #\d+: ", point, re.M)
    assert count > 0 and len(bounds) == 19 and (not buckets or sum(buckets) == count), point
names = set(re.findall(r"-> Name: (\S+)", "".join(metrics)))
print(f"and {len(lines)} log lines of it, and {len(names)} metrics")

# What a person runs and what CI runs are the same recipes. `just` alone lists them.
set shell := ["bash", "-euo", "pipefail", "-c"]

default:
    @just --list

# Everything that decides whether a change lands.
ci: fmt lint deny doc features test kafka test-alone examples shop-checks grpc brokers observe deploy-lint deploy-test

# Formatting.
fmt:
    cargo fmt --all --check

# Lints; a warning is an error.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# One version of each crate, permissive licences, the public registry only.
deny:
    cargo deny check bans licenses sources

# The documentation builds without a warning.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# Every driver stands alone, and the framework stands without one.
features:
    cargo check -p mainstay-sql --no-default-features
    cargo check -p mainstay-sql --no-default-features --features sqlite
    cargo check -p mainstay-sql --no-default-features --features postgres
    cargo check -p mainstay-sql --no-default-features --features mysql
    cargo check -p mainstay --no-default-features
    cargo check -p mainstay --no-default-features --features grpc
    # What a program says that was built without the broker it is to use.
    cargo test -q -p mainstay --lib brokers

# Start PostgreSQL, MariaDB, NATS and RabbitMQ if they don't answer; install them, and nginx, if they are missing (Debian, root).
services:
    .ci/services
    .ci/deploy/tools >/dev/null

# All tests. With MAINSTAY_REQUIRE_SERVICES=1 a test without its server fails; otherwise it is reported as ignored.
test:
    .ci/test

# Events through Kafka: builds librdkafka (with make), and takes its cluster in the process, or `KAFKA_TEST_URL`.
kafka:
    cargo test -q -p mainstay-kafka --features librdkafka

# The tests that use servers, with none in reach: they pass or are reported as ignored, and none is counted as passed.
test-alone:
    .ci/test-alone

# Twenty hand-overs each way under 200 clients without retries; the counts in docs/guarantees.md.
handover:
    HANDOVERS=20 cargo test -q -p conformance --test handover -- --nocapture --test-threads=1 over_ on_a_socket 2>&1 | grep hand-overs

# Twenty hand-overs under 40 gRPC clients; the count in docs/guarantees.md.
grpc-handover:
    HANDOVERS=20 cargo test -q -p conformance --test grpc -- --nocapture across_hand_overs 2>&1 | grep hand-overs

# The examples run.
examples:
    cargo run --quiet -p mainstay-core --example toolbox

# The shop from outside: the README's tour as typed, and its OpenAPI document by a validator that is not ours.
shop-checks:
    .ci/tour
    .ci/openapi

# How long a database works on for a caller who has gone: medians of 20, in docs/guarantees.md.
cancel-bounds:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-sql --test cancel -- runs_nothing

# Cancels in full: late ones, floods, transactions and statements cut at every await, silent networks.
cancel-sweep:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-sql --test cancel -- --skip runs_nothing

# Kills, zombies, cuts, storms, poison … against a fleet of processes, each until 10,000 events were sent: some 40 minutes. Parts of
# names choose cells, as in `just chaos sqlite::killed`. Prints the table for docs/guarantees.md.
chaos *cells:
    MAINSTAY_LONG_TESTS=1 cargo test -q --profile long -p conformance --test chaos -- --nocapture {{cells}}

# A day at half of what PostgreSQL with NATS can do, in chapters of ten minutes that are each checked; `SOAK_CHAPTERS` and
# `SOAK_SECONDS` make it shorter, and `just soak mysql+rabbitmq` is another pair.
soak pair="postgres+nats":
    MAINSTAY_LONG_TESTS=1 cargo test -q --profile long -p conformance --test chaos -- --nocapture {{pair}}::soak

# 100,000 events on each database: nothing stays behind. The figures in docs/guarantees.md.
volume:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-events --test events -- --nocapture --test-threads 1 many_events

# 200 customers want 50 pieces, change their minds, and the shop is killed meanwhile, on each database. The counts in
# docs/guarantees.md.
stock:
    cargo test -q -p shop --test stock -- --nocapture --test-threads 1

# SQLite: requests and consumers at one writer, and a second process beside them. The figures in docs/guarantees.md.
sqlite-fairness:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-events --test events -- --nocapture share_the_writer

# How long builds take here, cold and after touching one file; the figures in docs/build-times.md.
build-times:
    .ci/build-times

# 10,000 connections that do nothing, and bad input: what they add to the server's memory. Needs 10,300 open files.
bad-input-memory:
    ulimit -n 12000 && MAINSTAY_IDLE_CONNECTIONS=10000 cargo test -p mainstay-http --test bad_input -- --nocapture --test-threads 1 memory

# A deadline through two services into each database: how long after it the database is free.
across:
    cargo test -p mainstay-testing --test across -- --nocapture --test-threads 1

# Random input to the parsers, for half a minute; a fixed short run is also among the tests.
fuzz-short:
    cargo run --quiet -p mainstay-fuzz -- 10

# The same for an hour, 20 minutes for each of three targets, from another seed each time.
fuzz:
    cargo run --quiet -p mainstay-fuzz -- 1200 "$(date +%s)"

# What logs and traces cost per request, in processor time: medians of seven rounds, in docs/performance.md.
cost-of-sight:
    .ci/cost-of-sight

# The same in instructions of the process, which other load on the machine doesn't change.
instructions-of-sight:
    .ci/instructions-of-sight

# Clients of others, nats-py, aio-pika and confluent-kafka, read the shop's events as CloudEvents and publish some.
brokers:
    .ci/brokers/run

# 100,000 paths, tenants and statements that nobody has seen before: series and memory. The figures in docs/guarantees.md.
label-bomb:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-testing --test label_bomb -- --nocapture

# What holds the shop's memory, by go tool pprof: the shop with jemalloc, which is compiled from C for some minutes first.
heap-profile:
    .ci/observe/heap

# What a gRPC call costs beside bare tonic, in processor time: medians of seven rounds, in docs/performance.md.
cost-of-grpc:
    cargo run --quiet --profile cost -p conformance --example cost_of_grpc

# What an event costs from its transaction to the consumer's, on PostgreSQL through NATS and RabbitMQ, beside their bare
# clients and transactions without events: medians of five rounds.
cost-of-events:
    cargo run --quiet --profile cost -p conformance --example cost_of_events

# What the shop shows, read by promtool, pprof and an OTLP receiver; alerts and dashboard compared with what it exports.
observe:
    .ci/observe/run

# The shop's gRPC service, called by Python's grpcio on the port where curl speaks JSON.
grpc:
    .ci/grpc/run

# What ships the shop: Dockerfile, compose, Kubernetes, systemd and the project's CI files, and broken copies of them.
deploy-lint:
    .ci/deploy/lint

# The built shop against its manifests, under its units, behind its nginx, in its image. Root.
deploy-test:
    .ci/deploy/test

# 20 restarts under the units, 10,000 requests through nginx while the shops are replaced, PostgreSQL restarted; the counts
# in docs/operations.md.
restarts:
    cargo build --quiet --package shop
    MAINSTAY_LONG_TESTS=1 cargo test --quiet --workspace --test deploy -- --nocapture

# The whole image, compiled inside the build from bases made here, and the shop in it run. Root; takes ten minutes.
image:
    .ci/deploy/image

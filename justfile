# What a person runs and what CI runs are the same recipes. `just` alone lists them.
set shell := ["bash", "-euo", "pipefail", "-c"]

default:
    @just --list

# Everything that decides whether a change lands.
ci: fmt lint deny doc features test test-alone examples shop-checks

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

# Start PostgreSQL and MariaDB if they don't answer; install them if they are missing (Debian, root).
services:
    .ci/services

# All tests. With MAINSTAY_REQUIRE_SERVICES=1 a test without its server fails; otherwise it is reported as ignored.
test:
    .ci/test

# The tests that use servers, with none in reach: they pass or are reported as ignored, and none is counted as passed.
test-alone:
    .ci/test-alone

# Twenty hand-overs each way under 200 clients without retries; the counts in docs/guarantees.md.
handover:
    HANDOVERS=20 cargo test -q -p conformance --test handover -- --nocapture --test-threads=1 over_ on_a_socket 2>&1 | grep hand-overs

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

# Kills, zombies, cuts, storms, poison … against a fleet of processes, each until 10,000 events were sent: hours. Parts of
# names choose cells, as in `just chaos sqlite::killed`. Prints the table for docs/guarantees.md.
chaos *cells:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p conformance --test chaos -- --nocapture {{cells}}

# 100,000 events on each database: nothing stays behind. The figures in docs/guarantees.md.
volume:
    MAINSTAY_LONG_TESTS=1 cargo test -q -p mainstay-events --test events -- --nocapture --test-threads 1 many_events

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

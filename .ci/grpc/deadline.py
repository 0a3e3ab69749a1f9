"""A call that has PostgreSQL sleep for half a minute: its deadline, and its cancel, stop the statement."""

import subprocess
import sys
import time

import grpc

import calls_pb2 as pb
import calls_pb2_grpc

address, database = sys.argv[1], sys.argv[2]
calls = calls_pb2_grpc.CallsStub(grpc.insecure_channel(address))
RUNNING = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
    "AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
)


def sleeping(wanted):
    """Waits until PostgreSQL runs as many of the statements; 20 s are less than they would take."""
    for _ in range(200):
        found = subprocess.run(["psql", "-XAtq", database, "-c", RUNNING], check=True, capture_output=True, text=True)
        if int(found.stdout) == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"not {wanted} statements within 20 s")


call = calls.Sleep.future(pb.WorkRequest(ms=30000), timeout=2)
sleeping(1)
assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED, call
sleeping(0)
print("ok a deadline stops the statement")
call = calls.Sleep.future(pb.WorkRequest(ms=30000))
sleeping(1)
call.cancel()
sleeping(0)
print("ok a cancel stops the statement")

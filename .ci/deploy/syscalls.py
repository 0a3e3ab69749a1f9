"""Runs the shop under strace, has it serve and stop, and compares the system calls it made with those that its unit lets
through: a filter that is too narrow would end the service on somebody's server, not here.

    syscalls.py SHOP
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

import forms


def members(name, seen):
    """The calls of a set such as @system-service, those of the sets in it included."""
    if not name.startswith("@"):
        return {name}
    if name in seen:
        return set()
    seen.add(name)
    printed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    lines = (line.strip() for line in printed.splitlines()[1:])
    return set().union(*(members(line, seen) for line in lines if line and not line.startswith("#")))


def allowed(filters):
    """What `SystemCallFilter=` lines let through, in their order."""
    calls = set()
    for line in filters:
        named = set().union(*(members(name, set()) for name in line.lstrip("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def ask(method, url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    request.get_method = lambda: method
    return urllib.request.urlopen(request, timeout=30).read()


def made(shop):
    """The calls of a shop that starts, takes an order, and stops."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "calls"
        env = {"SHOP_HTTP__ADDR": "127.0.0.1:0", "SHOP_ADMIN__ADDR": "127.0.0.1:0", "SHOP_HTTP__HANDOVER": "off"}
        env |= {"SHOP_SHUTDOWN__SETTLE": "0s", "SHOP_LOG__FORMAT": "json"}
        # Not as root, because the unit's user isn't; so from a place that anybody can reach.
        os.chmod(folder, 0o777)
        shop = shutil.copy(shop, folder)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [shutil.which("strace"), "-f", "-qq", "-o", log, *user, shop]
        with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                ready = json.loads(next(line for line in process.stdout if '"ready"' in line))
                ask("PUT", f"http://{ready['http']}/v1/products/tea-1", {"name": "Tea", "price_cents": 450, "stock": 50})
                order = {"customer": "Ada", "lines": [{"sku": "tea-1", "quantity": 2}]}
                ask("POST", f"http://{ready['http']}/v1/orders", order)
                ask("GET", f"http://{ready['admin']}/metrics")
            finally:
                # strace waits for the shop, and we wait for strace.
                os.kill(int(re.match(r"\d+", log.read_text())[0]), signal.SIGTERM)
                process.stdout.read()
        if process.returncode != 0:
            raise SystemExit(f"under strace the shop ended with {process.returncode}")
        return set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.M))


def main():
    calls = made(str(pathlib.Path(sys.argv[1]).resolve()))
    filters = forms.unit(pathlib.Path("."), "shop.service")["SystemCallFilter"]
    if refused := calls - allowed(filters):
        raise SystemExit(f"shop.service would refuse what the shop does: {', '.join(sorted(refused))}")
    if not calls - allowed([*filters, "~@network-io"]):
        raise SystemExit("a filter without the network would not be noticed")
    print(f"the unit lets all {len(calls)} system calls of the shop through")


main()

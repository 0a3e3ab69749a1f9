"""What the files that ship the shop say, each form read into plain values: the variables a process would get, and the facts
that have to fit its settings."""

import os
import re
import subprocess

import yaml

DEPLOY = "examples/shop/deploy"
# What stands in for secrets and for what an operator fills in.
FILLED_IN = {"POSTGRES_PASSWORD": "a", "SHOP_ADMIN_TOKEN": "s3cret", "GRAFANA_PASSWORD": "c"}
# What an unchanged PostgreSQL lets others than its administrators have.
POSTGRES_CONNECTIONS = 97
SECRET = {"DATABASE_URL": "postgres://shop:a@postgres:5432/shop", "SHOP_ADMIN__TOKEN": "s3cret"}


def seconds(text):
    """`30`, `30s`, `1m15s`, `500ms` in seconds."""
    if isinstance(text, int):
        return text
    parts = re.findall(r"(\d+)(ms|s|min|m|h|d)?", text)
    return sum(int(n) * {"ms": 0.001, "": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)


def port(address):
    return int(str(address).rsplit(":", 1)[1])


def image(tree):
    """The variables, the user and the port of the Dockerfile's last stage, and the timeout of its health check."""
    text = (tree / DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    instructions = re.findall(r"^([A-Z]+) +(.*)$", last, re.M)
    env = dict(pair.split("=", 1) for word, rest in instructions if word == "ENV" for pair in rest.split())
    return {
        "env": env,
        "exposed": [int(rest) for word, rest in instructions if word == "EXPOSE"],
        "user": next(rest for word, rest in instructions if word == "USER"),
        "health_timeout": seconds(re.search(r"--timeout=(\S+)", last)[1]),
        "start_period": seconds(re.search(r"--start-period=(\S+)", last)[1]),
    }


def compose(tree):
    """The services of compose.yaml, with the operator's variables filled in."""
    text = (tree / DEPLOY / "compose.yaml").read_text()
    text = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda m: FILLED_IN.get(m[1], m[2] or ""), text)
    return yaml.safe_load(text)["services"]


def prometheus_targets(tree):
    jobs = yaml.safe_load((tree / DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    return [target for job in jobs for group in job["static_configs"] for target in group["targets"]]


def nginx(tree):
    """The directives that depend on the shop's limits; each has to say the same wherever it stands, but for streams."""
    text = (tree / DEPLOY / "nginx/shop.conf.template").read_text()
    first = lambda name: re.search(rf"^\s*{name} ([^;]+);", text, re.M)[1]
    return {name: first(name) for name in ("keepalive_timeout", "proxy_read_timeout", "client_max_body_size", "proxy_next_upstream")}


def kubernetes(tree, overlay):
    """The objects of an overlay by kind and name."""
    printed = subprocess.run(
        ["kubectl", "kustomize", tree / DEPLOY / "kubernetes/overlays" / overlay], check=True, capture_output=True, text=True
    ).stdout
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(printed)}


def pod_environment(objects, container):
    """What a container gets: the image's variables come on top of nothing, these on top of them."""
    env = {}
    for source in container.get("envFrom", []):
        env |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    for entry in container.get("env", []):
        env[entry["name"]] = entry["value"] if "value" in entry else SECRET[entry["valueFrom"]["secretKeyRef"]["key"]]
    return env


def unit(tree, name):
    """The keys of a unit file; one that is given several times is a list."""
    found = {}
    for line in (tree / DEPLOY / "systemd" / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def settings(shop, env, folder):
    """What `config` prints for these variables: key → (value, source)."""
    done = subprocess.run(
        [shop, "config"], cwd=folder, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"the shop refuses {sorted(env)}: {done.stderr}")
    rows = (re.split(r" {2,}", line.strip(), maxsplit=2) for line in done.stdout.splitlines())
    return {key: (value, source) for key, value, source in rows}



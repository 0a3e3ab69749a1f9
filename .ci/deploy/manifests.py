"""Compares the files that ship the shop with what the built shop's `config` prints and its admin port answers: names of
variables, ports, paths of probes, grace periods, limits. Then breaks copies, and settings, and expects to find each.

    manifests.py SHOP
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import forms
from forms import DEPLOY, port, seconds

OPEN = ["/livez", "/readyz", "/startupz", "/metrics"]


class Comparison:
    """One look at one tree; what doesn't fit is in `faults`."""

    def __init__(self, shop, tree, file=None):
        self.shop, self.tree, self.faults = shop, tree, []
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.scratch.name)
        if file:
            (self.folder / "config.yaml").write_text(file)

    def expect(self, fits, what):
        if not fits:
            self.faults.append(what)

    def settings(self, form, env):
        """What is in effect with `env`; every variable has to have had an effect."""
        found = forms.settings(self.shop, env, self.folder)
        used = {source.removeprefix("environment variable ") for _, source in found.values()}
        for name in env:
            self.expect(name in used or name == "SHOP_CONFIG", f"{form}: the shop has no setting for the variable {name}")
        return {key: value for key, (value, _) in found.items()}

    def budgets(self, found):
        return seconds(found["shutdown.settle"]) + seconds(found["shutdown.stop"])

    def all(self):
        image = forms.image(self.tree)
        found = self.settings("Dockerfile", image["env"])
        self.expect(image["exposed"] == [port(found["http.addr"])], "Dockerfile: EXPOSE is not the port of http.addr")
        self.expect(image["health_timeout"] > 2, "Dockerfile: the health check ends before `shop health` does (2 s)")
        self.expect(image["start_period"] >= seconds(found["shutdown.start"]), "Dockerfile: start period < shutdown.start")
        self.compose(image)
        for overlay in ("staging", "production"):
            self.kubernetes(image, overlay)
        self.systemd()
        return self.faults

    def compose(self, image):
        services = forms.compose(self.tree)
        self.settings("compose.yaml, migrate", image["env"] | services["migrate"]["environment"])
        for name in ("shop-1", "shop-2"):
            shop = services[name]
            found = self.settings(f"compose.yaml, {name}", image["env"] | shop["environment"])
            upstream = services["nginx"]["environment"][name.upper().replace("-", "_")]
            self.expect(upstream == f"{name}:{port(found['http.addr'])}", f"compose.yaml: nginx looks for {upstream}")
            target = f"{name}:{port(found['admin.addr'])}"
            self.expect(target in forms.prometheus_targets(self.tree), f"prometheus.yml: {target} is not looked at")
            spare = seconds(shop["stop_grace_period"]) - self.budgets(found)
            self.expect(0 < spare <= 5, f"compose.yaml: stop_grace_period leaves {spare} s beyond settle and stop")
        nginx = forms.nginx(self.tree)
        kept = seconds(nginx["keepalive_timeout"])
        self.expect(kept < seconds(found["http.idle_timeout"]), "nginx: keepalive_timeout is not below http.idle_timeout")
        # The second is the framework's, no setting.
        self.expect(kept <= 0.5, "nginx: keepalive_timeout is not half of the second that a draining shop waits")
        self.expect(seconds(nginx["proxy_read_timeout"]) > seconds(found["http.request_timeout"]), "nginx: proxy_read_timeout")
        limit = found["http.max_body_bytes"].replace("MiB", "m")
        self.expect(nginx["client_max_body_size"] == limit, f"nginx: client_max_body_size is not {limit}")
        self.expect(nginx["proxy_next_upstream"] == "off", "nginx: proxy_next_upstream is not off")

    def kubernetes(self, image, overlay):
        objects = forms.kubernetes(self.tree, overlay)
        say = lambda what: f"kubernetes, {overlay}: {what}"
        spec = objects["Deployment", "shop"]["spec"]["template"]["spec"]
        shop = spec["containers"][0]
        env = image["env"] | forms.pod_environment(objects, shop)
        found = self.settings(say("shop"), env)
        job = objects["Job", "shop-migrate"]["spec"]["template"]["spec"]
        self.settings(say("migration"), image["env"] | forms.pod_environment(objects, job["containers"][0]))

        ports = {p["name"]: p["containerPort"] for p in shop["ports"]}
        real = {"http": port(found["http.addr"]), "admin": port(found["admin.addr"])}
        self.expect(ports == real, say(f"the container's ports are {ports}, the shop's {real}"))
        for (kind, name), service in objects.items():
            for entry in service["spec"]["ports"] if kind == "Service" else []:
                self.expect(real.get(entry["targetPort"]) == entry["port"], say(f"Service {name}: {entry}"))
        for rule in objects["NetworkPolicy", "shop"]["spec"]["ingress"]:
            for entry in rule["ports"]:
                self.expect(entry["port"] in real, say(f"NetworkPolicy: {entry}"))
        paths = [shop[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        self.expect(all(probe["port"] == "admin" for probe in paths), say("a probe doesn't ask the admin port"))
        paths = [probe["path"] for probe in paths]
        if monitor := objects.get(("ServiceMonitor", "shop")):
            paths += [endpoint["path"] for endpoint in monitor["spec"]["endpoints"]]
            names = {p["name"] for p in objects["Service", "shop-admin"]["spec"]["ports"]}
            self.expect({e["port"] for e in monitor["spec"]["endpoints"]} <= names, say("ServiceMonitor: no such port"))
        self.answers(say(""), env, paths)

        pre_stop = shop["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace, needed = spec["terminationGracePeriodSeconds"], pre_stop + self.budgets(found)
        self.expect(grace == needed, say(f"terminationGracePeriodSeconds is {grace}, preStop, settle and stop are {needed}"))
        deployment = objects["Deployment", "shop"]["spec"]
        pods = objects["HorizontalPodAutoscaler", "shop"]["spec"]["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
        connections = (pods + 1) * int(found["database.max_connections"])
        self.expect(connections <= forms.POSTGRES_CONNECTIONS, say(f"{pods} pods and a migration want {connections} connections"))
        probe = shop["startupProbe"]
        self.expect(
            probe["periodSeconds"] * probe["failureThreshold"] > seconds(found["shutdown.start"]),
            say("the startup probe gives up before shutdown.start"),
        )
        for pod in (spec, job):
            user = "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])
            self.expect(user == image["user"], say(f"runs as {user}, the image's files are {image['user']}'s"))
            self.expect(pod["enableServiceLinks"] is False, say("service links are on"))

    def answers(self, form, env, paths):
        """Boots the shop with the variables of a pod, on SQLite and free ports, and asks its admin port."""
        env = env | {"SHOP_HTTP__ADDR": "127.0.0.1:0", "SHOP_ADMIN__ADDR": "0.0.0.0:0", "SHOP_SHUTDOWN__SETTLE": "0s"}
        # Few words: nobody reads them after `ready`, and a full pipe would stop the shop.
        env |= {"DATABASE_URL": "sqlite::memory:", "SHOP_DATABASE__MIGRATE_ON_START": "true", "RUST_LOG": "info"}
        with subprocess.Popen([self.shop], cwd=self.folder, env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stdout:
                    if ready := re.search(r'"message":"ready".*"admin":"[^"]*:(\d+)"|"admin":"[^"]*:(\d+)".*"ready"', line):
                        break
                else:
                    raise SystemExit(f"{form}the shop doesn't start with {sorted(env)}")
                admin = f"http://127.0.0.1:{ready[1] or ready[2]}"
                for path in paths:
                    self.expect(status(admin + path) == 200, f"{form}{path} is not what the admin port answers")
                    self.expect(path in OPEN, f"{form}{path} is asked without a token")
                self.expect(status(admin + "/docs") == 401, f"{form}the admin port shows all without a token")
                self.expect(status(admin + "/docs", env.get("SHOP_ADMIN__TOKEN", "none")) == 200, f"{form}the token opens nothing")
            finally:
                process.terminate()
                process.stdout.read()
        self.expect(process.returncode == 0, f"{form}the shop ended with {process.returncode}")

    def systemd(self):
        service, socket = forms.unit(self.tree, "shop.service"), forms.unit(self.tree, "shop.socket")
        env = dict(entry.split("=", 1) for entry in service["Environment"])
        self.expect(env.pop("SHOP_CONFIG", "").startswith("%d/"), "shop.service: the settings are no credential")
        found = self.settings("shop.service", env)
        self.expect(socket["ListenStream"] == [found["http.addr"]], "shop.socket: ListenStream is not http.addr")
        self.expect(socket["FileDescriptorName"] == ["http"], "shop.socket: the shop doesn't know the socket's name")
        self.expect("PartOf" not in socket, "shop.socket: it closes when the service restarts")
        spare = seconds(service["TimeoutStopSec"][0]) - self.budgets(found)
        self.expect(0 < spare <= 5, f"shop.service: TimeoutStopSec leaves {spare} s beyond settle and stop")
        self.expect(seconds(service["TimeoutStartSec"][0]) > seconds(found["shutdown.start"]), "shop.service: TimeoutStartSec")
        self.expect(int(service["LimitNOFILE"][0]) > int(found["http.max_connections"]), "shop.service: LimitNOFILE")


def status(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as answer:
        return answer.code


# A file, what is in it, what stands there instead: each has to be found.
MISTAKES = [
    ("Dockerfile", "EXPOSE 8080", "EXPOSE 8081"),
    ("Dockerfile", "SHOP_HTTP__HANDOVER=off", "SHOP_HTTP_HANDOVER=off"),
    ("Dockerfile", "--timeout=3s", "--timeout=1s"),
    ("Dockerfile", "USER 65532:65532", "USER 65533:65533"),
    ("compose.yaml", "SHOP_1: shop-1:8080", "SHOP_1: shop-1:8081"),
    ("compose.yaml", "stop_grace_period: 30s", "stop_grace_period: 10s"),
    ("compose.yaml", "SHOP_ADMIN__ADDR: 0.0.0.0:9000", "SHOP_ADMIN__ADDR: 0.0.0.0:9001"),
    ("prometheus/prometheus.yml", "shop-2:9000", "shop-2:8080"),
    ("nginx/shop.conf.template", "keepalive_timeout 500ms", "keepalive_timeout 60s"),
    ("nginx/shop.conf.template", "client_max_body_size 1m", "client_max_body_size 8m"),
    ("kubernetes/base/deployment.yaml", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 25"),
    ("kubernetes/base/deployment.yaml", "containerPort: 9000", "containerPort: 9001"),
    ("kubernetes/base/deployment.yaml", "path: /readyz", "path: /ready"),
    ("kubernetes/base/deployment.yaml", "path: /livez", "path: /openapi.json"),
    ("kubernetes/base/deployment.yaml", "name: SHOP_ADMIN__TOKEN", "name: SHOP_ADMIN_TOKEN"),
    ("kubernetes/base/deployment.yaml", "seconds: 5", "seconds: 6"),
    ("kubernetes/base/deployment.yaml", "failureThreshold: 70", "failureThreshold: 20"),
    ("kubernetes/base/kustomization.yaml", "SHOP_SHUTDOWN__STOP=23s", "SHOP_SHUTDOWN__STOP=24s"),
    ("kubernetes/base/kustomization.yaml", "MAX_CONNECTIONS=12", "MAX_CONNECTIONS=16"),
    ("kubernetes/base/service.yaml", "port: 8080", "port: 80"),
    ("kubernetes/base/migration-job.yaml", "runAsUser: 65532", "runAsUser: 1000"),
    ("kubernetes/components/monitoring/service-monitor.yaml", "path: /metrics", "path: /metric"),
    ("systemd/shop.service", "TimeoutStopSec=27s", "TimeoutStopSec=25s"),
    ("systemd/shop.service", "SHOP_SHUTDOWN__SETTLE=0s", "SHOP_SHUTDOWN_SETTLE=0s"),
    ("systemd/shop.service", "LimitNOFILE=16384", "LimitNOFILE=1024"),
    ("systemd/shop.socket", "ListenStream=127.0.0.1:8080", "ListenStream=127.0.0.1:8081"),
    ("systemd/shop.socket", "FileDescriptorName=http", "FileDescriptorName=web"),
]

# The other side: a shop whose settings are others than those the files were written for.
OTHER_SHOPS = [
    "shutdown: {stop: 40s}",
    "shutdown: {start: 5m}",
    "http: {idle_timeout: 400ms}",
    "http: {request_timeout: 1m}",
    "http: {max_body_bytes: 2MiB}",
    "http: {max_connections: 20000}",
    "http: {addr: '127.0.0.1:8081'}",
]


def main():
    shop, tree = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(".")
    began = time.monotonic()
    if faults := Comparison(shop, tree).all():
        raise SystemExit("\n".join(faults))
    for name, right, wrong in MISTAKES:
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(tree / DEPLOY, copy / DEPLOY)
            text = (copy / DEPLOY / name).read_text()
            if right not in text:
                raise SystemExit(f"{name} has no {right!r} to break")
            (copy / DEPLOY / name).write_text(text.replace(right, wrong))
            if not Comparison(shop, copy).all():
                raise SystemExit(f"nothing found in {name} with {wrong!r}")
    for file in OTHER_SHOPS:
        if not Comparison(shop, tree, file).all():
            raise SystemExit(f"nothing found with the settings {file}")
    took = time.monotonic() - began
    print(f"the manifests fit the shop; {len(MISTAKES)} mistakes in them and {len(OTHER_SHOPS)} other shops were found ({took:.0f} s)")


main()

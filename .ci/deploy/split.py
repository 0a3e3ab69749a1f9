"""Splits what kustomize printed: ServiceMonitors, which Kubernetes itself doesn't know, from all the rest."""

import pathlib
import sys

import yaml

folder = pathlib.Path(sys.argv[1])
for place in ("known", "monitors"):
    (folder / place).mkdir(exist_ok=True)
    for old in (folder / place).glob("*.yaml"):
        old.unlink()
for number, document in enumerate(yaml.safe_load_all((folder / "all.yaml").read_text())):
    place = "monitors" if document["kind"] == "ServiceMonitor" else "known"
    (folder / place / f"{number:02}-{document['kind']}.yaml").write_text(yaml.safe_dump(document))

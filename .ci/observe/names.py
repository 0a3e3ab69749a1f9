"""Every metric that an alert or a panel names is one that the service exports, with every label that is selected by."""

import json
import re
import sys

metrics, openmetrics, alerts, dashboard = sys.argv[1:]

labels = {}
for line in open(metrics):
    if not line.startswith("#") and line.strip():
        name, _, rest = re.match(r"([a-zA-Z_:][\w:]*)(\{(.*)\})? \S+", line).group(1, 2, 3)
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=\"", rest or ""))

kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", open(metrics).read(), re.M))
assert open(openmetrics).read().endswith("# EOF\n"), "OpenMetrics ends with its mark"
examples = re.findall(r'_bucket\{.*\} \d+ # \{trace_id="[0-9a-f]{32}"\} \S+ \S+$', open(openmetrics).read(), re.M)
assert examples, "no histogram has an exemplar"

# Prometheus' own, and what it adds to every series.
given, added = {"up", "ALERTS"}, {"job", "instance"}
texts = [line.split("record:")[1].strip() for line in open(alerts) if "record:" in line]
recorded = set(texts)
expressions = re.findall(r"expr: (?:\|\n((?:\s{10,}.*\n)+)|(.*)\n)", open(alerts).read())
expressions = [a or b for a, b in expressions]
board = json.load(open(dashboard))
expressions += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
expressions += [v["query"].split("(", 1)[1].split(",")[0] for v in board["templating"]["list"] if v["type"] == "query"]
assert len(expressions) > 40, len(expressions)

functions = {"sum", "rate", "max", "by", "le", "histogram_quantile", "increase", "and", "or", "vector", "count"}
wrong, used = [], set()
for expression in expressions:
    bare = re.sub(r"by \([^)]*\)", "", expression)
    for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})?", re.sub(r"\[[^\]]*\]|(?<=[=~])\"[^\"]*\"", lambda m: m.group() if m.group()[0] == '"' else "", bare)):
        if name in functions or name in given or name in recorded or not re.search("_", name) or name not in labels and not selector:
            continue
        used.add(name)
        if name not in labels:
            wrong.append(f"{name} is not exported: {expression.strip()}")
            continue
        selected = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector or "")) - added
        if missing := selected - labels[name]:
            wrong.append(f"{name} has no label {missing}: {expression.strip()}")
assert not wrong, "\n".join(wrong)
assert len(used) > 25, used
print(f"{len(used)} metrics of alerts and dashboard are exported, of {len(kinds)} families; {len(examples)} exemplars")

"""Alerts and dashboard for the server's metrics: held against what a server exposes, and by promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import product
from serving.protocol.errors import Code
from serving.server.telemetry.metrics import Metrics
from tests.unit.kubeflow.conftest import REPOSITORY

FOLDER = REPOSITORY / "kubeflow" / "manifests" / "monitoring"
JOB = f"{product.NAME}-serving"
_NAME = re.compile(r"[a-z_:][a-z0-9_:]*")
Json = Any


def rules() -> list[Json]:
    (document,) = yaml.safe_load_all((FOLDER / "rules.yaml").read_text())
    (group,) = document["spec"]["groups"]
    return group["rules"]


def panels() -> list[Json]:
    return json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def exposed() -> dict[str, set[str]]:
    """The labels of each series that a server shows, by name."""
    metrics = Metrics()
    metrics.request("m", "1", "predict", "rest", Code.OK, 0.001)
    metrics.batch("m", 3, 0.001)
    metrics.log_count.add("m", "OK")
    found = {}
    for line in metrics.page().decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.partition("{")
            found[name.split(" ")[0]] = set(re.findall(r'(\w+)="', labels))
    # Prometheus' own: whether a target answers, and where it is.
    return {name: labels | {"job", "namespace"} for name, labels in found.items()} | {
        "up": {"job", "namespace"}
    }


def without_grafana(expression: str) -> str:
    """An expression of the dashboard as Prometheus gets it."""
    return expression.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$model", ".*")


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    lists = json.loads((FOLDER / "dashboard.json").read_text())["templating"]["list"]
    looked_up = [
        re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]
        for variable in lists
        if variable["type"] == "query"
    ]
    return [rule["expr"] for rule in rules()] + [without_grafana(each) for each in shown + looked_up]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_is_one_that_the_server_shows(expression: str) -> None:
    known = exposed() | {
        rule["record"]: {"namespace", "model_name"} for rule in rules() if "record" in rule
    }
    selected = re.findall(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}", expression)
    plain = re.findall(rf"(?<![\w:])((?::|{product.NAME})[a-z0-9_:]+)(?![\w:{{])", expression)

    assert selected or plain
    for name, matchers in [*selected, *((name, "") for name in plain)]:
        assert name in known, name
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", matchers)) <= known[name]
    for by in re.findall(r"by \(([^)]*)\)", expression):
        labels = set().union(*(known[name] for name, _ in selected))
        assert set(re.findall(r"\w+", by)) <= labels


def test_statuses_are_names_of_codes() -> None:
    named = {name for rule in rules() for name in re.findall(r"[A-Z_]{4,}", rule["expr"])}
    assert {"INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED"} <= named
    assert named <= {code.name for code in Code}


def test_the_targets_are_those_of_the_service() -> None:
    (monitor,) = yaml.safe_load_all((FOLDER / "service-monitor.yaml").read_text())
    base = FOLDER.parent / "tf-serving" / "base"
    service = yaml.safe_load((base / "service.yaml").read_text())
    deployment = yaml.safe_load((base / "deployment.yaml").read_text())
    (endpoint,) = monitor["spec"]["endpoints"]

    assert service["metadata"]["name"] == JOB
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert endpoint["path"] == annotations["prometheus.io/path"]
    (labels,) = yaml.safe_load((base / "kustomization.yaml").read_text())["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels["pairs"]


def test_panels_have_an_id_each_and_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


def promtool(*arguments: object) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not here")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_rules(folder: Path) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "rules", "rules": rules()}]}))
    return path


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    path = tmp_path / "expressions.yaml"
    shown = [{"record": f"x:{number}", "expr": each} for number, each in enumerate(expressions())]
    path.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": shown}]}))

    promtool("check", "rules", write_rules(tmp_path), path)


# A server for half an hour: 10 requests a second, of which the given number fails, each of 0.1 s or 0.5 s.
def a_server(failures: int, slow: bool = False, dropped: int = 0) -> list[Json]:
    labels = f'job="{JOB}",namespace="ns",model_name="m"'
    count, bucket = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency_bucket"
    series = {
        f"up{{{labels}}}": "1x30",
        f'{count}{{{labels},status="OK"}}': f"0+{600 - failures}x30",
        f'{count}{{{labels},status="INTERNAL"}}': f"0+{failures}x30",
        f'{count}{{{labels},status="INVALID_ARGUMENT"}}': "0+60x30",
        f'{bucket}{{{labels},le="100000"}}': f"0+{0 if slow else 600}x30",
        f'{bucket}{{{labels},le="500000"}}': "0+600x30",
        f'{bucket}{{{labels},le="+Inf"}}': "0+600x30",
        f':tensorflow:serving:request_log_count{{{labels},status="RESOURCE_EXHAUSTED"}}': f"0+{dropped}x30",
    }
    return [{"series": name, "values": values} for name, values in series.items()]


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        (a_server(failures=0), []),
        (a_server(failures=3), []),
        (a_server(failures=30), ["ModelServerFails"]),
        (a_server(failures=0, slow=True), ["ModelServerSlow"]),
        (a_server(failures=0, dropped=1), ["RequestLogIncomplete"]),
        ([], ["ModelServerDown"]),
    ],
)
def test_an_alert_fires_for_its_reason_alone(series: list[Json], alerts: list[str], tmp_path: Path) -> None:
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    test = {
        "rule_files": [str(write_rules(tmp_path))],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": "25m",
                        "exp_samples": [{"labels": "{}", "value": int(name in alerts)}],
                    }
                    for name in names
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(test))

    promtool("test", "rules", path)

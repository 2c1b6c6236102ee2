"""The dashboard is one that Grafana can show: structure, and the data source that is provisioned."""

import itertools
import json
from pathlib import Path

from ruamel.yaml import YAML

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "catsdogs.json").read_text())


def test_panels_have_their_own_ids_places_and_descriptions():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(cells, 2))
    assert max(x for cell in cells for x, _ in cell) < 24


def test_every_query_goes_to_the_provisioned_source():
    (source,) = YAML(typ="safe").load(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    queries = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert queries
    assert all(target["datasource"] == wanted and target["expr"] for target in queries)


def test_what_an_operator_asks_is_shown():
    text = json.dumps(DASHBOARD)
    shown = (
        "prediction_requests_total",
        "prediction_latency_seconds_bucket",
        "predictions_by_class_total",
        "predictions_unsure_total",
        "prediction_confidence_bucket",
        "problems_total",
        "model_info",
    )
    assert [figure for figure in shown if figure not in text] == []

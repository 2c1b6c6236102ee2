from catsdogs_lib.common import files
from catsdogs_lib.pipeline import reports


def test_reports_are_kept_in_the_run(packaged):
    from mlflow.tracking import MlflowClient

    ws, _ = packaged
    files.write_text(ws.reports / "04_evaluate.html", "<p>report</p>")
    reports.log_reports(ws)
    run_id = files.read_json(ws.runs)["runs"]["efficientnet_lite0"]
    assert [item.path for item in MlflowClient().list_artifacts(run_id, "reports")] == ["reports/04_evaluate.html"]

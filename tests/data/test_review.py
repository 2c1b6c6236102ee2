"""From the doctor's proposals to a file that the pipeline obeys, on the command line."""

import csv

from click.testing import CliRunner

from catsdogs_lib.cli.command_line import cli
from catsdogs_lib.common import files
from catsdogs_lib.data import manifest


def catsdogs(*arguments):
    return CliRunner().invoke(cli, [str(part) for part in arguments])


def test_the_doctor_shows_what_it_found_and_a_person_decides(prepared, tmp_path):
    # A label that is surely wrong: a dog among the cats.
    table = manifest.read_manifest(prepared.manifest)
    before = prepared.manifest.read_bytes()
    dog = manifest.used(table, "train").query("label == 'dog'").index[0]
    table.loc[dog, "label"] = "cat"
    manifest.write_manifest(table, prepared.manifest)
    try:
        done = catsdogs("data", "doctor", "--workspace", prepared.root, "-o", tmp_path / "doctor")
    finally:
        files.write_bytes(prepared.manifest, before)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "doctor" / "findings.html").read_text()
    with (tmp_path / "doctor" / "proposals.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert page.count("<img") >= len(rows) > 0
    wrong = next(row for row in rows if row["path"] == table.loc[dog, "path"])
    assert wrong["finding"] == "wrong label"
    assert wrong["proposal"] == "relabel:dog"
    assert {row["action"] for row in rows} == {""}, "nothing is decided by itself"

    wrong["action"] = wrong["proposal"]
    decided, target = tmp_path / "decided.csv", tmp_path / "mine.csv"
    with decided.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = catsdogs("data", "confirm", decided, "--to", target)
    assert done.exit_code == 0, done.output
    assert "0 left out, 1 relabelled" in done.output
    assert table.loc[dog, "sha256"] in target.read_text()

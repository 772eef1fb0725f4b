"""An audit with shadow models as a user runs it: alone, killed and resumed, and by two
processes that share the work and find what one finds alone.
"""

import csv
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from cli.command import AUDIT, dry_run, here, refused

from diffence_jax.experiment.store import locked


def start(workdir, *arguments):
  command = [sys.executable, "-m", "diffence_jax.cli.main", AUDIT, f"--workdir={workdir}"]
  return subprocess.Popen(
    [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


@pytest.fixture(scope="module")
def alone(audit_smoke, tmp_path_factory):
  """A copy: a later run in the workdir writes there."""
  workdir = tmp_path_factory.mktemp("alone") / "workdir"
  subprocess.run(["cp", "-rp", audit_smoke.workdir, workdir], check=True)
  return workdir, audit_smoke.printed


def start_two(workdir):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  return [start(workdir, f"--distributed=localhost:{port},{i},2") for i in range(2)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """Where processes worked together, one of which was killed and one came late."""
  workdir = tmp_path_factory.mktemp("shared")
  first, killed = (start(workdir, "--share") for _ in range(2))
  deadline = time.monotonic() + 240
  while not models_in(workdir) and time.monotonic() < deadline:
    time.sleep(0.05)
  killed.kill()
  killed.communicate()
  late = start(workdir, "--share")
  printed = [process.communicate(timeout=300) for process in (first, late)]
  assert [first.returncode, late.returncode] == [0, 0], printed
  return workdir, [text for text, _ in printed]


def models_in(workdir):
  """Model number to its manifest."""
  manifests = [
    json.loads(path.read_text()) for path in workdir.glob("shadow_models/*/manifest.json")
  ]
  return {manifest["fields"]["number"]: manifest for manifest in manifests}


def results_in(workdir):
  results = json.loads((workdir / "results.json").read_text())
  del results["device"]  # how many processes had one
  del results["answer_time"]  # by the clock
  return results


def test_the_report_has_the_shadow_models(alone):
  workdir, printed = alone
  assert "LiRA" in printed and "RMIA" in printed
  results = results_in(workdir)
  attacks = {attack["name"] for attack in results["predictors"][0]["attacks"]}
  assert {"lira_online_shrunk", "rmia_offline", "nn", "quantile_regression"} <= attacks
  assert {"noise_robustness", "hop_skip_jump"} <= attacks
  assert results["shadow"]["num_models"] == 6 and results["shadow"]["num_canaries"] == 4
  asked_again = {row["attack"] for row in results["shadow"]["adaptive"] if row["queries"] > 1}
  assert {"confidence", "lira_online_per_example", "rmia_online"} <= asked_again
  assert not asked_again & {"noise_robustness", "hop_skip_jump"}
  membership = np.load(next(workdir.glob("shadow/*/membership.npy")))
  assert membership.shape == (6, 100) and np.all(membership.sum(axis=0) == 3)
  # [S, N, R, K], to be mapped.
  record = np.load(next(workdir.glob("shadow_queries/*/candidates.npy")), mmap_mode="r")
  assert record.shape == (6, 100, 5, 10)


def test_killed_between_two_models_it_trains_none_twice(alone, tmp_path):
  # What does not need shadow models is there already.
  shutil.copy(alone[0] / "format.json", tmp_path)
  for folder in alone[0].iterdir():
    if folder.is_dir() and not folder.name.startswith(("shadow", "reports")):
      shutil.copytree(folder, tmp_path / folder.name)
  process = start(tmp_path)
  deadline = time.monotonic() + 240
  while len(models_in(tmp_path)) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
  process.kill()
  process.communicate()
  # Of whole ones: what was being written is written again.
  files = (path for path in tmp_path.glob("shadow_models/*/*") if "." not in path.parent.name)
  before = {path: path.stat().st_mtime_ns for path in files}
  assert len(models_in(tmp_path)) >= 2 and not (tmp_path / "results.json").exists()
  process = start(tmp_path)
  assert process.wait(240) == 0, process.stderr.read()
  assert {path: path.stat().st_mtime_ns for path in before} == before
  assert results_in(tmp_path) == results_in(alone[0])


def test_more_models_leave_those_that_there_are(alone):
  workdir, _ = alone
  text = dry_run(AUDIT, f"--workdir={workdir}", "--config.shadow.num_models=8")
  states = {line.split()[0]: line.split()[2] for line in text.splitlines()}
  assert states["shadow"] == "to" and states["classifier"] == "cached"
  assert "8 models, each" in text and "; 6 of 8 cached" in text


@pytest.mark.parametrize(
  "setting", ["classifier.model=resnet18", "classifier.epochs=3", "seed=1"]
)
def test_what_shadow_models_depend_on_is_in_their_names(alone, setting):
  text = dry_run(AUDIT, f"--workdir={alone[0]}", f"--config.{setting}")
  assert "6 models, each" in text and "; 0 of 6 cached" in text


def test_processes_that_share_find_what_one_finds(alone, shared):
  expected, found = models_in(alone[0]), models_in(shared[0])
  assert sorted(found) == sorted(expected) == list(range(6))
  for number, manifest in found.items():
    assert manifest["fingerprint"] == expected[number]["fingerprint"]
  assert results_in(shared[0]) == results_in(alone[0])
  for name in ("raw", "candidates"):
    pattern = f"shadow_queries/*/{name}.npy"
    a, b = (np.load(next(workdir.glob(pattern))) for workdir in (alone[0], shared[0]))
    np.testing.assert_array_equal(a, b)


def test_each_process_tells_what_was_found(shared):
  first, late = shared[1]
  assert "undefended" in first and first == late
  # The one that was killed may have left claims to what it had finished.
  assert all(claim.with_suffix("").is_dir() for claim in shared[0].glob("*/*.claim*"))


def test_if_one_process_gives_up_so_does_the_other(tmp_path):
  with locked(tmp_path):
    first, second = start_two(tmp_path)
    _, said = first.communicate(timeout=100)
    assert first.returncode == 2 and "Another run is using the workdir" in said
    second.communicate(timeout=100)
    assert second.returncode != 0


def test_a_description_that_says_nothing_is_refused(tmp_path):
  workdir = tmp_path / "new"
  said = refused(AUDIT, f"--workdir={workdir}", "--distributed=two")
  assert "HOST:PORT,NUMBER,COUNT" in said and not workdir.exists()


def test_all_policies_are_compared_on_the_record(alone, tmp_path):
  workdir, output = alone[0], tmp_path / "new" / "frontier"
  process = here("frontier", AUDIT, f"--workdir={workdir}", f"--output={output}")
  rows = json.loads((output / "frontier.json").read_text())
  names = [row["name"] for row in rows]
  assert names[:2] == ["undefended", "scenario 1"] and "constant" in names
  assert sum(name.startswith("blend ") for name in names) == 10
  assert process.stdout.startswith("SMOKE RUN") and "blend 0.5" in process.stdout
  with open(output / "frontier.csv", newline="") as handle:
    table = list(csv.DictReader(handle))
  for row, line in zip(rows, table, strict=True):
    assert line["name"] == row["name"]
    assert float(line["often_auc"]) == row["often"]["auc"]["value"]
    assert float(line["ece"]) == row["ece"]
    assert float(line["unlimited_auc_high"]) == row["unlimited"]["auc"]["high"]
  svg = (output / "frontier.svg").read_text()
  assert svg.startswith("<svg") and "the published selection" in svg and "blend 0.5" in svg
  assert output.stat().st_mode & 0o077 == 0


def test_a_policy_is_tuned_on_known_samples_and_its_flags_choose_it(alone, tmp_path):
  run = [AUDIT, f"--workdir={alone[0]}"]
  output = tmp_path / "tune"
  process = here("tune", *run, "--max_auc=1", f"--output={output}")
  chosen = json.loads((output / "tune.json").read_text())
  assert chosen["is_met_on_target"] and "which meets --max_auc=1" in " ".join(
    process.stdout.split()
  )
  assert chosen["known"]["name"] == chosen["target"]["name"]
  flags = (output / "tune.flags").read_text().splitlines()
  assert flags == chosen["overrides"] and shlex.quote(flags[0]) in process.stdout
  by_file = dry_run(*run, f"--flagfile={output}/tune.flags")
  assert by_file == dry_run(*run, *flags)
  assert by_file != dry_run(*run)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["frontier", AUDIT], "--workdir is missing"),
    (["frontier", AUDIT, "--workdir={tmp}"], "has no shadow"),
    (["frontier", AUDIT, "--workdir={tmp}", f"--output={__file__}"], "which is no folder"),
    (["tune", AUDIT, "--workdir={tmp}"], "expected one bound"),
    (["tune", AUDIT, "--workdir={tmp}", "--max_auc=0.4"], "expected a number of 0.5 to 1"),
    (["tune", AUDIT, "--workdir={tmp}", "--max_auc=low"], "expected a number"),
    (
      ["tune", AUDIT, "--workdir={tmp}", "--max_auc=0.6", "--config.audit.protocol=paper"],
      "expected 'disjoint'",
    ),
    (
      ["frontier", AUDIT, "--workdir={tmp}", "--config.shadow.num_models=0"],
      "expected at least 6",
    ),
  ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, arguments, message):
  workdir = tmp_path / "new"
  said = refused(*(a.replace("{tmp}", str(workdir)) for a in arguments))
  assert message in said and len(said.splitlines()) == 1
  assert not workdir.exists()

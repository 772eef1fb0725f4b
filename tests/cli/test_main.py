"""The command, as a user runs it: a process of its own, killed and run again."""

import contextlib
import csv
import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from cli.command import CONFIGS, SMOKE, diffence, dry_run, here, refused
from jax import export

import diffence_jax as dj
from diffence_jax.disk import ArtifactError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("smoke")
  return workdir, diffence(SMOKE, f"--workdir={workdir}", check=0)


def test_a_setting_of_a_model_or_source_can_be_new(tmp_path):
  settings = [
    "--config.diffusion.fields.dtype=bfloat16",
    "--config.classifier.fields.std=(0.3,)",
  ]
  assert "classifier" in dry_run(SMOKE, f"--workdir={tmp_path}", *settings)


def test_a_run_leaves_a_report(finished):
  workdir, process = finished
  for name in ("undefended", "scenario 1", "scenario 2", "scenario 3", "average"):
    assert name in process.stdout
  results = json.loads((workdir / "results.json").read_text())
  for row in results["predictors"]:
    assert row["name"] == "average" or row["label_changes"] == 0
  assert (workdir / "report.html").read_text().startswith("<!")
  with open(workdir / "results.csv", newline="") as handle:
    aucs = [row for row in csv.DictReader(handle) if row["metric"] == "auc"]
  assert len(aucs) == 5 * 11
  run = json.loads((workdir / "run.json").read_text())
  assert run["settings"] == results["settings"] and run["settings"]["seed"] == 0
  assert {"jax", "diffence_jax", "python"} <= set(run["versions"]) and run["device"]
  # A progress bar's carriage returns have no place outside a terminal.
  assert "\r" not in process.stderr


def test_a_second_run_computes_nothing_and_says_the_same(finished):
  workdir, first = finished
  before = (workdir / "results.json").read_bytes()
  again = here(SMOKE, f"--workdir={workdir}")
  assert again.stdout == first.stdout and "running" not in again.stderr
  assert (workdir / "results.json").read_bytes() == before


def test_a_second_config_in_the_workdir_leaves_the_first_ones_report(finished, tmp_path):
  workdir = tmp_path / "copy"
  subprocess.run(["cp", "-r", finished[0], workdir], check=True)
  (first,) = (workdir / "reports").iterdir()
  assert first.name.startswith("digits-smoke-")
  files = {file.name: file.read_bytes() for file in first.iterdir()}
  assert set(files) == {
    "results.json", "results.csv", "curves.npz", "scores.csv", "examples.csv", "report.html",
    "private.html",
  }  # fmt: skip
  assert files == {name: (workdir / name).read_bytes() for name in files}
  fewer = "--config.audit.attacks=('loss',)"
  # As of a config with shadow models: it would be taken for the next one's.
  (workdir / "scores_in_turn.npz").touch()
  here(SMOKE, f"--workdir={workdir}", fewer)
  assert {file.name: file.read_bytes() for file in first.iterdir()} == files
  assert not (workdir / "scores_in_turn.npz").exists()
  (second,) = set((workdir / "reports").iterdir()) - {first}
  for name in files:
    assert (second / name).read_bytes() == (workdir / name).read_bytes()
    # Both show the same images.
    assert ((second / name).read_bytes() == files[name]) == (name == "private.html")
  assert second.stat().st_mode & 0o077 == 0
  # How it is computed is no other config.
  here(SMOKE, f"--workdir={workdir}", fewer, "--config.compute.chunk_size=7")
  assert set((workdir / "reports").iterdir()) == {first, second}


def test_a_dry_run_tells_what_would_be_done(finished, tmp_path):
  workdir, _ = finished
  cached = dry_run(SMOKE, f"--workdir={workdir}")
  assert cached.count("cached") == 7
  assert cached.startswith(
    "data            1797 images, 8 high and 8 wide, 1 channel; 10 classes"
  )
  changed = dry_run(SMOKE, f"--workdir={workdir}", "--config.purify.step=80")
  states = [line.split()[2] for line in changed.splitlines()[1:]]
  assert states == ["cached", "cached", "cached", "to", "to", "to", "to"]
  changed = dry_run(SMOKE, f"--workdir={workdir}", "--config.data.num_reference=17")
  states = [line.split()[2] for line in changed.splitlines()[1:]]
  # Who is in the reference set matters to none but those that train with it.
  assert states == ["to"] + 6 * ["cached"]
  dry_run(SMOKE, f"--workdir={tmp_path / 'new'}")
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("num_models", "pairs"), [(6, None), (8, 4), (14, 7), (16, None)])
def test_a_dry_run_tells_that_few_models_are_attacked_again(num_models, pairs, tmp_path):
  config = f"--config={CONFIGS / 'digits.py'}:audit"
  told = dry_run(config, f"--workdir={tmp_path}", f"--config.shadow.num_models={num_models}")
  (line,) = [line for line in told.splitlines() if line.startswith("shadow_audit")]
  assert f"{num_models} models' answers to attack" in line
  assert ("again without each of" in line) == (pairs is not None)
  assert pairs is None or f"each of {pairs} pairs" in line


def test_a_finished_run_is_exported(finished, tmp_path):
  workdir, _ = finished
  path = tmp_path / "protected.stablehlo"
  here("export", SMOKE, f"--workdir={workdir}", f"--output={path}", "--policy=scenario_2")
  program = export.deserialize(bytearray(path.read_bytes()))
  results = json.loads((workdir / "results.json").read_text())
  parts = dj.load_run(workdir, results["settings"])
  experiment, protected = parts.experiment, parts.protect("scenario_2")
  images = experiment.dataset.take(experiment.split.target_members[:3]).images / np.float32(255)
  key = jax.random.key(0)
  logits = jax.jit(program.call)(jax.random.key_data(key), images)
  np.testing.assert_allclose(logits, protected(key, images), atol=1e-4)
  (record,) = workdir.glob("queries/*/raw.npy")
  first = len(experiment.split.known_members)
  labels = np.load(record)[first : first + 3].argmax(axis=-1)
  np.testing.assert_array_equal(np.argmax(logits, axis=-1), labels)


def test_the_parts_of_a_finished_run_are_those_of_its_report(finished, tmp_path):
  workdir, _ = finished
  parts = dj.load_run(workdir)
  results = json.loads((workdir / "results.json").read_text())
  rows = {row["policy"]: row for row in results["predictors"]}
  # The policies, and the intervals that they were fitted to.
  assert list(parts.policies) == list(rows) and "undefended" in rows
  for name, policy in parts.policies.items():
    assert (policy.interval is None) == (name not in ("scenario_1", "scenario_2"))
  # The networks: what was recorded is answered again, of every known member and its candidates.
  known = parts.experiment.split.known_members
  images = parts.experiment.dataset.take(known).images / np.float32(255)
  raw = np.load(next(workdir.glob("queries/*/raw.npy")))[: len(known)]
  np.testing.assert_allclose(parts.predict(None, images), raw, atol=1e-4)
  candidates = dj.candidate_logits(
    jax.random.key(0), parts.predict, parts.denoise, parts.schedule, images, **parts.settings
  )
  num_candidates = results["settings"]["purify"]["num_candidates"]
  assert candidates.shape == (len(known), num_candidates, raw.shape[1])
  protected = parts.protect("scenario_1", randomness="per_input")
  logits = protected(jax.random.key(1), images)
  np.testing.assert_array_equal(np.argmax(logits, axis=1), np.argmax(raw, axis=1))
  # The scores: figures are made of them anew.
  scores = parts.scores
  assert set(scores.by_policy) == set(rows)
  assert set(scores.ids[scores.is_member]) == set(parts.experiment.split.members)
  for name, row in rows.items():
    shown = [attack for attack in row["attacks"] if attack["threshold"] == "global"]
    assert "loss" in {attack["name"] for attack in shown}
    for attack in shown:
      of_attack = scores.by_policy[name][attack["name"]]
      judged = ~scores.is_known & ~np.isnan(of_attack)
      sides = (of_attack[judged & (scores.is_member == side)] for side in (True, False))
      assert dj.metrics.roc(*sides).auc == pytest.approx(attack["auc"]["value"], abs=1e-9)
  with pytest.raises(ValueError, match="no policy 'scenario_4'; did you mean"):
    parts.protect("scenario_4")
  with pytest.raises(ValueError, match=r"no shadow models, .*; set shadow\.num_models"):
    _ = parts.scores_in_turn


def test_the_docs_go_on_with_the_parts_of_a_run(finished, tmp_path, monkeypatch):
  page = (CONFIGS.parent / "docs" / "experiments.md").read_text()
  (code,) = (
    text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "load_run" in text
  )
  monkeypatch.chdir(tmp_path)
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs/digits").symlink_to(finished[0])
  images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
  names = {"dj": dj, "jax": jax, "images": images}
  exec(code, names)
  run, again = names["run"], dj.models.predictor(names["module"], names["variables"])
  np.testing.assert_array_equal(again(None, images), run.predict(None, images))
  labels = np.argmax(run.predict(None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(names["logits"], axis=-1), labels)
  assert (
    names["loss"].shape == run.scores.ids.shape and names["interval"][0] < names["interval"][1]
  )


def test_what_is_no_finished_run_has_no_parts(finished, tmp_path):
  workdir, _ = finished
  with pytest.raises(FileNotFoundError, match=r"no run in .*nowhere, for lack of run\.json"):
    dj.load_run(tmp_path / "nowhere")
  shutil.copy(workdir / "format.json", tmp_path)
  (tmp_path / "run.json").write_text("{}")
  with pytest.raises(ArtifactError, match=r"run\.json.* has no settings"):
    dj.load_run(tmp_path)
  settings = json.loads((workdir / "run.json").read_text())["settings"]
  unfinished = dj.load_run(workdir, {**settings, "seed": 7})
  for part in ("classifier", "diffusion", "policies", "scores"):
    with pytest.raises(FileNotFoundError, match="first run diffence with the same"):
      getattr(unfinished, part)


def test_what_cannot_be_exported_is_refused(finished, tmp_path):
  workdir, path = finished[0], tmp_path / "program"
  run, output = [SMOKE, f"--workdir={workdir}"], f"--output={path}"
  for arguments, message in (
    (run, "--output is missing"),
    ([*run, output, "--policy=scenario_4"], "no policy 'scenario_4'; did you mean"),
    ([*run, output, "--config.seed=7"], "has no classifier of this config"),
    ([*run, output, "--config.output.defense=memguard"], "cannot be exported"),
    ([*run, f"--output={tmp_path}/nowhere/program"], "There is no folder"),
  ):
    assert message in refused("export", *arguments)
  assert not list(tmp_path.iterdir())
  text = here("export", "--help").stdout
  assert "--policy" in text and "flatbuffers" in text


def test_a_damaged_artifact_is_an_error(finished, tmp_path):
  workdir, _ = finished
  copy = tmp_path / "copy"
  subprocess.run(["cp", "-r", workdir, copy], check=True)
  (record,) = copy.glob("queries/*/candidates.npy")
  record.write_bytes(record.read_bytes()[:-8])
  before = (copy / "results.json").read_bytes()
  assert "candidates.npy is not what was written" in refused(SMOKE, f"--workdir={copy}")
  assert (copy / "results.json").read_bytes() == before


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([], "--config is missing"),
    ([SMOKE], "--workdir is missing"),
    (["--config=nowhere.py", "--workdir={tmp}"], "nowhere.py"),
    ([SMOKE.replace(":smoke", ":smok"), "--workdir={tmp}"], "did you mean 'smoke'"),
    ([SMOKE, "--workdir={tmp}", "--config.purify.stpe=80"], "no setting 'stpe'. Did you mean"),
    ([SMOKE, "--workdir={tmp}", "--config.purify.step=many"], "expected a whole number"),
    ([SMOKE, "--workdir={tmp}", "--config.purify.step=5000"], "step is 5000; with a schedule"),
    ([SMOKE, "--workdir={tmp}", "--config.data.source=digit"], "did you mean 'digits'"),
    ([SMOKE, "--workdir={tmp}", "--config.data.num_members=5000"], "asks for 5000 members"),
    ([SMOKE, "--workdir={tmp}", "--config.classifier.model=resnet"], "resnet18"),
    ([SMOKE, "--workdir={tmp}", "--config.diffusion.schedule.beta_end=0"], "beta_end"),
    ([SMOKE, "--workdir={tmp}", "--config.diffusion.fields.channels=48"], "channels"),
    (
      [
        SMOKE,
        "--workdir={tmp}",
        "--config.diffusion.trained_on=reference",
        "--config.data.num_reference=0",
      ],
      "raise data.num_reference",
    ),
    (
      [SMOKE, "--workdir={tmp}", "--config.purify.respacing=ddim600"],
      "leaves 600 of 1000 steps",
    ),
    ([SMOKE, "--workdir={tmp}", "--config.diffusion.image_shape=(8, 8)"], "image_shape is"),
    ([SMOKE, "--workdir={tmp}", "--config.purify.num_ddim_steps=200"], "num_ddim_steps is 200"),
    ([SMOKE, "--workdir={tmp}", "--config.samples.num_ddim_steps=1000"], "num_ddim_steps is"),
    ([SMOKE, "--workdir={tmp}", "--config.purifx.step=80"], "no setting 'purifx'. Did you"),
    ([SMOKE, "--workdir={tmp}", "--config.diffusion.fields.dtpe=a"], "did you mean 'dtype'"),
    (
      [SMOKE, "--workdir={tmp}", "--config.defenses.small_logits.weight=0.5"],
      'given in a config file, as config.defenses.small_logits = {"option": value}',
    ),
    ([SMOKE, "--wrkdir={tmp}"], "workdir"),
    ([SMOKE, "--workdir={tmp}", "extra"], "expected flags only"),
  ],
)
def test_what_is_not_right_is_refused_with_nothing_written(tmp_path, arguments, message):
  workdir = tmp_path / "new"
  said = refused(*(a.replace("{tmp}", str(workdir)) for a in arguments))
  assert message in said and said.startswith("diffence: ") and not workdir.exists()


def test_what_is_refused_ends_a_process_too(tmp_path):
  process = diffence(
    SMOKE, f"--workdir={tmp_path / 'new'}", "--config.data.source=digit", check=2
  )
  assert len(process.stderr.splitlines()) == 1 and not (tmp_path / "new").exists()


def test_the_version_is_that_of_the_package():
  version = importlib.metadata.version("diffence_jax")
  assert dj.__version__ == version
  assert diffence("--version", check=0).stdout == f"diffence_jax {version}\n"


def test_help_is_quick():
  start = time.perf_counter()
  text = diffence("--help", check=0).stdout
  assert time.perf_counter() - start < 3.0
  assert "--workdir" in text and "--dry_run" in text


def test_other_sources_run_from_the_command_line(tmp_path):
  """The paper's CIFAR config, on colour images of one's own."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
  path = tmp_path / "own.npz"
  np.savez(path, images=images, labels=rng.integers(0, 10, 200), part=np.arange(200) >= 120)
  config = tmp_path / "own.py"
  config.write_text(
    "import importlib.util\n"
    f"spec = importlib.util.spec_from_file_location('c', {str(CONFIGS / 'cifar10.py')!r})\n"
    "module = importlib.util.module_from_spec(spec)\n"
    "spec.loader.exec_module(module)\n"
    "def get_config():\n"
    "  config = module.get_config('smoke')\n"
    "  config.data.source = 'npz'\n"
    f"  config.data.options = {{'path': {str(path)!r}}}\n"
    "  config.data.num_members = config.data.num_nonmembers = 24\n"
    "  config.classifier.epochs = 1\n"
    "  config.diffusion.num_steps = 4\n"
    "  config.samples.num_images = 2\n"
    "  return config\n"
  )
  here(f"--config={config}", f"--workdir={tmp_path / 'run'}")
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["data"]["image_shape"] == [32, 32, 3]


def without_times(workdir):
  """The results but for what is by the clock."""
  results = json.loads((workdir / "results.json").read_text())
  del results["answer_time"]
  return results


def kill_at_random(workdir, draw, number):
  """Starts the run again and again, killing it after more and more of its stages."""
  command = [sys.executable, "-m", "diffence_jax.cli.main", SMOKE, f"--workdir={workdir}"]
  killed = 0
  for num_stages in sorted(draw.randrange(6) for _ in range(number)):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(finished_in(workdir)) < num_stages:
      time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(draw.uniform(0.0, 1.5))
    if process.poll() is None:
      os.kill(process.pid, signal.SIGKILL)
      process.wait()
      killed += 1
  return killed


def finished_in(workdir):
  """The manifests of what has been computed, of seven stages."""
  return [path for path in workdir.glob("*/*/manifest.json") if "." not in path.parent.name]


def test_a_killed_run_goes_on_to_the_same_result(finished, tmp_path):
  """DIFFENCE_KILLS sets how often; the moments are drawn anew each time."""
  assert len(finished_in(finished[0])) == 7
  seed = random.SystemRandom().randrange(2**31)
  print(f"seed {seed}")
  killed = kill_at_random(
    tmp_path, random.Random(seed), int(os.environ.get("DIFFENCE_KILLS", "2"))
  )
  assert killed > 0
  here(SMOKE, f"--workdir={tmp_path}")
  assert without_times(tmp_path) == without_times(finished[0])

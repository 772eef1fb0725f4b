"""What README and docs show runs as it stands there, and settings that they name exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.attacks.attack import View
from diffence_jax.attacks.nn import attack_nn
from diffence_jax.experiment.config import base_config
from diffence_jax.training import Recipe, TrainSettings
from diffence_jax.training.loop import take

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))


def examples(page):
  """The Python blocks of a page, those that the site runs among them."""
  blocks = r"```(?:python|\{code-cell\} ipython3)\n((?::.*\n)*)(.*?)```"
  return [code for _, code in re.findall(blocks, page.read_text(), flags=re.DOTALL)]


def example(word):
  """The one Python example of README and docs with this word."""
  (text,) = [each for page in PAGES for each in examples(page) if word in each]
  return text


def run_example(word, **names):
  """Runs the one example with this word and returns the names it leaves."""
  exec(example(word), names)
  return names


def test_the_readme_stays_short():
  assert README.read_text().count("\n") <= 150


def test_every_example_is_python():
  """Those too that are not run here, since they need a finished run or another's weights."""
  blocks = [(page.name, code) for page in PAGES for code in examples(page)]
  for name, code in blocks:
    compile(code, name, "exec")
  assert len(blocks) > 20


def test_two_arrays_and_a_mask_are_audited(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  # It shows what it shows with fewer epochs of one attack, which take most of the time.
  monkeypatch.setitem(attack_nn.__kwdefaults__, "epochs", 20)
  results = run_example("The two arrays")["results"]
  assert results.undefended.highest_auc.low > 0.55
  assert (tmp_path / "report" / "report.html").is_file()


def test_the_three_lines_protect_a_foreign_classifier():
  names = run_example("The three lines")
  assert names["logits"].shape == (5, 10)
  images = np.full((5, 8, 8, 1), 0.5, np.float32)
  labels = np.argmax(names["predict"](None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(names["logits"], axis=-1), labels)


def test_the_public_imagenet_model_is_used_as_published():
  seen = []

  def denoise(x, t):
    seen.append(x.shape[1:])
    return 0.1 * x

  predict = jax.jit(lambda key, images: images.reshape(images.shape[0], -1)[:, :10])
  protected = run_example("ddim5", dj=dj, predict=predict, denoise=denoise)["protected"]
  images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
  labels = np.argmax(predict(None, images), axis=-1)
  np.testing.assert_array_equal(
    np.argmax(protected(jax.random.key(1), images), axis=-1), labels
  )
  assert set(seen) == {(256, 256, 3)}


@pytest.fixture(scope="module")
def own():
  return run_example("def largest_logit")


def test_the_attack_of_the_tutorial(own):
  logits = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
  scores = own["largest_logit"](View(logits=logits, labels=np.zeros(6, np.int32)))
  np.testing.assert_allclose(scores, [np.mean([max(q) for q in each]) for each in logits])


def test_the_policy_of_the_tutorial(own):
  # Candidates of two classes; phi is the difference. Those that keep the label 0: 4, 1, 2.
  differences = np.array([4.0, -3.0, 1.0, 2.0])
  candidates = np.stack([differences, np.zeros(4)], axis=-1)[None].astype(np.float32)
  policy = own["median_phi"](None, None)
  answer = policy.answer(candidates, np.array([[1.0, 0.0]], np.float32))
  np.testing.assert_array_equal(answer, [[2.0, 0.0]])
  answer = policy.answer(candidates[:, 1:2], np.array([[1.0, 0.0]], np.float32))
  np.testing.assert_array_equal(answer, [[1.0, 0.0]])


def test_the_defenses_of_the_tutorial(own):
  module = dj.models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  settings = TrainSettings(20, 2, 5, 1e-3, 0.0)
  recipe = own["small_logits"](module, settings, weight=0.5)
  assert isinstance(recipe, Recipe) and len(recipe.schedule) == 8
  state = recipe.init(jax.random.key(0), (8, 8, 1))
  members = {"images": np.zeros((5, 8, 8, 1), np.uint8), "labels": np.zeros(5, np.int32)}
  batch = {"members": take(members, np.arange(5))}
  with jax.numpy_dtype_promotion("standard"):
    _, metrics = recipe.kinds["train"].step(state, batch, jax.random.key(0))
  assert np.isfinite(metrics["loss"])
  logits = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
  rounded = own["round_off"](None, logits, logits, decimals=0)(logits)
  np.testing.assert_array_equal(rounded.argmax(axis=1), logits.argmax(axis=1))
  assert np.abs(rounded - logits).max() <= 1.5


def test_logits_of_ones_own_can_be_attacked(capsys):
  # phi is N(2, 1) for members and N(0, 1) for others: an AUC of Phi(2 / sqrt(2)) = 0.92.
  low, high = run_example("shadow_phi")["roc"].auc_interval
  assert low < 0.921 < high
  assert capsys.readouterr().out


def test_all_of_ones_own_run_by_the_command(tmp_path):
  options = [
    "--config.audit.attacks=('loss', 'own:largest_logit')",
    "--config.purify.policies=('scenario_1', 'own:median_phi')",
    "--config.classifier.defense=own:small_logits",
    "--config.output.defense=own:round_off",
    "--config.data.source=own:even_digits",
  ]
  (tmp_path / "own.py").write_text(example("def largest_logit"))
  command = [sys.executable, "-m", "diffence_jax.cli.main",
             f"--config={ROOT}/configs/digits.py:smoke", "--workdir=run", *options]  # fmt: skip
  environment = {**os.environ, "PYTHONPATH": f".{os.pathsep}{ROOT}"}
  ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
  assert ran.returncode == 0, ran.stderr
  results = json.loads((tmp_path / "run/results.json").read_text())
  policies = {row["policy"]: row for row in results["predictors"]}
  assert set(policies) == {"undefended", "scenario_1", "own:median_phi"}
  for row in policies.values():
    figures = {own["name"]: own["auc"]["value"] for own in row["attacks"]}
    assert set(figures) == {"correctness", "loss", "own:largest_logit"}
    assert 0.0 < figures["own:largest_logit"] < 1.0
    assert row["label_changes"] == 0
  assert results["defense"]["training"] == "own:small_logits"
  assert results["defense"]["output"] == "own:round_off"
  assert results["data"]["source"] == "own:even_digits"
  assert results["data"]["num_classes"] == 5
  page = (tmp_path / "run/report.html").read_text()
  # In rows of tables, not among the settings alone.
  for name in ("largest logit", "median phi"):
    assert re.search(rf"<t[hd][^>]*>(<[^>]*>)*\s*{name}", page), name


def recipe(path):
  """What the file of a recipe of CONTRIBUTING.md defines."""
  text = (ROOT / "CONTRIBUTING.md").read_text()
  (code,) = re.findall(rf"`diffence_jax/{path}`:\n\n```python\n(.*?)```", text, re.DOTALL)
  names = {"__name__": path}
  exec(compile(code, path, "exec"), names)
  return names


def test_the_recipes_work():
  logits = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
  labels = np.zeros(6, np.int32)
  lead = np.sort(logits)[..., 2] - np.sort(logits)[..., 1]
  scores = recipe("attacks/margin.py")["attack_margin"](View(logits, labels))
  np.testing.assert_allclose(scores, lead.mean(axis=1), rtol=1e-5)
  policy = recipe("defense/coarse.py")["coarse"](None, None, scale=0.25)
  np.testing.assert_allclose(policy.answer(None, logits[:, 0]), 0.25 * logits[:, 0])
  module = dj.models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  settings = TrainSettings(20, 2, 5, 1e-3, 0.0)
  assert isinstance(recipe("training/flooding.py")["flooding"](module, settings), Recipe)
  wine = recipe("data/wine.py")["load"]()
  assert wine.images.shape == (178, 1, 13, 1) and wine.num_classes == 3


def test_commands_of_the_docs_name_settings_that_exist():
  config = base_config()
  mentions = {}
  for file in (*PAGES, ROOT / "CONTRIBUTING.md"):
    found = re.findall(r"config\.([a-z_]+)\.([a-z_]+)", file.read_text())
    sections = "|".join(name for name in config if hasattr(config[name], "keys"))
    found += re.findall(rf"`({sections})\.([a-z_]+)(?:=[^`]*)?`", file.read_text())
    mentions |= {setting: file.name for setting in found}
  del mentions["shadow", "csv"]  # A file.
  # Sections of options by function name take the names of one's own functions too.
  free = {"attacks", "policies", "defenses"}
  unknown = {
    f"{file}: {section}.{key}"
    for (section, key), file in mentions.items()
    if section not in free and (section not in config or key not in config[section])
  }
  assert not unknown
  assert len(mentions) > 10


def test_links_of_the_docs_lead_somewhere():
  for file in (*PAGES, ROOT / "CONTRIBUTING.md"):
    for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
      if "://" not in link:
        assert (file.parent / link).exists(), f"{file.name}: {link}"

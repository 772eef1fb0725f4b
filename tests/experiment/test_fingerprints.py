"""Every setting is in the name of what depends on it, or known not to matter."""

import functools
import json

import jax
import pytest

import diffence_jax as dj
from diffence_jax.experiment.config import base_config, leaves
from diffence_jax.experiment.plan import plan
from diffence_jax.models.saved import save_model
from diffence_jax.training import accounting

# What only the report reads.
REPORTED = {"name", "variant"}

# A run in which nearly everything is used.
FULL = {
  "data.num_members": 40,
  "data.num_nonmembers": 40,
  "data.num_reference": 30,
  "classifier.batch_size": 16,
  "shadow.num_models": 10,
  "shadow.num_canaries": 4,
  "audit.num_label_only": 3,
  "audit.num_optimised": 2,
  "optimised.num_models": 2,
}

# Another value than the default, where adding to it or negating it would not be one.
OTHER = {
  "name": "other",
  "variant": "other",
  "data.source": "own_source:few",
  "data.known_fraction": 0.6,
  "data.nonmembers_from": "test",
  "classifier.model": "vit",
  "classifier.train": "own_source:train",
  "classifier.defense": "label_smoothing",
  "diffusion.model": "adm_unet",
  "diffusion.image_shape": (8, 8, 3),
  "diffusion.schedule.beta_end": 0.03,
  "diffusion.schedule.beta_start": 2e-4,
  "diffusion.trained_on": "reference",
  "diffusion.ema_decay": 0.9,
  "purify.respacing": "ddim500",
  "purify.dtype": "bfloat16",
  "purify.policies": ("scenario_3",),
  "policies.blend.weight": 0.5,
  "output.defense": "memguard",
  "shadow.num_models": 12,
  "optimised.num_models": 4,
  "shadow.augmentation": "flip",
  "shadow.canaries": ("clean",),
  "shadow.queries": (1, 2),
  "shadow.main_attack": "rmia_online",
  "audit.protocol": "paper",
  "audit.attacks": ("loss", "lira_online"),
}

# Settings that only matter beside others.
BESIDE = {
  "data.source": {"data.nonmembers_from": "any"},
  "data.nonmembers_from": {"data.source": "own_source:few"},
  "classifier.train": {"audit.num_optimised": 0},
  "purify.num_ddim_steps": {"purify.to_clean": False},
  "defenses.memguard": {"output.defense": "memguard"},
}

# Options whose range does not begin at their default.
OPTIONS = {
  "defenses.early_stopping.stop_after": 9,
  "defenses.selena.num_left_out": 9,
  "defenses.dpsgd.noise_multiplier": 0.2,
  "defenses.dpsgd.delta": 1e-6,
  "defenses.dpsgd.target_epsilon": 5.0,
  "defenses.ccl.concave": "quadratic",
  "defenses.dpsgd_tuned.delta": 1e-6,
  "defenses.dpsgd_tuned.multiplicity": 8,
  "defenses.dpsgd_tuned.augmentation": "flip_shifts",
  "defenses.dpsgd_tuned.ema_decay": 0.9,
  "defenses.dpsgd_tuned.batch_size": 12,
  "defenses.dpsgd_tuned.epochs": 3,
  "defenses.dpsgd_tuned.learning_rate": 0.01,
  "defenses.hamp.gamma": 0.7,
  "defenses.label_smoothing.smoothing": 0.2,
  "defenses.relaxloss.upper": 0.9,
  "attacks.rmia_offline.interpolation": 0.4,
  "attacks.lira_online.variance": "shrunk",
  "attacks.lira_offline.variance": "shrunk",
  "attacks.pmia.proxies": "class",
  "attacks.pmia.variance": "global",
  "attacks.augmentation_robustness.kind": "flip",
  "canaries.out_of_distribution.source": "own_source:few",
}

SOURCE = """
import numpy as np
from diffence_jax.data import load as load_ours, make_dataset

def few():
  digits = load_ours("digits")
  return make_dataset(digits.images[:400], digits.labels[:400], part=np.arange(400) >= 200)

def train(images, labels, seed):
  return lambda images: np.zeros((len(images), 10))
"""


def named(values):
  """Path to value, as nested mappings."""
  nested = {}
  for path, value in values.items():
    *sections, key = path.split(".")
    inner = nested
    for section in sections:
      inner = inner.setdefault(section, {})
    inner[key] = value
  return nested


def fingerprints(values):
  experiment = plan(named({**FULL, **values}))
  return {name: stage.fingerprint for name, stage in experiment.stages.items()}


@functools.cache
def fingerprints_beside(**values):
  """The same for many settings."""
  return fingerprints(values)


def changed(path, default):
  """Another value than the default."""
  if path in OTHER or path in OPTIONS:
    return OTHER.get(path, OPTIONS.get(path))
  if isinstance(default, bool):
    return not default
  if path in FULL or isinstance(default, int):
    return FULL.get(path, default) + 1
  if isinstance(default, float):
    return default * 1.5
  return None


def settings_of_the_base():
  """Path and default of every setting but what belongs to a source or a model."""
  nested = json.loads(json.dumps(base_config().to_dict()))
  return {path: value for path, value in leaves(nested) if value != {}}


SETTINGS = settings_of_the_base()
# What stands for something on disk, by its content; see the tests below.
ON_DISK = {
  "classifier.saved_model",
  "classifier.predictor",
  "diffusion.saved_model",
  "data.index_file",
}


@pytest.fixture(scope="module", autouse=True)
def own_source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  (folder / "own_source.py").write_text(SOURCE)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield


@pytest.fixture(scope="module", autouse=True)
def quick_account():
  """DP-SGD's noise by the looser of the two accounts, which is ten times as quick."""
  kept = accounting.epsilon, accounting.noise_for
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(accounting, "_LARGEST_FOR_PLD", 0.0)
    for function in kept:
      function.cache_clear()
    yield
  for function in kept:
    function.cache_clear()


def beside(path):
  """The other settings that make this one matter."""
  section, _, name = path.partition(".")
  name = name.partition(".")[0]
  if section == "defenses":
    from diffence_jax.training.registry import DEFENSES

    kind = "classifier.defense" if name in DEFENSES.known else "output.defense"
    return {kind: name}
  if section == "policies":
    return {"purify.policies": (name,)}
  if section == "attacks":
    return {"audit.attacks": (name,)}
  if section == "canaries":
    return {"shadow.canaries": (name,)}
  return BESIDE.get(path, {})


@pytest.mark.parametrize("path", [p for p in SETTINGS if p not in ON_DISK])
def test_a_setting_is_in_a_name_or_known_not_to_matter(path):
  value = changed(path, SETTINGS[path])
  if path.startswith("compute.") and value is None:
    value = 8
  elif path in ("shadow.num_recorded", "data.num_reference"):
    value = 31
  assert value is not None, f"there is no other value for {path} in this test"
  other = beside(path)
  before, after = fingerprints_beside(**other), fingerprints({**other, path: value})
  common = set(before) & set(after)
  differ = {name for name in common if before[name] != after[name]} | (set(before) ^ set(after))
  if path in REPORTED or path.startswith("compute."):
    assert not differ, f"{path} changes {differ}"
  else:
    assert differ, f"{path} changes nothing"


def test_options_of_sources_and_models_are_in_the_names(tmp_path):
  before = fingerprints({})
  for path, value in (
    ("classifier.fields", {"width": 8}),
    ("diffusion.fields", {"channels": 16}),
  ):
    after = fingerprints({path: value})
    name = path.split(".")[0]
    assert before[name] != after[name] and before["split"] == after["split"]
  source = {"data.source": "photographs", "data.num_reference": 0, "shadow.num_canaries": 0}
  tiles = [fingerprints({**source, "data.options": {"tile": tile}}) for tile in (32, 40)]
  assert tiles[0]["split"] != tiles[1]["split"]


def test_what_is_on_disk_is_named_by_its_content(tmp_path):
  for name, seed in (("first", 0), ("copy", 0), ("second", 1)):
    module = dj.models.make_classifier("small_resnet", num_classes=10, width=4)
    variables = dj.models.init(module, jax.random.key(seed), (8, 8, 1))
    save_model(tmp_path / name, module, variables, image_channels=1)
  ids = list(range(80))
  for name, cut in (("split", 40), ("same", 40), ("other", 41)):
    groups = {"members": ids[:cut], "nonmembers": ids[cut:], "reference": [100, 101]}
    (tmp_path / f"{name}.json").write_text(json.dumps(groups))

  def of(model, split):
    values = {"shadow.num_canaries": 0, "data.index_file": str(tmp_path / f"{split}.json")}
    return fingerprints({**values, "classifier.saved_model": str(tmp_path / model)})

  assert of("first", "split") == of("copy", "same")
  for other in (of("second", "split"), of("first", "other")):
    assert of("first", "split")["queries"] != other["queries"]

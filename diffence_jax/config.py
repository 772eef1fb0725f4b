"""The settings of an experiment: what there is, what is allowed, and their fingerprint."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict, config_dict

# The kinds of `data.augment`, which imports JAX; a command line is read without it.
_AUGMENTATIONS = ("none", "flip", "shifts", "flip_shifts")

# Sections whose keys belong to a source, a model or a defense, which checks them itself.
_OPEN_SECTIONS = ("data.options", "classifier.fields", "diffusion.fields", "defenses")

_CHOICES = {
  "data.nonmembers_from": ("any", "test"),
  "diffusion.trained_on": ("members", "reference"),
  "purify.dtype": ("", "float32", "bfloat16", "float16"),
  "shadow.augmentation": _AUGMENTATIONS,
  "audit.protocol": ("disjoint", "paper"),
}

# Smallest and largest allowed value; None is no bound.
_RANGES = {
  "seed": (0, 2**31 - 1),
  "data.num_members": (4, None),
  "data.num_nonmembers": (4, None),
  "data.num_reference": (0, None),
  "data.known_fraction": (0.0, 1.0),
  "classifier.epochs": (1, None),
  "classifier.batch_size": (1, None),
  "classifier.learning_rate": (0.0, 1e3),
  "classifier.weight_decay": (0.0, None),
  "classifier.checkpoint_every": (1, None),
  "classifier.steps_per_call": (1, None),
  "diffusion.schedule.num_steps": (2, None),
  "diffusion.schedule.beta_start": (0.0, 1.0),
  "diffusion.schedule.beta_end": (0.0, 1.0),
  "diffusion.num_steps": (1, None),
  "diffusion.batch_size": (1, None),
  "diffusion.learning_rate": (0.0, 1e3),
  "diffusion.warmup_steps": (0, None),
  "diffusion.clip_norm": (0.0, None),
  "diffusion.ema_decay": (0.0, 1.0),
  "diffusion.checkpoint_every": (1, None),
  "diffusion.steps_per_call": (1, None),
  "purify.num_candidates": (1, None),
  "purify.step": (1, None),
  "purify.num_ddim_steps": (1, None),
  "purify.chunk_size": (1, None),
  "purify.batch_size": (1, None),
  "shadow.num_models": (0, None),
  "shadow.num_canaries": (0, None),
  "shadow.models_at_once": (1, None),
  "shadow.num_recorded": (1, None),
  "shadow.num_resamples": (100, None),
  "audit.nn_epochs": (0, None),
  "audit.num_label_only": (0, None),
  "samples.num_images": (1, None),
  "samples.num_reconstructions": (1, None),
  "samples.num_ddim_steps": (1, None),
}


def base_config() -> ConfigDict:
  """Every setting with its default; an experiment's config says what it changes.

  Returns:
    A locked `ConfigDict`: an unknown setting is an error, types are kept.
  """
  config = ConfigDict()
  config.name = ""
  config.variant = ""
  config.seed = 0

  config.data = ConfigDict()
  config.data.source = "digits"  # celeba, digits, folder, idx, npz, tfds or utkface
  config.data.options = ConfigDict()  # what the source takes: path, name, ...
  config.data.num_members = 400
  config.data.num_nonmembers = 400
  config.data.num_reference = config_dict.placeholder(int)  # None: all that is left
  config.data.known_fraction = 0.5  # of members and of non-members; the rest are targets
  config.data.nonmembers_from = "any"  # or "test": the source's test part
  config.data.index_file = ""  # an explicit split; replaces the sizes above

  config.classifier = ConfigDict()
  config.classifier.model = "small_resnet"
  config.classifier.fields = ConfigDict()  # what the model takes: width, mean, ...
  config.classifier.checkpoint = ""  # a saved model's folder: taken as it is, not trained
  config.classifier.epochs = 50
  config.classifier.batch_size = 64
  config.classifier.learning_rate = 1e-3  # Adam (AMSGrad)
  config.classifier.weight_decay = 1e-6  # L2
  config.classifier.checkpoint_every = 1000  # training steps
  config.classifier.steps_per_call = config_dict.placeholder(int)  # None: 1 on CPU, else 32
  config.classifier.defense = "undefended"  # advreg, selena, hamp, relaxloss, dpsgd, ...

  config.diffusion = ConfigDict()
  config.diffusion.model = "ddpm_unet"
  config.diffusion.fields = ConfigDict()  # what the model takes: channels, multipliers, ...
  config.diffusion.checkpoint = ""  # a saved model's folder: taken as it is, not trained
  config.diffusion.image_shape = ()  # (height, width, channels); (): that of the data
  config.diffusion.schedule = ConfigDict()
  config.diffusion.schedule.num_steps = 1000
  config.diffusion.schedule.beta_start = 1e-4
  config.diffusion.schedule.beta_end = 0.02
  config.diffusion.trained_on = "members"  # or "reference"
  config.diffusion.num_steps = 2000  # training steps
  config.diffusion.batch_size = 64
  config.diffusion.learning_rate = 1e-3  # Adam
  config.diffusion.warmup_steps = 100
  config.diffusion.clip_norm = 1.0
  config.diffusion.ema_decay = 0.999
  config.diffusion.checkpoint_every = 500  # training steps
  config.diffusion.steps_per_call = config_dict.placeholder(int)  # None: 1 on CPU, else 32

  config.purify = ConfigDict()
  config.purify.num_candidates = 30
  config.purify.step = 160
  config.purify.num_ddim_steps = 1
  config.purify.respacing = ""  # "ddim5": steps are counted among 5 of the schedule's
  config.purify.clip = False  # predicted clean images, to [-1, 1]
  config.purify.to_clean = False  # indices of guided-diffusion, down to the clean image
  config.purify.dtype = ""  # of the diffusion model here; "" as it was trained
  # Re-generations through the networks at a time; None: as the memory at hand allows.
  config.purify.chunk_size = config_dict.placeholder(int)
  config.purify.batch_size = 512  # images between two commits of the record

  config.output = ConfigDict()
  config.output.defense = "none"  # memguard: what is done to the answers, after Diffence

  # Name to options, for those that `classifier.defense` and `output.defense` choose from.
  config.defenses = ConfigDict()
  config.defenses.early_stopping = ConfigDict({"stop_after": 10})
  config.defenses.label_smoothing = ConfigDict({"smoothing": 0.1})
  config.defenses.confidence_penalty = ConfigDict({"weight": 0.1})
  config.defenses.advreg = ConfigDict({"alpha": 6.0})
  config.defenses.selena = ConfigDict({"num_teachers": 25, "num_left_out": 10})
  config.defenses.hamp = ConfigDict({"gamma": 0.8, "alpha": 0.001, "random_outputs": False})
  config.defenses.relaxloss = ConfigDict({"alpha": 0.05, "upper": 1.0})
  config.defenses.dpsgd = ConfigDict({"clip_norm": 1.2})
  config.defenses.dpsgd.noise_multiplier = config_dict.placeholder(float)  # None: 0.1
  config.defenses.dpsgd.target_epsilon = config_dict.placeholder(float)  # instead of the noise
  config.defenses.dpsgd.delta = config_dict.placeholder(float)  # None: 1e-5, or less for few
  config.defenses.dpsgd.microbatch_size = config_dict.placeholder(int)  # None: a whole batch
  config.defenses.memguard = ConfigDict({"epochs": 400, "max_iterations": 300})

  config.samples = ConfigDict()
  config.samples.num_images = 16
  config.samples.num_reconstructions = 4
  config.samples.num_ddim_steps = 50

  config.shadow = ConfigDict()
  config.shadow.num_models = 0  # even; 0 for an audit without shadow models
  config.shadow.num_canaries = 0  # mislabelled reference samples, for the worst case
  config.shadow.models_at_once = config_dict.placeholder(int)  # a device; None: 1 on CPU
  config.shadow.augmentation = "none"  # flip, shifts or flip_shifts: more queries an image
  config.shadow.queries = (1,)  # how often the attacker asks the same, for example (1, 4, 16)
  config.shadow.num_recorded = config_dict.placeholder(int)  # candidates; None: what purify has
  config.shadow.near_duplicates = False  # also ask about near-duplicates instead of the same
  config.shadow.num_resamples = 1000  # of the bootstrap over models

  config.audit = ConfigDict()
  config.audit.protocol = "disjoint"  # or "paper": known and target samples pooled
  config.audit.nn_epochs = 200  # of the NN attack; 0 leaves it out
  config.audit.quantile_regression = True
  config.audit.num_label_only = 0  # images of either side for the label-only attacks
  config.lock()
  # What a source or a model takes, it checks itself.
  config.data.options.unlock()
  config.classifier.fields.unlock()
  config.diffusion.fields.unlock()
  config.defenses.unlock()
  return config


def validate(config: ConfigDict | Mapping[str, Any]) -> FrozenConfigDict:
  """Checks every setting and freezes them.

  Args:
    config: a config as `base_config` makes them, or a mapping of what differs from it.

  Returns:
    All settings, immutable.

  Raises:
    ValueError: an unknown setting (names the nearest), a wrong type, a value out of range.
  """
  given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
  resolved = _merge(base_config().to_dict(), given, "")
  flat = dict(_leaves(resolved))
  for path, choices in _CHOICES.items():
    if flat[path] not in choices:
      raise ValueError(
        f"{path} is {flat[path]!r}; expected one of {', '.join(map(repr, choices))}."
      )
  for path, (least, most) in _RANGES.items():
    value = flat[path]
    if value is None:
      continue
    if (least is not None and not value >= least) or (most is not None and not value <= most):
      bounds = f"at least {least}" if most is None else f"{least} to {most}"
      raise ValueError(f"{path} is {value}; expected {bounds}.")
  shape = flat["diffusion.image_shape"]
  if shape and not (len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
    raise ValueError(
      f"diffusion.image_shape is {shape}; expected (height, width, channels), or () for that "
      "of the data."
    )
  chosen = (flat["classifier.defense"], flat["output.defense"])
  _check_defenses(resolved["defenses"], [name for name in chosen if ":" in name])
  _check_shadow(resolved["shadow"], flat["purify.num_candidates"])
  return FrozenConfigDict(resolved)


def fingerprint(value: Any) -> str:
  """16 hexadecimal digits that name a JSON-able value: equal values, equal names."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_json(config: FrozenConfigDict) -> dict[str, Any]:
  """The config as plain dicts, lists, strings and numbers."""
  return json.loads(json.dumps(config.to_dict()))


def nearest(name: str, known: list[str]) -> str:
  """`; did you mean ...?` for a misspelt name, or what there is to choose from."""
  matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  if matches:
    return f"; did you mean {matches[0]!r}?"
  return f"; expected one of {', '.join(known)}."


def _check_defenses(defenses, own):
  """Checks the names of the defenses that have options; `own` are a user's, module:function."""
  ours = list(base_config().defenses)
  functions = [name.rpartition(":")[2] for name in own]
  for function in functions:
    if function in ours:
      raise ValueError(f"A defense of your own is called {function!r}, as one of ours is.")
  for name, options in defenses.items():
    if name not in ours + functions:
      raise ValueError(f"There is no defense {name!r}{nearest(name, ours + functions)}")
    if not isinstance(options, Mapping):
      raise ValueError(f"defenses.{name} is {options!r}; expected a section of options.")


def _check_shadow(shadow, num_candidates):
  if shadow["num_models"] % 2 or shadow["num_models"] in (2, 4):
    raise ValueError(
      f"shadow.num_models is {shadow['num_models']}; expected 0, or an even number from 6 on."
    )
  queries = shadow["queries"]
  if not all(type(k) is int and k >= 1 for k in queries) or sorted({1, *queries}) != list(
    queries
  ):
    raise ValueError(
      f"shadow.queries is {queries}; expected rising numbers of queries from 1, such as (1, 4)."
    )
  recorded = shadow["num_recorded"]
  if recorded is not None and recorded < num_candidates:
    raise ValueError(
      f"shadow.num_recorded is {recorded}; expected at least purify.num_candidates, "
      f"{num_candidates}."
    )


def _merge(base, given, path):
  merged = dict(base)
  for key, value in given.items():
    where = f"{path}.{key}" if path else str(key)
    if path == "defenses" and isinstance(value, Mapping):
      merged[key] = {**base.get(key, {}), **value}
    elif path in _OPEN_SECTIONS:
      merged[key] = value
    elif key not in base:
      raise ValueError(f"There is no setting {where!r}{nearest(str(key), list(base))}")
    elif isinstance(base[key], dict):
      if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}; expected a section of settings.")
      merged[key] = _merge(base[key], value, where)
    else:
      merged[key] = _typed(base[key], value, where)
  return merged


def _typed(default, value, where):
  # A placeholder's default is None: all of them are for whole numbers, but for those of the
  # defenses, whose options are theirs to check.
  expected = int if default is None else type(default)
  if value is None and default is None:
    return None
  if expected is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if expected is tuple and isinstance(value, list):  # as JSON has it
    return tuple(value)
  if type(value) is not expected:
    raise ValueError(f"{where} is {value!r}; expected {expected.__name__}.")
  return value


def _leaves(tree, path=""):
  for key, value in tree.items():
    where = f"{path}.{key}" if path else key
    if isinstance(value, dict) and where not in _OPEN_SECTIONS:
      yield from _leaves(value, where)
    else:
      yield where, value

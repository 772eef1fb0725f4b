"""Configs: what is checked, what a misspelt setting says, and the files in `configs/`."""

import importlib.util
import inspect
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from diffence_jax import models
from diffence_jax.experiment.config import as_json, base_config, fingerprint, validate
from diffence_jax.training.registry import DEFENSES

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def get_config(path, variant):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


AUDITED = ("digits", "fashion_mnist", "fashion_mnist_small")
VARIANTS = [(path, variant) for path in CONFIGS for variant in ("", "smoke")] + [
  (path, variant)
  for path in CONFIGS
  if path.stem in AUDITED
  for variant in ("audit", "audit_smoke")
]
PAPER = [path for path in CONFIGS if path.stem in ("cifar10", "cifar100", "svhn")]
OTHER_CLASSIFIERS = ("densenet121", "vgg16_bn", "vit")
VARIANTS += [
  (PAPER[0], f"{classifier}{smoke}")
  for classifier in OTHER_CLASSIFIERS
  for smoke in ("", "_smoke")
]


@pytest.mark.parametrize(
  "path, variant", VARIANTS, ids=[f"{path.stem}:{variant}" for path, variant in VARIANTS]
)
def test_every_config_is_valid_and_names_models_that_exist(path, variant):
  config = validate(get_config(path, variant))
  assert (config.name, config.variant) == (path.stem, variant)
  # Flax checks fields when a module is called, not when it is made.
  classifier = models.make_classifier(
    config.classifier.model, num_classes=10, **config.classifier.fields
  )
  denoiser = models.make_denoiser(
    config.diffusion.model, out_channels=3, **config.diffusion.fields
  )
  for module in (classifier, denoiser):
    shapes = jax.eval_shape(
      lambda key, m=module: models.init(m, key, (28, 28, 3)), jax.random.key(0)
    )
    assert models.num_parameters(shapes) > 1000


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_another_classifier_is_all_that_such_a_variant_changes(path):
  usual = get_config(path, "")
  for classifier in OTHER_CLASSIFIERS:
    config = get_config(path, classifier)
    assert config.classifier.model == classifier
    assert config.classifier.fields == usual.classifier.fields
    # Section VI.A of the paper.
    assert config.classifier.learning_rate == (1e-4 if classifier == "vit" else 1e-3)
    for name in ("model", "learning_rate"):
      config.classifier[name] = usual.classifier[name]
    config.variant = ""
    assert config == usual


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_unknown_variant_names_the_nearest(path):
  with pytest.raises(ValueError, match="no variant 'smok'; did you mean 'smoke'"):
    get_config(path, "smok")


@pytest.mark.parametrize(
  "change, message",
  [
    ({"purify": {"stpe": 80}}, "no setting 'purify.stpe'; did you mean 'step'"),
    ({"purifier": {}}, "no setting 'purifier'; did you mean 'purify'"),
    ({"purify": {"step": 80.5}}, "purify.step is 80.5; expected int"),
    ({"purify": {"step": "80"}}, "purify.step is '80'; expected int"),
    ({"purify": {"step": True}}, "purify.step is True; expected int"),
    ({"purify": 3}, "purify is 3; expected a section"),
    ({"purify": {"step": 0}}, "purify.step is 0; expected at least 1"),
    ({"data": {"known_fraction": 1.5}}, "data.known_fraction is 1.5; expected 0.0 to 1.0"),
    ({"data": {"num_reference": -1}}, "data.num_reference is -1; expected at least 0"),
    ({"seed": -1}, "seed is -1; expected 0 to"),
    ({"diffusion": {"steps_per_call": 0}}, "diffusion.steps_per_call is 0; expected at least"),
    ({"audit": {"protocol": "papre"}}, "audit.protocol is 'papre'; expected one of"),
    ({"classifier": {"learning_rate": float("nan")}}, "learning_rate is nan; expected"),
  ],
)
def test_what_is_not_right_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    validate(change)


def test_a_mapping_says_only_what_differs():
  config = validate({"purify": {"step": 80}, "classifier": {"learning_rate": 1}})
  assert (config.purify.step, config.purify.num_candidates) == (80, 30)
  assert config.classifier.learning_rate == 1.0
  assert validate(base_config()) == validate({})


def test_settings_of_sources_and_models_pass_through():
  config = validate({"diffusion": {"fields": {"channels": 16}}, "data": {"options": {"a": 1}}})
  assert config.diffusion.fields.channels == 16 and config.data.options.a == 1


@pytest.mark.parametrize("name", DEFENSES)
def test_every_option_of_a_training_time_defense_is_listed(name):
  options = list(inspect.signature(DEFENSES[name]).parameters.values())[2:]
  listed = base_config().defenses.to_dict().get(name, {})
  assert set(listed) == {option.name for option in options}


def test_options_without_a_default_are_taken_from_the_command_line_as_they_are_typed():
  config = base_config()
  config.defenses.dpsgd.update({"target_epsilon": 8, "delta": 1e-6, "microbatch_size": 32})
  with pytest.raises(TypeError):
    config.defenses.dpsgd.microbatch_size = 2.5
  options = validate(config).defenses.dpsgd
  assert (options.target_epsilon, options.delta, options.microbatch_size) == (8.0, 1e-6, 32)
  assert type(options.target_epsilon) is float and type(options.microbatch_size) is int


def test_the_base_is_locked_and_typed():
  config = base_config()
  with pytest.raises(AttributeError, match="step"):
    config.purify.stpe = 1
  with pytest.raises(TypeError):
    config.purify.step = "many"


def test_fingerprints_follow_values_not_order():
  assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": [2.5], "a": 1})
  assert fingerprint({"a": 1}) != fingerprint({"a": 2})
  assert len(fingerprint({})) == 16


def test_as_json_is_plain():
  plain = as_json(validate({"classifier": {"fields": {"mean": (0.5,)}}}))
  assert plain["classifier"]["fields"] == {"mean": [0.5]}
  assert not isinstance(plain["classifier"], ConfigDict)

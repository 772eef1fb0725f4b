"""Configs: what is checked, what a misspelt setting says, and the files in `configs/`."""

import importlib.util
import inspect
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from diffence_jax import models
from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.canaries import CANARIES
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES
from diffence_jax.experiment.config import as_json, base_config, validate
from diffence_jax.training.registry import DEFENSES

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


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
    ({"purify": {"step": 80.5}}, "purify.step is 80.5; expected a whole number"),
    ({"purify": {"step": "80"}}, "purify.step is '80'; expected a whole number"),
    ({"purify": {"step": True}}, "purify.step is True; expected a whole number"),
    ({"purify": 3}, "purify is 3; expected a section"),
    ({"purify": {"dtype": "float12"}}, "purify.dtype is 'float12'; expected one of"),
    (
      {"classifier": {"epochs": 0}},
      "classifier.epochs is 0; expected a whole number, 1 to",
    ),
    ({"diffusion": {"schedule": {"beta": 1}}}, "no setting 'diffusion.schedule.beta'"),
    ({"diffusion": {"schedule": {"num_steps": "1"}}}, "diffusion.schedule.num_steps is '1'"),
    ({"diffusion": {"clip_norm": 0.0}}, "diffusion.clip_norm is 0.0; expected a finite"),
    ({"diffusion": {"ema_decay": float("inf")}}, "diffusion.ema_decay is inf; expected"),
    ({"purify": {"policies": "average"}}, "purify.policies is 'average'; expected a tuple"),
    ({"data": {"options": 3}}, "data.options is 3; expected a section"),
    ({"seed": {}}, "seed is {}; expected a single value"),
    ({"seed": -1}, "seed is -1; expected a whole number, 0 to"),
    ({"compute": {"steps_per_call": 0}}, "compute.steps_per_call is 0; expected a whole"),
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


def test_home_is_found_in_the_paths_of_settings(monkeypatch):
  monkeypatch.setenv("HOME", "/home/she")
  settings = validate(
    {
      "data": {"index_file": "~/split.json"},
      "classifier": {"saved_model": "~/models/resnet18"},
      "diffusion": {"saved_model": "models/ddpm"},
    }
  )
  assert settings.data.index_file == "/home/she/split.json"
  assert settings.classifier.saved_model == "/home/she/models/resnet18"
  assert settings.diffusion.saved_model == "models/ddpm"
  with pytest.raises(ValueError, match=r"data.index_file is 5; expected text or a path"):
    validate({"data": {"index_file": 5}})


def test_settings_of_sources_and_models_pass_through():
  config = validate({"diffusion": {"fields": {"channels": 16}}, "data": {"options": {"a": 1}}})
  assert config.diffusion.fields["channels"] == 16 and config.data.options["a"] == 1


REGISTRIES = [
  ("defenses", DEFENSES),
  ("defenses", OUTPUT_DEFENSES),
  ("policies", POLICIES),
  ("attacks", ATTACKS),
  ("canaries", CANARIES),
]


@pytest.mark.parametrize(
  "section, registry, name",
  [(section, registry, name) for section, registry in REGISTRIES for name in registry.known],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_of_a_function_is_listed_with_its_default(section, registry, name):
  parameters = list(inspect.signature(registry.find(name)).parameters.values())
  options = {option.name: option.default for option in parameters[registry.num_args :]}
  listed = base_config()[section].to_dict().get(name, {})
  assert listed == options


def test_options_without_a_default_are_taken_from_the_command_line_as_they_are_typed():
  config = base_config()
  config.defenses.dpsgd.update({"target_epsilon": 8, "delta": 1e-6})
  config.compute.microbatch_size = 32
  with pytest.raises(TypeError):
    config.compute.microbatch_size = 2.5
  settings = validate(config)
  options = DEFENSES.choose("dpsgd", settings.options("defenses", "dpsgd")).options
  assert (options["target_epsilon"], options["delta"]) == (8.0, 1e-6)
  assert type(options["target_epsilon"]) is float and settings.compute.microbatch_size == 32


@pytest.mark.parametrize(
  "change, message",
  [
    ({"defenses": {"hmap": {"gamma": 0.5}}}, "there is no such function; did you mean 'hamp'"),
    ({"attacks": {"nm": {"epochs": 3}}}, "attacks has options of 'nm'.*did you mean 'nn'"),
    ({"policies": {"hamp": {}}}, "policies has options of 'hamp'"),
    ({"defenses": {"hamp": 3}}, "defenses.hamp is 3; expected a section of options"),
    ({"classifier": {"defense": "own:hamp"}}, "called 'hamp', as one of ours is"),
    ({"audit": {"attacks": ("own:loss",)}}, "called 'loss', as one of ours is"),
    ({"audit": {"attacks": ("a:own", "b:own")}}, "two functions of your own are called 'own'"),
  ],
)
def test_options_belong_to_what_there_is(change, message):
  with pytest.raises(ValueError, match=message):
    validate(change)


def test_options_of_ones_own_function_stand_under_its_name():
  settings = validate(
    {"audit": {"attacks": ("own:largest",)}, "attacks": {"largest": {"scale": 2.0}}}
  )
  assert settings.options("attacks", "own:largest") == {"scale": 2.0}


def test_the_base_is_locked_and_typed():
  config = base_config()
  with pytest.raises(AttributeError, match="step"):
    config.purify.stpe = 1
  with pytest.raises(TypeError):
    config.purify.step = "many"


def test_as_json_is_plain():
  plain = as_json(validate({"classifier": {"fields": {"mean": (0.5,)}}}))
  assert plain["classifier"]["fields"] == {"mean": [0.5]}
  assert not isinstance(plain["classifier"], ConfigDict)

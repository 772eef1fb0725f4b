"""What training is given and cannot use is said, by its name, before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffence_jax import Schedule, linear_schedule, models, parallel
from diffence_jax.training import (
  TrainSettings,
  train_classifier,
  train_denoiser,
  train_ensemble,
)
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.registry import make_recipe

MODULE = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
SMALL = {"channels": 8, "multipliers": (1,), "attention_levels": (), "num_res_blocks": 1}
UNET = models.make_denoiser("ddpm_unet", out_channels=1, **SMALL)
RECIPE = make_recipe("undefended", MODULE, TrainSettings(8, epochs=1, batch_size=8))
IMAGES, LABELS = np.zeros((8, 8, 8, 1), np.uint8), np.arange(8) % 3
MEMBERS = {"images": IMAGES, "labels": LABELS}
HALVES = np.arange(16).reshape(2, 8) % 2 == 0

WRONG_MEMBERS = [
  (None, TypeError, "members is a NoneType; expected a Mapping"),
  ({"images": IMAGES}, ValueError, "members have no 'labels'"),
  ({**MEMBERS, "images": None}, ValueError, "members' images are a NoneType"),
  ({**MEMBERS, "images": "x"}, ValueError, "members' images are a str"),
  ({**MEMBERS, "images": IMAGES / 255.0}, ValueError, r"images are float64\[8, 8, 8, 1\]"),
  ({**MEMBERS, "images": IMAGES[..., 0]}, ValueError, r"images are uint8\[8, 8, 8\]"),
  ({"images": IMAGES[:0], "labels": LABELS[:0]}, ValueError, "n at least 1"),
  ({**MEMBERS, "images": IMAGES.astype(object)}, ValueError, r"images are a ndarray, object"),
  ({**MEMBERS, "labels": LABELS[:7]}, ValueError, r"labels are int64\[7\]; expected integers"),
  ({**MEMBERS, "labels": LABELS.astype(float)}, ValueError, "labels are float64"),
  ({**MEMBERS, "labels": LABELS + 1}, ValueError, "labels range from 1 to 3; expected 0 to 2"),
  ({**MEMBERS, "labels": LABELS - 1}, ValueError, "labels range from -1 to 1"),
  ({**MEMBERS, "labels": ["a"] * 8}, ValueError, "labels are a list, <U1"),
  ({**MEMBERS, "labels": [[1], [1, 2]] * 4}, ValueError, "labels are no array"),
]


def classifier(tmp_path, recipe=RECIPE, members=MEMBERS, **options):
  common = {"checkpoint_every": 9, "seed": 0, "mesh": parallel.batch_mesh()}
  return train_classifier(recipe, members, directory=tmp_path, **{**common, **options})


def ensemble(recipe=RECIPE, members=MEMBERS, membership=HALVES, **options):
  common = {"names": ["a", "b"], "keep": print, "seed": 0, "mesh": parallel.batch_mesh()}
  return train_ensemble(recipe, members, None, membership, **{**common, **options})


@pytest.mark.parametrize(("members", "kind", "message"), WRONG_MEMBERS)
def test_members_that_are_none_are_named(tmp_path, members, kind, message):
  for train in (
    lambda: classifier(tmp_path, members=members),
    lambda: ensemble(members=members),
  ):
    with pytest.raises(kind, match=message):
      train()
  assert not list(tmp_path.iterdir())


COMMON = [
  ({"seed": -1}, ValueError, "seed is -1; expected a whole number"),
  ({"seed": "x"}, ValueError, "seed is 'x'; expected a whole number"),
  ({"seed": None}, ValueError, "seed is None; expected a whole number"),
  ({"mesh": None}, TypeError, "mesh is a NoneType; expected a Mesh"),
  ({"steps_per_call": 0}, ValueError, "steps_per_call is 0; expected a whole number"),
  ({"steps_per_call": "x"}, ValueError, "steps_per_call is 'x'; expected a whole number"),
]


@pytest.mark.parametrize(
  ("options", "kind", "message"),
  [
    *COMMON,
    ({"recipe": MODULE}, TypeError, "recipe is a SmallResNet; expected a Recipe"),
    ({"reference": [1]}, TypeError, "reference is a list; expected a Mapping or NoneType"),
    ({"checkpoint_every": 0}, ValueError, "checkpoint_every is 0; expected a whole number"),
    ({"checkpoint_every": 2.5}, ValueError, "checkpoint_every is 2.5; expected a whole number"),
    ({"reference": {"images": IMAGES, "labels": LABELS + 9}}, ValueError, "reference' labels"),
  ],
)
def test_what_a_classifier_cannot_be_trained_with_is_named(tmp_path, options, kind, message):
  with pytest.raises(kind, match=message):
    classifier(tmp_path, **options)


@pytest.mark.parametrize(
  ("options", "kind", "message"),
  [
    *COMMON,
    ({"membership": None}, ValueError, "membership are a NoneType"),
    (
      {"membership": HALVES.astype(int)},
      ValueError,
      r"membership is int64\[2, 8\]",
    ),
    ({"membership": HALVES[:, :5]}, ValueError, r"membership is bool\[2, 5\]; expected bool"),
    (
      {"membership": HALVES & [[True], [False]]},
      ValueError,
      "Row 1 of membership has no",
    ),
    ({"recipe": None}, TypeError, "recipe is a NoneType; expected a Recipe"),
    ({"names": "ab"}, ValueError, "names is 'ab'; expected a tuple"),
    ({"names": [1, 2]}, ValueError, r"names\[0\] is 1; expected text"),
    ({"keep": None}, TypeError, r"keep is a NoneType; expected a function of \(i, variables\)"),
    ({"models_at_once": 0.5}, ValueError, "models_at_once is 0.5; expected a whole number"),
  ],
)
def test_what_an_ensemble_cannot_be_trained_with_is_named(options, kind, message):
  with pytest.raises(kind, match=message):
    ensemble(**options)


@pytest.mark.parametrize(
  ("change", "kind", "message"),
  [
    *COMMON,
    ({"images": None}, ValueError, "images are a NoneType"),
    ({"images": IMAGES[:0]}, ValueError, "n at least 1"),
    ({"images": jnp.zeros((8, 8, 8, 1))}, ValueError, r"images are float32\[8, 8, 8, 1\]"),
    ({"module": None}, TypeError, "module is a NoneType; expected a Module"),
    ({"schedule": 3}, TypeError, "schedule is a int; expected a Schedule"),
    (
      {"schedule": Schedule(jnp.array([0.1, 0.9]), jnp.arange(2))},
      ValueError,
      "alpha_bar that is not falling",
    ),
    ({"directory": "runs"}, TypeError, "directory is a str; expected a Path"),
    ({"model_shape": 8}, TypeError, "model_shape is a int; expected a tuple"),
    ({"model_shape": (8, 8)}, ValueError, r"model_shape is \(8, 8\); expected \(height"),
    ({"model_shape": (-8, 8, 1)}, ValueError, r"model_shape\[0\] is -8; expected a whole"),
    ({"settings": {}}, TypeError, "settings is a dict; expected a DenoiserSettings"),
  ],
)
def test_what_a_denoiser_cannot_be_trained_with_is_named(tmp_path, change, kind, message):
  arguments = {
    "module": UNET, "images": IMAGES, "schedule": linear_schedule(),
    "settings": DenoiserSettings(num_steps=1, batch_size=8), "checkpoint_every": 9, "seed": 0,
    "mesh": parallel.batch_mesh(), "directory": tmp_path,
  }  # fmt: skip
  with pytest.raises(kind, match=message):
    train_denoiser(**{**arguments, **change})


def test_big_endian_labels_and_jax_arrays_are_as_good_as_any(tmp_path):
  usual = classifier(tmp_path / "a")
  other = {"images": jnp.asarray(IMAGES), "labels": LABELS.astype(">i4")}
  again = classifier(tmp_path / "b", members=other)
  jax.tree.map(np.testing.assert_array_equal, usual, again)

"""Every name of an attack by shadow models stands for the function and settings it says."""

import numpy as np
import pytest
import scipy.special
from attacks.test_contract import view_of, world

from diffence_jax import attacks

EACH = {
  "lira_online": ("lira", {"online": True, "variance": "global"}),
  "lira_online_per_example": ("lira", {"online": True, "variance": "per_example"}),
  "lira_online_shrunk": ("lira", {"online": True, "variance": "shrunk"}),
  "lira_offline": ("lira", {"online": False, "variance": "global"}),
  "lira_offline_per_example": ("lira", {"online": False, "variance": "per_example"}),
  "lira_offline_shrunk": ("lira", {"online": False, "variance": "shrunk"}),
  "bavaria_online": ("bavaria", {"online": True}),
  "bavaria_offline": ("bavaria", {"online": False}),
  "base_online": ("base", {"online": True}),
  "base_offline": ("base", {"online": False, "scale": 0.33}),
  "rmia_online": ("rmia", {"online": True, "gamma": 1.0}),
  "rmia_offline": ("rmia", {"online": False, "gamma": 1.0, "interpolation": 0.3}),
}


def of_label(logits, labels):
  """The probability f64[...,N,Q] of the labels, from logits f[...,N,Q,K]."""
  probabilities = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
  at = np.broadcast_to(labels[:, None, None], (*probabilities.shape[:-1], 1))
  return np.take_along_axis(probabilities, at, axis=-1)[..., 0]


def called(function, settings):
  """The scores that the function itself gives."""
  given = world(0.5)
  target, shadow = (of_label(given[of], given["labels"]) for of in ("logits", "shadow_logits"))
  if function in ("lira", "bavaria"):
    mean = lambda p: scipy.special.logit(p).mean(axis=-1, keepdims=True)
  else:
    mean = lambda p: np.log(p.mean(axis=-1))
  target, shadow = mean(target), mean(shadow)
  arrays = [target, shadow, given["membership"]]
  if function == "rmia":
    others = given["is_known"] & ~given["is_member"]
    arrays += [target[others], shadow[:, others], given["membership"][:, others]]
    settings = {**settings, "break_ties": True}
  return getattr(attacks, function)(*arrays, **settings)


@pytest.mark.parametrize("name", EACH)
def test_a_name_is_what_it_says(name):
  scores = attacks.run_attack(attacks.ATTACKS.choose(name), view_of(world(0.5)))
  # Ties of RMIA's counts are broken by what float32 rounds.
  np.testing.assert_allclose(scores, called(*EACH[name]), rtol=2e-3, atol=2e-3)


def test_every_two_of_them_differ():
  scores = [called(*of) for of in EACH.values()]
  for place, some in enumerate(scores):
    for others in scores[place + 1 :]:
      assert np.max(np.abs(some - others)) > 0.02

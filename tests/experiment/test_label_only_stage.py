"""The stage of attacks that ask: whose shadow networks it hands them."""

from types import SimpleNamespace

import numpy as np

from diffence_jax.experiment.stages import label_only
from diffence_jax.experiment.stages.label_only import LabelOnly


def test_networks_are_of_the_samples_that_are_asked_about(monkeypatch):
  membership = np.array([[True, False, True, False], [False, True, False, True]])
  apply = lambda variables, images: variables["scale"] * images.reshape(len(images), -1)
  bound = SimpleNamespace(module=apply)
  monkeypatch.setattr(label_only, "bound_classifier", lambda recipe, shape: bound)
  model = lambda scale: SimpleNamespace(load=lambda store: {"scale": np.float32(scale)})
  shadow = SimpleNamespace(
    recipe=None,
    pool=SimpleNamespace(ids=np.array([7, 3, 9, 4]), image_shape=(1, 2, 1)),
    models=(model(1.0), model(2.0)),
    membership=lambda store: membership,
  )
  pool = SimpleNamespace(ids=np.array([9, 3]))
  stage = LabelOnly(None, None, pool, (), shadow, 0)
  networks = stage._networks(None)
  np.testing.assert_array_equal(networks.membership, [[True, False], [False, True]])
  images = np.array([[[[0.25], [0.5]]]], np.float32)
  np.testing.assert_allclose(networks.load(1)(None, images), [[0.5, 1.0]])

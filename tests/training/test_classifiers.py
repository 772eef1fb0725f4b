"""The larger classifiers in training: dropout in shadow models, gradients of examples."""

import jax
import numpy as np

from diffence_jax import models, parallel
from diffence_jax.training import TrainSettings, train_classifier, train_ensemble
from diffence_jax.training.registry import make_recipe

SETTINGS = TrainSettings(8, epochs=2, batch_size=4, learning_rate=1e-2, weight_decay=0.0)
MEMBERS = {
  "images": np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8),
  "labels": np.random.default_rng(1).integers(0, 3, 8).astype(np.int32),
}


def test_shadow_models_train_with_dropout():
  """Nothing else is random: without it, the same parameters start and see the same batches."""

  def trained(dropout):
    kept = {}
    train_ensemble(
      make_recipe("undefended", models.ViT(3, 8, depth=1, heads=2, dropout=dropout), SETTINGS),
      MEMBERS,
      None,
      np.ones((2, 8), bool),
      names=["shadow/0", "shadow/1"],
      keep=kept.__setitem__,
      seed=0,
      mesh=parallel.batch_mesh(),
      models_at_once=2,
    )
    return [kept[i]["params"]["head"]["kernel"] for i in range(2)]

  for model, plain in zip(trained(0.5), trained(0.0), strict=True):
    assert np.isfinite(model).all()
    assert np.abs(model - plain).max() > 1e-3


def test_differentially_private_training_takes_group_normalisation(tmp_path):
  """And the gradient of every example goes through the pooling."""
  variables = train_classifier(
    make_recipe("dpsgd", models.VGG16BN(3, width=8, stages=(1,)), SETTINGS),
    MEMBERS,
    checkpoint_every=100,
    seed=0,
    mesh=parallel.batch_mesh(),
    directory=tmp_path,
  )
  assert set(variables) == {"params"}
  assert set(variables["params"]) == {"stage0_conv0", "stage0_norm0", "head"}
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))

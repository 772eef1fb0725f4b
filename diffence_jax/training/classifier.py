"""Training one classifier, the target, over all devices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import rng
from diffence_jax.checks import check_instance
from diffence_jax.data import Images
from diffence_jax.training.ensemble import teach
from diffence_jax.training.feed import check_examples, check_reference, check_run, feed
from diffence_jax.training.loop import fit
from diffence_jax.training.recipe import Recipe


# Optax raises floats to integer powers, which strict promotion refuses.
@jax.numpy_dtype_promotion("standard")
def train_classifier(
  recipe: Recipe,
  members: Mapping[str, Images],
  reference: Mapping[str, Images] | None = None,
  *,
  checkpoint_every: int,
  seed: int,
  mesh: Mesh,
  directory: Path,
  steps_per_call: int | None = None,
  shard_parameters: bool = False,
  soft_labels: np.ndarray | None = None,
) -> dict[str, Any]:
  """Trains a classifier by any recipe.

  Args:
    recipe: how.
    members: "images" u8[n,H,W,C] and "labels" i[n]; of images on disk a batch is in memory at
      a time, but all of them where there are teachers, an ensemble.
    reference: as above; needed where `recipe.needs_reference`.
    checkpoint_every: steps between checkpoints.
    seed: of initialisation, order, dropout and noise.
    mesh: batches are split over it; teachers, if there are any, are divided over it.
    directory: for checkpoints and metrics; a run resumes from what is there, but trains
      teachers anew.
    steps_per_call: as in `feed.feed`; it changes nothing but rounding.
    shard_parameters: as in `feed.feed`.
    soft_labels: f32[n,K], what the recipe's teachers have said already; None trains them.

  Returns:
    The variables after the last step.

  Raises:
    FloatingPointError: the loss is no longer finite.
    TypeError: the recipe, the mesh or a group of examples is of another kind.
    ValueError: examples or a number are not right, the recipe needs a reference set and there
      is none, or a batch cannot be split over the devices.
  """
  check_instance("recipe", recipe, Recipe)
  check_run(seed=seed, mesh=mesh, checkpoint_every=checkpoint_every, directory=directory)
  num_classes = getattr(recipe.module, "num_classes", None)
  examples = {"members": check_examples("members", members, num_classes)}
  examples["reference"] = check_reference(reference, examples["members"], num_classes)
  sizes = {group: len(values.get("images", ())) for group, values in examples.items()}
  if recipe.needs_reference and not sizes["reference"]:
    raise ValueError(
      "This defense trains with a reference set, and there is none; raise data.num_reference."
    )
  if recipe.teachers is not None:
    if soft_labels is None:
      (soft_labels,) = teach(
        recipe.teachers,
        members,
        np.ones((1, sizes["members"]), bool),
        names=["classifier"],
        seed=seed,
        mesh=mesh,
        steps_per_call=steps_per_call,
      )
    examples["members"]["soft_labels"] = soft_labels

  def rows(first):
    for name, groups in recipe.batches(sizes, seed, first):
      yield name, {group: _pad(batches, mesh) for group, batches in groups.items()}

  kinds = {name: kind.step for name, kind in recipe.kinds.items()}
  steps, batches, steps_per_call = feed(
    kinds, examples, rows, mesh, steps_per_call, shard_parameters=shard_parameters
  )
  state = fit(
    steps,
    recipe.init(rng.stream(seed, "classifier/init"), members["images"].shape[1:]),
    batches,
    num_steps=len(recipe.schedule),
    key=rng.stream(seed, "classifier/steps"),
    mesh=mesh,
    directory=directory,
    checkpoint_every=checkpoint_every,
    description="classifier",
    steps_per_call=steps_per_call,
    shard_parameters=shard_parameters,
  )
  return recipe.variables(state)


def _pad(rows, mesh):
  """Fills a batch that has padding anyway up to a multiple of the devices."""
  missing = -len(rows) % mesh.size
  if not missing or rows[-1] >= 0:
    return rows
  return np.concatenate([rows, np.full(missing, -1, rows.dtype)])

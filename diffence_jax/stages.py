"""What every stage computes: the models it makes, the files it writes, and how to load them."""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from diffence_jax import audit, data, models, parallel, rng, saved_model
from diffence_jax.artifacts import Stage, Store
from diffence_jax.checkpoint import restore_tree, save_tree
from diffence_jax.config import as_json
from diffence_jax.data import Dataset, Images, Split
from diffence_jax.defense import output
from diffence_jax.diffusion import (
  Schedule,
  fit_images,
  linear_schedule,
  reconstruct,
  respaced,
  sample,
)
from diffence_jax.queries import Bound
from diffence_jax.training import Recipe, TrainSettings, train_classifier, train_denoiser
from diffence_jax.training.registry import make_recipe, source_digest

# Settings that leave a stage's result as it is, but for rounding at most: how it is computed,
# and where a saved model lies, whose architecture is in the other settings.
_NOT_OF_THE_RESULT = ("checkpoint_every", "steps_per_call", "chunk_size", "checkpoint")

# The settings of "diffusion" that training takes as they are.
_DENOISER_TRAINING = (
  "num_steps",
  "batch_size",
  "learning_rate",
  "warmup_steps",
  "clip_norm",
  "ema_decay",
  "checkpoint_every",
  "steps_per_call",
)

# Options of our defenses that change a result by rounding only, as the number of devices does.
_ROUNDING_ONLY = {"dpsgd": ("microbatch_size",)}


class Experiment(NamedTuple):
  """An experiment before anything is computed.

  Attributes:
    config: all settings.
    dataset: the images, in memory or on disk.
    split: who is a member.
    recipe: how the classifier is trained.
    classifier: what answers queries, and the shapes of its variables.
    denoiser: the noise-prediction network's.
    stages: name to stage, in the order they run.
  """

  config: FrozenConfigDict
  dataset: Dataset
  split: Split
  recipe: Recipe
  classifier: Bound
  denoiser: Bound
  stages: dict[str, Stage]


def recipe_of(config: FrozenConfigDict, dataset: Dataset, num_members: int) -> Recipe:
  """How the config says that a classifier of so many members is trained.

  Raises:
    ValueError: there is no such model or defense, or it has no such option.
  """
  settings = config.classifier
  module = models.make_classifier(
    settings.model, num_classes=dataset.num_classes, **settings.fields
  )
  own = [getattr(settings, name) for name in TrainSettings._fields[1:]]
  options = options_of(config, settings.defense)
  return make_recipe(settings.defense, module, TrainSettings(num_members, *own), **options)


def classifier_shapes(recipe: Recipe, dataset: Dataset) -> Bound:
  """The classifier that a recipe trains; ValueError where it does not fit the images."""
  init = lambda key: recipe.variables(recipe.init(key, dataset.images.shape[1:]))
  return Bound(recipe.answering, jax.eval_shape(init, jax.random.key(0)))


def denoiser_shapes(config: FrozenConfigDict, dataset: Dataset) -> Bound:
  """The noise-prediction network that the config describes; ValueError as above."""
  shape = model_shape(config, dataset)
  module = models.make_denoiser(
    config.diffusion.model, out_channels=shape[-1], **config.diffusion.fields
  )
  if getattr(module, "num_classes", None) is not None:
    raise ValueError(
      f"diffusion.model is a {config.diffusion.model} for {module.num_classes} classes; an "
      "experiment takes one without (num_classes None). As a library, bind it to a label: "
      "lambda x, t: denoise(x, t, labels)."
    )
  init = lambda key: models.init(module, key, shape)
  return Bound(module, jax.eval_shape(init, jax.random.key(0)))


def schedule_of(config: FrozenConfigDict) -> Schedule:
  """The noise schedule that the config describes."""
  return linear_schedule(**config.diffusion.schedule)


def model_shape(config: FrozenConfigDict, dataset: Dataset) -> tuple[int, int, int]:
  """(H,W,C) of the images that the diffusion model is for: those of the data by default."""
  return tuple(config.diffusion.image_shape) or dataset.images.shape[1:]


def sampler_of(config: FrozenConfigDict) -> tuple[Schedule, dict[str, Any]]:
  """How images are re-generated: the schedule, and the settings that `reconstruct` takes."""
  purify, schedule = config.purify, schedule_of(config)
  settings = {name: purify[name] for name in ("step", "num_ddim_steps", "clip", "to_clean")}
  if config.diffusion.image_shape:
    settings["model_shape"] = tuple(config.diffusion.image_shape)
  return respaced(schedule, purify.respacing) if purify.respacing else schedule, settings


def queried_groups(split: Split) -> dict[str, np.ndarray]:
  """The ids of the four groups that are queried, in the order of the record."""
  return {group: getattr(split, group) for group in audit.GROUPS}


class Canaries(NamedTuple):
  """Samples with a wrong label each, half of which are trained on (Aerni et al. 2024).

  Attributes:
    ids: i64[C], of the reference set.
    labels: i32[C], wrong ones.
    is_member: bool[C], whether the target is trained on them; with these labels.
  """

  ids: np.ndarray
  labels: np.ndarray
  is_member: np.ndarray


def canaries_of(config: FrozenConfigDict, split: Split, dataset: Dataset) -> Canaries:
  """The canaries that the config asks for, none by default."""
  ids = split.reference[: config.shadow.num_canaries]
  if not len(ids):
    return Canaries(ids, np.empty(0, np.int32), np.empty(0, bool))
  draw = np.random.default_rng(rng.numpy_seed(config.seed, "canaries"))
  wrong = draw.integers(1, dataset.num_classes, len(ids))
  labels = (dataset.take(ids).labels + wrong) % dataset.num_classes
  is_member = draw.permutation(len(ids)) < len(ids) // 2
  return Canaries(ids, labels.astype(np.int32), is_member)


def training_set(experiment: Experiment) -> tuple[Images, np.ndarray]:
  """What the target is trained on: images u8[N,H,W,C] and labels i32[N], canaries last."""
  dataset, split = experiment.dataset, experiment.split
  canaries = canaries_of(experiment.config, split, dataset)
  samples = dataset.take(np.concatenate([split.members, canaries.ids[canaries.is_member]]))
  labels = samples.labels.copy()
  labels[len(split.members) :] = canaries.labels[canaries.is_member]
  return samples.images, labels


def training_cost(recipe: Recipe) -> str:
  """What a recipe costs, in words."""
  counts = collections.Counter(recipe.schedule)
  kinds = "" if len(counts) == 1 else f" ({', '.join(f'{n} {k}' for k, n in counts.items())})"
  cost = f"{len(recipe.schedule)} training steps{kinds}"
  if recipe.teachers is None:
    return cost
  num_teachers = len(recipe.teachers.membership(2, 0))
  return f"{cost}; before, {num_teachers} teachers of {training_cost(recipe.teachers.recipe)}"


def reference_set(experiment: Experiment) -> dict[str, Images] | None:
  """What defenses train with besides members, but for canaries; None where none needs it."""
  if not experiment.recipe.needs_reference:
    return None
  samples = experiment.dataset.take(
    experiment.split.reference[experiment.config.shadow.num_canaries :]
  )
  return {"images": samples.images, "labels": samples.labels}


def settings_of(config: FrozenConfigDict, section: str) -> dict[str, Any]:
  """The settings of a section that its result depends on, JSON-able, and the seed."""
  settings = as_json(config)[section].items()
  kept = {key: value for key, value in settings if key not in _NOT_OF_THE_RESULT}
  return {**kept, "seed": config.seed}


def purify_settings(config: FrozenConfigDict) -> dict[str, Any]:
  """All settings that re-generations depend on, JSON-able, and the seed.

  What the diffusion model was trained for is in the settings of its stage, unless that is a
  saved model.
  """
  settings = settings_of(config, "purify")
  if config.diffusion.checkpoint:
    trained_for = as_json(config)["diffusion"]
    settings |= {name: trained_for[name] for name in ("image_shape", "schedule")}
  return settings


def options_of(config: FrozenConfigDict, defense: str) -> dict[str, Any]:
  """What the config tells a defense, by its name; a user's own by its function's."""
  return dict(as_json(config)["defenses"].get(defense.rpartition(":")[2], {}))


def classifier_settings(config: FrozenConfigDict) -> dict[str, Any]:
  """All settings that a trained classifier depends on, JSON-able."""
  settings = settings_of(config, "classifier")
  defense = settings.pop("defense")
  if defense == "undefended":
    return settings
  own = {"defense": defense, "defense_options": options_of(config, defense)}
  for option in _ROUNDING_ONLY.get(defense, ()):
    own["defense_options"].pop(option, None)
  return {**settings, **own, "defense_source": source_digest(defense)}


def output_settings(config: FrozenConfigDict) -> dict[str, Any]:
  """All settings that a defense of the answers depends on, JSON-able; {} for none."""
  name = config.output.defense
  if name == "none":
    return {}
  settings = {"output_defense": name, "output_options": options_of(config, name)}
  return {**settings, "output_source": output.source_digest(name)}


def fit_output(config: FrozenConfigDict, model: str) -> audit.FitAnswers | None:
  """How a defense of the answers is fitted to a predictor of `model`; None for none."""
  name = config.output.defense
  fit = output.make_output_defense(name, **options_of(config, name))
  if fit is None:
    return None
  return lambda predictor, *known: fit(
    rng.stream(config.seed, f"{model}/output/{predictor}"), *known
  )


def _compute_split(experiment, store, path):
  del store
  data.write_index_file(experiment.split, path / "split.json")


def _compute_classifier(experiment, store, path):
  del store
  config = experiment.config
  if config.classifier.checkpoint:
    _take(config.classifier.checkpoint, experiment.classifier, path)
    return
  images, labels = training_set(experiment)
  variables = train_classifier(
    experiment.recipe,
    {"images": images, "labels": labels},
    reference_set(experiment),
    checkpoint_every=config.classifier.checkpoint_every,
    steps_per_call=config.classifier.steps_per_call,
    seed=config.seed,
    mesh=parallel.batch_mesh(),
    directory=path,
  )
  save_tree(path / "variables", variables)


def _compute_diffusion(experiment, store, path):
  del store
  config, dataset = experiment.config, experiment.dataset
  if config.diffusion.checkpoint:
    _take(config.diffusion.checkpoint, experiment.denoiser, path)
    return
  trained_on = getattr(experiment.split, config.diffusion.trained_on)
  variables = train_denoiser(
    experiment.denoiser.module,
    dataset.take(trained_on).images,
    schedule_of(config),
    model_shape=model_shape(config, dataset),
    **{name: config.diffusion[name] for name in _DENOISER_TRAINING},
    seed=config.seed,
    mesh=parallel.batch_mesh(),
    directory=path,
  )
  save_tree(path / "variables", variables)


def _take(checkpoint, bound, path):
  """Makes an artifact of a saved model, which must be of the shapes that are expected."""
  _, variables = saved_model.load_model(checkpoint)
  expected, given = (jax.tree.map(jnp.shape, tree) for tree in (bound.variables, variables))
  if given != expected:
    raise ValueError(f"The saved model {checkpoint} is for images of another size or kind.")
  save_tree(path / "variables", variables)


def _compute_samples(experiment, store, path):
  """Draws images from noise, and re-generates target samples of both sides, to look at."""
  config, split = experiment.config, experiment.split
  settings = config.samples
  bound = load_purifier(experiment, store)
  schedule, sampler = sampler_of(config)
  half = -(-settings.num_images // 2)
  ids = np.concatenate([split.target_members[:half], split.target_nonmembers[:half]])
  raw = np.asarray(experiment.dataset.take(ids).images)
  shape = (settings.num_images, *model_shape(config, experiment.dataset))
  key = rng.stream(config.seed, "samples")

  @jax.jit
  def draw(variables, key):
    denoise = models.denoiser(bound.module, variables)
    num_steps = settings.num_ddim_steps
    return sample(key, denoise, schedule_of(config), shape, num_ddim_steps=num_steps)

  @jax.jit
  def regenerate(variables, images, key):
    denoise = models.denoiser(bound.module, variables)
    return reconstruct(key, denoise, schedule, images, **sampler)

  images = raw.astype(np.float32) / 255.0
  keys = [rng.stream(config.seed, f"samples/{i}") for i in range(settings.num_reconstructions)]
  reconstructed = [regenerate(bound.variables, images, key) for key in keys]
  np.savez(
    path / "images.npz",
    **{
      "images/raw": raw,
      "images/reconstructed": np.stack([_to_bytes(r) for r in reconstructed], axis=1),
      "images/samples": _to_bytes(fit_images(draw(bound.variables, key), raw.shape[1:])),
    },
  )


# Stage name to `(experiment, store, folder) -> None`, which writes the artifact.
COMPUTE = {
  "split": _compute_split,
  "classifier": _compute_classifier,
  "diffusion": _compute_diffusion,
  "samples": _compute_samples,
}


def load_classifier(experiment: Experiment, store: Store) -> Bound:
  """The trained classifier of an experiment that has run."""
  return _load_variables(experiment.classifier, store.path(experiment.stages["classifier"]))


def load_denoiser(experiment: Experiment, store: Store) -> Bound:
  """The trained noise-prediction network of an experiment that has run."""
  return _load_variables(experiment.denoiser, store.path(experiment.stages["diffusion"]))


def load_purifier(experiment: Experiment, store: Store) -> Bound:
  """The same network, computing in the dtype in which it is to re-generate images."""
  bound, dtype = load_denoiser(experiment, store), experiment.config.purify.dtype
  return bound._replace(module=bound.module.clone(dtype=jnp.dtype(dtype))) if dtype else bound


def _load_variables(bound, path):
  return bound._replace(variables=restore_tree(path / "variables", bound.variables))


def _to_bytes(images):
  return np.asarray(jnp.round(images * 255.0)).astype(np.uint8)

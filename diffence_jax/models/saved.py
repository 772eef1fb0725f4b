"""Models on disk: a folder that says which network it is, and holds its variables.

    FOLDER/model.json      the network: its name and fields, the variables' shapes, digests
    FOLDER/variables.npz   the variables

The variables are an uncompressed `.npz`, not one of orbax's folders: a single file, which is
hashed and copied as it is, holds no pickle, needs no package beyond NumPy, and is written and
read one variable at a time, so that two gigabytes take two in memory and not four.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import disk
from diffence_jax.checkpoint import save_arrays
from diffence_jax.checks import check_choice, check_instance, check_positive, check_whole
from diffence_jax.disk import file_digest
from diffence_jax.models.binding import num_inputs
from diffence_jax.models.registry import CLASSIFIERS, DENOISERS, NEEDED, build
from diffence_jax.named import option_key, unknown_name

_MANIFEST = "model.json"
_VARIABLES = "variables.npz"
_FORMAT = 1
_REMEDY = "Copy the saved model again, or import it again."
_ROLES = {"classifier": CLASSIFIERS, "denoiser": DENOISERS}
# What a denoiser's network can predict; all but the noise go through `diffusion.as_noise`.
PREDICTIONS = ("noise", "clean", "v", "edm")


class Manifest(NamedTuple):
  """What is known of a saved model without its variables.

  Attributes:
    role: "classifier" or "denoiser".
    kind: the kind of network that `interop.from_torch` read it as, or its name.
    name: its name in the model registry, or "module:Class" of a user's own.
    fields: all fields of the module, as JSON has them.
    image_channels: channels of the images it is for.
    source: the files that it was made of, by name, with their SHA-256; empty where it was not
      made of files.
    shapes: the variables' shapes and dtypes, by "collection/submodule/.../leaf".
    files: the model's own files, by name, with their SHA-256.
    schedule: of a denoiser, the noise schedule that it is for, as options of
      `diffusion.make_schedule`; None where that is not known.
    predicts: of a denoiser, one of `PREDICTIONS`.
    sigma_data: of one that predicts "edm", as `diffusion.as_noise` takes it; else None.
  """

  role: str
  kind: str
  name: str
  fields: dict[str, Any]
  image_channels: int
  source: dict[str, str]
  shapes: dict[str, list]
  files: dict[str, str]
  schedule: dict[str, Any] | None = None
  predicts: str = "noise"
  sigma_data: float | None = None

  @property
  def digest(self) -> str:
    """SHA-256, in hexadecimal, of the network and its variables, wherever they came from."""
    about = [self.role, self.name, self.fields, self.image_channels, self.shapes, self.files]
    if self.predicts != "noise":  # which noise that is follows from the schedule
      about += [self.predicts, self.sigma_data, self.schedule]
    return disk.content_digest(about)

  @property
  def checksum(self) -> str:
    """What the manifest is known again by: the digest, and the schedule where there is one."""
    return (
      self.digest
      if self.schedule is None
      else disk.content_digest([self.digest, self.schedule])
    )

  @property
  def variable_shapes(self) -> dict[str, Any]:
    """The variables as `jax.ShapeDtypeStruct`s, in their nested dicts."""
    return flax.traverse_util.unflatten_dict(
      {
        name: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
        for name, (shape, dtype) in self.shapes.items()
      },
      sep="/",
    )

  def make_module(self, model: type[nn.Module] | None = None) -> nn.Module:
    """Builds the module.

    Args:
      model: the class of one of a user's own, which is not imported for a file's sake; None
        for one of the registry.

    Raises:
      ValueError: this version has no such network, it has no such field, or the class is none
        or another one.
    """
    models = _ROLES[self.role]
    if ":" not in self.name and self.name not in models:
      raise unknown_name(self.role, self.name, models)
    expected = models.get(self.name) or option_key(self.name)
    if model is None and ":" in self.name:
      raise ValueError(
        f"The saved model is of {self.name}, a class of somebody's own, which is not imported "
        f"for a file's sake; pass the class: load_model(path, {expected})."
      )
    if model is not None and expected not in (model, getattr(model, "__qualname__", None)):
      raise ValueError(
        f"The saved model is of {self.name}; expected that class, not "
        f"{getattr(model, '__qualname__', model)!r}."
      )
    return build(self.role, self.name, model or expected, self.fields)


def save_model(
  path: str | os.PathLike,
  module: nn.Module,
  variables: Mapping[str, Any],
  *,
  image_channels: int,
  kind: str | None = None,
  source: Mapping[str, str] | None = None,
  schedule: Mapping[str, Any] | None = None,
  predicts: str = "noise",
  sigma_data: float | None = None,
) -> Manifest:
  """Writes a model to a new folder, which is there whole or not at all.

  Args:
    path: the folder.
    module: a module of the registry, or of a class of one's own with a field `num_classes`, a
      classifier, or `out_channels`, a denoiser.
    variables: its variables, nested dicts of arrays.
    image_channels: channels of the images it is for.
    kind: the kind of network that it was read as; None for its name in the registry.
    source: the files that it was made of, name to SHA-256.
    schedule: the noise schedule that it is for, options of `diffusion.make_schedule`; to be
      given where it predicts something else than the noise.
    predicts: what a denoiser predicts: "noise", or "clean", "v" or "edm" as
      `diffusion.as_noise` tells them apart.
    sigma_data: of "edm", the spread of the data that it was trained for; None for 0.5.

  Returns:
    What was written.

  Raises:
    FileExistsError: `path` is there already.
    TypeError: the variables are no mapping.
    ValueError: the module is none of these, a field is not one that JSON has, a variable's
      dtype is not one that NumPy has, or there is no such thing to predict.
  """
  path = Path(path).absolute()
  disk.check_free(path)
  role, name = _registered(module)
  sigma_data = _check_prediction(role, predicts, sigma_data, schedule)
  check_instance("variables", variables, Mapping)
  check_whole("image_channels", image_channels, 1, 1024)
  fields = {
    field.name: _to_json(field.name, getattr(module, field.name))
    for field in dataclasses.fields(module)
    if field.name not in ("parent", "name")
  }
  flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
  for leaf, array in flat.items():
    if np.dtype(array.dtype).kind == "V":  # .npz would keep the bytes and forget the type
      raise ValueError(f"{leaf} is {array.dtype}; expected a dtype of NumPy, such as float32.")
  path.parent.mkdir(parents=True, exist_ok=True)
  with disk.new_folder(path, _MANIFEST) as (partial, about):
    save_arrays(partial / _VARIABLES, variables)
    manifest = Manifest(
      role=role,
      kind=kind or name,
      name=name,
      fields=fields,
      image_channels=image_channels,
      source=dict(source or {}),
      shapes={leaf: [list(array.shape), str(array.dtype)] for leaf, array in flat.items()},
      files={_VARIABLES: file_digest(partial / _VARIABLES)},
      schedule=None if schedule is None else dict(schedule),
      predicts=predicts,
      sigma_data=sigma_data,
    )
    about |= {"format": _FORMAT, "digest": manifest.checksum, **manifest._asdict()}
  return manifest


def load_model(
  path: str | os.PathLike, model: type[nn.Module] | None = None, *, predicts: str = "noise"
) -> tuple[nn.Module, dict[str, Any]]:
  """Reads what `save_model` wrote, after a look at whether it still is that.

  Args:
    path: the folder.
    model: the class, where it is one of your own; None for one of the registry.
    predicts: what a denoiser is to predict; see `save_model`. Where that is not the noise, its
      denoiser goes through `diffusion.as_noise`.

  Returns:
    (module, variables), as they were.

  Raises:
    FileNotFoundError: there is no saved model.
    ValueError: it is damaged (`disk.ArtifactError`), of another version, its class is not
      the one given, or it predicts something else.
  """
  path = Path(path)
  manifest = read_manifest(path)
  if manifest.predicts != predicts:
    raise ValueError(
      f"The network in {path} predicts {manifest.predicts!r}; expected {predicts!r}. Read it "
      f"by load_model(..., predicts={manifest.predicts!r}); a denoiser of one that does not "
      "predict 'noise' goes through dj.diffusion.as_noise."
    )
  module = manifest.make_module(model)
  disk.verify(path, manifest._asdict(), _REMEDY)
  with np.load(path / _VARIABLES, allow_pickle=False) as arrays:
    # One at a time: NumPy's copy of each goes before the next is read.
    flat = {name: jnp.asarray(arrays[name]) for name in arrays.files}
  return module, flax.traverse_util.unflatten_dict(flat, sep="/")


def read_manifest(path: str | os.PathLike) -> Manifest:
  """Reads what a saved model is, without its variables: a few kilobytes.

  Args:
    path: the folder.

  Returns:
    The manifest; `load_model` is what checks the variables against it.

  Raises:
    FileNotFoundError: there is no saved model.
    ValueError: the manifest is damaged (`disk.ArtifactError`), or of another version.
  """
  file = Path(path) / _MANIFEST
  if not file.is_file():
    raise FileNotFoundError(
      f"There is no saved model {path}, for lack of {file}; expected a folder that "
      "`diffence import-torch KIND FILE --output=FOLDER` made."
    )
  content = disk.read_manifest(Path(path), _MANIFEST, _REMEDY)
  version, digest = content.pop("format", None), content.pop("digest", None)
  if version != _FORMAT:
    raise ValueError(
      f"{file} is of format {version!r}; this version of diffence_jax reads format {_FORMAT}. "
      "Update it, or import the model again."
    )
  try:
    manifest = Manifest(**content)
  except TypeError as error:
    raise disk.damaged(file, "lacks something or holds something else", _REMEDY) from error
  if manifest.checksum != digest:
    raise disk.damaged(file, "is not what was written", _REMEDY)
  if manifest.predicts not in PREDICTIONS:
    raise ValueError(
      f"{file} is of a network that predicts {manifest.predicts!r}; this version of "
      f"diffence_jax knows {', '.join(PREDICTIONS)}. Update it."
    )
  return manifest


def _check_prediction(role, predicts, sigma_data, schedule) -> float | None:
  """The spread of the data, where it is needed; ValueError where something does not go."""
  check_choice("predicts", predicts, PREDICTIONS)
  if predicts == "noise" and sigma_data is None:
    return None
  if role == "classifier":
    raise ValueError(f"predicts is {predicts!r}, and the model is a classifier; leave it out.")
  if predicts != "noise" and schedule is None:
    raise ValueError(
      f"predicts is {predicts!r}, from which the noise follows by the noise schedule, and none "
      "is known; give the network's own, such as kind=cosine num_steps=1000."
    )
  if predicts != "edm":
    if sigma_data is not None:
      raise ValueError(f"sigma_data is of 'edm', and predicts is {predicts!r}; leave it out.")
    return None
  sigma_data = 0.5 if sigma_data is None else sigma_data
  check_positive("sigma_data", sigma_data)
  return float(sigma_data)


def _registered(module: nn.Module) -> tuple[str, str]:
  """The role and the name of a module's type."""
  for role, models in _ROLES.items():
    for name, model in models.items():
      if type(module) is model:
        return role, name
  if isinstance(module, nn.Module):
    role = "denoiser" if num_inputs(module) > 1 else "classifier"
    if hasattr(module, NEEDED[role]):
      return role, f"{type(module).__module__}:{type(module).__qualname__}"
  raise ValueError(
    f"A {type(module).__name__} cannot be saved; expected a module of "
    f"{', '.join([*CLASSIFIERS, *DENOISERS])}, or of a class of your own that has the field "
    "num_classes, a classifier, or out_channels, a denoiser."
  )


def _to_json(field: str, value: Any) -> Any:
  """A field as JSON has it; the registry makes tuples of lists and dtypes of names again."""
  if field == "dtype":
    return jnp.dtype(value).name
  if isinstance(value, tuple):
    return [_to_json(field, item) for item in value]
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ValueError(f"{field} is {value!r}, which JSON does not have; so it cannot be saved.")

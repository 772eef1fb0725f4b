"""The protection of a classifier that runs on the host, as a folder.

    FOLDER/bundle.json         what it is for, how candidates are drawn, digests
    FOLDER/policy.stablehlo    what is answered, fitted: a program of candidates and raw logits
    FOLDER/diffusion/          the saved diffusion model

The classifier is not in it: it is given again when the bundle is loaded.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from diffence_jax import disk
from diffence_jax.defense import protect
from diffence_jax.defense.policy import AggregatePolicy, Policy
from diffence_jax.defense.protect import ProtectedPredict
from diffence_jax.interop.classifier import as_classifier
from diffence_jax.interop.export import PLATFORMS, without_paths
from diffence_jax.interop.protection import load_denoiser

_MANIFEST, _POLICY, _DIFFUSION = "bundle.json", "policy.stablehlo", "diffusion"
_FORMAT = 1
_REMEDY = "Copy the bundle again, or run diffence protect again."
_SETTINGS = ("num_candidates", "step", "chunk_size")


def save_bundle(
  path: str | os.PathLike,
  policy: Policy,
  diffusion: str | os.PathLike,
  *,
  num_classes: int,
  image_shape: tuple[int, int, int],
  settings: Mapping[str, Any],
) -> None:
  """Writes a bundle to a new folder, which is there whole or not at all.

  Args:
    path: the folder.
    policy: what is answered, fitted.
    diffusion: the folder of the saved denoiser, which is copied.
    num_classes: K of the classifier.
    image_shape: (H,W,C).
    settings: how candidates are drawn, of `protect`: "num_candidates", "step" and "chunk_size";
      others are not looked at.

  Raises:
    FileExistsError: `path` is there already.
    ValueError: the policy cannot be traced.
  """
  path = Path(path).absolute()
  with disk.new_folder(path, _MANIFEST) as (partial, about):
    shutil.copytree(diffusion, partial / _DIFFUSION)
    program = _trace(policy, settings["num_candidates"], num_classes)
    disk.write_atomically(partial / _POLICY, program.serialize())
    about |= {
      "format": _FORMAT,
      "num_classes": num_classes,
      "image_shape": list(image_shape),
      "keeps_labels": policy.keeps_labels,
      "draws": policy.draws,
      "settings": {name: settings[name] for name in _SETTINGS},
    }
    about["digest"] = disk.content_digest(about)


def load_protected(path: str | os.PathLike, predict: Callable[..., Any]) -> ProtectedPredict:
  """Protects a classifier as `diffence protect` has written it down.

  Args:
    path: the bundle, a folder.
    predict: the classifier, which is not in it: a function of NumPy images f32[n,H,W,C] in
      [0, 1] to logits f[n,K], or a predictor of (key, images).

  Returns:
    A predictor, as `defense.protect` returns it.

  Raises:
    FileNotFoundError: there is no bundle.
    ValueError: it is damaged (`disk.ArtifactError`), of another version, or for another number
      of classes; or `predict` cannot answer such images.
  """
  path = Path(path).expanduser()
  if not (path / _MANIFEST).is_file():
    raise FileNotFoundError(
      f"There is no bundle {path}, for lack of {_MANIFEST}; expected a folder that diffence "
      "protect made for a classifier that runs on the host."
    )
  about = disk.read_manifest(path, _MANIFEST, _REMEDY)
  if about.get("format") != _FORMAT:
    raise ValueError(
      f"{path} is of format {about.get('format')!r}; this version of diffence_jax reads format "
      f"{_FORMAT}. Update it, or run diffence protect again."
    )
  disk.verify(path, about, _REMEDY)
  told = {name: value for name, value in about.items() if name not in ("digest", "files")}
  if about.get("digest") != disk.content_digest(told):
    raise disk.damaged(path / _MANIFEST, "is not what was written", _REMEDY)
  shape, num_classes = tuple(about["image_shape"]), about["num_classes"]
  kind = {name: about[name] for name in ("keeps_labels", "draws")}
  classifier = as_classifier(predict, shape)
  if classifier.num_classes != num_classes:
    raise ValueError(
      f"predict answers {classifier.num_classes} logits an image; the bundle {path} is for a "
      f"classifier of {num_classes} classes."
    )
  program = jax.export.deserialize(bytearray((path / _POLICY).read_bytes()))
  policy = AggregatePolicy(program.call, **kind)
  denoise, schedule = load_denoiser(path / _DIFFUSION, classifier.predict, shape)
  return protect(classifier.predict, denoise, schedule, policy=policy, **about["settings"])


def _trace(policy, num_candidates, num_classes):
  """The policy as a program of candidates f32[N,M,K], None without, and raw f32[N,K]."""
  (num,) = jax.export.symbolic_shape("N")
  shaped = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  candidates = shaped(num, num_candidates, num_classes) if policy.draws else None
  return without_paths(policy.answer, (candidates, shaped(num, num_classes)), PLATFORMS)

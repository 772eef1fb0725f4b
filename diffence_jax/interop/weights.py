"""Where in a checkpoint the weights are, and their names in the bare network."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# What a checkpoint may hold weights under, the better ones first: those averaged over training
# (EMA) are the ones to sample and to classify with.
AVERAGED = ("ema_model", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ema")
RAW = (
  "state_dict",
  "model_state_dict",
  "model",
  "net_model",
  "net",
  "network",
  "params",
  "generator",
  "module",
)
WRAPPERS = (*AVERAGED, *RAW)

# So deep mappings lie in each other at most.
_MOST_DEPTH = 30

# What wrappers put before a network's names: data-parallel training, torch.compile, Lightning.
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model|net|network|net_model)\.)+")
# Those of them that a network has among other parts, such as a loss with weights of its own.
_PART = re.compile(r"^(?:(?:module|_orig_mod)\.)*(?:model|net|network|net_model)\.")
# And in front of a copy that is averaged over training, beside the raw one.
_AVERAGED_PREFIX = re.compile(r"^(?:(?:module|_orig_mod)\.)*(ema_model|model_ema|ema)\.")
# Buffers that count something, by the last part of their names: batches, models that were
# averaged, and what profilers leave.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


class FoundWeights(NamedTuple):
  """The weights in a checkpoint.

  Attributes:
    state_dict: names to tensors, as they are.
    path: the names that it lies under, one in the other; () for the checkpoint itself.
    passed_over: the names of other weights beside it.
  """

  state_dict: Mapping[str, Any]
  path: tuple[str, ...] = ()
  passed_over: tuple[str, ...] = ()

  @property
  def told(self) -> str | None:
    """Which weights were taken, where that is a choice."""
    is_averaged = bool(set(self.path) & set(AVERAGED))
    if not (self.passed_over or is_averaged):
      return None
    averaged = ", averaged over training" if is_averaged else ""
    others = f"; left: {', '.join(self.passed_over)}" if self.passed_over else ""
    return f"Taken: the weights under {'.'.join(self.path)}{averaged}{others}."


def find_weights(checkpoint: Any) -> FoundWeights:
  """Finds the state dict in a checkpoint.

  Args:
    checkpoint: a state dict, or a mapping that holds one under a name of `WRAPPERS`. Of several
      the first of that order is taken, the weights averaged over training before all others,
      also where they lie among the raw ones, under a prefix such as "ema_model.".

  Returns:
    What was found, its names as they are; see `bare_weights`.

  Raises:
    TypeError: `checkpoint` is no mapping.
    ValueError: it holds itself.
  """
  if not isinstance(checkpoint, Mapping):
    raise TypeError(
      f"The checkpoint is a {type(checkpoint).__name__}; expected a mapping from parameter "
      f"names to arrays, or one that holds such a mapping as {', '.join(WRAPPERS)}."
    )
  weights = _find(checkpoint, (), {}) or FoundWeights(checkpoint)
  averaged, raw = {}, {}
  for name, value in weights.state_dict.items():
    is_averaged = _AVERAGED_PREFIX.match(str(name))
    (averaged if is_averaged else raw)[name] = value
  if averaged and (not raw or set(map(_bare, averaged)) & set(map(_bare, raw))):
    prefix = _AVERAGED_PREFIX.match(str(next(iter(averaged))))[1]
    left = ("those without this prefix",) if raw else ()
    return FoundWeights(averaged, (*weights.path, prefix), (*weights.passed_over, *left))
  return weights


def _find(checkpoint, path, seen) -> FoundWeights | None:
  """The best weights of a mapping; None where it has none. `seen`: id to whether it is done."""
  if id(checkpoint) in seen or len(path) > _MOST_DEPTH:
    if not seen.get(id(checkpoint)):
      raise ValueError(
        f"The checkpoint holds itself, under {'.'.join(path[:8])}; expected a mapping from "
        "parameter names to arrays, or one that holds such a mapping."
      )
    return None
  seen[id(checkpoint)] = False
  inner = [name for name in WRAPPERS if isinstance(checkpoint.get(name), Mapping)]
  best = None
  for name in inner:
    # What has no arrays keeps something else under the name, such as options or a decay rate.
    best = _find(checkpoint[name], (*path, name), seen)
    if best is not None:
      others = [key for key in inner if key not in (name, *best.path)]
      left = tuple(".".join((*path, key)) for key in others if _has_arrays(checkpoint[key]))
      nameless = [".".join((*path, key)) for key in inner if _has_lists(checkpoint[key])]
      left += tuple(f"{key}, which is by number and not by name" for key in nameless)
      best = best._replace(passed_over=(*best.passed_over, *left))
      break
  seen[id(checkpoint)] = True
  if best is None and _has_arrays(checkpoint):
    return FoundWeights(checkpoint, path)
  return best


def _has_arrays(state_dict):
  return any(hasattr(value, "shape") for value in state_dict.values())


def _has_lists(state_dict):
  """Whether arrays are there in lists, as some averaging packages keep them."""
  lists = [value for value in state_dict.values() if isinstance(value, list | tuple)]
  return any(hasattr(value, "shape") for row in lists for value in row)


def _bare(name) -> str:
  """A name in the bare network."""
  return _PREFIX.sub("", _AVERAGED_PREFIX.sub("", str(name))).replace("._orig_mod.", ".")


def bare_weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
  """A state dict by the names in the bare network, without what wrappers put before them.

  Args:
    state_dict: names to anything; `_orig_mod.`, `module.`, `model.` and the like before a name
      fall away. Counters of batches and the like are left out, and where some names have a
      prefix such as `model.`, the others: parts beside the network.

  Raises:
    ValueError: two names become one.
  """
  bare = {}
  parts = {name: value for name, value in state_dict.items() if _PART.match(str(name))}
  for name, value in (parts or state_dict).items():
    bare_name = _bare(name)
    if bare_name.rpartition(".")[2] in _COUNTERS:
      continue
    if bare_name in bare:
      raise ValueError(
        f"Some weights are there twice, with a prefix such as 'module.' and without: "
        f"{bare_name!r}. "
        "Save the state dict of the network alone."
      )
    bare[bare_name] = value
  return bare

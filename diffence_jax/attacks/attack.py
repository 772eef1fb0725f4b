"""Attacks: a contract, and all of ours by name.

An attack is a function `(view, **options) -> scores f64[N]`, higher for likelier members. What
it needs besides answers and labels, and how reports speak of it, is declared by a decorator:

    @attack("LiRA online", family="LiRA", needs=("shadows",), check=check_variance)
    def lira_online(view, *, variance="global"): ...

A plain function needs no declaration: it sees answers and labels. Its options' types are those
of its signature; what also checks their ranges, before anything is computed, is `check`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffence_jax.attacks.ensemble import Ensemble, Networks, Statistic
from diffence_jax.data import Images
from diffence_jax.metrics.predictions import bounded
from diffence_jax.named import Choice, Registry, option_key

# What an attack can need, and which attributes of its view that opens.
NEEDS: Mapping[str, tuple[str, ...]] = {
  "known": ("is_known", "is_member"),
  "shadows": ("shadow_logits", "membership"),
  "images": ("images",),
  "ask": ("ask",),
  "networks": ("networks",),
}


@dataclasses.dataclass(frozen=True)
class Attack:
  """What is declared of an attack.

  Attributes:
    title: as reports write it.
    family: attacks of one kind stand together in reports.
    needs: some of `NEEDS`; nothing else but answers and labels is there.
    least_known: samples of either side whose membership it must know.
    per_class: whether it is also judged with a threshold of its own for every class.
    in_turn: whether it is quick enough to be run with every shadow model as the target in turn.
    many_labels: whether it asks for a thousand labels of every sample, so that it is run on a
      few.
    trains_on_known: whether the scores of known samples come from a model that was trained on
      them, so that they are never pooled with others'.
    published: the attack of the published code, for `protocol="paper"` only; it is told the
      membership of all samples. None: the same.
  """

  title: str
  family: str = "others"
  needs: tuple[str, ...] = ()
  least_known: int = 1
  per_class: bool = False
  in_turn: bool = True
  many_labels: bool = False
  trains_on_known: bool = False
  published: Callable[..., np.ndarray] | None = None


def attack(
  title: str, *, check: Callable[..., None] | None = None, **declared: Any
) -> Callable[[Callable], Callable]:
  """Declares what an attack needs; see `Attack`.

  Args:
    title: as reports write it.
    check: `(**options) -> None`, given all options of the attack; raises ValueError, with the
      option's name first, where one is out of its range.
    **declared: further attributes of `Attack`.

  Raises:
    ValueError: it needs what is none of `NEEDS`.
  """
  declaration = Attack(title, **declared)
  for need in declaration.needs:
    if need not in NEEDS:
      raise ValueError(f"The attack {title!r} needs {need!r}; expected some of {list(NEEDS)}.")

  def declare(function):
    function.attack = declaration
    if check is not None:
      function.check_options = check
    return function

  return declare


def declaration_of(name: str) -> Attack:
  """What is declared of the attack of this name, that of a plain function if nothing is."""
  declared = getattr(ATTACKS.find(name), "attack", None)
  return declared or Attack(option_key(name).replace("_", " "))


class View:
  """What an attacker sees of a model and of N samples.

  Attributes:
    logits: f32[N,Q,K], the attacked model's answers to Q queries about every sample. They are
      of A versions of the image, each asked Q / A times, in this order.
    labels: i[N], true labels.
    versions: A.
    is_known: bool[N], whose membership the attacker knows; where "known" is declared, as:
    is_member: bool[N], True for known members; False for all that are not known.
    shadow_logits: an `Ensemble` of S models, `shadow_logits[s]` f32[N,Q,K], where "shadows" is
      declared, as:
    membership: bool[S,N], of the shadow models.
    images: u8[N,H,W,C]; where "images" is declared. Those on disk are read when asked for.
    ask: `images f32[n,H,W,C] in [0,1] -> labels i32[n]`, traceable by JAX unless it has a true
      attribute `runs_on_host`: what label the attacked model gives; where "ask" is declared.
    networks: the shadow models as functions, `Networks`; where "networks" is declared.
    ids: i64[N], stable ids of the samples, for randomness that belongs to them.
    seed: of the attack's randomness.
    name: of the attacked predictor, for streams of randomness of its own.
  """

  def __init__(
    self,
    logits: np.ndarray | Callable[[], np.ndarray],
    labels: np.ndarray,
    *,
    versions: int = 1,
    statistic: Callable[[Statistic], np.ndarray] | None = None,
    is_known: np.ndarray | None = None,
    is_member: np.ndarray | None = None,
    shadows: Ensemble | None = None,
    images: Images | None = None,
    ask: Callable[[jax.Array], jax.Array] | None = None,
    networks: Networks | None = None,
    ids: np.ndarray | None = None,
    seed: int = 0,
    name: str = "",
  ):
    """Takes what there is; see the attributes.

    Args:
      logits: f32[N,Q,K]; or what computes them, once, when they are asked for.
      labels: i[N].
      versions: A.
      statistic: a `Statistic` to what it reads off `logits`, where that is known already.
      is_known: bool[N].
      is_member: bool[N], looked at where `is_known` only, but for published attacks.
      shadows: the shadow models.
      images: u8[N,H,W,C].
      ask: images to labels.
      networks: of the shadow models.
      ids: i64[N]; None for positions.
      seed: of randomness.
      name: of the predictor.
    """
    self.labels, self.versions, self.seed, self.name = labels, versions, seed, name
    self.ids = np.arange(len(labels)) if ids is None else ids
    self._logits = functools.cache(logits) if callable(logits) else logits
    self._statistic = statistic
    self._all = {
      "is_known": is_known,
      "is_member": is_member,
      "shadow_logits": shadows,
      "membership": None if shadows is None else shadows.membership,
      "images": images,
      "ask": ask,
      "networks": networks,
    }

  def __getattr__(self, name: str) -> Any:
    need = next((need for need, names in NEEDS.items() if name in names), None)
    if need is None:
      raise AttributeError(f"A view has no {name!r}.")
    raise AttributeError(
      f"This view has no {name!r}: the attack has not declared that it needs it, "
      f'@attack(title, needs=("{need}",)).'
    )

  @property
  def logits(self) -> np.ndarray:
    """The answers f32[N,Q,K]."""
    return self._logits() if callable(self._logits) else self._logits

  def statistic(self, function: Statistic) -> np.ndarray:
    """What a statistic reads off the answers of the attacked model, f[N,...]."""
    if self._statistic is not None:
      return self._statistic(function)
    return function(self.logits, self.labels, self.versions)

  def mean_over_queries(
    self, score: Callable[[np.ndarray, np.ndarray], np.ndarray]
  ) -> np.ndarray:
    """The mean f64[N] over the queries of a score `(logits f[n,K], labels i[n]) -> f64[n]`.

    Infinite scores, of probabilities that are exactly 0 or 1, count as `predictions.BOUND`.
    """
    logits = self.logits
    num, queries, num_classes = logits.shape
    scores = score(logits.reshape(-1, num_classes), np.repeat(self.labels, queries))
    return bounded(np.asarray(scores, np.float64)).reshape(num, queries).mean(axis=1)

  def lacks(self, declared: Attack) -> list[str]:
    """What an attack needs and this view has not."""
    missing = [n for n in declared.needs if any(self._all[name] is None for name in NEEDS[n])]
    if "known" in declared.needs and "known" not in missing:
      known, members = self._all["is_known"], self._all["is_member"]
      sides = np.sum(known & members), np.sum(known & ~members)
      if min(sides) < declared.least_known:
        missing.append("known")
    return missing

  def take(self, rows: np.ndarray) -> "View":
    """The same of some samples, without shadow models."""
    of_samples = ("is_known", "is_member", "images")
    some = {
      name: None if (given := self._all[name]) is None else given[rows] for name in of_samples
    }
    return View(
      self.logits[rows],
      self.labels[rows],
      versions=self.versions,
      ask=self._all["ask"],
      networks=self._all["networks"] and self._all["networks"].take(rows),
      ids=self.ids[rows],
      seed=self.seed,
      name=self.name,
      **some,
    )

  def opened(self, needs: tuple[str, ...], *, all_members: bool = False) -> "View":
    """The same view with what some needs open, and nothing else of the kind.

    Args:
      needs: some of `NEEDS`.
      all_members: whether `is_member` tells of all samples, not of the known ones only.
    """
    view = View.__new__(View)
    view.__dict__.update(self.__dict__)
    for need in needs:
      view.__dict__.update({name: self._all[name] for name in NEEDS[need]})
    if "known" in needs and not all_members:
      view.is_member = view.is_member & view.is_known
    # Only what was declared can be got at.
    view._all = {}
    return view


def run_attack(choice: Choice, view: View, *, published: bool = False) -> np.ndarray:
  """Runs an attack on what it declared.

  Args:
    choice: from `ATTACKS`.
    view: all there is.
    published: runs the attack of the published code instead, if there is another.

  Returns:
    f64[N], higher for likelier members.

  Raises:
    ValueError: there is not all that it needs, or its scores are none.
  """
  declared = declaration_of(choice.name)
  if missing := view.lacks(declared):
    raise ValueError(f"The attack {choice.name!r} needs {', '.join(missing)}.")
  if published and declared.published is not None:
    scores = declared.published(view.opened(declared.needs, all_members=True), **choice.options)
  else:
    scores = ATTACKS.call(choice, view.opened(declared.needs))
  scores = np.asarray(scores)
  if scores.shape != view.labels.shape or not np.issubdtype(scores.dtype, np.number):
    raise ValueError(
      f"The attack {choice.name!r} returned {scores.dtype}{list(scores.shape)}; expected a "
      f"number a sample, [{len(view.labels)}]."
    )
  if np.isnan(scores).any():
    raise ValueError(
      f"The attack {choice.name!r} returned NaN for {np.isnan(scores).sum()} of {len(scores)} "
      "samples; expected numbers, higher for likelier members."
    )
  return scores.astype(np.float64)


_HERE = "diffence_jax.attacks"

# `(view, **options) -> scores f64[N]`, in the order in which reports have them.
ATTACKS = Registry(
  "attack",
  "attacks",
  {
    "correctness": f"{_HERE}.threshold:attack_correctness",
    "loss": f"{_HERE}.threshold:attack_loss",
    "confidence": f"{_HERE}.threshold:attack_confidence",
    "entropy": f"{_HERE}.threshold:attack_entropy",
    "modified_entropy": f"{_HERE}.threshold:attack_modified_entropy",
    "lira_online": f"{_HERE}.lira:lira_online",
    "lira_online_per_example": f"{_HERE}.lira:lira_online_per_example",
    "lira_online_shrunk": f"{_HERE}.lira:lira_online_shrunk",
    "bavaria_online": f"{_HERE}.bavaria:bavaria_online",
    "rmia_online": f"{_HERE}.rmia:rmia_online",
    "base_online": f"{_HERE}.base:base_online",
    "lira_offline": f"{_HERE}.lira:lira_offline",
    "lira_offline_per_example": f"{_HERE}.lira:lira_offline_per_example",
    "lira_offline_shrunk": f"{_HERE}.lira:lira_offline_shrunk",
    "bavaria_offline": f"{_HERE}.bavaria:bavaria_offline",
    "rmia_offline": f"{_HERE}.rmia:rmia_offline",
    "base_offline": f"{_HERE}.base:base_offline",
    "pmia": f"{_HERE}.pmia:attack_pmia",
    "multi_signal": f"{_HERE}.multi_signal:attack_multi_signal",
    "boosted": f"{_HERE}.boosted:attack_boosted",
    "nn": f"{_HERE}.nn:attack_nn",
    "quantile_regression": f"{_HERE}.quantile:attack_quantile",
    "augmentation_robustness": f"{_HERE}.label_only:attack_augmentation",
    "noise_robustness": f"{_HERE}.label_only:attack_noise",
    "transfer": f"{_HERE}.transfer:attack_transfer",
    "oslo": f"{_HERE}.oslo:attack_oslo",
    "hop_skip_jump": f"{_HERE}.hop_skip_jump:attack_boundary",
  },
  num_args=1,
)

# Beside others of their kind; they run where `audit.attacks` names them.
_ON_REQUEST = (
  "bavaria_online", "bavaria_offline", "base_online", "base_offline", "pmia",
  "multi_signal", "boosted", "transfer", "oslo",
)  # fmt: skip
# What `audit.attacks` is unless it is set.
DEFAULT_ATTACKS = tuple(name for name in ATTACKS.known if name not in _ON_REQUEST)

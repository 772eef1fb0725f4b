"""The sections of an experiment's settings, whose defaults are those of who uses them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffence_jax.attacks.attack import DEFAULT_ATTACKS
from diffence_jax.attacks.optimised_queries import OptimisedSettings
from diffence_jax.audit.pool import PROTOCOLS
from diffence_jax.checks import FilePath, check_choice, check_whole
from diffence_jax.data import make_split
from diffence_jax.data.augment import KINDS
from diffence_jax.defense import candidate_logits
from diffence_jax.diffusion import linear_schedule, reconstruct, sample
from diffence_jax.experiment.purification import DTYPES
from diffence_jax.experiment.stage import Compute
from diffence_jax.named import defaults_of, option_key
from diffence_jax.rng import MAX_ID
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.recipe import TrainSettings

# Defaults of the functions that the settings are for.
_SPLIT, _SAMPLER = defaults_of(make_split, 1), defaults_of(reconstruct, 4)
_CANDIDATES, _SAMPLE = defaults_of(candidate_logits, 5), defaults_of(sample, 4)


# Of images that networks here could be asked about; larger ones would fill any memory.
_MAX_SIDE = 8192


def _section(**known: Any) -> Any:
  """A section whose keys belong to somebody else, who checks them."""
  return dataclasses.field(default_factory=lambda: dict(known))


@dataclasses.dataclass(frozen=True)
class Data:
  """What is known of whom: see `data.make_split`."""

  source: str = "digits"  # a name of data.SOURCES, or module:function
  options: Mapping[str, Any] = _section()  # what the source takes: path, name, ...
  num_members: int = 400
  num_nonmembers: int = 400
  num_reference: int | None = _SPLIT["num_reference"]  # None: all that is left
  known_fraction: float = _SPLIT["known_fraction"]  # of each side; the rest are targets
  nonmembers_from: str = _SPLIT["nonmembers_from"]  # or "test": the source's test part
  index_file: FilePath = ""  # an explicit split; replaces the sizes above


@dataclasses.dataclass(frozen=True)
class Classifier:
  """The target, and how it is trained: see `training.TrainSettings`."""

  model: str = "small_resnet"  # or module:Class
  fields: Mapping[str, Any] = _section()  # what the model takes: width, mean, ...
  saved_model: FilePath = ""  # its folder: taken as it is, not trained
  # Of any framework, module:function: what trains the target and the shadow models, and the
  # predictor of a target that is there already; see training.procedure.
  train: str = ""
  train_options: Mapping[str, Any] = _section()
  predictor: str = ""
  predictor_options: Mapping[str, Any] = _section()
  defense: str = "undefended"  # a name of training.registry.DEFENSES, or module:function
  epochs: int = TrainSettings.epochs
  batch_size: int = TrainSettings.batch_size
  learning_rate: float = TrainSettings.learning_rate
  weight_decay: float = TrainSettings.weight_decay

  def __post_init__(self):
    self.settings(1)

  def settings(self, num_members: int) -> TrainSettings:
    """How a classifier of so many members is trained."""
    names = ("epochs", "batch_size", "learning_rate", "weight_decay")
    return TrainSettings(num_members, **{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Diffusion(DenoiserSettings):
  """The diffusion model, and how it is trained."""

  model: str = "ddpm_unet"  # or module:Class
  fields: Mapping[str, Any] = _section()  # what the model takes: channels, multipliers, ...
  saved_model: FilePath = ""  # its folder: taken as it is, not trained
  image_shape: tuple[int, ...] = ()  # (height, width, channels); (): that of the data
  schedule: Mapping[str, Any] = _section(**defaults_of(linear_schedule, 0))
  trained_on: str = "members"  # or "reference"

  def __post_init__(self):
    super().__post_init__()
    check_choice("trained_on", self.trained_on, ("members", "reference"))
    shape = self.image_shape
    if shape and not (len(shape) == 3 and all(0 < size <= _MAX_SIDE for size in shape)):
      raise ValueError(
        f"image_shape is {shape}; expected (height, width, channels), each of them 1 to "
        f"{_MAX_SIDE}, or () for that of the data."
      )

  @property
  def settings(self) -> DenoiserSettings:
    """How it is trained."""
    names = [field.name for field in dataclasses.fields(DenoiserSettings)]
    return DenoiserSettings(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Purify:
  """How images are re-generated, and what is answered: see `reconstruct` and `POLICIES`."""

  num_candidates: int = _CANDIDATES["num_candidates"]
  step: int = _SAMPLER["step"]
  num_ddim_steps: int = _SAMPLER["num_ddim_steps"]
  clip: bool = _SAMPLER["clip"]
  to_clean: bool = _SAMPLER["to_clean"]
  respacing: str = ""  # "ddim5": steps are counted among 5 of the schedule's
  dtype: str = ""  # of the diffusion model here; "" as it was trained
  # Names of defense.policy.POLICIES, or module:function; undefended is always the first.
  policies: tuple[str, ...] = ("scenario_1", "scenario_2", "scenario_3", "average")

  def __post_init__(self):
    check_whole("num_candidates", self.num_candidates, 1, 1_000_000)
    check_choice("dtype", self.dtype, DTYPES)


@dataclasses.dataclass(frozen=True)
class Output:
  """What is done to the answers, after Diffence."""

  defense: str = "none"  # a name of defense.output.OUTPUT_DEFENSES, or module:function


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images of the diffusion model, to look at."""

  num_images: int = 16
  num_reconstructions: int = 4
  num_ddim_steps: int = _SAMPLE["num_ddim_steps"]

  def __post_init__(self):
    check_whole("num_images", self.num_images, 1, 10_000)
    check_whole("num_reconstructions", self.num_reconstructions, 1, 1000)
    check_whole("num_ddim_steps", self.num_ddim_steps, 1, 1_000_000)


@dataclasses.dataclass(frozen=True)
class Shadow:
  """The shadow models, and how they and the target are asked."""

  num_models: int = 0  # even; 0 for an audit without shadow models
  num_canaries: int = 0  # of each kind, made of reference samples, for the worst case
  canaries: tuple[str, ...] = ("mislabelled",)  # of audit.canaries.CANARIES, or module:function
  augmentation: str = "none"  # flip, shifts or flip_shifts: more queries an image
  queries: tuple[int, ...] = (1,)  # how often the attacker asks the same, such as (1, 4, 16)
  num_recorded: int | None = None  # candidates; None: what purify has
  near_duplicates: bool = False  # also ask about near-duplicates instead of the same
  main_attack: str = "lira_online"  # of figures, single examples and bounds on epsilon

  def __post_init__(self):
    num, queries = self.num_models, self.queries
    if num < 0 or num % 2 or num in (2, 4) or num > 10_000:
      raise ValueError(f"num_models is {num}; expected 0, or an even number from 6 to 10,000.")
    check_whole("num_canaries", self.num_canaries, 0, 1_000_000)
    if not self.canaries or len(set(self.canaries)) < len(self.canaries):
      raise ValueError(
        f"canaries is {self.canaries}; expected one or more kinds, each once, such as "
        "('clean', 'mislabelled')."
      )
    check_choice("augmentation", self.augmentation, KINDS)
    if not all(1 <= k <= 10_000 for k in queries) or sorted({1, *queries}) != list(queries):
      raise ValueError(
        f"queries is {queries}; expected rising numbers of queries from 1 to at most 10,000, "
        "such as (1, 4)."
      )
    if self.num_recorded is not None:
      check_whole("num_recorded", self.num_recorded, 1, 1_000_000)

  @property
  def total_canaries(self) -> int:
    """How many there are of all kinds together."""
    return self.num_canaries * len(self.canaries)


@dataclasses.dataclass(frozen=True)
class Audit:
  """Which attacks are run, and what they are judged on."""

  protocol: str = PROTOCOLS[0]  # or "paper": known and target samples pooled
  # Names of attacks.ATTACKS, or module:function. What an attack needs and the experiment has
  # not, such as shadow models, leaves it out.
  attacks: tuple[str, ...] = DEFAULT_ATTACKS
  num_label_only: int = 0  # images of each group for attacks that ask many times
  num_optimised: int = 0  # targets of each side whose queries are optimised; see `optimised`

  def __post_init__(self):
    check_choice("protocol", self.protocol, PROTOCOLS)
    check_whole("num_label_only", self.num_label_only, 0, 1_000_000)
    check_whole("num_optimised", self.num_optimised, 0, 1_000_000)


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings of an experiment."""

  name: str = ""
  variant: str = ""
  seed: int = 0
  data: Data = Data()
  classifier: Classifier = Classifier()
  diffusion: Diffusion = Diffusion()
  purify: Purify = Purify()
  output: Output = Output()
  samples: Samples = Samples()
  shadow: Shadow = Shadow()
  audit: Audit = Audit()
  optimised: OptimisedSettings = dataclasses.field(default_factory=OptimisedSettings)
  # Name to options, for what `classifier.defense` and `output.defense` name; the same for
  # `purify.policies`, `audit.attacks` and `shadow.canaries`. Those of a user's own stand under
  # their function's name.
  defenses: Mapping[str, Mapping[str, Any]] = _section()
  policies: Mapping[str, Mapping[str, Any]] = _section()
  attacks: Mapping[str, Mapping[str, Any]] = _section()
  canaries: Mapping[str, Mapping[str, Any]] = _section()
  # Changes rounding at most, and is in no fingerprint.
  compute: Compute = dataclasses.field(default_factory=Compute)

  def __post_init__(self):
    check_whole("seed", self.seed, 0, MAX_ID)

  def options(self, kind: str, name: str) -> Mapping[str, Any]:
    """The options given to a function by its name; `kind` is one of the last sections."""
    return getattr(self, kind).get(option_key(name), {})

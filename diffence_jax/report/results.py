"""All that an experiment found: the content of `results.json`, typed."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffence_jax.audit.agreement import AgreementRow
from diffence_jax.audit.optimised import OptimisedRow
from diffence_jax.audit.predictors import is_served, policy_title
from diffence_jax.audit.rows import PredictorRow
from diffence_jax.audit.shadow import ShadowTables
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.defense.policy import headline
from diffence_jax.disk import check_file
from diffence_jax.training.recipe import Guarantee

T = TypeVar("T")

# Raised when the file's fields change.
SCHEMA = 5
# That of files without `PredictorRow.chosen`, which are read too.
_UNCHOSEN = 4


def is_smoke(variant: str) -> bool:
  """Whether a variant of a config is a smoke test, whose figures measure nothing."""
  return variant.endswith("smoke")


@dataclasses.dataclass(frozen=True)
class DataFacts:
  """The data, and how many samples each group of the split has.

  Attributes:
    source: as the config has it.
    image_shape: (H,W,C).
    num_classes: K.
    known_members: samples.
    target_members: samples.
    known_nonmembers: samples.
    target_nonmembers: samples.
    reference: samples.
    largest_class: share of the target non-members that are of their most frequent class: the
      accuracy of an answer that is always the same.
  """

  source: str
  image_shape: tuple[int, ...]
  num_classes: int
  known_members: int
  target_members: int
  known_nonmembers: int
  target_nonmembers: int
  reference: int
  largest_class: float


@dataclasses.dataclass(frozen=True)
class PurifyFacts:
  """How images are re-generated, and what is answered: that section of the settings.

  Attributes:
    num_candidates: M.
    step: diffusion steps of noise.
    num_ddim_steps: evaluations of the network on the way back.
    clip: whether predicted clean images are clipped.
    to_clean: whether the way back ends at the clean image.
    respacing: what steps are counted in; "" for the whole schedule.
    dtype: of the network here; "" as it was trained.
    policies: as the config has them.
  """

  num_candidates: int
  step: int
  num_ddim_steps: int
  clip: bool
  to_clean: bool
  respacing: str
  dtype: str
  policies: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DefenseFacts:
  """Defenses besides Diffence.

  Attributes:
    training: how the classifier was trained; "undefended" for no defense.
    output: what was done to the answers; "none" for nothing.
    options: of these, by name.
    guarantee: of differential privacy; None without.
  """

  training: str
  output: str
  options: Mapping[str, Mapping[str, Any]]
  guarantee: Guarantee | None


@dataclasses.dataclass(frozen=True)
class ClassifierFacts:
  """The target classifier.

  Attributes:
    model: its architecture.
    num_parameters: of it; None where they are not known, of one that is not of Flax.
    train_accuracy: on target members, without Diffence.
    test_accuracy: on target non-members.
  """

  model: str
  num_parameters: int | None
  train_accuracy: float
  test_accuracy: float


@dataclasses.dataclass(frozen=True)
class DiffusionFacts:
  """The diffusion model.

  Attributes:
    model: its architecture.
    num_parameters: of it.
    trained_on: "members" or "reference"; None for a saved model.
    loss: mean over the last tenth of the training; None for a saved model.
  """

  model: str
  num_parameters: int
  trained_on: str | None
  loss: float | None


@dataclasses.dataclass(frozen=True)
class AnswerTime:
  """What an answer takes, compiled, on one device of the machine, in milliseconds an image.

  Attributes:
    policy: the policy that is timed, as the config has it.
    num_images: that are asked about in one batch.
    alone: without Diffence.
    defended: behind the policy.
  """

  policy: str
  num_images: int
  alone: float
  defended: float


@dataclasses.dataclass(frozen=True)
class ShadowResults(ShadowTables):
  """What shadow models show, and how they were trained.

  Attributes:
    num_models: S.
    num_examples: samples that their training sets are drawn from.
    num_canaries: mislabelled ones among them.
    train_size: samples that each model is trained on.
    target_train_size: samples that the target is trained on.
    optimised: what optimised queries reach; empty without.
  """

  num_models: int
  num_examples: int
  num_canaries: int
  train_size: int
  target_train_size: int
  optimised: tuple[OptimisedRow, ...]


@dataclasses.dataclass(frozen=True)
class Results:
  """All that an experiment found.

  Attributes:
    schema: of the file's fields.
    experiment: the config's name.
    variant: of the config.
    seed: of the run.
    protocol: "disjoint" or "paper".
    device: kind and number.
    versions: package to version.
    settings: all of them, as `config.as_json` has them.
    data: the data and the split.
    purify: how images are re-generated.
    defense: defenses besides Diffence.
    classifier: the target.
    diffusion: the diffusion model.
    predictors: a row each, the undefended one first.
    agreement: whom attacks find together, a row a predictor.
    answer_time: what an answer takes; None where no policy is audited.
    shadow: what shadow models show; None for an audit without.
    left_out: attack to what it needs and this run has not.
  """

  schema: int
  experiment: str
  variant: str
  seed: int
  protocol: str
  device: str
  versions: Mapping[str, str]
  settings: Mapping[str, Any]
  data: DataFacts
  purify: PurifyFacts
  defense: DefenseFacts
  classifier: ClassifierFacts
  diffusion: DiffusionFacts
  predictors: tuple[PredictorRow, ...]
  agreement: tuple[AgreementRow, ...]
  answer_time: AnswerTime | None
  shadow: ShadowResults | None
  left_out: Mapping[str, tuple[str, ...]]

  @property
  def undefended(self) -> PredictorRow:
    """The row of the predictor without Diffence."""
    return self.predictors[0]

  @property
  def told_of(self) -> PredictorRow | None:
    """The row that a report's first sentences are about; None where no policy is audited.

    Chosen by its name, before any figure: the lowest of several would partly be luck.
    """
    served = [row for row in self.predictors[1:] if is_served(row.name)]
    rows = {policy_title(row.policy): row for row in served}
    name = headline(tuple(row.policy for row in rows.values()))
    return None if name is None else rows[policy_title(name)]

  @property
  def is_smoke(self) -> bool:
    """Whether this was a smoke test, whose figures measure nothing."""
    return is_smoke(self.variant)

  @property
  def is_chance(self) -> bool:
    """Whether the classifier is not clearly better than always giving the same answer."""
    return self.undefended.test_accuracy.low <= self.data.largest_class


def to_json(results: Results) -> str:
  """The text of `results.json`.

  Raises:
    ValueError: a figure is not finite, which JSON does not have.
  """
  return json.dumps(to_plain(results), indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_results(path: str | os.PathLike) -> Results:
  """Reads a `results.json`.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is no file, of another version, or damaged.
  """
  return from_content(read_content(path), path)


def from_content(content: Mapping[str, Any], path: str | os.PathLike) -> Results:
  """The results of an experiment in what `read_content` returns.

  Raises:
    ValueError: they are of another schema, or damaged.
  """
  remedy = "Run the experiment again, in another workdir."
  return typed_content(Results, content, path, schema=SCHEMA, unchosen=_UNCHOSEN, remedy=remedy)


def read_content(path: str | os.PathLike) -> dict[str, Any]:
  """What a `results.json` holds, of an experiment or of a record, of whatever version.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is no file, or not of results.
  """
  check_file(path, "expected the results.json of a finished run")
  try:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no JSON: {error}.") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} has a {type(content).__name__}; expected a run's results.json.")
  return content


def typed_content(
  kind: type[T],
  content: Mapping[str, Any],
  path: str | os.PathLike,
  *,
  schema: int,
  unchosen: int,
  remedy: str,
) -> T:
  """The results in what `read_content` returns.

  Args:
    kind: of the results, a dataclass.
    content: of the file.
    path: of the file, for errors.
    schema: that this version writes.
    unchosen: an older one that it reads, too, whose rows of predictors have no `chosen`.
    remedy: a sentence on what to do about another one.

  Raises:
    ValueError: the content is of another schema, or damaged.
  """
  if content.get("schema") == unchosen:
    content = {**content, "schema": schema, "predictors": _not_chosen(content)}
  if content.get("schema") != schema:
    raise ValueError(
      f"{path} is of schema {content.get('schema')!r}; this version of diffence_jax reads "
      f"schemas {unchosen} and {schema}. {remedy}"
    )
  try:
    return from_plain(kind, content)
  except ValueError as error:
    raise ValueError(f"{path} is damaged: {error}") from error


def _not_chosen(content: Mapping[str, Any]) -> Any:
  """The rows of a file from before the attack on the target was chosen, with none."""
  rows = content.get("predictors")
  if not isinstance(rows, list):
    return rows
  return [{"chosen": None, **row} if isinstance(row, dict) else row for row in rows]

"""What an audit of a record found, typed: the content of its `results.json`."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from diffence_jax.audit.chosen import ChosenRow
from diffence_jax.audit.discoveries import NamedRow
from diffence_jax.audit.rows import PredictorRow
from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.audit.worst_off import EpsilonRow, VulnerabilityRow
from diffence_jax.metrics import Estimate, Rate
from diffence_jax.report.results import typed_content

# Raised when the file's fields change.
SCHEMA = 3
# That of files without `PredictorRow.chosen`, which are read too.
_UNCHOSEN = 2


@dataclasses.dataclass(frozen=True)
class SliceRow:
  """What one attack reached on one group of the samples.

  Attributes:
    group: as the record has it.
    predictor: as tables write it.
    attack: the predictor's strongest over all samples, as `audit.attacks` has it.
    title: the same, as reports write it.
    num_members: reported ones of the group.
    num_nonmembers: the same.
    member_accuracy: on these members.
    test_accuracy: on these non-members.
    auc: with its interval.
    tpr_at_fpr: at each of `judge.LIMITS`.
  """

  group: str
  predictor: str
  attack: str
  title: str
  num_members: int
  num_nonmembers: int
  member_accuracy: Estimate
  test_accuracy: Estimate
  auc: Estimate
  tpr_at_fpr: tuple[Rate, ...]


@dataclasses.dataclass(frozen=True)
class RecordResults:
  """What an audit of a record found.

  Attributes:
    schema: of the file's fields.
    versions: package to version.
    seed: of what attacks draw, and of the halves.
    num_samples: N.
    num_classes: K.
    num_members: among the reported samples.
    num_nonmembers: the same.
    num_models: S; 0 without shadow models.
    thresholds: "known" if they were learnt on known samples, which are not reported; "halves"
      if on each half of the samples for the other.
    predictors: a row each, the undefended one first.
    main_attack: of the figures over all shadow models in turn.
    in_turn: every shadow model as the target, last behind an answer that tells the label alone;
      empty where there are too few.
    vulnerability: how far single examples stand out; empty there too.
    chosen: the best single attack, chosen on other models; empty there too.
    named: how many members can be named at a false discovery rate; empty there too.
    epsilon: lower bounds; empty there too, and without jax-privacy.
    slices: groups of the samples; empty without.
    slices_left_out: groups of fewer than ten members or non-members.
    left_out: attack to what it would need.
  """

  schema: int
  versions: Mapping[str, str]
  seed: int
  num_samples: int
  num_classes: int
  num_members: int
  num_nonmembers: int
  num_models: int
  thresholds: str
  predictors: tuple[PredictorRow, ...]
  main_attack: str
  in_turn: tuple[InTurnRow, ...]
  vulnerability: tuple[VulnerabilityRow, ...]
  chosen: tuple[ChosenRow, ...]
  named: tuple[NamedRow, ...]
  epsilon: tuple[EpsilonRow, ...]
  slices: tuple[SliceRow, ...]
  slices_left_out: tuple[str, ...]
  left_out: Mapping[str, str]

  @property
  def undefended(self) -> PredictorRow:
    """The row of the classifier without a defense of the user's own."""
    return self.predictors[0]


def to_json(results: RecordResults) -> str:
  """The text of `results.json`.

  Raises:
    ValueError: a figure is not finite, which JSON does not have.
  """
  return json.dumps(to_plain(results), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_content(content: Mapping[str, Any], path: str | os.PathLike) -> RecordResults:
  """The results in what `report.results.read_content` returns.

  Raises:
    ValueError: they are of another schema, or damaged.
  """
  remedy = "Run diffence audit again."
  return typed_content(
    RecordResults, content, path, schema=SCHEMA, unchosen=_UNCHOSEN, remedy=remedy
  )

"""What was done with shadow models, and how to read the tables about them, in sentences."""

from collections.abc import Sequence

from diffence_jax.report.cells import NO_CHANGE, few_models, mark_notes, percent
from diffence_jax.report.results import Results
from diffence_jax.report.shadow_canaries import kinds
from diffence_jax.report.shadow_rows import (
  LEAST_DIFFERENCE,
  NEAR,
  has_near_duplicates,
  judged_samples,
  repeated,
)


def facts(results: Results) -> list[tuple[str, str]]:
  """What was trained and asked: pairs of a name and a sentence."""
  shadow = results.shadow
  canaries = shadow.num_canaries
  models = (
    f"{shadow.num_models:,} models, each trained on {shadow.train_size:,} of "
    f"{shadow.num_examples:,} samples (the target: {shadow.target_train_size:,})"
  )
  if canaries:
    models += f"; {canaries:,} of them canaries: {', '.join(kinds(results))}"
  judged = f"{judged_samples(results):,} samples"
  if results.protocol == "disjoint":
    which = f"the {judged} that no interval of the defense was fitted to"
  else:
    which = f"all {judged}"
  in_turn_on = (
    f"each of them, on {which}, with all others but its partner, which was trained on the "
    "other half"
  )
  numbers = repeated(results)
  asked = f"every image once{'' if not numbers else ', and ' + _listed(numbers) + ' times'}"
  if has_near_duplicates(results):
    asked += f"; instead of the same image also {NEAR} of it"
  return [("shadow models", models), ("attacked in turn", in_turn_on), ("queries", asked)]


def notes(results: Results) -> list[tuple[str, str]]:
  """How to read the tables: pairs of a term and its meaning."""
  shadow, numbers = results.shadow, repeated(results)
  pairs = [
    (
      "online",
      "the attacker has shadow models trained with and without every sample that it judges",
    ),
    (
      "[low, high]",
      "95% interval: of other samples on the target, of other samples and other pairs of "
      "models where every model is the target in turn",
    ),
    *[("few models", text) for text in [few_models(shadow.num_models)] if text],
    ("+x% or -x%", f"change relative to {results.undefended.name}"),
  ]
  if numbers:
    pairs.append(
      (
        "x% back",
        "share of what the defense takes off the same attack at one query that k queries get "
        f"back, over all models in turn; not given where it takes off less than "
        f"{LEAST_DIFFERENCE:g}, nor on the target, whose intervals are too wide for it",
      )
    )
    pairs.append(("-", "asked once only: without the defense the answer is always the same"))
    pairs.append(
      (
        "shared",
        "all models stand behind the same re-generations, each beginning at another one; with "
        "many queries they share most of them, which favours the attacker slightly",
      )
    )
    target, models = (
      max(shares[side] for shares in shadow.reused.values()) for side in ("target", "shadow")
    )
    if max(target, models) >= NO_CHANGE:
      text = (
        f"for up to {percent(target)} of the images on the target and {percent(models)} on "
        f"shadow models too few answers were recorded for {numbers[-1]} independent queries: "
        "some are used again, and fresh ones might get more back"
      )
      pairs.append(("reused", text))
  if has_near_duplicates(results):
    text = (
      'what an attacker gets against randomness="per_input", where the same image always gets '
      "the same answer and repeating it gains nothing"
    )
    pairs.append((NEAR, text))
  rates = (rate.enough for row in shadow.samples for rate in row.tpr_at_fpr)
  return pairs + mark_notes(rates)


def _listed(numbers: Sequence[int]) -> str:
  *others, last = map(str, numbers)
  return f"{', '.join(others)} and {last}" if others else last

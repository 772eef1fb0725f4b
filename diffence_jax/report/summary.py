"""What a reader learns first: what leaked before, what leaks now, and the price of that."""

from diffence_jax.audit.predictors import is_served, name_undone
from diffence_jax.audit.rows import HighestRate, PredictorRow
from diffence_jax.defense.policy import PUBLISHED
from diffence_jax.report.cells import limit_name, of_100, percent
from diffence_jax.report.results import Results
from diffence_jax.report.shadow_rows import adaptive

# What a defender knows in each of the paper's scenarios.
SCENARIOS = {
  "scenario_1": "the defender knows some members and some non-members, and answers with a "
  "re-generation of a confidence at which the two look most alike",
  "scenario_2": "the defender knows some members only, and answers with a re-generation of at "
  "most their mean confidence",
  "scenario_3": "the defender knows nobody, and answers with the first re-generation that "
  "keeps the label",
}
UNDONE = "what an attacker who knows the policy computes from its answers; nobody is served it"
SMOKE = (
  "SMOKE RUN: a shortened run of every stage, nothing was learnt. Its figures do not measure "
  "the defense."
)


def scenario_of(policy: str) -> str:
  """What a scenario is, in words; empty for a policy that is none.

  Args:
    policy: as the config has it, or as published.
  """
  shown = {published: name for name, published in PUBLISHED.items()}
  return SCENARIOS.get(shown.get(policy, policy), "")


def policy_notes(results: Results) -> list[tuple[str, str]]:
  """What the audited scenarios are, and what is undone: a term and its meaning each."""
  named = [
    (row.name, scenario_of(row.policy) if is_served(row.name) else UNDONE)
    for row in results.predictors
  ]
  return [(name, text) for name, text in named if text]


def caution(results: Results) -> str:
  """Why the figures have no headline; empty where they have one."""
  if results.is_smoke:
    return SMOKE
  if results.is_chance:
    tested = results.undefended.test_accuracy
    return (
      f"THE CLASSIFIER HAS LEARNT NOTHING: of 100 new images it gets {of_100(tested.value)} "
      f"right (95% interval {of_100(tested.low)} to {of_100(tested.high)}), always giving "
      f"the most frequent class {of_100(results.data.largest_class)}. What such a classifier "
      "leaks says nothing about the defense."
    )
  return ""


def sentences(results: Results) -> list[str]:
  """What leaked before, what leaks now, and the price, a sentence each, in plain words.

  They are about `Results.told_of`, chosen by its name and not by its figures. An AUC is told
  as what it is: of pairs of a member and a non-member the share that the attack tells apart.

  Args:
    results: as `write_report` takes it, the undefended predictor first.

  Returns:
    Three sentences, or one where no policy was audited; ASCII but for names.
  """
  undefended, row = results.undefended, results.told_of
  labels = undefended.label_floor or undefended.gap
  before = (
    "Of 100 guesses between a member, an image that the classifier was trained on, and a "
    f"non-member an attacker gets {of_100(undefended.highest_auc.value)} right without "
    f"Diffence; 50 is guessing, {of_100(labels.value)} is what the labels alone tell."
  )
  if results.protocol == "paper":
    before += " For comparison with published figures only: known samples are among these."
  if row is None:
    return [f"{before} No policy was audited."]
  return [before, _now(results, row), _price(results, row)]


def finding(results: Results) -> str:
  """The sentences in one text; a caution in their place where the figures measure nothing."""
  return caution(results) or " ".join(sentences(results))


def _now(results, row):
  undefended = results.undefended
  auc, before = row.highest_auc, undefended.highest_auc
  scenario = scenario_of(row.policy)
  name = f"{row.name} ({scenario})" if scenario else row.name
  verdict = ""
  if auc.value >= before.value:
    verdict = "nothing was gained: "
  elif auc.high >= before.low:
    verdict = "no clear change: "
  text = (
    f"Behind {name} {verdict}the attacker gets {of_100(auc.value)} right (95% interval "
    f"{of_100(auc.low)} to {of_100(auc.high)})"
  )
  now, then = _low_rates(row, undefended)
  unsure = "" if now.enough and then.enough else ", of too few samples to be sure"
  text += (
    f"; if it may accuse {limit_name(now.limit)} of the non-members falsely, it finds "
    f"{percent(now.value)} of the members instead of {percent(then.value)}{unsure}"
  )
  undone = _undone(results, row)
  if undone is None:
    return f"{text}{_asked_again(results, row)}."
  text += (
    "; an attacker who knows the policy computes backwards from its answers, and gets "
    f"{of_100(undone.highest_auc.value)} right"
  )
  return f"{text}{_asked_again(results, undone)}."


def _undone(results: Results, row: PredictorRow) -> PredictorRow | None:
  """The row of what comes out where the policy is undone, if that tells an attacker more."""
  name, auc = name_undone(row.name), row.highest_auc.value
  for other in results.predictors:
    if other.name == name and other.highest_auc.value > auc:
      return other
  return None


def _low_rates(row: PredictorRow, other: PredictorRow) -> tuple[HighestRate, HighestRate]:
  """The rates at the lowest limit that the samples are enough for; else at the largest."""
  pairs = list(zip(row.highest_tpr_at_fpr, other.highest_tpr_at_fpr, strict=True))
  sure = [pair for pair in pairs if all(rate.enough for rate in pair)]
  return sure[0] if sure else pairs[-1]


def _asked_again(results, row):
  """What repeated queries to the target reach, where that is more than one query does."""
  if not results.shadow:
    return ""
  rows = adaptive(results, predictor=row.name, inputs="same", shadow_models="defended")
  again = [one for one in rows if one.queries > 1]
  best = max(again, key=lambda one: one.auc.value, default=None)
  if best is None or best.auc.value <= row.highest_auc.value:
    return ""
  return f"; asking {best.queries} times about an image it gets {of_100(best.auc.value)} right"


def _price(results, row):
  undefended = results.undefended
  changed = "no label changes"
  if row.label_changes:
    share = percent(row.label_changes / row.num_labels)
    changed = f"{row.label_changes:,} of {row.num_labels:,} labels ({share}) change"
  text = (
    f"The price: {percent(row.test_accuracy.value)} of new images are classified rightly "
    f"(before {percent(undefended.test_accuracy.value)}), {changed}; confidences are off by "
    f"{100 * row.ece:.1f} points on average (before {100 * undefended.ece:.1f}), the log loss "
    f"is {row.nll:.2f} (before {undefended.nll:.2f})"
  )
  time = results.answer_time
  if time is not None:
    text += f"; an answer takes {_ms(time.defended)} ms (before {_ms(time.alone)})"
  return f"{text}."


def _ms(milliseconds: float) -> str:
  return f"{milliseconds:,.0f}" if milliseconds >= 100.0 else f"{milliseconds:.2g}"

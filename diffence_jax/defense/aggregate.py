"""Answers made of all candidates, or of none: averaging, and the raw prediction."""

import jax
import jax.numpy as jnp

from diffence_jax.defense.mean_kept import mean_kept
from diffence_jax.defense.policy import AggregatePolicy, Record
from diffence_jax.predictor import are_finite, check_answers


def average(candidate_logits: jax.Array) -> jax.Array:
  """Prediction aggregation: the mean of the candidates' probabilities, as logits.

  This one may change labels: it averages all candidates, whether they keep the label or not.

  Args:
    candidate_logits: f[N,M,K].

  Returns:
    f[N,K], logarithms of the mean probabilities: their softmax is the mean.

  Raises:
    TypeError: no floating-point numbers.
    ValueError: not of rank 3, no candidates, one class, or, where they are known, logits that
      are NaN, +inf or nothing but -inf.
  """
  candidate_logits = check_answers(candidate_logits, "candidate_logits", 3)
  if not candidate_logits.shape[1]:
    raise ValueError(
      f"candidate_logits have shape {candidate_logits.shape}; expected [N, M, K], M >= 1."
    )
  log_probabilities = jax.nn.log_softmax(candidate_logits, axis=-1)
  return jax.nn.logsumexp(log_probabilities, axis=1) - jnp.log(
    jnp.asarray(candidate_logits.shape[1], log_probabilities.dtype)
  )


def average_policy(members: Record, nonmembers: Record) -> AggregatePolicy:
  """The policy that answers with the `average`; nothing is fitted."""
  del members, nonmembers
  return AggregatePolicy(_average, keeps_labels=False)


def undefended(members: Record, nonmembers: Record) -> AggregatePolicy:
  """The policy that answers with the raw prediction; nothing is fitted."""
  del members, nonmembers
  return AggregatePolicy(_raw, keeps_labels=True, draws=False)


def majority(members: Record, nonmembers: Record) -> AggregatePolicy:
  """The label of most candidates, the raw one's among equals, and their mean probabilities.

  Labels may change, as by `average`; nothing is fitted.
  """
  del members, nonmembers
  return AggregatePolicy(_majority, keeps_labels=False)


def _majority(candidate_logits, raw_logits):
  num_classes = raw_logits.shape[-1]
  # NaN has no label, though argmax has one.
  counts = are_finite(candidate_logits)[..., None]
  votes = jax.nn.one_hot(jnp.argmax(candidate_logits, axis=-1), num_classes)
  votes = jnp.sum(jnp.where(counts, votes, 0.0), axis=1)
  raw_vote = jax.nn.one_hot(jnp.argmax(raw_logits, axis=-1), num_classes)
  # Where candidates have this label, `mean_kept` takes nothing else of its second argument.
  chosen = (votes + 0.5 * raw_vote).astype(raw_logits.dtype)
  chosen = jnp.where(jnp.any(votes > 0.0, axis=1, keepdims=True), chosen, raw_logits)
  return mean_kept(candidate_logits, chosen)


def _average(candidate_logits, raw_logits):
  del raw_logits
  return average(candidate_logits)


def _raw(candidate_logits, raw_logits):
  del candidate_logits
  return raw_logits

"""The mean of the candidates that keep the label: nothing to gain from asking again."""

import jax
import jax.numpy as jnp

from diffence_jax.defense.policy import AggregatePolicy, Record
from diffence_jax.defense.select import check_fit, keeps_label
from diffence_jax.predictor import check_answers


def mean_kept(candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """The mean probabilities of the candidates that keep the label, as logits.

  A mean of probabilities that share an arg-max has it too. Where no candidate keeps the label
  the answer is the raw prediction.

  Args:
    candidate_logits: f[N,M,K].
    raw_logits: f[N,K], of the same dtype.

  Returns:
    f[N,K]; the arg-max is the raw prediction's.

  Raises:
    TypeError: logits are no floating-point numbers.
    ValueError: the shapes do not fit, or raw logits are NaN, +inf or nothing but -inf.
      (Candidates that are so are passed over.)
  """
  candidate_logits = check_answers(candidate_logits, "candidate_logits", 3, values=False)
  raw_logits = check_answers(raw_logits, "raw_logits", 2)
  check_fit(candidate_logits, raw_logits)
  kept = keeps_label(candidate_logits, raw_logits)
  log_p = jax.nn.log_softmax(candidate_logits.astype(jnp.float32), axis=-1)
  log_p = jnp.where(kept[..., None], log_p, -jnp.inf)
  num = jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1).astype(jnp.float32)
  mean = (jax.nn.logsumexp(log_p, axis=1) - jnp.log(num)).astype(raw_logits.dtype)
  answer = jnp.where(jnp.any(kept, axis=1, keepdims=True), mean, raw_logits)
  return with_label(answer, raw_logits)


def mean_kept_policy(members: Record, nonmembers: Record) -> AggregatePolicy:
  """The policy that answers with `mean_kept`; nothing is fitted."""
  del members, nonmembers
  return AggregatePolicy(mean_kept, keeps_labels=True)


def with_label(logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """Logits f[N,K] that have the arg-max of f[N,K] up to rounding, with exactly that one.

  Where rounding has tied or overtaken the label's logit, it is put above the largest, so far
  that probabilities of the same precision tell them apart.
  """
  label = jnp.argmax(raw_logits, axis=-1)
  largest = jnp.max(logits, axis=-1, keepdims=True)
  limits = jnp.finfo(logits.dtype)
  finite = jnp.maximum(largest, float(limits.min))
  above = finite + 4.0 * float(limits.eps) * jnp.maximum(jnp.abs(finite), 1.0)
  lost = (jnp.argmax(logits, axis=-1) != label)[:, None]
  is_label = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
  return jnp.where(is_label & lost, above, logits)

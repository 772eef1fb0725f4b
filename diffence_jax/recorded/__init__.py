"""Audits of answers that anybody has recorded, of classifiers of any framework."""

from diffence_jax.recorded.report import audit_record
from diffence_jax.recorded.results import RecordResults

__all__ = ["RecordResults", "audit_record"]

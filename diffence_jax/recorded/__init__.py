"""Audits of classifiers of any framework: of recorded answers, or of the model itself."""

from diffence_jax.recorded.model import audit_model
from diffence_jax.recorded.report import audit_record
from diffence_jax.recorded.results import RecordResults

__all__ = ["RecordResults", "audit_model", "audit_record"]

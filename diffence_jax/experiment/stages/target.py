"""What a target can be."""

from diffence_jax.experiment.stages.classifier import SavedClassifier, TrainedClassifier
from diffence_jax.experiment.stages.host_classifier import FixedClassifier, ProcedureClassifier

Target = TrainedClassifier | SavedClassifier | ProcedureClassifier | FixedClassifier

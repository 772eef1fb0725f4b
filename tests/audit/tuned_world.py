"""Made-up records, drawn anew for every seed, to choose a policy on."""

from audit.shadow_world import make_pool, make_record

from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.frontier import Drawing, frontier_row
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.predictors import Predictor
from diffence_jax.defense import POLICIES

NUM_MODELS = 16
WEIGHTS = (1.0, 0.8, 0.6, 0.4, 0.2)
CHOSEN = (
  *(Predictor(f"blend {w:g}", POLICIES.choose("blend", {"weight": w})) for w in WEIGHTS),
  Predictor("constant", POLICIES.choose("constant")),
)


def measured(seed, leak=1.0, num_models=NUM_MODELS):
  """The rows of known and of target samples: other samples, models and answers a seed."""
  pool = make_pool()
  membership = membership_matrix(num_models, len(pool.labels), seed)
  records = [
    make_record(1000 * seed + s, pool, members, leak, difficulty=seed)
    for s, members in enumerate(membership)
  ]
  ensemble = DefendedEnsemble(
    records.__getitem__,
    pool,
    membership,
    CHOSEN,
    num_candidates=4,
    queries=(1, 3),
    seed=seed,
  )
  natural = ~pool.is_canary
  groups = {"known": pool.is_known & natural, "target": ~pool.is_known & natural}
  attacks = [ATTACKS.choose("confidence"), ATTACKS.choose("lira_online")]
  drawing = Drawing(160, 4)
  rows = [frontier_row(ensemble, chosen, attacks, groups, drawing) for chosen in CHOSEN]
  return tuple([row[group] for row in rows] for group in groups)

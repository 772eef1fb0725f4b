"""The two kinds of function everything is made of; defenses map the first onto itself."""

from collections.abc import Callable

import jax

# `(key, images f32[N,H,W,C] in [0, 1]) -> logits f[N,K]`. A plain classifier ignores its key.
Predict = Callable[[jax.Array | None, jax.Array], jax.Array]

# `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
Denoise = Callable[[jax.Array, jax.Array], jax.Array]

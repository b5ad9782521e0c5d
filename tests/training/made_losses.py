"""A loss that somebody registers."""

import jax
import jax.numpy as jnp


def compute_focal(logits, labels, margin, recipe):
    """Lin et al., ICCV 2017, with gamma 2."""
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return jnp.mean(-((1 - jnp.exp(log_p)) ** 2) * log_p)

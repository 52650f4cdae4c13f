"""The arithmetic of PPO on responses: rewards of tokens, advantages, returns, clipped losses.

Pure functions of tensors. Shapes: n responses, padded on the right to R tokens. ``mask`` (n, R) is True at the tokens
of a response, its end token included; what stands behind it never matters, NaN included. Logarithms are natural: all
log-probabilities and KL estimates are in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TINY = 1e-8  # keeps the scale of equal values finite


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the marked tokens.

    Args:
        values: any numbers, shape (n, R).
        mask: shape (n, R), at least one mark.

    Returns:
        A scalar.
    """
    return values.masked_fill(~mask, 0).sum() / mask.sum()


def masked_moments(values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population variance over the marked tokens: two scalars. Shapes as in ``masked_mean``."""
    mean = masked_mean(values, mask)
    return mean, masked_mean((values - mean) ** 2, mask)


def whiten(
    values: torch.Tensor,
    mask: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    *,
    shift: bool = True,
) -> torch.Tensor:
    """Scale the marked tokens to variance 1 and, with ``shift``, move them to mean 0.

    Source: the code of Ziegler et al. 2019 ("Fine-tuning language models from human preferences"), where advantages are
    shifted and rewards keep their mean.

    Args:
        values: shape (n, R).
        mask: shape (n, R).
        moments: mean and variance, ``masked_moments`` of these values or of those of all processes together.
        shift: take the mean away.

    Returns:
        Shape (n, R), 0 behind the responses.
    """
    mean, variance = moments
    centred = (values - mean) * (variance + _TINY).rsqrt()
    return (centred if shift else centred + mean).masked_fill(~mask, 0)


def kl_estimate(log_probs: torch.Tensor, reference_log_probs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One-sample estimate of KL(policy || reference) at each token, in nats: log pi(a_t|s_t) - log ref(a_t|s_t).

    Unbiased where the tokens are the policy's own samples; single estimates may be negative (k1 in Schulman 2020,
    "Approximating KL divergence").

    Args:
        log_probs: log-probabilities of the sampled tokens under the policy, shape (n, R).
        reference_log_probs: the same under the reference, shape (n, R).
        mask: shape (n, R).

    Returns:
        Shape (n, R), 0 behind the responses.
    """
    return (log_probs - reference_log_probs).masked_fill(~mask, 0)


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, beta: float) -> torch.Tensor:
    """Reward of each token: -beta * KL estimate, and at a response's last token its score on top.

    Source: Ziegler et al. 2019, eq. 2; Ouyang et al. 2022, eq. 2.

    Args:
        scores: rating of each response, shape (n,).
        kl: KL estimate of each token in nats, shape (n, R).
        mask: shape (n, R), at least one mark in each row, without gaps from the left.
        beta: weight of the KL penalty.

    Returns:
        Shape (n, R), 0 behind the responses.
    """
    rewards = (-beta * kl).masked_fill(~mask, 0)
    last = mask.sum(dim=1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.to(rewards.dtype).unsqueeze(1))


def advantages_and_returns(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates and the returns that the value head learns.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t), A_t = delta_t + gamma lambda A_{t+1}, return_t = A_t + V(s_t), with V and
    A 0 behind a response's last token (Schulman et al. 2016, "High-dimensional continuous control using generalized
    advantage estimation", eqs. 11 to 16).

    Args:
        rewards: r_t, shape (n, R).
        values: V(s_t), the value before token t is drawn, shape (n, R).
        mask: shape (n, R).
        gamma: discount in (0, 1].
        gae_lambda: lambda in [0, 1]: 0 gives one-step errors, 1 returns minus values.

    Returns:
        Advantages and returns, each of shape (n, R), 0 behind the responses.
    """
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    advantages = rewards - values
    advantages[:, :-1] += gamma * values[:, 1:]
    # From the end: A_t needs A_(t+1). Behind a response rewards and values are 0, hence advantages too.
    for t in range(advantages.shape[1] - 2, -1, -1):
        advantages[:, t] += gamma * gae_lambda * advantages[:, t + 1]
    return advantages, (advantages + values).masked_fill(~mask, 0)


def clipped_policy_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip_range: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate objective, negated, token by token, and where the clip holds the gradient back.

    L_t = -min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t) with rho_t = pi(a_t|s_t) / pi_old(a_t|s_t) (Schulman et al.
    2017, "Proximal policy optimization algorithms", eq. 7).

    Args:
        log_probs: of the sampled tokens under the policy that is trained, shape (n, R).
        old_log_probs: under the policy that drew them, shape (n, R).
        advantages: shape (n, R).
        mask: shape (n, R).
        clip_range: eps > 0.

    Returns:
        Losses (n, R), 0 behind the responses, and clipped (n, R), True where the clipped ratio is the smaller one.
    """
    # Masked before exp: the gradient of a NaN stays NaN, whatever hides it afterwards.
    ratio = (log_probs - old_log_probs).masked_fill(~mask, 0).exp()
    advantages = advantages.masked_fill(~mask, 0)
    free = -ratio * advantages
    held = -ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    # The larger loss, for the losses are the negated objectives of eq. 7, of which the smaller counts.
    return free.maximum(held), (held > free).detach()


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Half the squared error of the values, token by token, the larger of the plain and the clipped one.

    L_t = max((V - R_t)^2, (V_old + clip(V - V_old, -eps, eps) - R_t)^2) / 2 (the code of Schulman et al. 2017; Huang et
    al. 2024, "The N+ implementation details of RLHF with PPO").

    Args:
        values: of the value head that is trained, shape (n, R).
        old_values: at the time of the rollout, shape (n, R).
        returns: shape (n, R).
        mask: shape (n, R).
        clip_range: eps > 0, in units of the reward.

    Returns:
        Losses (n, R), 0 behind the responses.
    """
    values, old_values = values.masked_fill(~mask, 0), old_values.masked_fill(~mask, 0)
    returns = returns.masked_fill(~mask, 0)
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * ((values - returns) ** 2).maximum((near - returns) ** 2)

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from valuedrift_mlflow.stages.ppo_math import (
    advantages_and_returns,
    clipped_policy_loss,
    clipped_value_loss,
    kl_estimate,
    masked_mean,
    masked_moments,
    token_rewards,
    whiten,
)


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def test_advantages_worked_by_hand() -> None:
    """With gamma 0.5 and lambda 0.5, for rewards 1, 2, 3 and values 4, 2, 1:

    delta_3 = 3 - 1 = 2;  delta_2 = 2 + 0.5 * 1 - 2 = 0.5;  delta_1 = 1 + 0.5 * 2 - 4 = -2
    A_3 = 2;  A_2 = 0.5 + 0.25 * 2 = 1;  A_1 = -2 + 0.25 * 1 = -1.75
    The second response has two tokens: delta_2 = 2 - 2 = 0;  delta_1 = -2;  A_2 = 0;  A_1 = -2
    """
    rewards = tensor([1, 2, 3], [1, 2, math.nan])
    values = tensor([4, 2, 1], [4, 2, math.nan])
    advantages, returns = advantages_and_returns(rewards, values, mask_of([3, 2], 3), 0.5, 0.5)
    assert advantages.tolist() == [[-1.75, 1, 2], [-2, 0, 0]]
    assert returns.tolist() == [[2.25, 3, 3], [2, 2, 0]]


def test_lambda_0_is_the_one_step_error_and_lambda_1_the_discounted_rest() -> None:
    rewards, values, mask = tensor([1, 2, 3]), tensor([4, 2, 1]), mask_of([3], 3)
    one_step, _ = advantages_and_returns(rewards, values, mask, 0.5, 0.0)
    assert one_step.tolist() == [[-2, 0.5, 2]]
    _, rest = advantages_and_returns(rewards, values, mask, 0.5, 1.0)
    assert rest.tolist() == [[1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3]]


lengths_and_rates = (
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 1),
    st.floats(0, 1),
)


@settings(deadline=None)
@given(*lengths_and_rates)
def test_advantages_against_a_linear_filter(lengths: list[int], seed: int, gamma: float, lam: float) -> None:
    """A_t = delta_t + gamma lambda A_{t+1} is a first-order recursive filter of the reversed errors."""
    rewards, values = random(seed, len(lengths), 9), random(seed + 1, len(lengths), 9)
    advantages, returns = advantages_and_returns(rewards, values, mask_of(lengths, 9), gamma, lam)
    for row, length in enumerate(lengths):
        r, v = rewards[row, :length].numpy(), values[row, :length].numpy()
        errors = r + gamma * np.append(v[1:], 0) - v
        expected = lfilter([1], [1, -gamma * lam], errors[::-1])[::-1]
        np.testing.assert_allclose(advantages[row, :length], expected, atol=1e-12)
        np.testing.assert_allclose(returns[row, :length], expected + v, atol=1e-12)


@settings(deadline=None)
@given(*lengths_and_rates, st.sampled_from([math.nan, math.inf, 1e30]))
def test_what_stands_behind_a_response_never_matters(
    lengths: list[int], seed: int, gamma: float, lam: float, junk: float
) -> None:
    n = len(lengths)

    def everything(width: int, behind: float) -> list[torch.Tensor]:
        mask = mask_of(lengths, width)
        old, new, reference, values, old_values = (random(seed + i, n, 9)[:, : min(width, 9)].clone() for i in range(5))
        padded = [
            torch.nn.functional.pad(t, (0, width - t.shape[1])) for t in (old, new, reference, values, old_values)
        ]
        for t in padded:
            t[~mask] = behind
        old, new, reference, values, old_values = padded
        kl = kl_estimate(old, reference, mask)
        rewards = token_rewards(random(seed + 9, n), kl, mask, 0.1)
        rewards = whiten(rewards, mask, masked_moments(rewards, mask), shift=False)
        advantages, returns = advantages_and_returns(rewards, values, mask, gamma, lam)
        advantages = whiten(advantages, mask, masked_moments(advantages, mask))
        policy, clipped = clipped_policy_loss(new, old, advantages, mask, 0.2)
        value = clipped_value_loss(values, old_values, returns, mask, 0.2)
        parts = (kl, rewards, advantages, returns, policy, clipped.double(), value)
        assert all(not part[~mask].any() for part in parts)
        return [part[:, : max(lengths)] for part in parts] + [masked_mean(policy, mask), masked_mean(value, mask)]

    for plain, other in zip(everything(9, 0.0), everything(12, junk), strict=True):
        torch.testing.assert_close(plain, other, rtol=0, atol=1e-12)


def test_the_score_is_at_the_last_token_and_the_penalty_at_every_one() -> None:
    kl = kl_estimate(tensor([-1, -2, -3], [-1, -2, -3]), tensor([-2, -2, -2.5], [-2, -2, -2.5]), mask_of([3, 2], 3))
    assert kl.tolist() == [[1, 0, -0.5], [1, 0, 0]]
    rewards = token_rewards(tensor([10, 20])[0], kl, mask_of([3, 2], 3), beta=0.5)
    assert rewards.tolist() == [[-0.5, 0, 0.25 + 10], [-0.5, 20, 0]]


def test_whitening_is_over_all_marked_tokens() -> None:
    """1, 3 and 5 have mean 3 and population variance 8/3."""
    values, mask = tensor([1, 3], [5, 99]), mask_of([2, 1], 2)
    moments = masked_moments(values, mask)
    assert [float(m) for m in moments] == pytest.approx([3, 8 / 3])
    scale = (8 / 3) ** -0.5
    expected = tensor([-2 * scale, 0], [2 * scale, 0])
    torch.testing.assert_close(whiten(values, mask, moments), expected)
    unshifted = tensor([-2 * scale + 3, 3], [2 * scale + 3, 0])
    torch.testing.assert_close(whiten(values, mask, moments, shift=False), unshifted)


def test_equal_values_whiten_to_zero() -> None:
    values, mask = tensor([0.7, 0.7]), mask_of([2], 2)
    assert whiten(values, mask, masked_moments(values, mask)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.4, True),  # a good token gains no more than 1.2 times its advantage
        (0.5, 2.0, -1.0, False),  # a good token that has become rarer is pulled back freely
        (0.5, -2.0, 1.6, True),  # a bad token is pushed no further than 0.8
        (1.5, -2.0, 3.0, False),
    ],
)
def test_policy_loss_worked_by_hand(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    log_probs = tensor([math.log(ratio) - 1])
    losses, held = clipped_policy_loss(log_probs, tensor([-1]), tensor([advantage]), mask_of([1], 1), 0.2)
    assert float(losses) == pytest.approx(loss)
    assert bool(held) is clipped


def test_gradient_of_the_policy_loss_is_that_of_the_plain_formula() -> None:
    """-min(rho A, clip(rho) A), written out and differentiated for every token on its own."""
    old, advantages = random(0, 5, 8), random(1, 5, 8)
    new = (old + 0.4 * random(2, 5, 8)).requires_grad_()
    mask = mask_of([8, 1, 3, 5, 8], 8)
    losses, clipped = clipped_policy_loss(new, old, advantages, mask, 0.2)
    masked_mean(losses, mask).backward()
    assert new.grad is not None
    assert 0 < int(clipped.sum()) < int(mask.sum())
    for row in range(5):
        for t in range(8):
            one = new[row, t].detach().clone().requires_grad_()
            rho = torch.exp(one - old[row, t])
            plain = -torch.min(rho * advantages[row, t], torch.clip(rho, 0.8, 1.2) * advantages[row, t])
            (slope,) = torch.autograd.grad(plain, one)
            expected = float(slope) / int(mask.sum()) if mask[row, t] else 0.0
            assert float(new.grad[row, t]) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("value", "loss", "slope"),
    [
        (1.1, 0.5 * 0.9**2, -0.9),  # inside the clip: half the squared error
        (1.5, 0.5 * 0.8**2, 0.0),  # towards the return, beyond the clip: no gain, no gradient
        (0.5, 0.5 * 1.5**2, -1.5),  # away from the return: the plain error is the larger one
    ],
)
def test_value_loss_worked_by_hand(value: float, loss: float, slope: float) -> None:
    """The value was 1, the return is 2, the clip 0.2."""
    values = tensor([value]).requires_grad_()
    found = clipped_value_loss(values, tensor([1]), tensor([2]), mask_of([1], 1), 0.2).sum()
    found.backward()
    assert float(found.detach()) == pytest.approx(loss)
    assert values.grad is not None
    assert float(values.grad) == pytest.approx(slope)

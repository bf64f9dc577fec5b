from types import SimpleNamespace

import pytest
import torch

from mllm.engine.loss import token_loss


def test_loss_is_the_sum_over_trained_tokens_by_the_steps_count():
    # Two positions are trained, uniform logits over 4 words: each costs log 4 = 1.386294; 4 tokens in the whole step.
    outputs = SimpleNamespace(logits=torch.zeros(1, 4, 4))
    labels = torch.tensor([[-100, 2, -100, 1]])
    assert token_loss(outputs, labels, 4).item() == pytest.approx(2 * 1.3862944 / 4)
    assert token_loss(outputs, labels).item() == pytest.approx(1.3862944)


def test_the_label_belongs_to_the_position_before_it():
    logits = torch.full((1, 3, 4), -20.0)
    logits[0, 0, 2] = logits[0, 1, 3] = 20.0  # position 0 says 2, position 1 says 3
    assert token_loss(SimpleNamespace(logits=logits), torch.tensor([[-100, 2, 3]])).item() == pytest.approx(0, abs=1e-6)


def test_a_micro_batch_that_trains_nothing_costs_nothing():
    outputs = SimpleNamespace(logits=torch.zeros(1, 3, 4, requires_grad=True))
    loss = token_loss(outputs, torch.full((1, 3), -100), 0)
    loss.backward()
    assert loss.item() == 0

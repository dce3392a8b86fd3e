"""What stands in for AutoSAMT with less memory keeps no more than it says."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import samt
from samt.bench.errors import SettingsError
from samt.bench.suite.methods import METHODS


def trained(**options: str) -> tuple[nn.Module, samt.AutoSAMT]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 5))
    stepper = METHODS["auto-samt"].stepper(model, 6, options)
    for _ in range(6):
        stepper.step(cross_entropy(model(torch.randn(8, 2, 4, 4)), torch.randint(0, 5, (8,))))
    (optimizer,) = stepper.optimizers
    assert isinstance(optimizer, samt.AutoSAMT)
    return model, optimizer


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def test_all_copies_are_autosamt() -> None:
    for one, other in zip(weights(trained(copies="all")[0]), weights(trained()[0]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("copies", ["no lag", "v in rows", "v in factors"])
def test_with_fewer_copies_it_is_another_method(copies: str) -> None:
    pairs = zip(weights(trained(copies=copies)[0]), weights(trained()[0]), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_without_the_lag_it_is_q() -> None:
    for state in trained(copies="no lag")[1].state.values():
        assert torch.equal(state["lag"], state["lead"])


def test_in_rows_v_has_one_number_for_each() -> None:
    for state in trained(copies="v in rows")[1].state.values():
        if (v := state["exp_avg_sq"]).ndim > 1:
            assert torch.equal(v.flatten(1), v.flatten(1)[:, :1].expand_as(v.flatten(1)))


def test_in_factors_v_is_a_product() -> None:
    """Rows and columns of a 3 × 8 matrix (the filters) and of a 5 × 27 matrix."""
    for state in trained(copies="v in factors")[1].state.values():
        if state["exp_avg_sq"].ndim > 1:
            v = state["exp_avg_sq"].flatten(1)
            outer = v.mean(1, keepdim=True) * v.mean(0, keepdim=True) / v.mean()
            torch.testing.assert_close(v, outer)
            assert int(torch.linalg.matrix_rank(v, rtol=1e-5)) == 1


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="one of all, no lag, v in rows, v in factors"):
        trained(copies="few")


def test_who_forgets_to_switch_evaluates_what_is_trained() -> None:
    model, _ = trained(shows="y")
    _, plain = trained()
    y = weights(model)
    plain.train()  # the parameters of the model that it was made from hold y again
    own = [parameter.detach() for group in plain.param_groups for parameter in group["params"]]
    for one, other in zip(y, own, strict=True):
        assert torch.equal(one, other)
    METHODS["auto-samt"].stepper(model, 6, {"shows": "y"}).eval()
    for one, other in zip(weights(model), y, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(SettingsError, match="x or y"):
        trained(shows="z")

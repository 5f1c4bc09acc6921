"""The shipped results: one short row of each file is made again, and the weights are the ones."""

import pytest
import torch

from vdm_lite.experiments import images, outputs, schedules

FILES = {"schedules": schedules, "outputs": outputs}


@pytest.mark.parametrize("name", FILES)
def test_short_row_of_the_shipped_results(name):
    module = FILES[name]
    shipped = next(row for row in module.results()["rows"] if row["steps"] == module.SHORT)
    again = module.row(*list(shipped.values())[:3])
    assert again.keys() == shipped.keys()
    numbers = {key: value for key, value in shipped.items() if key != name[:-1]}
    for key, value in numbers.items():
        assert again[key] == pytest.approx(value, rel=1e-3), key


@pytest.mark.parametrize("name", FILES)
def test_every_kind_has_its_seeds(name):
    module = FILES[name]
    kinds = schedules.SCHEDULES if module is schedules else outputs.OUTPUTS
    rows = [row for row in module.results()["rows"] if row["steps"] == module.STEPS]
    found = {(row[name[:-1]], row["seed"]) for row in rows}
    assert found == {(kind, seed) for kind in kinds for seed in images.SEEDS}
    about = module.results()["about"]
    assert about["command"] == f"python -m vdm_lite.experiments.{name}"
    assert not about["commit"].endswith("-changed")


def test_the_shipped_weights_are_those_of_their_row():
    name, seed, steps = schedules.SHIPPED
    rows = schedules.results()["rows"]
    row = next(r for r in rows if (r["schedule"], r["seed"], r["steps"]) == (name, seed, steps))
    model = schedules.trained()
    got = images.evaluate(model)
    assert got["bits_per_dim"] == pytest.approx(row["bits_per_dim"], rel=1e-4)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_noise_errors_are_those_of_the_loss():
    """Level by level, the same error that the loss weighs: for zero output it is ||eps||^2."""
    model = images.build()
    pictures = torch.randint(256, (50, 1, 14, 14), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        errors = images.noise_errors(model, torch.tensor([-5.0, 13.3]), pictures, generator)
    assert errors.shape == (2, 50)
    assert errors.mean().item() == pytest.approx(images.DIMS, rel=0.03)

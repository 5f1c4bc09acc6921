"""The shipped results: one short row of each file is made again, and the weights are the ones."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from vdm_lite import data
from vdm_lite.runs import images
from vdm_lite.runs.ch07 import schedules
from vdm_lite.runs.ch08 import outputs
from vdm_lite.runs.ch12 import ablation, ablation_control
from vdm_lite.training import fit

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
    kinds = schedules.KINDS if module is schedules else outputs.OUTPUTS
    rows = [row for row in module.results()["rows"] if row["steps"] == module.STEPS]
    found = {(row[name[:-1]], row["seed"]) for row in rows}
    assert found == {(kind, seed) for kind in kinds for seed in images.SEEDS}
    about = module.results()["about"]
    assert about["command"] == f"python -m {module.__name__}"
    assert not about["commit"].endswith("-changed")


def test_the_shipped_weights_are_those_of_their_row():
    name, seed, steps = schedules.SHIPPED
    rows = schedules.results()["rows"]
    row = next(r for r in rows if (r["schedule"], r["seed"], r["steps"]) == (name, seed, steps))
    model = schedules.trained()
    got = images.bound(model)
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


def test_short_row_of_the_ablation():
    (shipped,) = ablation.rows(ablation.SHORT)
    again = ablation.row(*list(shipped.values())[:5])
    assert again.keys() == shipped.keys()
    for key, value in list(shipped.items())[5:]:
        assert_close(torch.tensor(again[key]), torch.tensor(value), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("fourier", ablation.EXPONENTS)
def test_short_row_of_the_control(fourier):
    """Ends that are fixed have the shipped prior and reconstruction after any number of steps."""
    shipped = next(r for r in ablation.rows(file=ablation.CONTROL) if r["fourier"] == fourier)
    again = ablation.row(*list(shipped.values())[:4], ablation.SHORT)
    assert again.keys() == shipped.keys()
    for name in ("prior", "reconstruction", "logsnr_max", "logsnr_min", "moved"):
        assert again[name] == pytest.approx(shipped[name], rel=1e-4), name
    assert again["path"] == shipped["path"][:1]
    assert 17 / (2 * math.log(2)) > again["diffusion"] > shipped["diffusion"]  # ends 17 apart


@pytest.mark.parametrize(("module", "count"), [(ablation, 20), (ablation_control, 6)])
def test_every_case_of_the_ablation_has_its_row(module, count):
    name = module.__name__.rpartition(".")[2]
    file = ablation.FILE.with_name(f"{name}.json")
    rows = ablation.rows(file=file)
    assert {tuple(row.values())[:4] for row in rows} == set(module.CASES)
    assert len(rows) == len(module.CASES) == count
    about = ablation.results(file)["about"]
    assert about["command"] == f"python -m {module.__name__}"
    assert not about["commit"].endswith("-changed")


@pytest.mark.parametrize("file", [ablation.FILE, ablation.CONTROL], ids=["rows", "control"])
def test_rows_of_the_ablation_belong_together(file):
    """Three costs make the bound; a path begins at the start, and fixed ends stay there."""
    starts = ablation.STARTS | ablation.FOUND
    for row in ablation.rows(file=file):
        costs = sum(row[name] for name in ablation.COSTS[1:])
        assert row["bits_per_dim"] == pytest.approx(costs, rel=1e-5)
        path, start = torch.tensor(row["path"]), torch.tensor(starts[row["start"]])
        assert path.shape == (ablation.STEPS // ablation.EVERY + 1, 2)
        late = path[path.shape[0] * 4 // 5 :]  # from step 1200 on
        assert_close(late.amax(0) - late.amin(0), torch.tensor(row["moved"]))
        assert_close(path[0], start)
        learned = row["ends"] == "learned"
        assert (path[-1] != start).all() if learned else (path == start).all()
        assert row["loss"] == pytest.approx(row["bits_per_dim"], abs=0.2)


def test_a_column_of_the_ablation_goes_by_seed():
    bits = ablation.column("with", "Ho", "learned", "bits_per_dim")
    keys = ("fourier", "start", "ends", "seed")
    rows = {tuple(row[key] for key in keys): row for row in ablation.rows()}
    assert bits.tolist() == pytest.approx(
        [rows["with", "Ho", "learned", seed]["bits_per_dim"] for seed in ablation.SEEDS]
    )
    assert ablation.column("without", "book", "learned", "path").shape == (1, 16, 2)
    assert ablation.column("with", "found", "fixed", "bits_per_dim").shape == (3,)


def test_where_the_ends_stand_counts_not_that_they_move():
    """Fixed ends at the place that was found do what learned ones do, seed by seed."""
    for fourier in ablation.EXPONENTS:
        learned = ablation.column(fourier, "Ho", "learned", "bits_per_dim")
        control = ablation.column(fourier, "found", "fixed", "bits_per_dim")
        others = [ablation.column(fourier, s, "fixed", "bits_per_dim") for s in ablation.STARTS]
        assert abs(control - learned).max() < 0.025
        assert (torch.stack(others) - learned).min() > 0.2


@pytest.mark.parametrize(("fourier", "end"), [("without", 12.0), ("with", 12.2)])
def test_the_clean_end_is_found_from_both_starts(fourier, end):
    found = [ablation.column(fourier, start, "learned", "logsnr_max") for start in ablation.STARTS]
    assert_close(torch.cat(found), torch.full((4,), end), rtol=0, atol=0.05)
    for start in ablation.STARTS:  # the noisy end is not
        noisy = ablation.column(fourier, start, "learned", "logsnr_min")
        assert noisy.min() > -7 and noisy.max() < -3.5


@pytest.mark.parametrize("start", ablation.STARTS)
def test_learned_ends_have_a_straight_line_between_them(start):
    line = ablation.build("with", start, "learned", seed=0).schedule
    with torch.no_grad():
        line.max += 0.01
        line.min -= 0.03
        logsnr = line(torch.linspace(0, 1, 11))
    high, low = ablation.STARTS[start]
    moved = high + 0.01 * ablation.SPEED, low - 0.03 * ablation.SPEED
    assert_close(logsnr, torch.linspace(*moved, 11))


def trained(ends, seed=0):
    """Three training losses from Ho's ends, and the model."""
    model = ablation.build("with", "Ho", ends, seed)
    loss, pictures = partial(ablation.bound, model), data.fashion_mnist().train[:64]
    options = {"loss": loss, "seed": seed, "progress": False}
    run = fit(model, pictures, 3, ablation.BATCH, ablation.RATE, **options)
    return [step.loss for step in run], model


def test_cases_of_one_seed_draw_the_same_numbers():
    """Before learned ends have left their place, their loss is that of fixed ones."""
    (fixed, _), (learned, _), (other, _) = trained("fixed"), trained("learned"), trained("fixed", 1)
    assert fixed[0] == learned[0] and fixed[2] != learned[2]
    assert learned == pytest.approx(fixed, rel=1e-3)
    assert other[0] != pytest.approx(fixed[0], rel=1e-3)


def test_ends_move_by_units_of_log_snr():
    """An untrained network pulls the ends together: by SPEED times the rate in each step."""
    line = trained("learned")[1].schedule
    rates = ablation.RATE * (1 + 2 + 3) / 100  # warm-up
    moved = line(torch.tensor([0.0, 1.0])).detach() - torch.tensor(line.start)
    assert_close(moved, ablation.SPEED * rates * torch.tensor([-1.0, 1.0]), rtol=0.05, atol=0)


def gradients(ends):
    model = ablation.build("with", "Ho", ends, seed=0)
    batch, generator = data.fashion_mnist().train[:16], torch.Generator().manual_seed(0)
    ablation.bound(model, batch, generator).mean().backward()
    return model, [p.grad for p in model.denoiser.parameters()]


def test_learned_ends_leave_the_gradient_of_the_network_alone():
    """They do not count where it is clipped, either."""
    (_, fixed), (model, learned) = gradients("fixed"), gradients("learned")
    assert_close(fixed, learned)
    ends = torch.stack([p.grad for p in model.schedule.parameters()]).norm()
    assert 0 < ends < 1e-3 * torch.stack([g.norm() for g in learned]).norm()


@pytest.mark.parametrize(("high", "low"), [(9.0, -3.0), (11.0, 0.0)])
def test_costs_known_exactly_are_the_means_of_those_drawn(high, low):
    model = ablation.build("with", "Ho", "fixed", seed=0)
    model.schedule.start = (high, low)
    pictures = data.fashion_mnist().train[:100]
    batch = torch.cat([pictures, 255 - pictures])  # black and white have neighbors on one side only
    with torch.no_grad():
        drawn = model.elbo(batch, generator=torch.Generator().manual_seed(0))
        bound = ablation.bound(model, batch, torch.Generator().manual_seed(1))
        exact = bound - model.loss(batch, generator=torch.Generator().manual_seed(1))
    difference = drawn.prior + drawn.reconstruction - exact
    error = difference.std() / len(batch) ** 0.5
    assert abs(difference.mean()) < 4 * error < 0.01 * exact.mean()

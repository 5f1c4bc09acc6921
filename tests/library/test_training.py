"""Training goes on bit for bit after any interruption, and bad input is named."""

import json
import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vdm_lite import data, training, weighting
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.likelihood import Discretized
from vdm_lite.nets import UNet
from vdm_lite.schedules import Learned, Linear
from vdm_lite.times import Adaptive
from vdm_lite.training import checkpoints, fit
from vdm_lite.training.checkpoints import CheckpointError
from vdm_lite.training.engine import Alone

HERE = Path(__file__).parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Net(nn.Module):
    """A small denoiser with what makes resuming hard: dropout, a buffer, tied weights."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.inside = nn.Linear(3, width)
        self.outside = nn.Linear(width, 2)
        self.drop = nn.Dropout(0.2)
        self.twin = self.outside
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, z, logsnr):
        self.seen += len(z) if self.training else 0
        level = (logsnr / 10).expand(len(z)).unsqueeze(1)
        return self.twin(self.drop(self.inside(torch.cat([z, level], 1)).tanh()))


def model(width: int = 16) -> VariationalDiffusion:
    torch.manual_seed(7)
    return VariationalDiffusion(Net(width))


POINTS = data.moons().sample(50, torch.Generator().manual_seed(0))
run = partial(fit, data=POINTS, batch_size=16, progress=False)


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(k == m and torch.equal(u, v) for (k, u), (m, v) in pairs)


class Averageable(nn.Module):
    """``loss`` is the mean of one weight times the data: a gradient known in advance."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def loss(self, batch, generator=None):
        return batch[:, 0] * self.w


# --- fit -----------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_yields_every_step():
    many = data.eight_gaussians().sample(512, torch.Generator().manual_seed(1))
    m = VariationalDiffusion(nn_without_dropout())
    steps = list(fit(m, many, steps=150, lr=1e-2, warmup=10, progress=False))
    assert [s.step for s in steps] == list(range(1, 151))
    losses = torch.tensor([s.loss for s in steps])
    assert losses[-30:].mean() < 0.8 * losses[:10].mean()
    assert all(isinstance(s.loss, float) and s.grad_norm > 0 for s in steps)


def nn_without_dropout() -> nn.Module:
    torch.manual_seed(7)
    net = Net(64)
    net.drop.p = 0.0
    return net


def test_interior_of_a_schedule_follows_the_squares_and_the_rest_the_mean():
    """By hand: two separate gradients of one and the same loss."""
    m = VariationalDiffusion(nn_without_dropout(), Learned(train_ends=True))
    twin = VariationalDiffusion(nn_without_dropout(), Learned(train_ends=True))
    loss, again = (n.loss(POINTS, generator=torch.Generator().manual_seed(1)) for n in (m, twin))
    training.backward(m, loss)
    mean = torch.autograd.grad(again.mean(), list(twin.parameters()), retain_graph=True)
    (squares,) = torch.autograd.grad(again.square().mean(), [twin.schedule.raw])
    for (name, p), want in zip(m.named_parameters(), mean, strict=True):
        if name == "schedule.raw":
            want = squares / again.mean() ** 2
        torch.testing.assert_close(p.grad, want, msg=name)


def test_squares_of_losses_around_zero_keep_their_size():
    """A bound on continuous data may have any sign: the inner gradient stays bounded."""
    m = VariationalDiffusion(nn_without_dropout(), Learned())
    loss = m.loss(POINTS, generator=torch.Generator().manual_seed(1))
    loss = loss - loss.detach().mean()
    (squares,) = torch.autograd.grad(loss.square().mean(), [m.schedule.raw], retain_graph=True)
    training.backward(m, loss)
    want = 100 * squares / loss.detach().square().mean()
    torch.testing.assert_close(m.schedule.raw.grad, want)


def test_a_loss_without_the_schedule_leaves_it_alone():
    m = VariationalDiffusion(nn_without_dropout(), Learned())
    training.backward(m, m.denoiser(POINTS, torch.zeros(())).square().sum(1))
    assert m.schedule.raw.grad is None and m.denoiser.inside.weight.grad.norm() > 0


def test_end_points_are_not_decayed():
    """A loss without a gradient leaves them where they are; weights shrink."""
    m = VariationalDiffusion(nn_without_dropout(), Learned(train_ends=True))
    before = m.denoiser.inside.weight.clone()

    def loss(batch, generator):
        return 0 * sum(p.square().sum() for p in m.parameters()) + torch.ones(len(batch))

    list(run(m, steps=3, loss=loss))
    assert (m.schedule.logsnr_max.item(), m.schedule.logsnr_min.item()) == pytest.approx((13.3, -5))
    assert (m.denoiser.inside.weight.abs() < before.abs()).all()


def test_same_seed_same_run_other_seed_other_run():
    losses = [[s.loss for s in run(nodrop(), steps=5, seed=seed)] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def nodrop() -> VariationalDiffusion:
    return VariationalDiffusion(nn_without_dropout())


def test_loss_is_the_mean_of_the_models_loss_over_the_batch():
    m, twin = nodrop(), nodrop()
    step = next(iter(run(m, steps=1, seed=3)))
    index = training.batch_indices(0, 50, 16, seed=3)
    expected = twin.loss(POINTS[index], generator=torch.Generator().manual_seed(3)).mean()
    assert step.loss == pytest.approx(expected.item(), rel=1e-6)


def test_another_loss_can_stand_in():
    m = nodrop()
    plain = next(iter(run(nodrop(), steps=1))).loss
    doubled = partial(m.loss, weighting=lambda logsnr: 2 * weighting.elbo(logsnr))
    assert next(iter(run(m, steps=1, loss=doubled))).loss == pytest.approx(2 * plain, rel=1e-6)


def test_learning_rate_warms_up_and_gradients_are_clipped():
    m = Averageable()
    seen = []
    ones = torch.full((4, 1), 100.0)
    for step in fit(m, ones, 6, batch_size=4, lr=0.4, warmup=4, clip=1.0, progress=False):
        seen.append(m.w.item())
        assert step.grad_norm == pytest.approx(100)
        assert m.w.grad.item() == pytest.approx(1, rel=1e-4)
    # Adam's step is the learning rate where the gradient never changes (weight decay adds 1 %).
    moves = -torch.tensor([0.0, *seen]).diff()
    torch.testing.assert_close(
        moves, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.4, 0.4]), rtol=0.03, atol=0
    )


def test_ema_follows_its_formula():
    m, ema, expected = Averageable(), training.averaged(Averageable(), decay=0.3), 0.0
    for n in range(12):
        with torch.no_grad():
            m.w.fill_(n + 1.0)
        ema.update_parameters(m)
        decay = min(0.3, (1 + n) / (10 + n)) if n else 0.0
        expected = decay * expected + (1 - decay) * (n + 1)
        assert ema.module.w.item() == pytest.approx(expected, rel=1e-6)
    assert not ema.module.training and not ema.module.w.requires_grad


def test_averaging_reads_nothing_from_the_device():
    """On an accelerator each read of a number would stop the queue; on meta it fails."""
    m = model().to("meta")
    ema = training.averaged(m)
    for _ in range(3):
        ema.update_parameters(m)
    assert ema.n_averaged == 3 and ema.n_averaged.device.type == "cpu"


class Two(Alone):
    """What one of two processes sees, the other of which adds nothing but a wish to stop."""

    def __init__(self, wish: float) -> None:
        self.wish = wish

    def all_reduce(self, tensor, reduce_op="mean"):
        return tensor + self.wish if reduce_op == "sum" else tensor


@pytest.mark.parametrize(("own", "other", "steps"), [(3, 0, 3), (9, 1, 1), (9, 0, 6)])
def test_any_process_can_stop_the_run(own, other, steps):
    asked = iter(range(1, 9))
    wishes = run(nodrop(), steps=6, fabric=Two(other), stop=lambda: next(asked) == own)
    assert [s.step for s in wishes] == [*range(1, steps + 1)]


@pytest.mark.parametrize("schedule", [Linear(), Learned()], ids=["fixed", "learned"])
def test_parts_of_a_batch_make_the_whole_with_adaptive_times(schedule):
    """Every part draws from the density that the step began with; each step is learned once."""
    runs = []
    for parts in (1, 4):
        m, sampler = VariationalDiffusion(nn_without_dropout(), deepcopy(schedule)), Adaptive(8)
        loss = partial(m.costs, times=sampler)
        steps = [*run(m, steps=5, loss=loss, keep=sampler, accumulate=parts)]
        runs.append(([s.loss for s in steps], [*sampler.buffers(), *m.parameters()]))
    (losses, whole), (by_parts, sums) = runs
    assert by_parts == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(sums, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_step_that_fails_teaches_nothing(parts):
    """Not even what its parts cost before the one that was not finite."""

    def loss(batch, generator):
        calls.append(sampler.masses())
        costs = m.costs(batch, times=sampler, generator=generator)
        return costs._replace(cost=costs.cost * float("nan")) if len(calls) == 3 * parts else costs

    m, sampler, calls = nodrop(), Adaptive(8), []
    with pytest.raises(FloatingPointError, match="step 3"):
        list(run(m, steps=5, loss=loss, keep=sampler, accumulate=parts))
    steps = torch.stack(calls).view(3, parts, 8)
    assert torch.equal(steps, steps[:, :1].expand_as(steps))  # one density in a step
    assert not torch.equal(steps[0, 0], steps[1, 0]) and not torch.equal(steps[1, 0], steps[2, 0])
    assert torch.equal(sampler.masses(), steps[2, 0])


def test_every_step_trains_even_if_the_reader_evaluates_in_between():
    m = model()
    for step in run(m, steps=3):
        assert m.training and not step.averaged.training
        m.eval()
    assert m.denoiser.seen == 48 and step.averaged.denoiser.seen == 48


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_go_to_the_device_and_dtype_of_the_model(device, dtype):
    seen = []

    def loss(batch, generator):
        seen.append((batch.device.type, batch.dtype, generator.device.type))
        return m.loss(batch, generator=generator)

    m = model().to(device, dtype)
    for points in (POINTS, POINTS.double().to(device)):
        step = list(fit(m, points, 2, batch_size=8, loss=loss, progress=False))[-1]
        weight = step.averaged.denoiser.inside.weight
        assert (weight.device.type, weight.dtype) == (device, dtype)
    assert set(seen) == {(device, dtype, device)}


def test_levels_keep_their_integer_dtype():
    dtypes = []

    class Levels(Averageable):
        def loss(self, batch, generator=None):
            dtypes.append(batch.dtype)
            return super().loss(batch.float())

    list(fit(Levels(), torch.ones(4, 1, dtype=torch.uint8), 1, batch_size=2, progress=False))
    assert dtypes == [torch.uint8]


@given(
    examples=st.integers(1, 60),
    size=st.integers(1, 60),
    seed=st.integers(-5, 5),
    epoch=st.integers(0, 3),
)
def test_an_epoch_shows_no_example_twice(examples, size, seed, epoch):
    size = min(size, examples)
    per_epoch = examples // size
    batches = [
        training.batch_indices(epoch * per_epoch + i, examples, size, seed)
        for i in range(per_epoch)
    ]
    shown = torch.cat(batches)
    assert len(shown.unique()) == len(shown) == per_epoch * size
    assert shown.min() >= 0 and shown.max() < examples


def test_epochs_are_shuffled_differently():
    orders = [tuple(training.batch_indices(k, 50, 50, 0).tolist()) for k in range(4)]
    assert len(set(orders)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number"),
        ({"lr": -1e-3}, "lr: expected a positive number, got -0.001"),
        ({"clip": 0.0}, "clip: expected a positive number, got 0.0"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
        ({"batch_size": 0}, "batch_size: expected a whole number >= 1, got 0"),
        ({"batch_size": 51}, r"batch_size: expected at most len\(data\) = 50, got 51"),
        ({"every": 0}, "every: expected a whole number"),
        ({"data": torch.empty(0, 2)}, r"data: expected a batch .* got shape \(0, 2\)"),
        ({"data": [1, 2]}, "data: expected a tensor .* got list"),
        ({"model": nn.Identity()}, "model: expected trainable weights, got none"),
        ({"keep": nn.Identity()}, r"keep: expected a module with \.observe, .* got Identity"),
        ({"keep": Adaptive()}, "loss: expected Costs, as keep learns from them, got Tensor"),
        (
            {"loss": lambda batch, generator: batch.mean()},
            r"loss: expected shape \(16,\), got \(\)",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    full = {"model": model(), "data": POINTS, "steps": 1, "batch_size": 16, **arguments}
    with pytest.raises(ValueError, match=message):
        list(fit(**full, progress=False))


def test_bad_arguments_fail_at_the_call_not_at_the_first_step():
    with pytest.raises(ValueError, match="steps"):
        run(model(), steps=0)
    with pytest.raises(TypeError, match="JSON"):
        run(model(), steps=1, config={"schedule": object()})


def test_progress_bar_is_text_on_stderr_and_can_be_silenced(capsys):
    list(run(model(), steps=3, progress=True))
    out, err = capsys.readouterr()
    assert out == "" and "0/3" in err and err.endswith("\r")  # it wipes itself at the end
    list(run(model(), steps=3))
    assert capsys.readouterr() == ("", "")


# --- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_interrupted_run_goes_on_bit_for_bit(tmp_path, device):
    whole, killed, resumed_model = (model().to(device) for _ in range(3))
    torch.manual_seed(1)  # what dropout draws from
    straight = list(run(whole, steps=20))

    file = tmp_path / "run.safetensors"
    torch.manual_seed(1)
    first = []
    for step in run(killed, steps=20, checkpoint=file, every=5):
        first.append(step)
        if step.step == 12:  # two updates after the last checkpoint: they are done again
            break
    torch.manual_seed(99)
    resumed = list(run(resumed_model, steps=20, checkpoint=file, every=5))

    assert [s.step for s in resumed] == list(range(10, 21))
    # Once more the step of the file, which may have been interrupted while it was evaluated.
    assert resumed[0][:4] == first[9][:4]
    assert [s.loss for s in first[:9] + resumed] == [s.loss for s in straight]
    assert equal(resumed_model, whole)
    assert equal(resumed[-1].averaged, straight[-1].averaged)


def test_learned_schedule_and_adaptive_times_resume_bit_for_bit(tmp_path):
    def start() -> tuple[VariationalDiffusion, Adaptive]:
        sampler = Adaptive(bins=8)
        return VariationalDiffusion(nn_without_dropout(), Learned(train_ends=True)), sampler

    def go(m, sampler, steps, file):
        loss = partial(m.costs, times=sampler)
        return list(run(m, steps=steps, loss=loss, keep=sampler, checkpoint=file))

    (whole, sampler), (part, part_sampler), (rest, rest_sampler) = start(), start(), start()
    straight = go(whole, sampler, 12, None)
    go(part, part_sampler, 7, tmp_path / "run")
    resumed = go(rest, rest_sampler, 12, tmp_path / "run")
    assert [s.loss for s in resumed] == [s.loss for s in straight[6:]]
    assert equal(rest, whole) and equal(rest_sampler, sampler)
    with pytest.raises(CheckpointError, match=r"total to be float32 \(9,\)"):
        run(
            start()[0],
            steps=12,
            keep=Adaptive(bins=9, base=sampler.base),
            checkpoint=tmp_path / "run",
        )


def test_a_run_can_be_made_longer(tmp_path):
    file = tmp_path / "run.safetensors"
    whole, parts = nodrop(), nodrop()
    list(run(whole, steps=7))
    list(run(parts, steps=4, checkpoint=file))
    parts = nodrop()
    list(run(parts, steps=7, checkpoint=file))
    assert equal(parts, whole)


def test_a_complete_run_yields_its_last_step_again(tmp_path):
    file = tmp_path / "run.safetensors"
    last = list(run(model(), steps=4, checkpoint=file))[-1]
    (again,) = run(model(), steps=4, checkpoint=file)
    assert again[:3] == last[:3]
    assert equal(again.averaged, last.averaged)


def test_fewer_steps_than_the_checkpoint_has(tmp_path):
    list(run(model(), steps=4, checkpoint=tmp_path / "a"))
    with pytest.raises(ValueError, match=r"steps: expected at least 4, as in .*a, got 3"):
        run(model(), steps=3, checkpoint=tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, r"a run with lr = 0.5, got 0.001"),
        ({"seed": 4}, r"a run with seed = 4, got 0"),
        ({"data": POINTS[:40]}, r"a run with examples = 40, got 50"),
        ({"config": {"T": 3}}, r"a run with config.T = 3, got nothing"),
        ({"model": model(8)}, r"denoiser.inside.bias to be float32 \(8,\).* got float32 \(16,\)"),
        ({"model": Averageable()}, r"denoiser.inside.bias to be absent"),
        ({"model": model().double()}, r"to be float64 \(16,\).* got float32 \(16,\)"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    file = tmp_path / "run.safetensors"
    list(run(model(), steps=2, checkpoint=file))
    before = file.read_bytes()
    arguments = {"model": model(), "data": POINTS, "batch_size": 16, "steps": 4, **change}
    with pytest.raises(CheckpointError, match=f"run.safetensors: expected .*{message}"):
        fit(**arguments, checkpoint=file, progress=False)
    assert file.read_bytes() == before


def test_weights_alone_are_no_run_to_resume(tmp_path):
    checkpoints.save_weights(tmp_path / "w", model())
    with pytest.raises(CheckpointError, match="got a file of weights alone"):
        run(model(), steps=2, checkpoint=tmp_path / "w")


class Breaks(Averageable):
    """Gives a loss that is not finite at its sixth call."""

    calls, value = 0, float("nan")

    def loss(self, batch, generator=None):
        self.calls += 1
        return super().loss(batch) + (self.value if self.calls == 6 else 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, value):
    m, file = Breaks(), tmp_path / "run.safetensors"
    m.value = value
    seen = []
    with pytest.raises(FloatingPointError, match=f"step 6: expected a finite .* got loss {value}"):
        for step in fit(
            m, torch.ones(4, 1), 9, batch_size=2, checkpoint=file, every=2, progress=False
        ):
            seen.append((step.step, m.w.item()))
    assert seen[-1] == (5, m.w.item())
    assert checkpoints.read(file)[1]["step"] == 4


def test_a_gradient_that_is_not_finite_stops_too():
    def loss(batch, generator):
        return (batch[:, 0] * m.w).sqrt()  # slope 1/0 at w = 0, value 0

    m = Averageable()
    with pytest.raises(FloatingPointError, match=r"loss 0\.0 and gradient norm inf"):
        list(fit(m, torch.ones(4, 1), 1, batch_size=2, loss=loss, progress=False))
    assert m.w.item() == 0


def test_a_full_disk_does_not_hide_the_number_that_is_not_finite(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    wanted = r"step 6: expected a finite .*after step 5, which could not be kept: .*disk full"
    with pytest.raises(FloatingPointError, match=wanted):
        list(fit(Breaks(), torch.ones(4, 1), 9, batch_size=2, checkpoint=tmp_path / "run",
                 every=9, progress=False))  # fmt: skip


def test_a_resumed_optimizer_lies_in_memory_as_the_first_did(tmp_path, monkeypatch):
    """Channels last, like the weights: AdamW is slow on tensors that lie otherwise."""

    def strides(steps):
        torch.manual_seed(0)
        m = VariationalDiffusion(UNet(1, (8, 16)), Learned(), likelihood=Discretized(4))
        images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        list(fit(m, images, steps, batch_size=2, checkpoint=tmp_path / "a", progress=False))
        states = checkpoints.optimizer_state(made.pop())
        return {name: (t.shape, t.stride()) for name, t in states.items()}

    class Seen(torch.optim.AdamW):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append(self)

    made = []
    monkeypatch.setattr(torch.optim, "AdamW", Seen)
    first = strides(1)
    assert any(len(stride) == 4 and stride[1] == 1 < shape[1] for shape, stride in first.values())
    assert strides(2) == first


def test_a_run_goes_on_where_it_ran(tmp_path):
    file = tmp_path / "run"
    list(run(model(), steps=2, checkpoint=file))
    tensors, metadata = checkpoints.read(file)
    tensors["rng.cuda"] = tensors.pop("rng.cpu")
    checkpoints.write(file, tensors, metadata)
    fresh, other = model().state_dict(), model()
    with pytest.raises(CheckpointError, match="expected a run on cpu, got cuda"):
        run(other, steps=4, checkpoint=file)
    torch.testing.assert_close(other.state_dict(), fresh, rtol=0, atol=0)  # nothing was loaded


# --- files ---------------------------------------------------------------------------------------


def test_weights_and_config_come_back(tmp_path):
    saved, loaded, file = model(), model(), tmp_path / "deep" / "w.safetensors"
    nn.init.normal_(saved.denoiser.inside.weight)
    checkpoints.save_weights(file, saved, {"width": 16, "note": "ε"})
    metadata = checkpoints.load_weights(file, loaded)
    assert equal(saved, loaded) and metadata["config"] == {"width": 16, "note": "ε"}


def test_weights_of_a_run_are_the_averaged_ones(tmp_path):
    file, fresh = tmp_path / "run", model()
    trained = model()
    last = list(run(trained, steps=5, checkpoint=file, config={"a": 1}))[-1]
    metadata = checkpoints.load_weights(file, fresh)
    assert equal(fresh, last.averaged) and not equal(fresh, trained)
    assert (metadata["step"], metadata["config"]) == (5, {"a": 1})


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="absent: expected a checkpoint file, got no such"):
        checkpoints.load_weights(tmp_path / "absent", model())


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file(tmp_path, keep):
    file = tmp_path / "w"
    checkpoints.save_weights(file, model())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="w: expected a complete safetensors file"):
        checkpoints.read(file)


def test_foreign_files(tmp_path):
    (tmp_path / "pickle").write_bytes(b"\x80\x04\x95" + bytes(40))
    with pytest.raises(CheckpointError, match="complete safetensors file"):
        checkpoints.read(tmp_path / "pickle")
    save_file({"w": torch.ones(1)}, tmp_path / "foreign", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'vdm_lite-checkpoint', got \['format'\]"):
        checkpoints.read(tmp_path / "foreign")
    for header in ("{", "[]", "3"):
        save_file({"w": torch.ones(1)}, tmp_path / "header", {"vdm_lite": header})
        with pytest.raises(CheckpointError, match="header: expected "):
            checkpoints.read(tmp_path / "header")
    header = json.dumps({"format": checkpoints.FORMAT, "version": 99})
    save_file({"w": torch.ones(1)}, tmp_path / "future", {"vdm_lite": header})
    with pytest.raises(CheckpointError, match="version 1, got 'vdm_lite-checkpoint' 99"):
        checkpoints.read(tmp_path / "future")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, broken):
    def fail(*_):
        raise OSError("disk full")

    file = tmp_path / "w"
    checkpoints.save_weights(file, model())
    before = file.read_bytes()
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save_weights(file, model(32))
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def regression(file, steps):
    torch.manual_seed(0)
    m = nn.Linear(300, 300)
    m.loss = lambda batch, generator: (m(batch) - batch).square().sum(1)
    points = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    return fit(m, points, steps, batch_size=8, checkpoint=file, every=1)


CHILD = """
import sys
from test_training import regression
for step in regression(sys.argv[1], 100_000):
    print(step.step, flush=True)
"""


def test_kill_9_leaves_the_last_good_checkpoint(tmp_path):
    file, step = tmp_path / "run.safetensors", 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    environment["TQDM_DISABLE"] = "1"
    for moment in (0.0, 0.02):  # two points within a step, after the third new one
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            lines = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            assert process.stderr.read() == b""  # the environment variable silenced the bar
        assert lines[0] == max(step, 1)  # it went on from the last checkpoint
        step = checkpoints.read(file)[1]["step"]
        assert step >= lines[-1]
    resumed = list(regression(file, step + 5))
    straight = list(regression(None, step + 5))
    assert [s.loss for s in resumed] == [s.loss for s in straight[-6:]]
    assert equal(resumed[-1].averaged, straight[-1].averaged)

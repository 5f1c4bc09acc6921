"""Chapter 12, a denoiser for images: one test for each labeled equation, and the exercises."""

import math
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vdm_lite import data, exact, figures, gaussian, nets, training
from vdm_lite.diffusion import VariationalDiffusion
from vdm_lite.figures import ch12_denoiser as ch12
from vdm_lite.likelihood import Discretized
from vdm_lite.nets.unet import Attention, Block
from vdm_lite.randomness import Share
from vdm_lite.runs.ch12 import denoiser as experiment
from vdm_lite.training.config import ModelConfig
from vdm_lite.training.evaluation import evaluate

FLOAT = torch.float64
LEVEL = 2 / 256  # the distance of two gray levels
NODES, WEIGHTS = exact.normal_quadrature()


def stirred(part: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, with random weights in the place of its zeros."""
    generator = torch.Generator().manual_seed(seed)
    for weight in part.double().requires_grad_(False).parameters():
        weight.copy_(0.1 * torch.randn(weight.shape, generator=generator, dtype=FLOAT))
    return part


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=FLOAT)


# --- one level of 256 ----------------------------------------------------------------------------


@pytest.mark.equation("eq-fourier-features")
def test_one_level_turns_the_features_by_a_half_and_a_quarter():
    z = drawn(3, 2, 4, 4)
    for exponent, turn in ((7, math.pi), (6, math.pi / 2)):
        features = nets.FourierFeatures((exponent,))
        before, after = features(z), features(z + LEVEL)
        assert torch.equal(before[:, :2], z)
        sine, cosine = before[:, 2:].chunk(2, dim=1)
        assert_close((sine, cosine), ((2**exponent * math.pi * z).sin(), _cos(exponent, z)))
        turned = math.cos(turn) * sine + math.sin(turn) * cosine
        assert_close(after[:, 2:4], turned)
        assert_close(after[:, 4:], math.cos(turn) * cosine - math.sin(turn) * sine)


def _cos(exponent: int, z: Tensor) -> Tensor:
    return (2**exponent * math.pi * z).cos()


@pytest.mark.equation("eq-feature-fade")
@pytest.mark.parametrize("logsnr", [9.0, 11.0, 13.3])
def test_noise_leaves_a_gaussian_share_of_the_amplitude(logsnr):
    level, x = torch.tensor(logsnr, dtype=FLOAT), torch.full((len(NODES), 1), 0.37, dtype=FLOAT)
    z = gaussian.diffuse(x, level, NODES[:, None])
    features = nets.FourierFeatures((6, 7))
    mean = WEIGHTS @ features(z)[:, 1:]
    clean = features(torch.sigmoid(level).sqrt() * x[:1])[0, 1:]
    sigma = torch.sigmoid(-level).sqrt()
    spread = torch.tensor([64.0, 64.0, 128.0, 128.0], dtype=FLOAT) * math.pi * sigma
    assert_close(mean, (-0.5 * spread**2).exp() * clean, rtol=0, atol=1e-9)


@pytest.mark.equation("eq-grid-value")
@pytest.mark.parametrize("end", [11.0, 12.5, 13.3])
def test_the_value_of_the_grid(end):
    """The blind denoiser's excess over the exact one, on an endless grid around x = 0."""
    levels = torch.linspace(7, end, 400, dtype=FLOAT)
    places = torch.arange(-80, 81, dtype=FLOAT) * LEVEL
    grid = exact.FiniteData(places[:, None])
    zero = torch.zeros(len(NODES), 1, dtype=FLOAT)

    def error(level: Tensor) -> Tensor:
        z = gaussian.diffuse(zero, level, NODES[:, None])
        return level.exp() * (WEIGHTS @ grid.denoise(z, level.expand(len(z))).square())

    e = torch.cat([error(level) for level in levels])
    area = 0.5 * torch.trapezoid(1 - e, levels)
    closed = 0.5 * (end - math.log(2 * math.pi * math.e)) + math.log(LEVEL) + naming(end)
    assert_close(area, closed, rtol=0, atol=2e-5)


def naming(end: float, k: int = 128) -> Tensor:
    """The reconstruction cost of a pixel of level k, from the library's likelihood, in nats."""
    codec, levels = Discretized(256), torch.full((len(NODES), 1), k)
    level = torch.tensor(end, dtype=FLOAT)
    z_0 = gaussian.diffuse((2 * levels.double() + 1) / 256 - 1, level, NODES[:, None])
    return -(WEIGHTS @ codec.log_prob(levels, z_0, level))


def test_a_blind_network_does_best_near_12_3_on_half_black_images():
    def loss(end: float) -> float:
        grid = 0.5 * (end - math.log(2 * math.pi * math.e)) + math.log(LEVEL) + naming(end)
        return ((grid + naming(end, k=0)) / 2 / math.log(2)).item()

    ends = [11 + 0.05 * i for i in range(47)]
    best = min(ends, key=loss)
    assert best == pytest.approx(12.3, abs=0.05) and loss(best) == pytest.approx(0.10, abs=0.005)
    assert loss(13.3) == pytest.approx(0.28, abs=0.005)
    assert naming(13.3, k=0) / 2 / math.log(2) == pytest.approx(0.003, abs=5e-4)
    for end, inner, black in ((9.0, 2.555, 1.511), (11.0, 1.112, 0.566)):
        assert naming(end) / math.log(2) == pytest.approx(inner, abs=1e-3)
        assert naming(end, k=0) / math.log(2) == pytest.approx(black, abs=1e-3)


def test_what_the_text_says_of_levels_and_features():
    """At the clean end sigma is a sixth of a level; 1 pixel in 400 is misread; where phi fades."""
    sigma = math.exp(-13.3 / 2)  # of z_t / alpha_t
    assert LEVEL / sigma == pytest.approx(6, abs=0.05)
    assert math.erfc(LEVEL / 2 / sigma / math.sqrt(2)) == pytest.approx(1 / 400, rel=0.05)
    levels = Discretized(256).encode(torch.arange(256)).double().view(1, 1, 256, 1)
    sine, cosine = nets.FourierFeatures((7,))(levels)[0, 1:, :, 0]
    assert_close(cosine, torch.zeros_like(cosine), rtol=0, atol=1e-9)
    assert_close(sine[::2], -sine[1::2])
    for exponent, level in ((7, 10.2), (6, 8.8)):
        spread = 2**exponent * math.pi * gaussian.sigma(torch.tensor(level, dtype=FLOAT))
        assert (-0.5 * spread**2).exp() == pytest.approx(1 / 20, abs=0.003)
    assert (9 + 5) / 18.3 > 0.75


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.equation("eq-sinusoids")
def test_the_embedding_starts_with_sinusoids():
    embedding = stirred(nets.LogsnrEmbedding(8))
    logsnr = torch.linspace(-5, 13.3, 7, dtype=FLOAT)
    speeds = torch.tensor([80 ** (k / 31) / 20 for k in range(32)], dtype=FLOAT)
    assert speeds[0] == 0.05 and speeds[-1] == 4
    angles = logsnr[:, None] * speeds
    assert_close(embedding.mlp(torch.cat([angles.sin(), angles.cos()], 1)), embedding(logsnr))


@pytest.mark.equation("eq-block")
def test_the_block_adds_what_the_noise_level_scales_and_shifts():
    block, h, e = stirred(Block(8, 5)), drawn(2, 8, 6, 6), drawn(2, 5)
    normal = F.group_norm(h, 8, block.norm.weight, block.norm.bias)
    inner = F.conv2d(normal, block.inner.weight, block.inner.bias, padding=1)
    numbers = e @ block.modulation.weight.T + block.modulation.bias
    scale, shift = numbers[:, :8, None, None], numbers[:, 8:, None, None]
    bent = (1 + scale) * inner + shift
    bent = bent * torch.sigmoid(bent)
    outer = F.conv2d(bent, block.outer.weight, block.outer.bias, padding=1)
    assert_close(block(h, e), h + outer)
    assert torch.equal(Block(8, 5).double()(h, e), h)  # a fresh one is the identity


@pytest.mark.equation("eq-attention")
def test_attention_mixes_the_values_of_all_pixels():
    part, h = stirred(Attention(8)), 3 * drawn(2, 8, 3, 5)
    assert part.qkv.weight.shape == (24, 8, 1, 1) and part.heads == 4
    normal = F.group_norm(h, 8, part.norm.weight, part.norm.bias).flatten(2)
    weight = part.qkv.weight[:, :, 0, 0]
    qkv = weight @ normal + part.qkv.bias[:, None]  # (B, 24, 15)
    heads = []
    for i in range(4):
        q, k, v = (qkv[:, 8 * j + 2 * i : 8 * j + 2 * i + 2] for j in range(3))  # (B, 2, 15)
        share = torch.einsum("bcq,bck->bqk", q, k).div(math.sqrt(2)).softmax(-1)
        heads.append(torch.einsum("bqk,bck->bcq", share, v))
    mixed = torch.cat(heads, 1).view(h.shape)
    outer = F.conv2d(mixed, part.outer.weight, part.outer.bias)
    assert_close(part(h, drawn(2, 5)), outer)
    assert (Attention(8).double()(h, drawn(2, 5)) == 0).all()


def test_the_u_net_unrolled():
    """The eight statements of the chapter, with the library's pieces."""
    net = stirred(nets.UNet(1, (8, 12, 16), exponents=(6, 7)))
    z, logsnr = drawn(2, 1, 8, 8), torch.tensor([0.0, 9.0], dtype=FLOAT)
    top, middle = net.level, net.level.below.level
    low, e = middle.below.level, net.embedding(logsnr)
    h8 = top.before[0](net.inner(net.fourier(z)), e)
    h4 = middle.before[0](top.below.down(h8), e)
    h2 = low.before[0](middle.below.down(h4), e)
    h2 = low.after[0](h2 + low.below(h2, e), e)
    h4 = middle.after[0](h4 + middle.below.up(h2), e)
    h8 = top.after[0](h8 + top.below.up(h4), e)
    assert h2.shape == (2, 16, 2, 2) and h4.shape == (2, 12, 4, 4)
    assert_close(net.outer(F.silu(net.norm(h8))), net(z, logsnr))


def unet_cost(size: int, channels: int, widths: tuple[int, ...], blocks: int) -> int:
    """Multiply-adds of one image by H W C C' k^2, layer by layer, with two Fourier exponents."""
    linear = 64 * max(widths) + max(widths) ** 2
    linear += sum(2 * blocks * 2 * width * max(widths) for width in widths)
    ends = size**2 * 9 * (5 * channels + channels) * widths[0]
    within = sum(
        2 * blocks * 2 * (size // 2**i) ** 2 * 9 * width**2 for i, width in enumerate(widths)
    )
    between = sum(
        2 * (size // 2 ** (i + 1)) ** 2 * 4 * above * below
        for i, (above, below) in enumerate(pairwise(widths))
    )
    lowest = (size // 2 ** (len(widths) - 1)) ** 2
    return linear + ends + within + between + lowest * 4 * widths[-1] ** 2


@pytest.mark.equation("eq-flops")
@pytest.mark.parametrize(
    ("size", "channels", "widths", "blocks"),
    [(28, 1, (48, 80, 96), 1), (32, 3, (16, 24), 2), (8, 1, (8, 16, 16), 1)],
)
def test_multiply_adds_of_the_u_net(size, channels, widths, blocks):
    net = nets.UNet(channels, widths, blocks, (6, 7))
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    kernels = 54 * channels * widths[0] + 36 * blocks * sum(w**2 for w in widths)
    kernels += sum(8 * a * b for a, b in pairwise(widths)) + 4 * widths[-1] ** 2
    assert sum(layer.weight.numel() for layer in layers) == kernels
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, channels, size, size), torch.zeros(1))
    counted = {str(kind): n for kind, n in counter.get_flop_counts()["Global"].items()}
    in_layers = sum(n for kind, n in counted.items() if "attention" not in kind)
    assert in_layers == 2 * unet_cost(size, channels, widths, blocks)


def test_the_numbers_of_the_shipped_network():
    net = ModelConfig().build().denoiser
    assert sum(weight.numel() for weight in net.parameters()) == 882_017
    cost = unet_cost(28, 1, (48, 80, 96), 1)
    assert round(cost / 1e6) == 139
    assert 0.4 < 4 * 9 * 48**2 * 28**2 / cost < 0.5
    assert 2 * sum(w.numel() for w in net.level.before[0].parameters()) < 0.13 * 882_017


@pytest.mark.equation("eq-first-loss")
@pytest.mark.parametrize("ends", [(13.3, -5.0), (9.0, -10.0)])
def test_the_first_loss_is_known(ends):
    model = ModelConfig(widths=(8, 16), logsnr_max=ends[0], logsnr_min=ends[1]).build()
    images = data.fashion_mnist().test[:400]
    report = evaluate(model, images, draws=4)
    predicted = (ends[0] - ends[1]) / (2 * math.log(2))
    assert abs(report.diffusion - predicted) < 4 * predicted * math.sqrt(2 / 784 / 1600)


# --- training ------------------------------------------------------------------------------------


def shares(steps: int, decay: float) -> Tensor:
    """What the weights of each step count in the library's average after the last: (steps,)."""
    marker = nn.Linear(steps, 1, bias=False, dtype=FLOAT)
    average = training.averaged(marker, decay)
    for k in range(steps):
        marker.weight.data = torch.eye(steps, dtype=FLOAT)[k : k + 1]
        average.update_parameters(marker)
    return average.module.weight[0]


@pytest.mark.equation("eq-ema-warmup")
@pytest.mark.parametrize("decay", [0.999, 0.8])
def test_the_decay_of_the_average_warms_up(decay):
    weights = drawn(60)
    average = weights[0]
    for k in range(2, 61):
        d = min(decay, k / (k + 9))
        average = d * average + (1 - d) * weights[k - 1]
    assert_close(shares(60, decay) @ weights, average)


@pytest.mark.equation("eq-ema-shares")
def test_the_average_is_over_the_last_tenth_of_the_run():
    N, k = 400, torch.arange(1, 401, dtype=FLOAT)
    ours = shares(N, 0.999)
    rising = torch.lgamma(k + 9) - torch.lgamma(k + 1)
    logs = rising + math.lgamma(N + 1) - math.lgamma(N + 10)
    assert_close(ours[1:], 9 * logs.exp()[1:])
    assert ours.sum() == pytest.approx(1)
    assert (ours * (N - k)).sum() == pytest.approx(N / 10, rel=0.02)
    assert ours[: N // 2].sum() == pytest.approx(2**-9, rel=0.2)
    assert pytest.approx(0.67, abs=0.005) == 0.999**399


def test_how_old_the_averaged_weights_are():
    """A tenth of the run so far up to step 8,991, then a thousand steps."""
    ages = [0.0]
    for k in range(2, 18_001):
        ages.append(min(0.999, k / (k + 9)) * (ages[-1] + 1))
    assert 8991 / 9000 == 0.999
    assert ages[399] == pytest.approx(40) and ages[8990] == pytest.approx(899.1)
    assert ages[-1] == pytest.approx(1000, rel=2e-3)


def test_the_plain_loop_is_fit():
    images = data.fashion_mnist().train[:64]
    plain, fitted = (torch.manual_seed(0) and ModelConfig(widths=(8, 16)).build() for _ in range(2))
    optimizer = torch.optim.AdamW(plain.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for k in range(6):
        batch = images[training.batch_indices(k, 64, 8, seed=0)]
        optimizer.zero_grad()
        plain.loss(batch, generator=generator).mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (k + 1) / 3, (6 - k) / 2)
        optimizer.step()
    options = {"lr": 2e-3, "warmup": 3, "decay": 2, "progress": False}
    for _ in training.fit(fitted, images, 6, 8, **options):
        pass
    assert_close(dict(plain.named_parameters()), dict(fitted.named_parameters()))


def by_formula(model: VariationalDiffusion, batch: Tensor) -> Tensor:
    """The losses of a batch from plain formulas and torch's own random numbers."""
    generator = torch.Generator().manual_seed(3)
    u = torch.rand((), generator=generator, dtype=FLOAT)
    eps = torch.randn(batch.shape, generator=generator, dtype=FLOAT)
    logsnr = 13.3 - 18.3 * ((u + torch.arange(len(batch)) / len(batch)) % 1)
    alpha, sigma = (torch.sigmoid(sign * logsnr).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
    x = (2 * batch.double() + 1) / 256 - 1
    missed = model.denoiser(alpha * x + sigma * eps, logsnr) - eps
    return 0.5 * 18.3 * missed.square().sum((1, 2, 3)).detach()


@pytest.mark.equation("eq-shares")
@pytest.mark.parametrize("ranks", [2, 4])
def test_shares_have_the_losses_and_the_gradient_of_the_whole_batch(ranks):
    model = ModelConfig(widths=(8, 16)).build().double()
    generator = torch.Generator().manual_seed(7)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator, dtype=FLOAT)
    batch, weights = data.fashion_mnist().train[:8], list(model.parameters())

    def gradient(images: Tensor, source: object) -> tuple[Tensor, list[Tensor]]:
        losses = model.loss(images, generator=source)
        return losses.detach(), list(torch.autograd.grad(losses.mean(), weights))

    whole, want = gradient(batch, torch.Generator().manual_seed(3))
    assert_close(whole, by_formula(model, batch), rtol=1e-5, atol=0)
    parts = [
        gradient(batch[r::ranks], Share(torch.Generator().manual_seed(3), r, ranks))
        for r in range(ranks)
    ]
    assert_close(torch.stack([losses for losses, _ in parts], 1).flatten(), whole)
    means = [torch.stack(pieces).mean(0) for pieces in zip(*(g for _, g in parts), strict=True)]
    assert_close(means, want)


# --- the shipped network, exercises, figures -----------------------------------------------------


def test_the_shipped_network_is_far_below_independent_pixels():
    model = experiment.trained()
    report = evaluate(model, data.fashion_mnist().test[::10])
    assert report.bits_per_dim + 4 * report.error < 4.58
    assert experiment.log()[-1]["step"] > 0


def test_independent_pixels_and_black_ones():
    images = data.fashion_mnist()
    seen, held_out = (part.flatten(1).T.long() for part in (images.train, images.test))
    counts = torch.ones(784, 256).scatter_add_(1, seen, torch.ones(seen.shape))
    p = counts / counts.sum(1, keepdim=True)
    pixels = -p.log2().gather(1, held_out).mean(0)
    assert pixels.mean() == pytest.approx(4.58, abs=0.005)
    assert pixels[:48].mean() == pytest.approx(4.33, abs=0.005)
    assert (held_out == 0).float().mean() == pytest.approx(0.5, abs=0.005)


def test_numbers_of_the_exercises():
    assert pytest.approx(9.15) == 18.3 / 2
    assert 18.3 / (2 * math.log(2) ** 2) == pytest.approx(19.04, abs=0.005)
    assert 13.3 - 2 * math.log(16) == pytest.approx(7.755, abs=1e-3)
    levels = Discretized(16).encode(torch.arange(16)).double().view(1, 1, 16, 1)
    waves = nets.FourierFeatures((6, 7))(levels)[0, 1:, :, 0]
    assert_close(waves, waves[:, :1].expand(4, 16), rtol=0, atol=1e-6)  # all levels look alike
    faded = 64 * math.pi * gaussian.sigma(torch.tensor(13.3 - 2 * math.log(16)))
    assert (-0.5 * faded**2).exp() == pytest.approx(2e-4, rel=0.2)
    by_level = nets.FourierFeatures((2, 3))(levels)[0, 1:, :4, 0]
    assert torch.pdist(by_level.T).min() > 1
    assert (2 * 9 * 48**2, 2 * 9 * 80**2) == (41_472, 115_200)
    assert pytest.approx(32.5, abs=0.05) == 28**2 * 41_472 / 1e6
    assert pytest.approx(22.6, abs=0.05) == 14**2 * 115_200 / 1e6


def test_the_average_of_the_exercise():
    """d_k = k / (k + 19) has a mean age of a twentieth of the run."""
    share = torch.ones(1, dtype=FLOAT)
    for k in range(2, 401):
        d = k / (k + 19)
        share = torch.cat([d * share, torch.tensor([1 - d], dtype=FLOAT)])
    age = (share * (400 - torch.arange(1, 401))).sum()
    assert age == pytest.approx(400 / 20, rel=0.05)


def weights_in_the_average(overwrite: bool, steps: int = 400) -> list[float]:
    """Shares of the first weights and of those of each step, as diffusers' script had it, or not.

    https://github.com/huggingface/diffusers/issues/1864: each step computed one minus the decay,
    and wrote it over the limit of the decay.
    """
    limit, shares = 0.9999, [1.0]
    for k in range(1, steps + 1):
        step = 1 - min(limit, (1 + k) / (10 + k))
        limit = step if overwrite else limit
        shares = [share * (1 - step) for share in shares] + [step]
    return shares


@pytest.mark.parametrize(
    ("overwrite", "last", "age"),
    [(True, 0.5, 1.0), (False, 0.022, 40.1)],
    ids=["shipped", "mended"],
)
def test_an_average_whose_decay_overwrites_its_limit_is_none(overwrite, last, age):
    found = weights_in_the_average(overwrite)
    assert found[-1] == pytest.approx(last, abs=5e-4)
    assert sum(share * (400 - k) for k, share in enumerate(found)) == pytest.approx(age, abs=0.05)


def test_for_eight_steps_the_overwritten_decay_is_right():
    right, wrong = (weights_in_the_average(overwrite, 8) for overwrite in (False, True))
    assert wrong == pytest.approx(right)
    right, wrong = (weights_in_the_average(overwrite, 9) for overwrite in (False, True))
    assert wrong != pytest.approx(right)


def test_the_entropy_that_lossless_bits_lacked():
    """https://github.com/Kim-Dongjun/Soft-Truncation/issues/2: beta from 0.1 to 20, eps = 1e-5."""
    eps = 1e-5
    variance = -math.expm1(-(0.1 * eps + 19.9 * eps**2 / 2))
    bits = 0.5 * math.log2(2 * math.pi * math.e * variance)
    assert bits == pytest.approx(-7.92, abs=5e-3)
    assert -(bits + 7) == pytest.approx(0.92, abs=5e-3)


@pytest.fixture
def clean_axes():
    matplotlib.use("agg")
    with matplotlib.rc_context():
        figures.use_style()
        yield
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            plt.close(number)


def test_figures_draw_what_they_are_given(clean_axes):
    levels = torch.linspace(7, 13.3, 9)
    heard = {"a": levels / 20, "b": levels / 30}
    bits = dict.fromkeys("cde", levels / 15)
    left, right = ch12.grid_value(levels, levels / 14, heard, bits).axes
    assert len(left.lines) == 4 and len(right.lines) == 3
    drawing = ch12.unet(28, (48, 80, 96))
    assert len(drawing.patches) == 8
    dots = [line for line in drawing.lines if line.get_marker() == "o"]
    assert len(dots) == 6 and "attention" in [note.get_text() for note in drawing.texts]
    plt.figure()
    paths = {name: torch.rand(2, 9) for name in "abcd"}
    assert len(ch12.learned_ends(levels, paths, 12.3).lines) == 9
    plt.figure()
    assert len(ch12.level_costs(levels, {"a": levels, "b": 2 * levels}).lines) == 2
    plt.figure()
    rows = [{"step": 1.0, "loss": 4.0}, {"step": 2.0, "loss": 3.0, "bits_per_dim": 3.5}]
    assert len(ch12.run_log(rows, {"other": 2.0}).lines) == 3
    panels = {"a": torch.zeros(4, 1, 8, 8), "b": torch.zeros(4, 1, 8, 8)}
    assert len(ch12.data_and_samples(panels, 2).axes) == 2

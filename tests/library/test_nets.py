"""The denoisers' contract: (z, logsnr) -> y in the shape of z, for any device and float type."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vdm_lite.nets import (
    MLP,
    FourierFeatures,
    LogsnrEmbedding,
    Rungs,
    UNet,
    flat_decoder,
    flat_encoder,
    perceptron,
)
from vdm_lite.nets.unet import WIDEST

FLOATS = [torch.float32, torch.float64]


def small_unet(channels: int = 1) -> UNet:
    return UNet(channels, widths=(8, 12, 16), exponents=(3, 4))


NETS = [(lambda: MLP(2, hidden=16), (2,)), (small_unet, (1, 8, 12))]


def randomized(net: nn.Module) -> nn.Module:
    """The net with small random parameters: at initialization y is zero whatever goes in."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return net


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_unet_keeps_the_shape(batch, channels, height, width):
    z = torch.randn(batch, channels, 4 * height, 4 * width)
    assert small_unet(channels)(z, torch.zeros(batch)).shape == z.shape


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5))
def test_mlp_keeps_the_shape(batch, dim):
    assert MLP(dim, hidden=8)(torch.randn(batch, dim), torch.zeros(batch)).shape == (batch, dim)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (8, 12)])
def test_default_unet_takes_the_sizes_of_the_book(size):
    z = torch.randn(2, 1, *size)
    assert UNet()(z, torch.zeros(2)).shape == z.shape


@pytest.mark.parametrize("widths", [(8,), (6, 10), (8, 8, 8, 16)])
def test_unet_takes_any_widths(widths):
    z = torch.randn(2, 3, 16, 16)
    assert UNet(3, widths, blocks=2)(z, torch.zeros(2)).shape == z.shape


def test_the_widest_level_can_be_trained_in_4_gb():
    """Five numbers for each weight: itself, its gradient, two moments of Adam, its average."""
    with torch.device("meta"):
        widest = UNet(1, widths=(WIDEST,))
    assert 5 * 4 * sum(weight.numel() for weight in widest.parameters()) < 4e9


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("make", "shape"), NETS)
def test_float_type_is_kept(make, shape, dtype):
    net = make().to(dtype)
    assert net(torch.randn(2, *shape, dtype=dtype), torch.zeros(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_scalar_and_batched_logsnr_agree(make, shape):
    net, z = randomized(make()).double(), torch.randn(3, *shape, dtype=torch.float64)
    logsnr = torch.tensor(1.5, dtype=torch.float64)
    torch.testing.assert_close(net(z, logsnr), net(z, logsnr.expand(3)))


def test_embedding_tells_all_logsnr_apart():
    embedding = LogsnrEmbedding(32).double()(torch.linspace(-20, 20, 401, dtype=torch.float64))
    assert torch.pdist(embedding).min() > 0.01


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_output_is_zero_at_the_start(make, shape):
    assert (make()(torch.randn(2, *shape), torch.zeros(2)) == 0).all()


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_gradients_reach_every_parameter(make, shape):
    net = randomized(make())
    net(torch.randn(4, *shape), torch.linspace(-5, 10, 4)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_examples_do_not_see_one_another(make, shape):
    net = randomized(make()).double()
    z = torch.randn(4, *shape, dtype=torch.float64)
    logsnr = torch.linspace(-5, 10, 4, dtype=torch.float64)
    changed = torch.cat([z[:1], 9 * z[1:].flip(0)]), torch.cat([logsnr[:1], -logsnr[1:]])
    torch.testing.assert_close(net(z, logsnr)[0], net(*changed)[0])


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_no_tensor_is_made_on_another_device(make, shape):
    net = make().to("meta")
    z, logsnr = torch.empty(2, *shape, device="meta"), torch.empty(2, device="meta")
    net(z, logsnr).sum().backward()
    assert {p.grad.device.type for p in net.parameters()} == {"meta"}


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_autocast_leaves_the_logsnr_embedding_alone(make, shape):
    net, z, logsnr = randomized(make()), torch.randn(2, *shape), torch.tensor([-5.0, 13.3])
    with torch.autocast("cpu", torch.bfloat16):
        y, embedding = net(z, logsnr), net.embedding(logsnr)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(embedding, net.embedding(logsnr), rtol=0, atol=0)
    torch.testing.assert_close(y.float(), net(z, logsnr), rtol=0.1, atol=0.1)


def test_fourier_features_by_hand():
    z = torch.tensor([[0.25, -0.5]])
    root = 0.5**0.5
    expected = [[0.25, -0.5, root, -1, root, 0, 1, 0, 0, -1]]  # z, sin, cos of pi z, of 2 pi z
    torch.testing.assert_close(FourierFeatures((0, 1))(z), torch.tensor(expected))


def test_logsnr_embedding_has_one_row_an_example():
    embedding = LogsnrEmbedding(8)
    assert embedding(torch.tensor(0.0)).shape == (1, 8)
    assert embedding(torch.zeros(3)).shape == (3, 8)


@pytest.mark.parametrize(
    ("net", "z", "logsnr", "message"),
    [
        (MLP(2), torch.zeros(3, 4), torch.zeros(3), r"z: expected shape \(B, 2\), got \(3, 4\)"),
        (MLP(2), torch.zeros(2), torch.zeros(()), r"z: expected shape \(B, 2\), got \(2,\)"),
        (MLP(2), torch.zeros(3, 2), torch.zeros(2), r"logsnr: expected shape .* got \(2,\)"),
        (MLP(2), torch.zeros(3, 2), torch.zeros(3, 1), r"logsnr: expected .* got \(3, 1\)"),
        (MLP(2), torch.zeros(3, 2).long(), torch.zeros(3), r"z: expected a floating-point"),
        (MLP(2), torch.zeros(3, 2), torch.zeros(3).long(), r"logsnr: expected a floating-point"),
        (UNet(), torch.zeros(3, 28, 28), torch.zeros(3), r"z: expected shape \(B, 1, H, W\)"),
        (UNet(), torch.zeros(3, 2, 8, 8), torch.zeros(3), r"z: expected shape \(B, 1, H, W\)"),
        (UNet(), torch.zeros(3, 1, 8, 6), torch.zeros(3), r"z: .* divisible by 4, got \(3, 1, 8"),
        (UNet(), torch.zeros(3, 1, 8, 8).int(), torch.zeros(3), r"z: .*floating-point.*int32"),
    ],
)
def test_errors_name_the_argument(net, z, logsnr, message):
    with pytest.raises(ValueError, match=message):
        net(z, logsnr)


def test_perceptron_without_hidden_layers_is_linear():
    net, (a, b) = perceptron(3, 2, depth=0), torch.randn(2, 5, 3)
    torch.testing.assert_close(net(a) + net(b) - net(a + b), net(torch.zeros(5, 3)))
    with pytest.raises(ValueError, match="depth: expected a whole number >= 0, got -1"):
        perceptron(3, 2, depth=-1)
    assert [m.out_features for m in perceptron(3, 2, 7) if isinstance(m, nn.Linear)] == [7, 7, 2]


def test_flat_networks_carry_images():
    x = torch.randn(4, 2, 3, 5)
    code = flat_encoder(x.shape[1:], 6, width=8)(x)
    assert code.shape == (4, 6)
    assert flat_decoder(6, x.shape[1:], 2, width=8)(code).shape == (4, 4, 3, 5)
    assert flat_decoder(6, (7,), width=8)(code).shape == (4, 7)


def test_each_rung_sends_its_message_and_climbs_on_the_one_below():
    net, x = Rungs((1, 4, 4), (5, 3, 2), width=8), torch.randn(6, 1, 4, 4)
    before = net(x)
    assert [message.shape for message in before] == [(6, 10), (6, 6), (6, 4)]
    with torch.no_grad():
        net.climbs[1][0].weight.add_(1.0)
    after = net(x)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, True]

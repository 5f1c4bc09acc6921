"""The palette can be told apart by everybody, and every helper draws what it is given."""

from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from vdm_lite import data, figures
from vdm_lite.elbo import Elbo
from vdm_lite.figures import COLORS, graphs
from vdm_lite.figures.graphs import Edge, Graph, Node, Plate

matplotlib.use("agg")

# Machado, Oliveira & Fernandes 2009, full severity, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def ax():
    with matplotlib.rc_context():
        figures.use_style()
        figure, ax = plt.subplots()
        yield ax
        figure.canvas.draw()
        plt.close(figure)


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colors_can_be_told_apart(vision):
    seen = {name: lab(VISION[vision] @ linear(color)) for name, color in COLORS.items()}
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 20, (a, b)


@pytest.mark.parametrize("name", COLORS)
def test_colors_stand_out_from_the_panel(name):
    luminance = linear(COLORS[name]) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3


def test_figures_keep_a_white_panel(ax):
    assert to_rgb(ax.figure.get_facecolor()) == (1, 1, 1)
    assert matplotlib.rcParams["savefig.facecolor"] == "white"


def test_shades_run_from_dark_to_light():
    light = [linear(color[:3]) @ [0.2126, 0.7152, 0.0722] for color in figures.shades(6)]
    assert light == sorted(light)
    assert len(figures.shades(1)) == 1


def picture(ax):
    return np.asarray(ax.images[0].get_array())


def test_image_grid_places_every_image(ax):
    images = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 1, 2, 3)
    shown = picture(figures.image_grid(images, columns=3, levels=5, ax=ax))
    assert shown.shape == (2 * 3 - 1, 3 * 4 - 1, 3)
    assert shown[0, 0, 0] == 0 and shown[0, 4, 0] == 0.25 and shown[3, 4, 0] == 1
    assert (shown[2] == 1).all() and (shown[3:, 8:] == 1).all()  # gaps and the empty place


def test_image_grid_takes_floats_and_colors(ax):
    images = torch.tensor([-1.0, 0.0, 7.0]).reshape(1, 3, 1, 1).expand(2, 3, 8, 12)
    shown = picture(figures.image_grid(images, ax=ax))
    assert shown.shape == (8, 25, 3)
    np.testing.assert_allclose(shown[0, 0], [0, 0.5, 1])


def test_elbo_bars_add_up(ax):
    cost = torch.tensor([1.0, 3.0])
    layers = torch.ones(2, 4)
    figures.elbo_bars({"A": Elbo(cost, 2 * cost, 3 * cost), "B": Elbo(cost, cost, layers)}, ax=ax)
    ends = [patch.get_x() + patch.get_width() for patch in ax.patches]
    np.testing.assert_allclose(ends[-2:], [12, 8])
    assert [text.get_text() for text in ax.texts] == ["12", "8"]
    assert ax.get_xlabel() == "nats"


def test_elbo_bars_in_bits_per_dim(ax):
    one = torch.full((3,), np.log(2) * 64)
    figures.elbo_bars({"A": Elbo(one, one, one)}, dims=64, ax=ax)
    assert ax.texts[0].get_text() == "3" and ax.get_xlabel() == "bits/dim"


def test_graphical_model_draws_nodes_and_arrows(ax):
    nodes = {"z": Node(0, 1, "$z_1$"), "x": Node(0, 0, "$x$", "data", observed=True)}
    edges = [Edge("z", "x"), Edge("x", "z", dashed=True, bend=0.4)]
    graphs.graphical_model(Graph(nodes, edges, [Plate(["z", "x"], "$N$")]), ax)
    assert len(ax.patches) == 5
    assert {text.get_text() for text in ax.texts} == {"$z_1$", "$x$", "$N$"}
    with pytest.raises(KeyError, match="y"):
        graphs.graphical_model(Graph(nodes, [Edge("z", "y")]), ax)


def test_inference_runs_up_or_down_and_generation_down():
    latents = ["a", "b", "c"]
    arrows = {
        build.__name__: {(edge.start, edge.end) for edge in build(latents).edges}
        for build in (graphs.generation, graphs.bottom_up, graphs.top_down)
    }
    down = {("c", "b"), ("b", "a")}
    assert arrows["generation"] == down | {("a", "$x$")}
    assert arrows["bottom_up"] == {(b, a) for a, b in arrows["generation"]}
    assert arrows["top_down"] == down | {("$x$", latent) for latent in latents}


def test_trajectories_scatter_and_density(ax):
    figures.trajectories([1.0, 0.5, 0.0], torch.randn(3, 7, requires_grad=True), ax)
    assert len(ax.lines) == 7 and ax.get_xlim() == (1, 0)
    toy = data.moons()
    figures.density(toy.log_prob, ax=figures.scatter(toy.sample(10), ax=ax))
    assert ax.images[0].get_array().shape == (200, 200)

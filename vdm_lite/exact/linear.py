r"""Linear-Gaussian hierarchies: likelihood, posterior and the best simpler posteriors, exactly.

::

    z_T ~ N(0, I),    z_{t-1} = W_t z_t + s_t eps,  eps ~ N(0, I),    t = T … 1,  with z_0 = x

One layer is probabilistic principal component analysis, the linear VAE (Tipping and Bishop 1999).
The latents of all layers are one vector (B, n) with n = n_1 + … + n_T, z_1 first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vdm_lite import checks
from vdm_lite.checks import checked
from vdm_lite.elbo import Elbo

STARTS = 4  # of the searches for the smallest gap


class LinearHierarchy:
    """``weights`` are W_1 (D, n_1), W_2 (n_1, n_2), …; ``stds`` are s_1, s_2, … > 0.

    Raises ``ValueError`` for sizes that do not fit each other, for matrices of unlike dtype or
    device, and for widths that are not positive.
    """

    def __init__(self, weights: Sequence[Tensor], stds: Sequence[float]) -> None:
        checks.chain("weights", weights)
        checks.widths("stds", stds, weights)
        self.weights, self.stds = tuple(weights), tuple(stds)
        self.sizes = [weight.shape[1] for weight in weights]

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw data x (n, D) and the latents (n, n_1 + … + n_T) that made them."""
        checks.count("n", n)
        like = self.weights[0]
        options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        layers = [torch.randn(n, self.sizes[-1], generator=generator, **options)]
        for weight, std in self._downwards():
            noise = torch.randn(n, len(weight), generator=generator, **options)
            layers.insert(0, layers[0] @ weight.T + std * noise)
        return layers[0], torch.cat(layers[1:], 1)

    def covariance(self) -> Tensor:
        """Of p(x) = N(0, C_0): ``C_T = I``, ``C_{t-1} = W_t C_t W_t^T + s_t^2 I``. (D, D)."""
        covariance = self._eye(self.sizes[-1])
        for weight, std in self._downwards():
            covariance = weight @ covariance @ weight.T + std**2 * self._eye(len(weight))
        return covariance

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)`` in nats, (B,), for x (B, D) (eq-linear-evidence).

        It is the average of p(x | z) over the prior (eq-evidence).
        """
        covariance = self.covariance()
        self._check(x)
        return MultivariateNormal(covariance.new_zeros(len(covariance)), covariance).log_prob(x)

    def precision(self) -> Tensor:
        """The precision of p(z_{1:T} | x), which no x changes: (n, n) (eq-linear-posterior).

        With two layers its block of z_1 and the precision without z_2 are those of
        (eq-toy-precisions).
        """
        scaled = [self._read(len(self.sizes)), self.weights[0] @ self._read(1) / self.stds[0]]
        scaled += [self._residual(t) / self.stds[t] for t in range(1, len(self.sizes))]
        return torch.cat(scaled).T @ torch.cat(scaled)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """The exact p(z_{1:T} | x), (B, n) (eq-linear-posterior)."""
        return self._around_the_mean(x, torch.linalg.inv(self.precision()))

    def mean_field(self, x: Tensor) -> MultivariateNormal:
        """The q of independent coordinates with the least ``KL(q || p(z_{1:T} | x))``.

        The mean is exact, and ``var_i = 1 / P_ii`` with P the precision (eq-mean-field).
        """
        return self._around_the_mean(x, torch.diag(1 / self.precision().diagonal()))

    def top_down(self, x: Tensor, diagonal: bool = True) -> MultivariateNormal:
        """The ``q(z_T | x) prod q(z_{t-1} | z_t, x)`` with the least ``KL(q || p(z_{1:T} | x))``.

        Without ``diagonal`` it is the exact posterior (eq-posterior-directions).

        With full covariances (``diagonal=False``) it is exact: the posterior is such a chain.
        """
        return self._chain(x, range(len(self.sizes), 0, -1), diagonal)

    def bottom_up(self, x: Tensor, diagonal: bool = True) -> MultivariateNormal:
        """The ``q(z_1 | x) prod q(z_t | z_{t-1})`` with the least ``KL(q || p(z_{1:T} | x))``.

        Without ``diagonal`` it is the exact posterior (eq-posterior-directions). What a layer knows
        of x cannot rise with the layers (eq-information-order).

        With full covariances (``diagonal=False``) it is exact: upwards, too, the posterior is a
        chain, and above z_1 it does not look at x again.
        """
        return self._chain(x, range(1, len(self.sizes) + 1), diagonal)

    def gap(self, x: Tensor, q: MultivariateNormal) -> Tensor:
        """``KL(q || p(z_{1:T} | x)) = log p(x) - ELBO``, in nats: (B,) (eq-evidence-gap).

        For the variances of :meth:`mean_field` and any mean it is the approximation gap and the
        amortization gap (eq-amortization).
        """
        self._check_both(x, q)
        return kl_divergence(q, self.posterior(x))

    def elbo(self, x: Tensor, q: MultivariateNormal) -> Elbo:
        """The exact costs of a Gaussian ``q`` that is a chain of layers, in nats (eq-layered-elbo).

        Averaged over data, ``-ELBO`` less their entropy is KL(q(x, z) || p(x, z)) (eq-joint-kl).

        ``prior`` (B,) is ``KL(q(z_T | x) || N(0, I))``; ``diffusion`` (B, T - 1) holds the expected
        ``KL(q(z_t | z_{t+1}, x) || p(z_t | z_{t+1}))`` of z_1 … z_{T-1}.
        """
        self._check_both(x, q)
        top = self._read(len(self.sizes))
        prior = kl_divergence(_image(q, top), _standard(top))
        costs = [self._layer_cost(q, t) for t in range(1, len(self.sizes))]
        layers = torch.stack(costs, 1) if costs else prior.new_zeros(len(prior), 0)
        decode = self.weights[0] @ self._read(1)
        return Elbo(prior, _expected_cost(q, decode, x, self.stds[0]), layers)

    def _layer_cost(self, q: MultivariateNormal, t: int) -> Tensor:
        """``E[log q(z_t | z_{t+1}, x) - log p(z_t | z_{t+1})]``: (B,)."""
        above = self._read(t + 1)
        both = torch.cat([self._read(t), above])
        entropy = _image(q, both).entropy() - _image(q, above).entropy()
        return _expected_cost(q, self._residual(t), 0, self.stds[t]) - entropy

    def _chain(self, x: Tensor, order: Iterable[int], diagonal: bool) -> MultivariateNormal:
        """Give each layer, in ``order``, the exact regression on the layer before.

        The noise of the regression keeps its covariance, or becomes diagonal with the variances
        that minimize the KL divergence, the inverse of the precision's diagonal.
        """
        exact = torch.linalg.inv(self.precision())
        response = exact[:, :0]  # z - mean = response @ independent noises
        before = exact[:0]  # reads the layer before: nothing yet
        for t in order:
            read = self._read(t)
            cross = before @ exact @ read.T
            gain = torch.linalg.solve(before @ exact @ before.T, cross).T
            noise = read @ exact @ read.T - gain @ cross
            if diagonal:
                noise = torch.diag(1 / torch.linalg.inv(noise).diagonal())
            response = response + read.T @ gain @ before @ response
            response = torch.cat([response, read.T @ torch.linalg.cholesky(noise)], 1)
            before = read
        return self._around_the_mean(x, response @ response.T)

    def _around_the_mean(self, x: Tensor, covariance: Tensor) -> MultivariateNormal:
        self._check(x)
        gain = self.weights[0] @ self._read(1) / self.stds[0] ** 2  # (D, n)
        mean = torch.linalg.solve(self.precision(), (x @ gain).T).T
        return MultivariateNormal(mean, (covariance + covariance.T) / 2)

    def _read(self, t: int) -> Tensor:
        """The matrix (n_t, n) that reads z_t out of the vector of all latents."""
        return self._eye(sum(self.sizes)).split(self.sizes)[t - 1]

    def _residual(self, t: int) -> Tensor:
        """The matrix of ``z_t - W_{t+1} z_{t+1}``, (n_t, n)."""
        return self._read(t) - self.weights[t] @ self._read(t + 1)

    def _eye(self, size: int) -> Tensor:
        like = self.weights[0]
        return torch.eye(size, dtype=like.dtype, device=like.device)

    def _downwards(self) -> Iterable[tuple[Tensor, float]]:
        return zip(reversed(self.weights), reversed(self.stds), strict=True)

    def _check(self, x: Tensor) -> None:
        checks.examples("x", x)
        checks.of_dtype("x", x, self.weights[0])
        checks.sizes("x", x, ("B", len(self.weights[0])))

    def _check_both(self, x: Tensor, q: MultivariateNormal) -> None:
        self._check(x)
        shape = (len(x), sum(self.sizes))
        checks.sizes("q", q.mean, shape, f"a Gaussian of shape {shape}")


@checked(covariance=checks.square, latents=checks.count, std=checks.positive_number)
def probabilistic_pca(covariance: Tensor, latents: int, std: float) -> LinearHierarchy:
    """The linear VAE of greatest likelihood for data of this ``covariance`` (D, D) (eq-ppca).

    ``W = U (Lambda - std^2 I)^(1/2)`` of the largest eigenvalues; a direction whose variance is
    below ``std^2`` gets weight zero: its latent collapses (Tipping and Bishop 1999). Raises
    ``ValueError`` unless the matrix is square, ``latents <= D`` and ``std > 0``.
    """
    dims = len(covariance)
    checks.require(latents <= dims, "latents", f"at most {dims}", latents)
    values, vectors = torch.linalg.eigh(covariance)  # rising
    scale = (values - std**2).clamp(min=0).sqrt()
    return LinearHierarchy([(vectors * scale).flip(1)[:, :latents]], [std])


def smallest_gap(model: LinearHierarchy, sees: Tensor, links: Tensor) -> Tensor:
    """The least ``E_p(x) KL(q || p(z_{1:T} | x))`` of a linear-Gaussian q with these arrows: ().

    Under q, ``z_i = k_i x + sum_j l_ij z_j + e_i`` with independent Gaussian noise e. ``sees`` (n,)
    says which coordinates of z depend on x, ``links`` (n, n) where l_ij may differ from 0; without
    cycles, else ``ValueError``. In nats, in float64 to about nine digits (fewer where the posterior
    is nearly degenerate). The best k and noise for given l are closed forms; l is the best that
    L-BFGS finds from several starts, as there can be several valleys.
    """
    n = sum(model.sizes)
    checks.sizes("sees", sees, (n,), f"shape ({n},)")
    checks.sizes("links", links, (n, n), f"shape {(n, n)}")
    sees, links = sees != 0, links != 0
    precision, covariance = model.precision(), model.covariance()
    no_cycle = not links.to(precision).matrix_power(n).any()
    checks.require(no_cycle, "links", "no cycle", "one")
    eye = torch.eye(n).to(precision)
    exact = model.posterior(torch.eye(len(covariance)).to(precision)).mean.T
    spread = exact @ covariance @ exact.T  # of the posterior's mean, exact @ x

    def gap(weights: Tensor) -> Tensor:
        # z = flow @ (k x + e): the best noise has variance 1 / power_ii, the best k fits the mean.
        flow = torch.linalg.inv(eye - (0 * eye).masked_scatter(links, weights))
        heard = precision @ flow
        power, read = flow.T @ heard, heard[:, sees]
        mended = torch.linalg.solve(power[sees][:, sees], read.T @ spread @ read).trace()
        noise = power.diagonal().log().sum() - precision.logdet()
        return 0.5 * (noise + (precision * spread).sum() - mended)

    starts = torch.randn(STARTS, int(links.sum()), generator=torch.Generator().manual_seed(0))
    starts[0] = 0
    return torch.stack([_minimum(gap, start.to(precision)) for start in starts]).min()


def _minimum(function: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The least value of a smooth function that a search from ``start`` (k,) finds."""
    argument = start.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [argument],
        max_iter=2000,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = function(argument)
        value.backward()
        return value

    if len(start) > 0:
        optimizer.step(closure)
    return function(argument).detach()


def _image(q: MultivariateNormal, matrix: Tensor) -> MultivariateNormal:
    """The distribution of ``matrix @ z``."""
    covariance = matrix @ q.covariance_matrix @ matrix.T
    return MultivariateNormal(q.mean @ matrix.T, (covariance + covariance.mT) / 2)


def _standard(read: Tensor) -> MultivariateNormal:
    return MultivariateNormal(read.new_zeros(len(read)), torch.eye(len(read)).to(read))


def _expected_cost(
    q: MultivariateNormal, matrix: Tensor, target: Tensor | int, std: float
) -> Tensor:
    """``E_q[-log N(target; matrix @ z, std^2 I)]``, in nats: (B,)."""
    spread = (matrix @ q.covariance_matrix @ matrix.T).diagonal(dim1=-2, dim2=-1)
    square = ((target - q.mean @ matrix.T).square() + spread).sum(-1)
    return 0.5 * (len(matrix) * math.log(2 * math.pi * std**2) + square / std**2)

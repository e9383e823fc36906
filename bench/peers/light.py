"""Times a training step of a light Schroedinger bridge in PyTorch.

    light.py --problem FOLDER --out FOLDER [--threads T]

FOLDER holds problem.json and, in float32, the data sets source.npy (N0, d) and
target.npy (N1, d), parameters logits.npy (K), means.npy (K, d) and
logscales.npy (K, d), and one batch: x0.npy and x1.npy (B, d) of method lightsb,
xt.npy and u.npy (B, d) and t.npy (B) of lightsb-m, or x0.npy, x1.npy, noise.npy
and t.npy of lightsbb-m. A step draws a batch of the data sets, which lie in
memory, and descends by Adam on

    lightsb     mean log c(x0) - mean log v(x1)
    lightsb-m   mean |g(t, xt) - u|^2 over rows and coordinates
    lightsbb-m  the same between y0 = Z(0, x0) and y1 = Z(1 - safe, x1)

for v(y) = sum_j exp(la_j) N(y | r_j, epsilon S_j), S_j diagonal. These are the
methods of the authors' programs (github.com/ngushchin/LightSB, src/light_sb.py
and notebooks; github.com/SKholkin/LightSB-Matching, src/lightsbm.py; the paper
of LightSBB-M, arXiv 2601.19312), written anew from their formulas without what
they only log. Every method is there as published, and as one who knows PyTorch
would write the same step. Each runs on one thread and on T, and the faster is
kept. Times are of a step, in blocks of steps; imports and warm-up are not
counted.

For every way, loss and gradient of the given batch at the given parameters are
written to WAY.f32.npy and WAY.f64.npy, [loss, dla (K), dr (K, d), dlogS (K, d)],
for lightsbb-m also y0.npy, y1.npy, xt.npy and u.npy, and what happened is printed
as one line of JSON.
"""

import argparse
import json
import math
import os
import sys
import time


class Mixture:
    """The parameters. LightSB keeps epsilon log alpha, so that a step of Adam on
    log alpha is one of rate / epsilon; LightSB-M keeps log alpha itself."""

    def __init__(self, torch, problem, dtype):
        self.epsilon = problem.epsilon
        self.unit = problem.epsilon if problem.method == "lightsb" else 1.0
        self.raw = (self.unit * problem.logits.to(dtype)).requires_grad_()
        self.r = problem.means.to(dtype, copy=True).requires_grad_()
        self.log_s = problem.log_scales.to(dtype, copy=True).requires_grad_()

    def parameters(self):
        return [self.raw, self.r, self.log_s]

    @classmethod
    def of(cls, epsilon, unit, raw, r, log_s):
        m = cls.__new__(cls)
        m.epsilon, m.unit, m.raw, m.r, m.log_s = epsilon, unit, raw, r, log_s
        return m

    def detached(self):
        """The same values without gradients."""
        return self.of(self.epsilon, self.unit, *(p.detach() for p in self.parameters()))

    def log_alpha(self):
        return self.raw / self.unit

    def gradient(self, torch, loss):
        raw, r, log_s = torch.autograd.grad(loss, self.parameters())
        return torch.cat([loss.detach()[None], raw * self.unit, r.flatten(), log_s.flatten()])


# ---- LightSB


def likelihood_published(torch, m, x0, x1):
    """Arrays (B, K, d)."""
    s, eps = m.log_s.exp(), m.epsilon
    x = x0[:, None, :]
    log_c = ((x * s * x).sum(-1) + 2 * (x * m.r).sum(-1)) / (2 * eps) + m.log_alpha()
    z = (x1[:, None, :] - m.r) / (eps * s).sqrt()
    log_v = m.log_alpha() + (-0.5 * z**2 - 0.5 * m.log_s - 0.5 * math.log(2 * math.pi * eps)).sum(-1)
    return (torch.logsumexp(log_c, -1) - torch.logsumexp(log_v, -1)).mean()


def likelihood_products(torch, m, x0, x1):
    """The quadratic forms by matrix products, arrays (B, K)."""
    s, eps = m.log_s.exp(), m.epsilon
    over = (-m.log_s).exp()
    log_c = torch.addmm(m.log_alpha(), torch.cat([x0 * x0, x0], 1), torch.cat([s / (2 * eps), m.r / eps], 1).T)
    constant = m.log_alpha() - 0.5 * (m.r * m.r * over / eps + m.log_s).sum(-1)
    log_v = torch.addmm(constant, torch.cat([x1 * x1, x1], 1), torch.cat([-over / (2 * eps), m.r * over / eps], 1).T)
    d = x0.shape[1]
    return (torch.logsumexp(log_c, -1) - torch.logsumexp(log_v, -1)).mean() + 0.5 * d * math.log(2 * math.pi * eps)


# ---- LightSB-M


def matching_published(torch, m, xt, u, t):
    """The drift is differentiated from log h by autograd, which is then itself
    differentiated. Arrays (B, K, d)."""
    eps, s = m.epsilon, m.log_s.exp()
    x = xt.clone().requires_grad_()
    a = (t / (eps * (1 - t)))[:, None, None] + 1 / (eps * s)
    h = (x / (eps * (1 - t))[:, None])[:, None, :] + m.r / (eps * s)
    log_h = (
        m.log_alpha() - 0.5 * m.log_s.sum(-1) - 0.5 * a.log().sum(-1)
        - 0.5 * (m.r**2 / (eps * s)).sum(-1) + 0.5 * (h * h / a).sum(-1)
    ).logsumexp(-1)
    score = torch.autograd.grad(log_h.sum(), x, create_graph=True)[0]
    drift = eps * score - x / (1 - t)[:, None]
    return torch.nn.functional.mse_loss(drift, u)


def matching_closed(torch, m, xt, u, t):
    """The drift in closed form, sum_j w_j g_j with g_j = D_j^-1 (r_j + (S_j - 1) x)
    and D_j = 1 - t + t S_j. The softmax is of

        la_j + sum [2 r x + (S - 1) x^2 - t r^2] / (2 epsilon D) - 1/2 log D

    Arrays are (d, K, B) for small d, so that neither sums nor broadcasts run over
    a short last axis, and (B, K, d) otherwise."""
    eps, few = m.epsilon, xt.shape[1] < 32
    less = m.log_s.expm1()  # S - 1
    if few:
        x, r, less, sides = xt.T.contiguous()[:, None, :], m.r.T[:, :, None], less.T[:, :, None], t
    else:
        x, r, sides = xt[:, None, :], m.r, t[:, None, None]
    over = torch.reciprocal(1 + sides * less)
    pull = torch.addcmul(r, less, x)
    g = pull * over
    form = (torch.addcmul(x * pull, r, x - sides * r) * over + eps * over.log()).sum(0 if few else -1) / (2 * eps)
    if few:
        w = torch.softmax(m.log_alpha()[:, None] + form, 0)
        return torch.nn.functional.mse_loss((w * g).sum(1), u.T)
    w = torch.softmax(m.log_alpha() + form, 1)
    return torch.nn.functional.mse_loss(torch.bmm(w[:, None, :], g)[:, 0], u)


# ---- LightSBB-M


def drift(torch, m, t, x):
    """g(t, x) = sum_j w_j g_j for one t, as in matching_closed."""
    less, r = m.log_s.expm1(), m.r
    over = torch.reciprocal(1 + t * less)
    x = x[:, None, :]
    pull = torch.addcmul(r, less, x)
    form = (torch.addcmul(x * pull, r, x - t * r) * over + m.epsilon * over.log()).sum(-1) / (2 * m.epsilon)
    w = torch.softmax(m.log_alpha() + form, 1)
    return torch.bmm(w[:, None, :], pull * over)[:, 0]


class Inverse:
    """The network Z(t, x) that inverts the transport map y + g(t, y) / beta of a
    potential held fixed, for moderate beta. From beta = 100 on, the authors'
    program takes x - g(t, x) / beta instead; no published figure needs that, and
    it is not here. Our own inverse is exact, by Newton's method, at t = 1 and not
    at 1 - safe, and its S have a floor, without which narrow modes make the map
    not invertible.

    Widths are those of the program; that of the last hidden layer was not to be
    had, and is that of x."""

    def __init__(self, torch, problem):
        d = problem.source.shape[1]
        tm, dm = (8, 32) if d <= 8 else (32, 128)
        nn = torch.nn
        self.times = nn.Sequential(nn.Linear(1, tm), nn.LayerNorm(tm), nn.GELU(), nn.Linear(tm, tm))
        self.points = nn.Sequential(nn.Linear(d, dm), nn.LayerNorm(dm), nn.GELU(), nn.Linear(dm, dm))
        self.both = nn.Sequential(nn.Linear(dm + tm, dm), nn.SiLU(), nn.Linear(dm, d))
        self.all = nn.ModuleList([self.times, self.points, self.both]).to(problem.source.device)
        self.beta, self.last = problem.beta, 1 - problem.safe
        self.adam = torch.optim.Adam(self.all.parameters(), lr=problem.rate, fused=True)

    def __call__(self, torch, t, x):
        times = self.times(torch.full((1, 1), t, device=x.device)).expand(len(x), -1)
        return self.both(torch.cat([self.points(x), times], 1))

    def loss(self, torch, fixed, x0, x1):
        """Data points stand in for the points y."""
        total = 0
        for t, y in ((0.0, x0), (self.last, x1)):
            with torch.no_grad():
                image = y + drift(torch, fixed, t, y) / self.beta
            total = total + ((self(torch, t, image) - y) ** 2).sum(1).mean()
        return total

    def fit(self, torch, fixed, x0, x1):
        """One step of the fit."""
        value = self.loss(torch, fixed, x0, x1)
        self.adam.zero_grad(set_to_none=True)
        value.backward()
        self.adam.step()
        return value


WAYS = {
    "lightsb": {"published": likelihood_published, "matrix products": likelihood_products},
    "lightsb-m": {"published": matching_published, "closed-form drift": matching_closed},
    "lightsbb-m": {"published": matching_published, "closed-form drift": matching_closed},
}


class Problem:
    def __init__(self, torch, folder, device="cpu"):
        import numpy as np

        def load(name):
            return torch.from_numpy(np.load(os.path.join(folder, name + ".npy"))).to(device)

        with open(os.path.join(folder, "problem.json")) as f:
            spec = json.load(f)
        self.method, self.epsilon, self.rate = spec["method"], float(spec["epsilon"]), float(spec["rate"])
        self.safe, self.batch = float(spec["safe"]), int(spec["batch"])
        self.block, self.seconds = int(spec["block"]), float(spec["seconds"])
        self.beta, self.clip = float(spec.get("beta", "inf")), float(spec.get("clip", 0))
        self.source, self.target = load("source"), load("target")
        self.logits, self.means, self.log_scales = load("logits"), load("means"), load("logscales")
        self.inverse = None
        if self.method == "lightsbb-m":
            self.inverse = Inverse(torch, self)
            self.ends, self.noise, self.t = (load("x0"), load("x1")), load("noise"), load("t")
        else:
            self.given = [load(name) for name in (("x0", "x1") if self.method == "lightsb" else ("xt", "u", "t"))]

    def pairs(self, torch):
        """A batch of the data sets."""
        n, device = self.batch, self.source.device
        x0 = self.source.index_select(0, torch.randint(len(self.source), (n,), device=device))
        x1 = self.target.index_select(0, torch.randint(len(self.target), (n,), device=device))
        return x0, x1

    def pulled(self, torch, x0, x1):
        """The endpoints of the alternation."""
        with torch.no_grad():
            return self.inverse(torch, 0.0, x0), self.inverse(torch, self.inverse.last, x1)

    def bridge(self, torch, x0, x1, t, noise):
        """A point of the Brownian bridge, and where it is drawn to."""
        xt = torch.lerp(x0, x1, t).addcmul_((self.epsilon * t * (1 - t)).sqrt(), noise)
        return xt, (x1 - xt) / (1 - t), t[:, 0]

    def draw(self, torch):
        """A batch, as the loss of the method takes it."""
        x0, x1 = self.pairs(torch)
        if self.method == "lightsb":
            return x0, x1
        if self.inverse:
            x0, x1 = self.pulled(torch, x0, x1)
        t = torch.rand(self.batch, 1, device=x0.device) * (1 - self.safe)
        return self.bridge(torch, x0, x1, t, torch.randn_like(x0))

    def settle(self, torch, out):
        """Fits the inverse of the alternation a little, so that endpoints are no
        nonsense, and derives the given batch from it. Answers seconds of a step of
        the fit."""
        import numpy as np

        fixed = Mixture(torch, self, torch.float32).detached()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(self.block):
                self.inverse.fit(torch, fixed, *self.pairs(torch))
            float(self.inverse.loss(torch, fixed, *self.pairs(torch)).detach())  # waits for the device
            times.append((time.perf_counter() - start) / (self.block + 1))
        y0, y1 = self.pulled(torch, *self.ends)
        self.given = list(self.bridge(torch, y0, y1, self.t[:, None], self.noise))
        for name, a in (("y0", y0), ("y1", y1), ("xt", self.given[0]), ("u", self.given[1])):
            np.save(os.path.join(out, name + ".npy"), a.cpu().numpy())
        return min(times)


def versions(torch):
    import numpy

    return f"PyTorch {torch.__version__}, NumPy {numpy.__version__}"


def gradient(torch, problem, loss, dtype):
    m = Mixture(torch, problem, dtype)
    return m.gradient(torch, loss(torch, m, *(a.to(dtype) for a in problem.given)))


def measure(torch, problem, loss, seconds):
    """Seconds of a step, for blocks of steps until so many seconds have passed."""
    torch.manual_seed(0)
    m = Mixture(torch, problem, torch.float32)
    adam = torch.optim.Adam(m.parameters(), lr=problem.rate, fused=True)

    def block(steps):
        start = time.perf_counter()
        for _ in range(steps):
            value = loss(torch, m, *problem.draw(torch))
            adam.zero_grad(set_to_none=True)
            value.backward()
            if problem.clip:
                torch.nn.utils.clip_grad_norm_(m.parameters(), problem.clip)
            adam.step()
        took = time.perf_counter() - start
        if not math.isfinite(float(value.detach())):
            raise ArithmeticError("the loss is not finite")
        return took

    block(3)
    times = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(block(problem.block))
    return [t / problem.block for t in times]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--problem", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    # Before any library starts its threads.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[v] = str(args.threads)
    import numpy as np
    import torch

    torch.manual_seed(0)
    problem = Problem(torch, args.problem)
    answers, fit = [], None
    if problem.inverse:
        fit = problem.settle(torch, args.out)
    for way, loss in WAYS[problem.method].items():
        for name, dtype in (("f32", torch.float32), ("f64", torch.float64)):
            g = gradient(torch, problem, loss, dtype)
            np.save(os.path.join(args.out, f"{way}.{name}.npy"), g.numpy())
        trial = {}
        for threads in {1, args.threads}:
            torch.set_num_threads(threads)
            trial[threads] = sorted(measure(torch, problem, loss, problem.seconds / 8))
            print(f"{way}: {threads} threads: {trial[threads][0]:.3g} s a step", file=sys.stderr)
        threads = min(trial, key=lambda n: trial[n][len(trial[n]) // 2])
        torch.set_num_threads(threads)
        answers.append({"way": way, "threads": threads, "seconds": measure(torch, problem, loss, problem.seconds)})
    print(json.dumps({"version": versions(torch), "fit": fit, "answers": answers}))


if __name__ == "__main__":
    main()

"""Solves one entropic transport problem with another library, and times it.

    solve.py --peer NAME --problem FOLDER --out FOLDER [--limit S] [--repetitions R] [--threads T]

FOLDER holds x.npy (n, d), y.npy (m, d) and problem.json with epsilon (absolute)
and tolerance. The problem is

    min <C, P> + epsilon KL(P | a b^T),   C = |x - y|^2,  a, b uniform,

and a run ends where |P1 - a|_1 + |P^T 1 - b|_1 <= tolerance, or at the time
limit. Times begin with the points in memory and end with the potentials, so
the cost matrix is part of them; imports, compilation and warm-up are not. The
potentials f.npy and g.npy of P = a b^T exp((f + g - C)/epsilon) are written to
the output folder, for the caller to measure their residual by its own code, and
what happened is printed as one line of JSON.

Everyone computes in float64, because float32 cannot represent potentials finely
enough to reach a residual of 1e-6 at these epsilons.
"""

import argparse
import json
import os
import sys
import time


class Problem:
    def __init__(self, folder):
        import numpy as np

        self.x = np.load(os.path.join(folder, "x.npy"))
        self.y = np.load(os.path.join(folder, "y.npy"))
        with open(os.path.join(folder, "problem.json")) as f:
            spec = json.load(f)
        self.epsilon = float(spec["epsilon"])
        self.tolerance = float(spec["tolerance"])
        self.tolerances = spec.get("tolerances", [self.tolerance])  # of gpu.py, which runs on a device
        self.device = "cpu"
        self.mean = float(spec["mean"])
        self.n, self.m = len(self.x), len(self.y)


class Answer:
    """What a peer hands back: potentials, times, and how it was set."""

    def __init__(self, f, g, seconds, iterations, settings, converged, note=""):
        self.f, self.g = f, g
        self.seconds, self.iterations = seconds, iterations
        self.settings, self.converged, self.note = settings, converged, note


def residual(p, f, g):
    """The L1 residual of the plan of (f, g); by rows, so that it is quick to write."""
    import numpy as np

    rows, cols = np.empty(p.n), np.zeros(p.m)
    yy = (p.y**2).sum(1)
    for i in range(0, p.n, 512):
        x = p.x[i : i + 512]
        c = np.maximum((x**2).sum(1)[:, None] + yy - 2 * x @ p.y.T, 0)
        plan = np.exp((f[i : i + 512, None] + g - c) / p.epsilon) / (p.n * p.m)
        rows[i : i + 512] = plan.sum(1)
        cols += plan.sum(0)
    return float(np.abs(rows - 1 / p.n).sum() + np.abs(cols - 1 / p.m).sum())


# ---- POT


def pot(p, limit, repetitions):
    """ot.sinkhorn(method="sinkhorn_log"). POT stops by the L2 norm of the error of
    one marginal (the other is exact), every ten iterations; here its norm is made
    L1, so that it stops at the residual that was asked for and not later."""
    import numpy as np
    import ot
    from ot.backend import NumpyBackend

    class TimeLimit(Exception):
        pass

    state = {}

    def norm(self, a, axis=None, keepdims=False):
        frame = sys._getframe(1).f_locals
        state.update(log_u=frame["u"], log_v=frame["v"], niter=frame["ii"])
        if time.perf_counter() - state["start"] > limit:
            raise TimeLimit
        return np.abs(a).sum()

    NumpyBackend.norm = norm
    a, b = np.full(p.n, 1 / p.n), np.full(p.m, 1 / p.m)
    seconds, converged = [], True
    while converged and len(seconds) < repetitions and sum(seconds) < limit:
        state["start"] = time.perf_counter()
        try:
            cost = ot.dist(p.x, p.y)
            ot.sinkhorn(a, b, cost, p.epsilon, method="sinkhorn_log", numItermax=10**7, stopThr=p.tolerance, log=True)
        except TimeLimit:
            converged = False
        seconds.append(time.perf_counter() - state["start"])
    f = p.epsilon * (state["log_u"] - np.log(a))
    g = p.epsilon * (state["log_v"] - np.log(b))
    return Answer(f, g, seconds, state["niter"] + 1, "sinkhorn_log, cost matrix, float64", converged)


# ---- OTT-JAX


def ott(p, limit, repetitions, kernel):
    """ott.solvers.linear.sinkhorn on a geometry with its cost matrix, jitted and
    warm. Its accelerations are tried one after the other, each for an eighth of
    the time limit; the best one is then run to the end and timed. kernel chooses
    lse_mode=False, which multiplies by exp(-C/epsilon) and may underflow."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import numpy as np
    from ott.geometry import epsilon_scheduler, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    inner = 10  # iterations between two looks at the error: OTT's default

    def build(variant, iterations, threshold):
        epsilon, options = p.epsilon, {}
        if variant == "epsilon decay":
            epsilon = epsilon_scheduler.Epsilon(p.epsilon, init=p.mean / p.epsilon, decay=0.9)
        elif variant.startswith("momentum "):
            options["momentum"] = acceleration.Momentum(value=float(variant.split()[1]))
        elif variant == "adaptive momentum":
            options["momentum"] = acceleration.Momentum(start=10 * inner)
        elif variant == "Anderson 5":
            options["anderson"] = acceleration.AndersonAcceleration(memory=5)
        solver = sinkhorn.Sinkhorn(
            lse_mode=not kernel, threshold=threshold, inner_iterations=inner,
            max_iterations=iterations, **options,
        )

        def run(x, y):
            cost = jnp.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)
            geom = geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
            out = solver(linear_problem.LinearProblem(geom))
            # The reference measure a x b is not part of OTT's potentials.
            f = out.f + p.epsilon * jnp.log(p.n)
            return f, out.g + p.epsilon * jnp.log(p.m), out.n_iters

        return jax.jit(run).lower(x, y).compile()

    def timed(program):
        start = time.perf_counter()
        f, g, iterations = jax.block_until_ready(program(x, y))
        seconds = time.perf_counter() - start
        f, g = np.asarray(f), np.asarray(g)
        r = residual(p, f, g) if np.isfinite(f).all() and np.isfinite(g).all() else float("inf")
        return seconds, f, g, int(iterations), r

    x, y = jnp.asarray(p.x), jnp.asarray(p.y)
    variants = ["momentum 1.5", "momentum 1.8", "plain", "epsilon decay", "adaptive momentum", "Anderson 5"]
    if kernel:  # scalings know neither a schedule nor Anderson acceleration
        variants = ["momentum 1.5", "momentum 1.8", "plain", "adaptive momentum"]

    def most(per_iteration, seconds):
        return max(inner, int(seconds / per_iteration) // inner * inner)

    tried, threshold = [], p.tolerance
    for v in variants:
        short = build(v, 2 * inner, 0.0)
        timed(short)  # warm
        per = timed(short)[0] / (2 * inner)
        s, _, _, its, r = timed(build(v, most(per, limit / 8), threshold))
        # With momentum both marginals are off, and OTT looks at one.
        tighter = threshold
        while p.tolerance < r < 20 * p.tolerance and tighter > threshold / 20 and its < most(per, limit / 8):
            tighter /= 2
            s, _, _, its, r = timed(build(v, most(per, limit / 8), tighter))
        tried.append((r > p.tolerance, s if r <= p.tolerance else r, v, tighter, per))
        print(f"ott-jax: {v}: {s:.2f} s, {its} iterations, residual {r:.2e}", file=sys.stderr)
    _, _, best, threshold, per = min(tried)
    while True:
        program = build(best, most(per, limit), threshold)
        _, _, _, its, r = timed(program)  # warm
        if r <= p.tolerance or its >= most(per, limit) or threshold < p.tolerance / 20:
            break
        threshold /= 2
    seconds = []
    while len(seconds) < repetitions and sum(seconds) < limit:
        s, f, g, iterations, r = timed(program)
        seconds.append(s)
    converged = r <= p.tolerance
    mode = "kernel mode" if kernel else "log-sum-exp mode"
    note = "best of " + ", ".join(variants)
    return Answer(f, g, seconds, iterations, f"{mode}, {best}, cost matrix, float64", converged, note)


# ---- GeomLoss


def geomloss(p, limit, repetitions):
    """GeomLoss' annealed symmetric Sinkhorn loop. It has no stopping rule, so a
    first run watches the residual to find the number of iterations that is
    needed, and only a second one, with that number, is timed."""
    import numpy as np
    import torch
    from geomloss import _backends as bk
    from geomloss._typing import CostMatrices
    from geomloss.ot._abstract_solvers import annealing_parameters, max_diameter, sinkhorn_loop
    from geomloss.ot._implementations.sample import cost_matrix, softmin_sample

    torch.set_grad_enabled(False)
    x, y = torch.from_numpy(p.x).to(p.device), torch.from_numpy(p.y).to(p.device)
    log_a = torch.full((p.n,), -np.log(p.n), dtype=torch.float64, device=p.device)
    log_b = torch.full((p.m,), -np.log(p.m), dtype=torch.float64, device=p.device)

    def dense(eps, log_weights, costs, potentials):
        if eps == float("inf"):  # the loop starts from the mean of the costs
            return (costs - potentials) @ log_weights.exp()
        return -eps * ((log_weights + potentials / eps) - costs / eps).logsumexp(1)

    def solve(kind, iterations, softmin):
        cost = {"tensorized": "dense", "online": "lazy"}[kind]
        descent = annealing_parameters(
            maxmin_cost=float(max_diameter(x, y)) ** 2, eps=p.epsilon, n_iter=iterations, scaling=0.25,
        )
        c = CostMatrices(
            xy=cost_matrix(x, y, matrix_type=cost) if kind == "online" else squared(x, y),
            yx=cost_matrix(y, x, matrix_type=cost) if kind == "online" else squared(y, x),
            xx=None, yy=None,
        )
        out = sinkhorn_loop(
            softmin=softmin, log_a_list=[log_a], log_b_list=[log_b], C_list=[c], descent=descent,
            debias=False, last_extrapolation=True,
        )
        return out.f_ba.cpu().numpy(), out.g_ab.cpu().numpy()

    def squared(u, v):
        # matrix_type is not passed on by cost_matrix.
        return (u * u).sum(1)[:, None] - 2 * u @ v.T + (v * v).sum(1)

    class Enough(Exception):
        pass

    def watched(softmin, state):
        """softmin, which the loop calls with g for f and then with f for g."""

        def call(eps, log_weights, costs, potentials):
            out = softmin(eps, log_weights, costs, potentials)
            state["calls"] += 1
            if state["calls"] > 2 and state["calls"] % 2 == 0:
                f, g = potentials, state["g"]
                off = ((f - state["out"]) / eps).expm1().abs().mean() + ((g - out) / eps).expm1().abs().mean()
                state["residual"] = float(off) if eps <= p.epsilon * 1.000001 else float("inf")
                if state["residual"] <= p.tolerance or time.perf_counter() - state["start"] > limit:
                    raise Enough
            state["g"], state["out"] = potentials, out
            return out

        return call

    kinds = {"tensorized": dense}
    if bk.keops_available:
        kinds["online"] = softmin_sample
    per = {}
    for kind, softmin in kinds.items():
        try:
            solve(kind, 1, softmin)  # compiles
            start = time.perf_counter()
            solve(kind, 6, softmin)
            per[kind] = (time.perf_counter() - start) / 6
            print(f"geomloss: {kind}: {per[kind]:.3f} s an iteration", file=sys.stderr)
        except Exception as e:  # KeOps needs a compiler that it likes
            print(f"geomloss: {kind}: {e}", file=sys.stderr)
    kind = min(per, key=per.get)
    softmin = kinds[kind]

    state = {"calls": 0, "start": time.perf_counter()}
    try:
        solve(kind, 10**6, watched(softmin, state))
    except Enough:
        pass
    iterations = state["calls"] // 2 - 1
    f, g, seconds, converged = None, None, [], True
    while len(seconds) < repetitions and sum(seconds) < limit:
        start = time.perf_counter()
        f, g = solve(kind, iterations, softmin)
        seconds.append(time.perf_counter() - start)
        converged = residual(p, f, g) <= p.tolerance
        if not converged and seconds[-1] < limit / 2 and state["residual"] <= p.tolerance:
            iterations += max(1, iterations // 20)  # the last, unaveraged update lost a little
            seconds = []
    note = "no stopping rule: the number of iterations was found by an untimed run that watched the residual"
    return Answer(f, g, seconds, iterations, f"{kind}, scaling 0.5, float64", converged, note)


PEERS = {
    "pot": (pot, "ot"),
    "ott-jax": (lambda *a: ott(*a, kernel=False), "ott"),
    "ott-jax-kernel": (lambda *a: ott(*a, kernel=True), "ott"),
    "geomloss": (geomloss, "geomloss"),
}


def versions():
    """Of every peer, with what it computes with."""
    from importlib.metadata import version

    def of(**packages):
        return ", ".join(f"{name.replace('_', '-')} {version(package)}" for name, package in packages.items())

    ott = of(OTT_JAX="ott-jax", JAX="jax", jaxlib="jaxlib", NumPy="numpy", SciPy="scipy")
    return {
        "pot": of(POT="POT", NumPy="numpy", SciPy="scipy"),
        "ott-jax": ott,
        "ott-jax-kernel": ott,
        "geomloss": of(GeomLoss="geomloss", PyTorch="torch", KeOps="pykeops", NumPy="numpy", SciPy="scipy"),
    }


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--peer", choices=sorted(PEERS))
    args.add_argument("--problem")
    args.add_argument("--out")
    args.add_argument("--limit", type=float, default=600, help="seconds that a run may take")
    args.add_argument("--repetitions", type=int, default=3)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--versions", action="store_true", help="import every peer and print its version")
    args = args.parse_args()
    if args.versions:
        for _, module in PEERS.values():
            __import__(module)
        print(json.dumps(versions()))
        return
    # Before any library starts its threads.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[v] = str(args.threads)
    import numpy as np

    solve, _ = PEERS[args.peer]
    # Libraries print to stdout what is none of the caller's business.
    stdout, sys.stdout = sys.stdout, sys.stderr
    answer = solve(Problem(args.problem), args.limit, args.repetitions)
    sys.stdout = stdout
    np.save(os.path.join(args.out, "f.npy"), np.asarray(answer.f, dtype=np.float64))
    np.save(os.path.join(args.out, "g.npy"), np.asarray(answer.g, dtype=np.float64))
    print(json.dumps({
        "peer": args.peer,
        "version": versions()[args.peer],
        "settings": answer.settings,
        "seconds": answer.seconds,
        "iterations": answer.iterations,
        "converged": answer.converged,
        "note": answer.note,
    }))


if __name__ == "__main__":
    main()

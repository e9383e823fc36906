"""Solves what the suite static measures by the libraries that can.

    static.py --task chain-size --marginals K --dim D [--memory BYTES]
    static.py --task chain --problem FOLDER --out FOLDER [--memory BYTES]
    static.py --task loop|batch|whole --problem FOLDER --out FOLDER

with --limit SECONDS and --threads T. What happened is printed as one line of
JSON. Times begin with the points in memory, so that costs are part of them;
imports, compilation and warm-up are not. Everyone computes in float64 and stops
at the L1 residual that problem.json asks for, or at the time limit.

chain: FOLDER holds x0.npy … of the marginals, (n, d), weights being uniform, and
problem.json with epsilon and tolerance. ott.experimental.mmsinkhorn solves it, with
squared distances between marginals that follow each other and no cost between
others, and builds the tensor of n^K entries. Its arrays may take --memory bytes
beyond what the process has before; as long as that is too little, the problem is
made smaller by 4 percent, of which the last size refused is printed. The potentials
of P = exp((sum f_k - sum c) / epsilon) / n^K of what was solved are written to
f0.npy …. chain-size prints an n that is too large, by what the compiler says.

loop, batch, whole: FOLDER holds x.npy and y.npy, (problems, n, d), uniform weights,
and problem.json with the scale of epsilon, by which the mean cost of each problem
is multiplied, and tolerance. POT solves them one by one by ot.sinkhorn, in batches
by ot.batch.solve_batch, or all of them as one batch. f.npy and g.npy are the
potentials of as many problems as the time was enough for.
"""

import argparse
import json
import os
import sys
import time


def load(folder, name):
    import numpy as np

    return np.load(os.path.join(folder, name + ".npy"))


def save(folder, name, value):
    import numpy as np

    np.save(os.path.join(folder, name + ".npy"), np.asarray(value, dtype=np.float64))


def version(*names):
    from importlib.metadata import version

    return ", ".join(f"{title} {version(name)}" for title, name in names)


# ---- OTT-JAX


def chain_program(marginals, n, d, epsilon, iterations, threshold):
    """The compiled solver of a chain. It looks at its residual every ten
    iterations, as is its default, and at the end."""
    import jax
    import jax.numpy as jnp
    from ott.experimental import mmsinkhorn
    from ott.geometry import costs

    @jax.tree_util.register_pytree_node_class
    class Nothing(costs.CostFn):
        """The cost between marginals that do not follow each other."""

        def __call__(self, x, y):
            return jnp.zeros((), x.dtype)

    pairs = [(i, j) for i in range(marginals) for j in range(i + 1, marginals)]
    fns = tuple(costs.SqEuclidean() if j == i + 1 else Nothing() for i, j in pairs)
    solver = mmsinkhorn.MMSinkhorn(threshold=threshold, inner_iterations=10, max_iterations=iterations)

    def run(*clouds):
        out = solver(clouds, cost_fns=fns, epsilon=epsilon)
        # The weights are part of OTT's potentials.
        return tuple(f + epsilon * jnp.log(n) for f in out.potentials), out.errors

    points = [jax.ShapeDtypeStruct((n, d), jnp.float64)] * marginals
    return jax.jit(run).lower(*points).compile()


def chain_size(args):
    n = 16
    need = chain_program(args.marginals, n, args.dim, 1.0, 100, 0.0).memory_analysis().temp_size_in_bytes
    tensors = round(need / (8 * n**args.marginals))  # all else is small
    return {"n": 1 + int((args.memory / (8 * tensors)) ** (1 / args.marginals))}


def chain(args):
    import resource

    import jax
    import numpy as np

    with open(os.path.join(args.problem, "problem.json")) as f:
        spec = json.load(f)
    clouds = [jax.numpy.asarray(load(args.problem, f"x{k}")) for k in range(spec["marginals"])]
    n, d = clouds[0].shape

    def build(n, iterations):
        return chain_program(spec["marginals"], n, d, spec["epsilon"], iterations, spec["tolerance"])

    def run(program, clouds):
        start = time.perf_counter()
        potentials, errors = jax.block_until_ready(program(*clouds))
        seconds = time.perf_counter() - start
        errors = np.asarray(errors).ravel()
        return seconds, potentials, errors[errors != -1]

    # Starts the threads, whose stacks are no arrays.
    run(build(8, 10), [x[:8] for x in clouds])

    def allow(more):
        with open("/proc/self/status") as f:
            data = next(int(line.split()[1]) << 10 for line in f if line.startswith("VmData:"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard if more is None else data + more, hard))

    refused = None
    while True:
        short = build(n, 1)
        allow(args.memory)
        start = time.perf_counter()
        try:
            per = run(short, clouds)[0]
            if per < args.limit / 10:
                per = run(short, clouds)[0]  # warm
            break
        except jax.errors.JaxRuntimeError as e:
            # Some of the operations do not say why they failed.
            refused = {"n": n, "seconds": time.perf_counter() - start, "message": str(e).strip().splitlines()[0]}
            n = int(0.96 * n)
            clouds = [x[:n] for x in clouds]
        finally:
            allow(None)  # the compiler needs some
    most, seconds = max(1, int(args.limit / per)), 0.0
    while True:  # one iteration alone takes longer than one of many
        program = build(n, most)
        allow(args.memory)
        seconds, potentials, errors = run(program, clouds)
        allow(None)
        if errors[-1] <= spec["tolerance"] or seconds > args.limit / 2 or most >= 100_000:
            break
        most = int(most * 0.9 * args.limit / seconds)
    times = [seconds]
    while len(times) < args.repetitions and sum(times) + seconds < args.limit:
        seconds, potentials, errors = run(program, clouds)
        times.append(seconds)
    for k, f in enumerate(potentials):
        save(args.out, f"f{k}", f)
    return {
        "version": version(("OTT-JAX", "ott-jax"), ("JAX", "jax"), ("jaxlib", "jaxlib"), ("NumPy", "numpy")), "settings": "mmsinkhorn, the whole tensor, float64",
        "n": n, "refused": refused, "seconds": times, "iterations": min(10 * len(errors), most),
    }


# ---- POT


def costs_and_scale(args):
    with open(os.path.join(args.problem, "problem.json")) as f:
        spec = json.load(f)
    return load(args.problem, "x"), load(args.problem, "y"), float(spec["scale"]), float(spec["tolerance"])


MOST = 100_000  # iterations


def loop(args):
    """ot.sinkhorn by each of its methods that stop by a residual, on the first few
    problems; the fastest that reaches it, on all. POT stops by the L2 norm of the
    error of one marginal (the other is exact), every ten iterations; here its norm
    is made L1, so that it stops at the residual that was asked for and not later."""
    import numpy as np
    import ot
    from ot.backend import NumpyBackend

    NumpyBackend.norm = lambda self, a, axis=None, keepdims=False: np.abs(a).sum()
    x, y, scale, tolerance = costs_and_scale(args)
    count, n, _ = x.shape
    a = np.full(n, 1 / n)

    def solve(method, p):
        cost = ot.dist(x[p], y[p])
        epsilon = scale * cost.mean()
        plan, log = ot.sinkhorn(a, a, cost, epsilon, method=method, numItermax=MOST, stopThr=tolerance, log=True, warn=False)
        return epsilon, plan, log

    def potentials(method, epsilon, log):
        if method == "sinkhorn":
            u, v = np.log(log["u"]), np.log(log["v"])
        elif method == "sinkhorn_log":
            u, v = log["log_u"], log["log_v"]
        else:
            u, v = log["alpha"] / epsilon, log["beta"] / epsilon
        return epsilon * (u - np.log(a)), epsilon * (v - np.log(a))

    tried = []
    methods = ["sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"]
    for method in methods:
        solve(method, 0)  # warm
        start, worst = time.perf_counter(), 0.0
        for p in range(min(count, 10)):
            _, plan, _ = solve(method, p)
            worst = max(worst, np.abs(plan.sum(0) - a).sum() + np.abs(plan.sum(1) - a).sum())
        seconds = time.perf_counter() - start
        tried.append((not worst <= 1.01 * tolerance, seconds, method))
        print(f"pot: {method}: {seconds / min(count, 10):.2g} s a problem, residual {worst:.1e}", file=sys.stderr)
    method = min(tried)[2]
    results, start = [], time.perf_counter()
    while len(results) < count and time.perf_counter() - start < args.limit:
        epsilon, _, log = solve(method, len(results))
        results.append((epsilon, log))
    seconds = time.perf_counter() - start
    pairs = [potentials(method, epsilon, log) for epsilon, log in results]
    save(args.out, "f", [f for f, _ in pairs])
    save(args.out, "g", [g for _, g in pairs])
    return {
        "version": version(("POT", "POT"), ("NumPy", "numpy"), ("SciPy", "scipy")), "seconds": [seconds],
        "iterations": int(max(log.get("niter", log.get("n_iter")) for _, log in results)),
        "settings": f"a loop over ot.sinkhorn, {method}, float64", "note": "fastest of " + ", ".join(methods),
    }


def batch(args):
    """ot.batch.solve_batch by both of its Sinkhorn methods on NumPy and on PyTorch,
    whichever takes the least time for an iteration. It knows one epsilon for all, so
    that costs are divided by their mean. A batch stops when the worst of its problems
    does, which is made to mean its L1 residual: so that large ones wait longer. Task
    batch cuts the problems into batches, of the size that is fastest for the first
    of them; task whole makes one of all, or of as many as fit into memory, and
    stops after as many iterations as the time is enough for."""
    import numpy as np
    import ot.batch
    import torch

    # ot.batch is also the name of a function's module.
    sys.modules["ot.batch._utils"].norm_batch = lambda u, p=2, nx=None: abs(u).sum(1)
    torch.set_grad_enabled(False)
    x, y, scale, tolerance = costs_and_scale(args)
    count, n, _ = x.shape
    arrays = {"NumPy": (x, y), "PyTorch": (torch.from_numpy(x), torch.from_numpy(y))}
    whole = args.task == "whole"

    def solve(kind, method, first, size, iterations=MOST, tol=tolerance):
        x, y = (v[first : first + size] for v in arrays[kind])
        cost = ot.batch.dist_batch(x, y)
        mean = cost.mean((1, 2))
        cost = cost / mean[:, None, None]
        return mean, ot.batch.solve_batch(cost, scale, max_iter=iterations, tol=tol, method=method, grad="detach")

    def iteration(kind, method, size):
        """Seconds of an iteration; infinite where it leaves the range of numbers."""
        solve(kind, method, 0, size, 2, 0.0)  # warm
        start = time.perf_counter()
        plan = solve(kind, method, 0, size, 30, 0.0)[1].plan
        return (time.perf_counter() - start) / 30 if bool((plan >= 0).all()) else float("inf")

    ways = [(kind, method) for kind in arrays for method in ("log_sinkhorn", "sinkhorn")]
    size = min(count, 1024 if whole else 64)
    tried = []
    for way in ways:
        tried.append((iteration(*way, size), way))
        print(f"pot: {way}, {size}: {tried[-1][0]:.2g} s an iteration", file=sys.stderr)
    per, way = min(tried)
    note = "fastest of log_sinkhorn and sinkhorn on NumPy and PyTorch"
    most = MOST
    if whole:
        most = max(1, int(args.limit / (per * count / size)))
        size = count
    else:
        few, times = size, []
        for size in sorted({min(few, size) for size in (4, 16, 64)}):
            start = time.perf_counter()
            for first in range(0, few, size):
                solve(*way, first, min(size, few - first))
            times.append((time.perf_counter() - start, size))
            print(f"pot: batches of {size}: {times[-1][0] / few:.2g} s a problem", file=sys.stderr)
        size = min(times)[1]
        note += " and of batches of " + ", ".join(str(s) for s in sorted(s for _, s in times))

    results, done, iterations, start = [], 0, 0, time.perf_counter()
    while done < count and time.perf_counter() - start < args.limit:
        try:
            mean, out = solve(*way, done, size, most)
        except MemoryError:
            size //= 2
            continue
        results.append((np.asarray(mean), *(np.asarray(v) for v in out.potentials)))
        iterations = max(iterations, out.log["n_iter"] + 1)
        done += len(mean)
        if whole:
            break
    seconds = time.perf_counter() - start
    f, g = [], []
    for mean, u, v in results:
        if way[1] == "sinkhorn":
            u, v = np.log(u), np.log(v)
        f.append(scale * mean[:, None] * (u + np.log(n)))
        g.append(scale * mean[:, None] * (v + np.log(n)))
    save(args.out, "f", np.concatenate(f))
    save(args.out, "g", np.concatenate(g))
    return {
        "version": version(("POT", "POT"), ("NumPy", "numpy"), ("SciPy", "scipy"), ("PyTorch", "torch")), "seconds": [seconds],
        "iterations": int(iterations), "note": note,
        "settings": f"ot.batch.solve_batch, {way[1]}, {way[0]}, batches of {size}, float64",
    }


TASKS = {"chain-size": chain_size, "chain": chain, "loop": loop, "batch": batch, "whole": batch}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--task", choices=sorted(TASKS), required=True)
    args.add_argument("--problem")
    args.add_argument("--out")
    args.add_argument("--marginals", type=int)
    args.add_argument("--dim", type=int)
    args.add_argument("--memory", type=int, default=6 << 30, help="bytes of the arrays of chain")
    args.add_argument("--limit", type=float, default=600, help="seconds that a run may take")
    args.add_argument("--repetitions", type=int, default=3)
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    # Before any library starts its threads.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[v] = str(args.threads)
    if args.task.startswith("chain"):
        import jax

        jax.config.update("jax_enable_x64", True)
    # Libraries print to stdout what is none of the caller's business.
    stdout, sys.stdout = sys.stdout, sys.stderr
    answer = TASKS[args.task](args)
    sys.stdout = stdout
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""Solves one transport problem exactly with another library, and times it.

    exact.py --peer pot|scipy --problem FOLDER [--repetitions R] [--limit S] [--threads T]

FOLDER holds x.npy (n, d), y.npy (m, d) and, unless weights are uniform, a.npy (n)
and b.npy (m). The problem is min <C, P> with C = |x - y|^2 and marginals a and b:

    pot     ot.emd2, a network simplex; its bound on iterations is raised so that it ends
    scipy   scipy.optimize.linear_sum_assignment, for uniform weights and n = m

Times begin with the points in memory, so the cost matrix is part of them. Peak
memory is that of the process above what it had before. What happened is printed
as one line of JSON; cost is that of the plan, in float64.
"""

import argparse
import json
import os
import sys
import time


def peak():
    """Resets the peak memory of this process and answers what it has, in bytes; or
    0 where the system does not say."""
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        return read("VmHWM")
    except OSError:
        return 0


def read(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def matrix(np, x, y):
    c = x @ y.T
    c *= -2
    c += (x**2).sum(1)[:, None]
    c += (y**2).sum(1)
    return np.maximum(c, 0, out=c)


def pot(np, x, y, a, b):
    import ot

    c = matrix(np, x, y)
    cost, log = ot.emd2(a, b, c, numItermax=10**9, log=True, center_dual=False, check_marginals=False)
    return cost, log.get("warning")


def scipy(np, x, y, a, b):
    from scipy.optimize import linear_sum_assignment

    c = matrix(np, x, y)
    rows, cols = linear_sum_assignment(c)
    # From the points: the matrix has the rounding of its products.
    return float(((x[rows] - y[cols]) ** 2).sum() / len(x)), None


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--peer", choices=("pot", "scipy"), required=True)
    args.add_argument("--problem", required=True)
    args.add_argument("--repetitions", type=int, default=3)
    args.add_argument("--limit", type=float, default=60, help="seconds after which no repetition begins")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    # Before any library starts its threads.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[v] = str(args.threads)
    from importlib.metadata import version

    import numpy as np

    def load(name):
        path = os.path.join(args.problem, name + ".npy")
        return np.load(path) if os.path.exists(path) else None

    solve = {"pot": pot, "scipy": scipy}[args.peer]
    x, y, a, b = load("x"), load("y"), load("a"), load("b")
    a, b = (np.full(len(p), 1 / len(p)) if w is None else w for w, p in ((a, x), (b, y)))
    stdout, sys.stdout = sys.stdout, sys.stderr
    few = min(len(x), len(y), 8)
    solve(np, x[:few], y[:few], np.full(few, 1 / few), np.full(few, 1 / few))  # imports
    before, seconds = peak(), []
    while len(seconds) < args.repetitions and (not seconds or sum(seconds) < args.limit):
        start = time.perf_counter()
        cost, warning = solve(np, x, y, a, b)
        seconds.append(time.perf_counter() - start)
    sys.stdout = stdout
    print(json.dumps({
        "version": ("" if args.peer == "scipy" else f"POT {version('POT')}, ") + f"SciPy {version('scipy')}, NumPy {np.__version__}",
        "seconds": seconds,
        "cost": float(cost),
        "peak": max(0, read("VmHWM") - before) if before else 0,
        "note": str(warning) if warning else "",
    }))


if __name__ == "__main__":
    main()

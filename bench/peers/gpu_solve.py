"""Entropic transport by other libraries on a GPU: gpu.py runs this.

A problem is a folder as solve.py reads it, whose problem.json has a list of
tolerances. Nobody here stops at a residual of both marginals, so that untimed
runs find the number of iterations that a tolerance takes, by float64 residuals on
the device; only runs with that number are timed. They begin with float32 points
on the device and end with potentials there, after a warm-up that tunes and
compiles.

What stalls above the tolerance is timed at the first iterations that come within
a tenth of where it stalls, and says so.
"""

import os
import sys
import time
from importlib.metadata import version

import solve


class OutOfTime(Exception):
    pass


class Clouds:
    """A problem on the device."""

    def __init__(self, torch, folder, device):
        p = solve.Problem(folder)
        self.folder, self.problem, self.device = folder, p, device
        self.n, self.m, self.epsilon = p.n, p.m, p.epsilon
        self.x64, self.y64 = (torch.from_numpy(v).to(device) for v in (p.x, p.y))
        self.x, self.y = self.x64.float(), self.y64.float()

    def residual(self, torch, f, g):
        """|P1 - a|_1 + |P^T 1 - b|_1 in float64, in blocks of rows."""
        f, g = (v.to(self.device, torch.float64).flatten() for v in (f, g))
        if not bool(f.isfinite().all() & g.isfinite().all()):
            return float("inf")
        rows, cols = torch.empty_like(f), torch.zeros_like(g)
        yy = (self.y64**2).sum(1)
        block = max(1, 2**27 // self.m)
        for i in range(0, self.n, block):
            x = self.x64[i : i + block]
            z = torch.addmm(g - yy, x, self.y64.T, alpha=2)
            z += (f[i : i + block] - (x**2).sum(1))[:, None]
            plan = z.div_(self.epsilon).exp_()
            rows[i : i + block] = plan.sum(1)
            cols += plan.sum(0)
        return float((rows / self.m - 1).abs().mean() + (cols / self.n - 1).abs().mean())


class Way:
    """One way to solve: run(k) does k times unit iterations and answers f and g."""

    def __init__(self, peer, settings, run, unit=1):
        self.peer, self.settings, self.run, self.unit = peer, settings, run, unit


def wait(torch, device):
    if device != "cpu":
        torch.cuda.synchronize()


def search(torch, p, way, tolerance, most, deadline, known):
    """The least number of iterations that reaches the tolerance, and the residual
    there; or where it stalls. known keeps residuals between tolerances."""

    def residual(k):
        if k not in known:
            if time.perf_counter() > deadline:
                raise OutOfTime
            known[k] = p.residual(torch, *way.run(k))
        return known[k]

    low, high = 0, 1
    while residual(high) > tolerance:
        stalled = high >= 8 and residual(high) > 0.9 * min(known[k] for k in known if k <= high // 2)
        if stalled or high >= most:
            tolerance = 1.1 * min(v for k, v in known.items() if k <= high)
            high = min(k for k, v in known.items() if v <= tolerance)
            low = max((k for k in known if k < high), default=0)
            break
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if residual(middle) <= tolerance:
            high = middle
        else:
            low = middle
    return high, residual(high)


def timed(torch, p, way, k, repetitions, deadline):
    seconds = []
    while len(seconds) < repetitions and (not seconds or time.perf_counter() < deadline):
        wait(torch, p.device)
        start = time.perf_counter()
        f, g = way.run(k)
        wait(torch, p.device)
        seconds.append(time.perf_counter() - start)
    return f, g, seconds


def run(torch, p, name, ways, versions, say, most, repetitions, deadline):
    """Times every way of a peer at every tolerance."""
    import numpy as np

    for way in ways:
        known = {}
        try:
            wait(torch, p.device)
            way.run(1)  # tunes and compiles
            for index, tolerance in enumerate(p.problem.tolerances):
                # A little less, so that a sample of rows sees it too.
                k, r = search(torch, p, way, 0.93 * tolerance, most, deadline, known)
                f, g, seconds = timed(torch, p, way, k, repetitions, deadline)
                files = []
                for letter, v in (("f", f), ("g", g)):
                    files.append(f"{name} {way.settings} {index}.{letter}.npy".replace(" ", "_"))
                    np.save(os.path.join(p.folder, files[-1]), v.double().flatten().cpu().numpy())
                note = "" if r <= tolerance else f"stalls near {r:.1e}"
                say(part="solve", problem=p.folder, peer=name, settings=way.settings, tolerance=tolerance, seconds=seconds,
                    iterations=k * way.unit, converged=r <= tolerance, f=files[0], g=files[1], version=versions, note=note)
                if r > tolerance:
                    break  # and no smaller one
        except OutOfTime:
            say(part="solve", problem=p.folder, peer=name, settings=way.settings, not_run="no time left")
        except Exception as e:  # what a peer cannot do is no fault of ours
            say(part="solve", problem=p.folder, peer=name, settings=way.settings, not_run=f"{type(e).__name__}: {first(e)}")
        if p.device != "cpu":
            torch.cuda.empty_cache()


def first(e):
    return " ".join(str(e).split())[:300]


# ---- flash-sinkhorn


def flash_ways(torch, p):
    """Both backends of SamplesLoss, in TF32 as its documentation has it by default,
    which rounds the points to TF32, and in float32. The symmetric one anneals
    epsilon by its own schedule and goes on at the last."""
    from flash_sinkhorn import SamplesLoss
    from flash_sinkhorn.kernels import epsilon_schedule, max_diameter

    def alternating(tf32):
        def call(k):
            return SamplesLoss(
                loss="sinkhorn", backend="alternating", use_epsilon_scaling=False, eps=p.epsilon, n_iters=k,
                potentials=True, allow_tf32=tf32,
            )(p.x, p.y)

        return call

    def symmetric(tf32):
        def call(k):
            schedule = epsilon_schedule(max_diameter(p.x, p.y), p.epsilon**0.5, 0.5)
            return SamplesLoss(
                loss="sinkhorn", backend="symmetric", eps_list=list(schedule) + [p.epsilon] * (k - 1),
                potentials=True, allow_tf32=tf32,
            )(p.x, p.y)

        return call

    return [
        Way("flash-sinkhorn", f"{kind.__name__}, {'TF32' if tf32 else 'float32'}", kind(tf32))
        for tf32 in (True, False) for kind in (alternating, symmetric)
    ]


def compile_flash(torch, dims, part, parts):
    """Compiles some of the candidates of flash-sinkhorn's tuning, as one of several
    processes at a time: Triton keeps them on disk, where the tuning finds them. It
    would compile the some 250 of them one after the other, for minutes. The number of
    points is as divisible as those of the suite."""
    from flash_sinkhorn import sinkhorn_solvers
    from flash_sinkhorn.kernels import sinkhorn_flashstyle_sqeuclid as kernels

    for name in ("_flashsinkhorn_lse_raw_kernel_autotune", "_flashsinkhorn_lse_fused_kernel_autotune", "_flashsinkhorn_symmetric_step_kernel_autotune"):
        tuned = getattr(kernels, name)
        tuned.configs = tuned.configs[part::parts]
    n = 1616
    for d in dims:
        x, y = torch.randn(n, d, device="cuda"), torch.randn(n, d, device="cuda")
        a = torch.full((n,), 1 / n, device="cuda")
        for tf32 in (True, False):
            sinkhorn_solvers.sinkhorn_flashstyle_alternating(x, y, a, a, eps=10.0, n_iters=1, allow_tf32=tf32)
            for fused in (True, False):
                sinkhorn_solvers.sinkhorn_flashstyle_symmetric(x, y, a, a, eps_list=[10.0], fused=fused, allow_tf32=tf32)


# ---- PyTorch


def torch_ways(torch, p, compiled=True):
    """Sinkhorn in the log domain as one would write it, with the matrix in memory
    in both orders, each update one fused reduction of torch.compile."""
    ways = []
    for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
        need = 3 * p.n * p.m * (4 if dtype == torch.float32 else 8)
        if p.device != "cpu" and need > torch.cuda.mem_get_info()[0]:
            print(f"pytorch: {name}: the matrix does not fit", file=sys.stderr)
            continue

        def update(cost, g, epsilon, n):
            return epsilon * (n - torch.logsumexp((g - cost) / epsilon, 1))

        fast = torch.compile(update, dynamic=False) if compiled else update

        def call(k, dtype=dtype, fast=fast):
            x, y = p.x64.to(dtype), p.y64.to(dtype)
            cost = torch.addmm((y**2).sum(1), x, y.T, alpha=-2).add_((x**2).sum(1)[:, None])
            turned = cost.T.contiguous()
            logn, logm = torch.tensor(float(p.n)).log().item(), torch.tensor(float(p.m)).log().item()
            g = torch.zeros(p.m, dtype=dtype, device=p.device)
            for _ in range(k):
                f = fast(cost, g, p.epsilon, logm)
                g = fast(turned, f, p.epsilon, logn)
            return f, g

        how = ", torch.compile" if compiled else ""
        ways.append(Way("pytorch", f"{name}, cost matrix{how}", call))
    return ways


# ---- OTT-JAX and GeomLoss


def ott_ways(torch, p):
    """Points in batches of rows, so that no matrix is held; momentum 1.5 is what is
    best of its accelerations in the solvers suite. One program does a few
    iterations and is called again."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import numpy as np
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    unit = 5
    solver = sinkhorn.Sinkhorn(
        threshold=0.0, inner_iterations=unit, min_iterations=unit, max_iterations=unit,
        momentum=acceleration.Momentum(value=1.5),
    )
    batch = None if p.n * p.m <= 2**27 else 1024

    @jax.jit
    def program(x, y, f, g):
        out = solver(linear_problem.LinearProblem(pointcloud.PointCloud(x, y, epsilon=p.epsilon, batch_size=batch)), init=(f, g))
        return out.f, out.g

    ways = []
    for dtype in ("float32", "float64"):
        x, y = (jnp.asarray(np.asarray(v, dtype)) for v in (p.problem.x, p.problem.y))

        def call(k, x=x, y=y):
            f, g = jnp.zeros(p.n, x.dtype), jnp.zeros(p.m, x.dtype)
            for _ in range(k):
                f, g = program(x, y, f, g)
            # The reference measure a x b is not part of OTT's potentials.
            f, g = (np.asarray(v, np.float64) + p.epsilon * np.log(n) for v, n in ((f, p.n), (g, p.m)))
            return torch.from_numpy(f), torch.from_numpy(g)

        ways.append(Way("ott-jax", f"{dtype}, momentum 1.5", call, unit))
    return ways


def geomloss_answer(torch, p, say, versions, limit, repetitions):
    """As in solve.py, on the device."""
    import numpy as np

    for index, tolerance in enumerate(p.problem.tolerances):
        p.problem.tolerance, p.problem.device = tolerance, p.device
        try:
            a = solve.geomloss(p.problem, limit, repetitions)
        finally:
            torch.set_grad_enabled(True)  # which it turns off
        files = []
        for letter, v in (("f", a.f), ("g", a.g)):
            files.append(f"geomloss_{index}.{letter}.npy")
            np.save(os.path.join(p.folder, files[-1]), v)
        say(part="solve", problem=p.folder, peer="geomloss", settings=a.settings, tolerance=tolerance, seconds=a.seconds,
            iterations=a.iterations, converged=a.converged, f=files[0], g=files[1], version=f"{versions}, GeomLoss {have('geomloss')}, KeOps {have('pykeops')}", note=a.note)
        if not a.converged:
            break


def solves(torch, folder, device, say, versions, quick, deadline):
    """All peers on a problem. Those that matter most come first: time may run out."""
    p = Clouds(torch, folder, device)
    most, repetitions = (64, 1) if quick else (4096, 5)

    def attempt(name, ways, more=""):
        try:
            found = ways()
        except Exception as e:
            say(part="solve", problem=folder, peer=name, not_run=f"{type(e).__name__}: {first(e)}")
            return
        run(torch, p, name, found, versions + more, say, most, repetitions, deadline)

    if device == "cpu":
        say(part="solve", problem=folder, peer="flash-sinkhorn", not_run="no GPU")
    else:
        attempt("flash-sinkhorn", lambda: flash_ways(torch, p), f", flash-sinkhorn {have('flash-sinkhorn')}")
    attempt("pytorch", lambda: torch_ways(torch, p, compiled=device != "cpu"))
    attempt("ott-jax", lambda: ott_ways(torch, p), f", OTT-JAX {have('ott-jax')}, JAX {have('jax')}, jaxlib {have('jaxlib')}")
    if time.perf_counter() > deadline:
        say(part="solve", problem=folder, peer="geomloss", not_run="no time left")
        return
    try:
        geomloss_answer(torch, p, say, versions, min(20.0, deadline - time.perf_counter()), repetitions)
    except Exception as e:
        say(part="solve", problem=folder, peer="geomloss", not_run=f"{type(e).__name__}: {first(e)}")


def have(package):
    try:
        return version(package)
    except Exception:
        return "of an unknown version"

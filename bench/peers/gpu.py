"""Runs the peers of the suite gpu, on a machine that has PyTorch, Triton and JAX.

    gpu.py [--device cuda|cpu] [--quick] [--limit S] [--solve FOLDER]... [--light FOLDER]... [--gemm]

FOLDERs are problems as solve.py and light.py read them. In them are left the
potentials f and g of solves, and loss and gradient of a training step; what was
measured is printed as lines of JSON, one for each result, as soon as it is there.
What could not be run is a line with "not_run" and the reason, and no failure:
the exit code is 0. Without folders, small problems of its own are run. --limit
is for all: what would begin later is left out, and said.

It needs the pure Python packages of requirements-gpu.txt for flash-sinkhorn,
OTT-JAX and GeomLoss/KeOps. --device cpu, in the environment of make peers, runs
all that needs no GPU, and the Python of flash-sinkhorn up to its kernels if the
package can be imported.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
import types

import gpu_solve
import light


def versions(torch):
    """Of everything below the peers."""
    text = light.versions(torch)
    try:
        import triton

        text += f", Triton {triton.__version__}"
    except ImportError:
        pass
    if torch.cuda.is_available():
        text += f", CUDA {torch.version.cuda}, driver {driver()}"
    return text


def driver():
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except Exception:
        return "unknown"


def prepare(np, folders, say, limit):
    """See gpu_solve.compile_flash. That it fails is no matter: it only saves time."""
    start = time.perf_counter()
    dims = sorted({np.load(os.path.join(f, "x.npy"), mmap_mode="r").shape[1] for f in folders})
    parts = max(1, min(16, os.cpu_count() or 1))
    workers = [
        subprocess.Popen([sys.executable, __file__, "--compile", f"{i}/{parts}/{','.join(map(str, dims))}"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for i in range(parts)
    ]
    note = ""
    for w in workers:
        try:
            _, text = w.communicate(timeout=max(0.1, limit - (time.perf_counter() - start)))
            if w.returncode:
                note = text[-300:]
        except subprocess.TimeoutExpired:
            w.kill()
            w.communicate()
            note = "out of time"
    say(part="compile", peer="flash-sinkhorn", settings=f"{parts} processes", took=time.perf_counter() - start, note=note)


# ---- Training steps


def functional(torch, problem, loss):
    """The loss as a function of tensors alone, as torch.compile likes it."""
    unit = light.Mixture(torch, problem, torch.float32).unit

    def call(raw, r, log_s, *batch):
        return loss(torch, light.Mixture.of(problem.epsilon, unit, raw, r, log_s), *batch)

    return call


class Step:
    """A training step in one of the ways of MODES."""

    def __init__(self, torch, problem, loss, mode):
        self.torch, self.problem, self.mode = torch, problem, mode
        torch.manual_seed(0)
        self.m = light.Mixture(torch, problem, torch.float32)
        self.loss = functional(torch, problem, loss)
        self.draw = problem.draw
        if mode == "traced":
            self.loss = torch.compile(self.loss, backend="aot_eager", fullgraph=True, dynamic=False)
        elif mode != "eager":
            kind = None if mode == "one CUDA graph" else mode
            self.loss = torch.compile(self.loss, mode=kind, fullgraph=True, dynamic=False)
        # The graphs of torch.compile reuse their outputs in the next step.
        self.begin = torch.compiler.cudagraph_mark_step_begin if mode in ("reduce-overhead", "max-autotune") else (lambda: None)
        self.adam = torch.optim.Adam(self.m.parameters(), lr=problem.rate, fused=True, capturable=problem.source.is_cuda)

    def gradient(self):
        value = self.loss(*self.m.parameters(), *self.problem.given)
        return self.m.gradient(self.torch, value.clone())

    def once(self):
        self.begin()
        value = self.loss(*self.m.parameters(), *self.draw(self.torch))
        self.adam.zero_grad(set_to_none=True)
        value.backward()
        if self.problem.clip:
            self.torch.nn.utils.clip_grad_norm_(self.m.parameters(), self.problem.clip)
        self.adam.step()
        self.value = value.detach()

    def captured(self):
        """The whole step, drawing and Adam included, as one graph."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.once()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.once()
        return graph.replay

    def measure(self, seconds, deadline):
        torch, problem = self.torch, self.problem
        step = self.captured() if self.mode == "one CUDA graph" else self.once
        device = "cuda" if problem.source.is_cuda else "cpu"
        for _ in range(5):
            step()
        times = []
        while len(times) < 3 or sum(times) * problem.block < seconds and time.perf_counter() < deadline:
            gpu_solve.wait(torch, device)
            start = time.perf_counter()
            for _ in range(problem.block):
                step()
            gpu_solve.wait(torch, device)
            times.append((time.perf_counter() - start) / problem.block)
        if not bool(self.value.isfinite()):
            raise ArithmeticError("the loss is not finite")
        return times


MODES = ("one CUDA graph", "reduce-overhead", "max-autotune", "eager")


def lights(torch, folder, device, say, stack, quick, deadline):
    import numpy as np

    torch.manual_seed(0)
    problem = light.Problem(torch, folder, device)
    fit = problem.settle(torch, folder) if problem.inverse else None
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):  # LightSB-M as published differentiates in its loss
        torch._dynamo.config.trace_autograd_ops = True
    modes = ("traced", "eager") if device == "cpu" else MODES
    jobs = [(way, mode) for mode in modes for way in reversed(light.WAYS[problem.method])]
    for way, mode in jobs:
        name = f"{way}, {mode}"
        report = dict(part="light", problem=folder, peer="pytorch", way=name, version=stack)
        if time.perf_counter() > deadline:
            say(**report, not_run="no time left")
            continue
        try:
            loss = light.WAYS[problem.method][way]
            step = Step(torch, problem, loss, mode)
            np.save(os.path.join(folder, name + ".f32.npy"), step.gradient().cpu().numpy())
            np.save(os.path.join(folder, name + ".f64.npy"), light.gradient(torch, problem, loss, torch.float64).cpu().numpy())
            say(**report, seconds=step.measure(0.0 if quick else 1.0, deadline), fit=fit)
        except Exception as e:  # what torch.compile cannot do, for one
            say(**report, not_run=f"{type(e).__name__}: {gpu_solve.first(e)}")


# ---- Matrix products and copies


def products(torch, device, say, stack, quick, deadline):
    """cuBLAS by torch at the sizes of the benchmarks of kernels/gemm and where it is
    at its best, and a copy on the device, which is the bandwidth that there is.
    Errors are relative to |A||B|, of some rows against float64 on the host."""
    shapes = [(512, 512, 512), (2048, 2048, 2048), (65536, 64, 64), (64, 64, 65536), (8192, 8192, 8192)]
    if quick:
        shapes = [(64, 48, 32)]
    generator = torch.Generator().manual_seed(1)
    for m, n, k in shapes:
        a, b = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((m, k), (k, n)))
        rows = torch.arange(0, m, max(1, m // 7))
        want, size = a[rows] @ b, a[rows].abs() @ b.abs()
        for name, dtype, tf32, ulp in (
            ("tf32", torch.float32, True, 2.0**-10), ("f32", torch.float32, False, 2.0**-23), ("f64", torch.float64, False, 2.0**-52),
        ):
            if tf32 and device == "cpu" or time.perf_counter() > deadline:
                continue
            torch.backends.cuda.matmul.allow_tf32 = tf32
            x, y = a.to(device, dtype), b.to(device, dtype)
            out = torch.empty(m, n, dtype=dtype, device=device)
            # Inputs are rounded too: what that does is no error of the product.
            wanted = want if dtype == torch.float64 else x[rows].cpu().double() @ y.cpu().double()
            seconds = repeated(torch, device, lambda: torch.mm(x, y, out=out))
            error = float(((out[rows].cpu().double() - wanted).abs() / size).max())
            say(part="gemm", name="gemm", n=m, m=n, d=k, precision=name, seconds=seconds, error=error, budget=k**0.5 * ulp,
                flops=2 * m * n * k, peer="pytorch", version=stack)
    torch.backends.cuda.matmul.allow_tf32 = False
    size = 2**16 if quick else 2**30
    x = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    y = torch.zeros_like(x)
    seconds = repeated(torch, device, lambda: y.copy_(x))
    say(part="gemm", name="copy", n=size, m=1, d=1, precision="u8", seconds=seconds, error=float((x != y).sum()), budget=0.0,
        bytes=2 * size, peer="pytorch", version=stack)


def repeated(torch, device, work):
    """Seconds of one call, in blocks of some milliseconds."""
    work()
    gpu_solve.wait(torch, device)
    block, times = 1, []
    while len(times) < 10:
        start = time.perf_counter()
        for _ in range(block):
            work()
        gpu_solve.wait(torch, device)
        took = time.perf_counter() - start
        if took < 5e-3 and block < 1000 and not times:
            block *= 2
            continue
        times.append(took / block)
    return times


# ---- Without a GPU


def rehearse(torch, folder, say):
    """Runs flash-sinkhorn's Python on the CPU up to its kernels, in whose place stand
    their definitions, and Triton's is a name without content: that its interface is
    what gpu_solve.py takes it for."""
    report = dict(part="rehearsal", peer="flash-sinkhorn")
    try:
        import triton  # noqa: F401
    except ImportError:
        stand_in()
    try:
        import flash_sinkhorn
    except ImportError as e:
        say(**report, not_run=f"not installed: {e}")
        return
    from flash_sinkhorn import sinkhorn_solvers

    def lse(x, y, bias, eps, *, cost_scale=1.0, damping=1.0, **_):
        return -eps * damping * torch.logsumexp(2 * cost_scale * (x @ y.T) / eps + bias, 1)

    def fused(x, y, g, log_w, eps, **options):
        return lse(x, y, g / eps + log_w, eps, **options)

    def step(x, y, f, g, log_a, log_b, eps, *, alpha=0.5, damping_f=1.0, damping_g=1.0, **options):
        options = {"cost_scale": options["cost_scale"]}
        return (1 - alpha) * f + alpha * fused(x, y, g, log_b, eps, **options), (1 - alpha) * g + alpha * fused(y, x, f, log_a, eps, **options)

    for name, definition in (("flashsinkhorn_lse", lse), ("flashsinkhorn_lse_fused", fused), ("flashsinkhorn_symmetric_step", step)):
        theirs = list(inspect.signature(getattr(sinkhorn_solvers, name)).parameters)
        mine = [p for p, v in inspect.signature(definition).parameters.items() if v.kind is not v.VAR_KEYWORD]
        if theirs[: len(mine) - 2] != mine[: len(mine) - 2] and len(theirs) < len(mine):
            raise TypeError(f"flash-sinkhorn: {name} takes {theirs}, want {mine}")
        setattr(sinkhorn_solvers, name, definition)

    class Pretended(torch.Tensor):  # that it is on a GPU
        is_cuda = True

    p = gpu_solve.Clouds(torch, folder, "cpu")
    p.x, p.y = p.x.as_subclass(Pretended), p.y.as_subclass(Pretended)
    for way in gpu_solve.flash_ways(torch, p):
        f, g = (v.as_subclass(torch.Tensor) for v in way.run(60))
        say(**report, settings=way.settings, residual=p.residual(torch, f, g), version=flash_sinkhorn.__version__)


def stand_in():
    class Anything(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name)

        def __call__(self, *arguments, **_):
            return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else Anything("result")

        def __mro_entries__(self, bases):
            return (object,)

    module = Anything("triton")
    module.language, module.__path__ = Anything("triton.language"), []
    sys.modules["triton"], sys.modules["triton.language"] = module, module.language


def examples(np, folder, quick):
    """Small problems of its own, one of each kind."""
    r = np.random.default_rng(1)
    out = []
    n, d = (200, 8) if quick else (4096, 64)
    x, y = r.standard_normal((n, d)), 0.5 * r.standard_normal((n, d)) + 1
    mean = float(((x[:, None, :1] - y[None, :, :1]) ** 2).mean()) * d
    solve = dict(epsilon=0.1 * mean, tolerance=1e-6, tolerances=[1e-3, 1e-6], mean=mean)
    out.append(("solve", solve, dict(x=x, y=y)))
    b, k, d = 32, 5, 3
    for method in light.WAYS:
        spec = dict(method=method, epsilon=1.0, rate=1e-3, safe=1e-2, batch=b, block=3, seconds=0.0, clip=1.0, beta=10.0)
        v = {name: r.standard_normal((b, d)) for name in ("x0", "x1", "noise", "xt", "u")}
        v |= {name: r.standard_normal((100, d)) for name in ("source", "target")}
        v |= dict(t=0.9 * r.random(b), logits=r.standard_normal(k), means=r.standard_normal((k, d)), logscales=r.standard_normal((k, d)))
        out.append(("light", spec, {name: a.astype(np.float32) for name, a in v.items()}))
    found = {"solve": [], "light": []}
    for i, (kind, spec, arrays) in enumerate(out):
        path = os.path.join(folder, str(i))
        os.mkdir(path)
        with open(os.path.join(path, "problem.json"), "w") as f:
            json.dump(spec, f)
        for name, a in arrays.items():
            np.save(os.path.join(path, name + ".npy"), a)
        found[kind].append(path)
    return found["solve"], found["light"]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args.add_argument("--quick", action="store_true", help="small and short, to see that everything works")
    args.add_argument("--limit", type=float, default=240, help="seconds after which nothing more begins")
    args.add_argument("--solve", action="append", default=[])
    args.add_argument("--light", action="append", default=[])
    args.add_argument("--gemm", action="store_true")
    args.add_argument("--compile", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.compile:
        import torch

        part, parts, dims = args.compile.split("/")
        gpu_solve.compile_flash(torch, [int(d) for d in dims.split(",")], int(part), int(parts))
        return
    start = time.perf_counter()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Libraries print what is none of the caller's business, and processes that they
    # start must not hold the caller's pipe.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**line):
        print(json.dumps(line), file=output, flush=True)

    try:
        import numpy as np
        import torch
    except ImportError as e:
        say(part="all", not_run=str(e))
        return
    device = args.device
    if device == "cuda" and not torch.cuda.is_available():
        say(part="all", not_run=f"no GPU: torch {torch.__version__} sees none")
        return
    stack = versions(torch)
    with tempfile.TemporaryDirectory() as folder:
        solve_folders, light_folders, gemm = args.solve, args.light, args.gemm
        if not (solve_folders or light_folders or gemm):
            solve_folders, light_folders = examples(np, folder, args.quick)
            gemm = True
        # Shares of the time. What matters most comes first.
        jobs = [(3, gpu_solve.solves, f) for f in solve_folders] + [(1, lights, f) for f in light_folders]
        total, done = sum(weight for weight, _, _ in jobs) + gemm, 0
        if device == "cuda" and solve_folders:
            prepare(np, solve_folders, say, args.limit / 4)
        begin = time.perf_counter()
        for weight, job, f in jobs:
            done += weight
            job(torch, f, device, say, stack, args.quick, begin + (start + args.limit - begin) * done / total)
        if gemm:
            products(torch, device, say, stack, args.quick, start + args.limit)
        if device == "cpu" and solve_folders:
            rehearse(torch, solve_folders[0], say)
    say(part="all", device=device, took=time.perf_counter() - start)


if __name__ == "__main__":
    main()

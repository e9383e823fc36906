"""Trains a light bridge in PyTorch with the settings that a paper states, and draws
from it, so that what light.py re-states can be checked against printed figures.

    published.py --problem FOLDER

FOLDER holds source.npy (N0, d), target.npy (N1, d) and starts.npy (n, d), in
float32, and problem.json with method, epsilon, components, rate, batch, scale
(where S begins) and steps; for lightsbb-m also beta, safe, clip, outer, least, the
fewest steps of an outer iteration, of which iteration k has
max(least, steps exp(-k/5)), and fit, the steps of the fit of its inverse after each,
at the same rate: how many the program makes was not to be had. As the authors'
programs do, means begin at samples of the target, those of lightsbb-m half at the
source's. ends.npy (n, d) is drawn from the trained bridge, and what
happened is printed as one line of JSON.
"""

import argparse
import json
import math
import os
import time

import light


def problem_of(torch, np, folder):
    def load(name):
        return torch.from_numpy(np.load(os.path.join(folder, name + ".npy")))

    with open(os.path.join(folder, "problem.json")) as f:
        spec = json.load(f)
    p = light.Problem.__new__(light.Problem)
    p.method, p.epsilon, p.rate, p.batch = spec["method"], spec["epsilon"], spec["rate"], spec["batch"]
    p.beta, p.safe, p.clip = spec.get("beta", math.inf), spec.get("safe", 1e-2), spec.get("clip", 0)
    p.source, p.target = load("source"), load("target")
    k = spec["components"]
    rows = p.target[torch.randperm(len(p.target))[:k]].clone()
    if p.method == "lightsbb-m":
        rows[: k // 2] = p.source[torch.randperm(len(p.source))[: k // 2]]
    p.means, p.logits = rows, torch.full((k,), -math.log(k))
    p.log_scales = torch.full_like(rows, math.log(spec["scale"]))
    p.inverse = None
    return p, spec, load("starts")


def descend(torch, p, m, adam, loss, steps):
    for _ in range(steps):
        value = loss(torch, m, *p.draw(torch))
        adam.zero_grad(set_to_none=True)
        value.backward()
        if p.clip:
            torch.nn.utils.clip_grad_norm_(m.parameters(), p.clip)
        adam.step()
    return float(value.detach())


def train(torch, p, spec):
    m = light.Mixture(torch, p, torch.float32)
    adam = torch.optim.Adam(m.parameters(), lr=p.rate, fused=True)
    # Of the ways to write the same step, that which is not slow.
    loss = list(light.WAYS[p.method].values())[-1]
    if p.method != "lightsbb-m":
        descend(torch, p, m, adam, loss, spec["steps"])
        return m
    inverse = light.Inverse(torch, p)
    for k in range(spec["outer"]):
        steps = max(spec["least"], round(spec["steps"] * math.exp(-0.2 * k)))
        descend(torch, p, m, adam, loss, steps)
        fixed = m.detached()
        for _ in range(spec["fit"]):
            inverse.fit(torch, fixed, *p.pairs(torch))
        p.inverse = inverse  # from the second iteration on
    return m


def ends(torch, p, m, x):
    """X_1 = Y_1 + g(1 - safe, Y_1) / beta for Y_1 drawn from the plan at Y_0 = Z(0, X_0)."""
    s = m.log_s.exp()
    y = p.inverse(torch, 0.0, x) if p.inverse else x
    logits = m.log_alpha() + (y * y) @ s.T / (2 * m.epsilon) + y @ m.r.T / m.epsilon
    j = torch.distributions.Categorical(logits=logits).sample()
    y = m.r[j] + s[j] * y + (m.epsilon * s[j]).sqrt() * torch.randn_like(y)
    if p.inverse:
        y = y + light.drift(torch, m, 1 - p.safe, y) / p.beta
    return y


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--problem", required=True)
    args = args.parse_args()
    for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[v] = "1"
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    p, spec, starts = problem_of(torch, np, args.problem)
    start = time.perf_counter()
    m = train(torch, p, spec)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        out = torch.cat([ends(torch, p, m.detached(), x) for x in starts.split(4096)])
    np.save(os.path.join(args.problem, "ends.npy"), out.numpy())
    print(json.dumps({"version": light.versions(torch), "seconds": seconds}))


if __name__ == "__main__":
    main()

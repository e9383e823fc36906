package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/fortet/fortet/tensor/npy"
)

// PeerNames are all peers.
func PeerNames() []string { return append(solverPeers(), pyTorch, scipy, flashSinkhorn) }

// solverPeers are the libraries that bench/peers/solve.py knows.
func solverPeers() []string { return []string{"pot", "ott-jax", "ott-jax-kernel", "geomloss"} }

// pyTorch is what bench/peers/light.py is written in.
const pyTorch = "pytorch"

// peerFolder is where bench/peers/install.sh puts its environment.
func peerFolder() (string, error) {
	if dir := os.Getenv("FORTET_PEERS"); dir != "" {
		return dir, nil
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "fortet", "peers"), nil
}

// installedPeers are those of the known peers that were asked for. Where none
// were asked for by name, missing ones are no error, but said.
func (s *Session) installedPeers(known []string) ([]string, error) {
	if s.Peers != nil {
		known = slices.DeleteFunc(known, func(name string) bool { return !slices.Contains(s.Peers, name) })
	}
	if s.NoPeers || len(known) == 0 {
		return nil, nil
	}
	dir, err := peerFolder()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, ".installed")); err != nil {
		if s.Peers != nil {
			return nil, fmt.Errorf("peers are not installed in %s: run make peers", dir)
		}
		fmt.Fprintf(s.Log, "no peers in %s: run make peers to compare with them\n", dir)
		return nil, nil
	}
	return known, nil
}

// peerAnswer is what solve.py prints.
type peerAnswer struct {
	Peer, Version, Settings, Note string
	Seconds                       []float64
	Iterations                    int
	Converged                     bool
}

// python runs a script of bench/peers and answers what it printed. One that fails
// answers nil: it is said, and the run goes on; what a peer cannot do is no fault
// of ours.
func (s *Session) python(ctx context.Context, name, script string, args ...string) ([]byte, error) {
	env, err := peerFolder()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(env, "bin", "python"), append([]string{filepath.Join(s.Root, "bench", "peers", script)}, args...)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(env, "lib", "stubs"),
		"KEOPS_CACHE_FOLDER="+filepath.Join(env, "keops"), "JAX_PLATFORMS=cpu", "CUDA_VISIBLE_DEVICES=")
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fmt.Fprintf(s.Log, "%s: %v: %s\n", name, err, tail(messages.String()))
		return nil, nil
	}
	return out.Bytes(), nil
}

// peer runs a peer on p. One that fails is a row of its own kind of nothing.
func (s *Session) peer(ctx context.Context, name string, p problem) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := p.write(dir); err != nil {
		return err
	}
	limit, repetitions, threads := s.Limit.Seconds(), 3, min(2, s.Provenance.Cores)
	if s.Quick {
		limit, repetitions = min(limit, 20), 1
	}
	out, err := s.python(ctx, name, "solve.py", "--peer", name, "--problem", dir, "--out", dir, "--limit", fmt.Sprint(limit),
		"--repetitions", strconv.Itoa(repetitions), "--threads", strconv.Itoa(threads))
	if out == nil || err != nil {
		return err
	}
	var a peerAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("%s: %w in %q", name, err, tail(string(out)))
	}
	f, errF := npy.ReadFile(filepath.Join(dir, "f.npy"))
	g, errG := npy.ReadFile(filepath.Join(dir, "g.npy"))
	if err := errors.Join(errF, errG); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	residual := math.Inf(1)
	if fv, gv := f.Float64s(), g.Float64s(); len(fv) == p.n && len(gv) == p.n && finite(fv) && finite(gv) {
		residual = Residual(p.x, p.y, p.d, fv, gv, p.epsilon)
	}
	r := Row{
		Name: "solve", Engine: name, Status: OK, Seconds: Sum(a.Seconds), Iterations: a.Iterations,
		Provenance: Provenance{Version: a.Version},
		Work:       p.work("f64", a.Settings, threads),
		Accuracy:   Accuracy{Tolerance: tolerance},
		Note:       a.Note,
	}
	switch {
	case math.IsInf(residual, 1) || math.IsNaN(residual):
		fmt.Fprintf(s.Log, "%s: %v: its potentials are not finite, no row\n", name, r.Work)
		return nil
	case residual <= tolerance: // whether it noticed or not
	case !a.Converged && r.Seconds.Median < limit/2:
		r.Status = Stalled
	case !a.Converged:
		r.Status = TimeLimit
	}
	r.Residual = &residual
	s.add(r)
	return nil
}

// tail is the end of a long text.
func tail(text string) string {
	const most = 600
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

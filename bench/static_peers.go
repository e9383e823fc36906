package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor/npy"
)

// chains compares solves of chains of k clouds: at a size that a solver with the
// tensor in memory does in seconds, at the largest that it can hold, and at n.
func (s *Session) chains(ctx context.Context, dev gpu.Device, k, n int, peer bool) error {
	easy, memory := map[int]int{3: 96, 5: 16}[k], peerMemory
	if s.Quick {
		easy, memory = map[int]int{3: 24, 5: 8}[k], int64(8<<20)
	}
	sizes := []int{easy}
	if peer {
		var size struct{ N int }
		ran, err := s.staticPeer(ctx, ottJAX, "chain-size", "", 0, &size,
			"--marginals", strconv.Itoa(k), "--dim", strconv.Itoa(chainDim), "--memory", strconv.FormatInt(memory, 10))
		if err != nil {
			return err
		}
		if ran && size.N > easy {
			sizes = append(sizes, size.N)
		}
	}
	for _, size := range sizes {
		c := newChain(k, size, chainDim)
		if peer {
			var err error
			if c, err = s.chainPeer(ctx, c, memory); err != nil {
				return err
			}
		}
		if err := s.chainSolve(ctx, dev, c, false, fixedInner, nil); err != nil {
			return err
		}
	}
	if k == 5 { // chainWork has it
		return nil
	}
	return s.chainSolve(ctx, dev, newChain(k, n, chainDim), false, fixedInner, nil)
}

// peerMemory is what the arrays of a peer may take.
const peerMemory = int64(6 << 30)

const ottJAX = "ott-jax"

// chainPeer is OTT-JAX's solver, which makes the problem smaller until it fits
// into the memory. It returns the problem that was solved.
func (s *Session) chainPeer(ctx context.Context, c *chain, memory int64) (*chain, error) {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := c.write(dir); err != nil {
		return nil, err
	}
	const limit = 20.0
	var a staticAnswer
	ran, err := s.staticPeer(ctx, ottJAX, "chain", dir, limit, &a, "--memory", strconv.FormatInt(memory, 10))
	if err != nil || !ran {
		return c, err
	}
	if a.N < 1 || a.N > c.n {
		return nil, fmt.Errorf("%s: it says that it solved %d points, want 1 to %d", ottJAX, a.N, c.n)
	}
	row := Row{
		Name: chainName, Engine: ottJAX, Provenance: Provenance{Version: a.Version},
		Work: c.work("f64", fixedInner, min(2, s.Provenance.Cores)),
	}
	if a.Refused != nil {
		r := row
		r.Status, r.N, r.M, r.Seconds = OutOfMemory, a.Refused.N, a.Refused.N, Sum([]float64{a.Refused.Seconds})
		r.Note = fmt.Sprintf("with %.3g GiB for its arrays: %s", float64(memory)/(1<<30), a.Refused.Message)
		s.add(r)
	}
	c = c.first(a.N)
	f := make([][]float64, c.k)
	for k := range f {
		v, err := npy.ReadFile(filepath.Join(dir, fmt.Sprintf("f%d.npy", k)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ottJAX, err)
		}
		if f[k] = v.Float64s(); len(f[k]) != c.n || !finite(f[k]) {
			fmt.Fprintf(s.Log, "%s: %v: its potentials are not finite, or not of the points: no row\n", ottJAX, row.Work)
			return c, nil
		}
	}
	residual, _ := c.residual(f, c.isFree(false))
	row.N, row.M, row.Status, row.Seconds, row.Iterations = c.n, c.n, OK, Sum(a.Seconds), a.Iterations
	row.Residual, row.Tolerance, row.Note = &residual, tolerance, a.Settings
	if !(residual <= tolerance) {
		row.Status = TimeLimit
	}
	s.add(row)
	return c, nil
}

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/ensemble"
	"github.com/fortet/fortet/tensor/npy"
)

const ensembleName = "ensemble"

// problemSet is many small problems that all engines are given: uniform weights, the
// squared distance, and ε in units of the mean cost of each.
type problemSet struct {
	count, n, d int
	x, y        []float64 // (count, n, d)
}

// newEnsemble draws, for each problem, a normal cloud and a narrower one around
// another centre.
func newEnsemble(count, n, d int) *problemSet {
	e := &problemSet{count: count, n: n, d: d, x: make([]float64, count*n*d), y: make([]float64, count*n*d)}
	r := rand.New(rand.NewPCG(1967, uint64(d)))
	centre := make([]float64, d)
	for p := range count {
		for k := range centre {
			centre[k] = r.NormFloat64()
		}
		for i := p * n * d; i < (p+1)*n*d; i++ {
			e.x[i] = r.NormFloat64()
			e.y[i] = centre[i%d] + 0.7*r.NormFloat64()
		}
	}
	return e
}

func (e *problemSet) work(count int, precision, settings string, workers int) Work {
	return Work{N: e.n, M: e.n, D: e.d, Problems: count, Epsilon: ensembleScale, Precision: precision, Settings: settings, Workers: workers}
}

// ensembleScale is ε over the mean cost of a problem.
const ensembleScale = 0.05

// worst is the largest residual of a sample of the first problems, by the
// definition. f and g are their potentials, (count, n).
func (e *problemSet) worst(f, g []float64) float64 {
	worst := 0.0
	for _, p := range sample(len(f) / e.n) {
		at, to := p*e.n, (p+1)*e.n
		x, y := e.x[at*e.d:to*e.d], e.y[at*e.d:to*e.d]
		worst = maxNaN(worst, Residual(x, y, e.d, f[at:to], g[at:to], ensembleScale*meanCost(x, y, e.d)))
	}
	return worst
}

// ensemble is Fortet with its default settings.
func (s *Session) ensemble(ctx context.Context, dev gpu.Device, e *problemSet) error {
	p := ensemble.Problem{X: e.x, Y: e.y, D: e.d, Epsilon: []float64{ensembleScale}, Scale: ensemble.Mean}
	for range e.count {
		p.N, p.M = append(p.N, e.n), append(p.M, e.n)
	}
	var last *ensemble.Result
	atLeast := 5 * time.Second
	if s.Quick {
		atLeast = 0
	}
	times, err := repeat(ctx, atLeast, func() (err error) {
		last, err = ensemble.Solve(ctx, dev, p, ensemble.Settings{Tolerance: tolerance})
		return err
	})
	if err != nil {
		return err
	}
	worst := e.worst(last.F, last.G)
	r := Row{
		Name: ensembleName, Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work:     e.work(e.count, "ladder", "default", dev.Properties().Workers),
		Accuracy: Accuracy{Residual: &worst, Tolerance: tolerance},
		Note:     fmt.Sprintf("%d problems repeated in float64", last.Repeated),
	}
	unsolved := 0
	for _, o := range last.Problems {
		r.Iterations = max(r.Iterations, o.Iterations)
		if o.Status != solver.Converged {
			unsolved++
		}
	}
	if unsolved > 0 {
		r.Status = Stalled
		r.Note = fmt.Sprintf("%d problems did not converge; %s", unsolved, r.Note)
	}
	s.add(r)
	return nil
}

// potLimit is how many seconds POT has for each of its ways.
const potLimit = 12

// ensemblePeers is POT, one problem after the other and in batches, for as many
// of the problems as its time is enough for, and all of them as one batch.
func (s *Session) ensemblePeers(ctx context.Context, e *problemSet) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = errors.Join(
		save(filepath.Join(dir, "x.npy"), npy.New(e.x, e.count, e.n, e.d)),
		save(filepath.Join(dir, "y.npy"), npy.New(e.y, e.count, e.n, e.d)),
		os.WriteFile(filepath.Join(dir, "problem.json"), fmt.Appendf(nil, `{"scale": %v, "tolerance": %v}`, ensembleScale, tolerance), 0o644))
	if err != nil {
		return err
	}
	for _, task := range []string{"loop", "batch", "whole"} {
		var a staticAnswer
		ran, err := s.staticPeer(ctx, "pot", task, dir, potLimit, &a)
		if err != nil {
			return err
		}
		if !ran {
			continue
		}
		f, errF := npy.ReadFile(filepath.Join(dir, "f.npy"))
		g, errG := npy.ReadFile(filepath.Join(dir, "g.npy"))
		if err := errors.Join(errF, errG); err != nil {
			return fmt.Errorf("pot: %s: %w", task, err)
		}
		fv, gv := f.Float64s(), g.Float64s()
		if done := len(fv) / e.n; done < 1 || done > e.count || len(fv) != done*e.n || len(gv) != len(fv) || !finite(fv) || !finite(gv) {
			fmt.Fprintf(s.Log, "pot: %s: its potentials are not finite, or not those of the problems: no row\n", task)
			continue
		}
		worst := e.worst(fv, gv)
		r := Row{
			Name: ensembleName, Engine: "pot", Status: OK, Seconds: Sum(a.Seconds), Iterations: a.Iterations,
			Provenance: Provenance{Version: a.Version},
			Work:       e.work(len(fv)/e.n, "f64", a.Settings, min(2, s.Provenance.Cores)),
			Accuracy:   Accuracy{Residual: &worst, Tolerance: tolerance},
			Note:       a.Note,
		}
		if task == "whole" && !(worst <= tolerance) {
			r.Status = TimeLimit
		}
		s.add(r)
	}
	return nil
}

// staticAnswer is what static.py prints.
type staticAnswer struct {
	Version, Settings, Note string
	Seconds                 []float64
	Iterations              int
	N                       int // of a chain: points of each cloud
	Refused                 *struct {
		N       int
		Seconds float64
		Message string
	}
}

// staticPeer runs a task of static.py for so many seconds, in a folder that is
// read and written. One that fails is said, and has not run.
func (s *Session) staticPeer(ctx context.Context, name, task, dir string, seconds float64, to any, more ...string) (ran bool, err error) {
	seconds = min(seconds, s.Limit.Seconds())
	if s.Quick {
		seconds = min(seconds, 2)
	}
	limited, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	args := []string{
		"--problem", dir, "--out", dir, "--task", task, "--limit", fmt.Sprint(seconds), "--threads", fmt.Sprint(min(2, s.Provenance.Cores)),
	}
	out, err := s.python(limited, name, "static.py", append(args, more...)...)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		fmt.Fprintf(s.Log, "%s: %s: not done after %v\n", name, task, s.Limit)
		return false, nil
	}
	if out == nil || err != nil {
		return false, err
	}
	if err := json.Unmarshal(out, to); err != nil {
		return false, fmt.Errorf("%s: %w in %q", name, err, tail(string(out)))
	}
	return true, nil
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/atomicfile"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

const tolerance = 1e-6 // L1, of both marginals together

// problem is what all solvers are given: two clouds, uniform weights, the
// squared distance, and ε.
type problem struct {
	x, y    []float64
	n, d    int
	scale   float64 // ε in units of the mean cost
	epsilon float64 // absolute
	mean    float64
}

func newProblem(n, d int, scale float64) problem {
	p := problem{n: n, d: d, scale: scale}
	p.x, p.y = clouds(n, n, d)
	p.mean = meanCost(p.x, p.y, d)
	p.epsilon = scale * p.mean
	return p
}

func (p problem) work(precision, settings string, workers int) Work {
	return Work{N: p.n, M: p.n, D: p.d, Epsilon: p.scale, Precision: precision, Settings: settings, Workers: workers}
}

// solvers measures the time to a residual, beside the peers on the same
// problem; memory and time of a large problem; and the start of the program.
func solvers(ctx context.Context, s *Session) error {
	n, dims, scales := 4096, []int{2, 64}, []float64{0.05, 0.005}
	if s.Quick {
		n, dims, scales = 256, []int{2}, []float64{0.05}
	}
	peers, err := s.installedPeers(solverPeers())
	if err != nil {
		return err
	}
	for _, d := range dims {
		for _, scale := range scales {
			p := newProblem(n, d, scale)
			if err := s.solve(ctx, p); err != nil {
				return err
			}
			for _, peer := range peers {
				if err := s.peer(ctx, peer, p); err != nil {
					return err
				}
			}
		}
	}
	if _, err := os.Stat(s.Fortet); err != nil {
		return fmt.Errorf("the program is needed for its memory and start: %w", err)
	}
	return errors.Join(s.large(ctx), s.start(ctx))
}

// solve is Fortet with its default settings.
func (s *Session) solve(ctx context.Context, p problem) error {
	dev, err := gpu.OpenWith(s.Device, gpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	geom, err := geometry.NewPoints(p.x, p.y, p.d, geometry.SqEuclidean)
	if err != nil {
		return err
	}
	atLeast := 20 * time.Second
	if s.Quick {
		atLeast = 0
	}
	return s.solveTo(ctx, dev, p, geom, tolerance, atLeast, "default")
}

// solveTo adds the row of a problem that is solved to a tolerance, repeatedly for
// at least so long.
func (s *Session) solveTo(ctx context.Context, dev gpu.Device, p problem, geom geometry.Geometry, tol float64, atLeast time.Duration, how string) error {
	var last *sinkhorn.Result
	times, err := repeat(ctx, atLeast, func() (err error) {
		last, err = sinkhorn.Solve(ctx, dev, sinkhorn.Problem{Geometry: geom, Epsilon: p.epsilon}, sinkhorn.Settings{Tolerance: tol})
		return err
	})
	if err != nil {
		return err
	}
	residual := Residual(p.x, p.y, p.d, last.Plan.F, last.Plan.G, p.epsilon)
	r := Row{
		Name: "solve", Engine: Fortet, Status: OK, Seconds: Sum(times), Iterations: last.Iterations,
		Work:     p.work("ladder", how, dev.Properties().Workers),
		Accuracy: Accuracy{Residual: &residual, Tolerance: tol},
		Note:     describe(last.Stages),
	}
	if last.Status != solver.Converged {
		r.Status = Stalled
		r.Note = strings.TrimSpace(last.Status.String() + "; " + r.Note)
	}
	s.add(r)
	return nil
}

// describe sums up the stages of a solve by precision.
func describe(stages []sinkhorn.Stage) string {
	var parts []string
	for i, st := range stages {
		if i+1 < len(stages) && stages[i+1].DType == st.DType {
			continue
		}
		sweeps := 0
		for _, other := range stages {
			if other.DType == st.DType {
				sweeps += other.Iterations
			}
		}
		text := fmt.Sprintf("%d sweeps in %v", sweeps, st.DType)
		if st.Cached {
			text += " with the cost cached"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// large solves 100,000 × 100,000 points in a process of its own and watches
// its memory.
func (s *Session) large(ctx context.Context) error {
	n := 100_000
	if s.Quick {
		n = 2000
	}
	p := newProblem(n, 3, 0.05)
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := p.write(dir); err != nil {
		return err
	}
	potentials := filepath.Join(dir, "potentials.npz")
	ran, err := watch(ctx, s.Fortet, "solve", "--device", s.Device, "--source", "npy:"+filepath.Join(dir, "x.npy"),
		"--target", "npy:"+filepath.Join(dir, "y.npy"), "--epsilon", fmt.Sprint(p.epsilon),
		"--tol", fmt.Sprint(tolerance), "--potentials", potentials, "--quiet")
	if err != nil {
		return err
	}
	archive, err := npy.ReadNPZFile(potentials)
	if err != nil {
		return err
	}
	var f, g []float64
	for name, to := range map[string]*[]float64{"f": &f, "g": &g} {
		a, err := archive.Get(name)
		if err != nil {
			return fmt.Errorf("%s: %w", potentials, err)
		}
		if len(a.Shape) != 1 || a.Shape[0] != n {
			return fmt.Errorf("%s: %s: shape %s, want (%d,)", potentials, name, npy.FormatShape(a.Shape), n)
		}
		*to = a.Float64s()
	}
	residual := Residual(p.x, p.y, p.d, f, g, p.epsilon)
	r := Row{
		Name: "solve", Engine: Fortet, Status: OK, Seconds: Sum([]float64{ran.seconds}),
		Work:     p.work("ladder", "the program, reading and writing included", s.Provenance.Cores),
		Accuracy: Accuracy{Residual: &residual, Tolerance: tolerance},
	}
	if ran.peak > 0 {
		r.Memory = &Memory{PeakBytes: ran.peak, DataBytes: int64(len(p.x)+len(p.y)) * 8, Budget: 300e6}
	}
	if ran.code == 3 {
		r.Status = Stalled
	} else if ran.code != 0 {
		return fmt.Errorf("%s solve: exit code %d: %s", s.Fortet, ran.code, ran.stderr)
	}
	s.add(r)
	return nil
}

const startup = "fortet doctor"

// start times the program's start.
func (s *Session) start(ctx context.Context) error {
	var times []float64
	runs := 20
	if s.Quick {
		runs = 3
	}
	r := Row{Name: startup, Engine: Fortet, Status: OK, Note: "process start to exit"}
	for range runs {
		ran, err := watch(ctx, s.Fortet, "doctor", "--json")
		if err != nil {
			return err
		}
		if ran.code != 0 {
			r.Status, r.Note = Wrong, fmt.Sprintf("exit code %d: %s", ran.code, ran.stderr)
		}
		times = append(times, ran.seconds)
	}
	r.Seconds = Sum(times)
	s.add(r)
	return nil
}

// write writes what a peer reads.
func (p problem) write(dir string) error {
	spec := fmt.Sprintf(`{"epsilon": %v, "tolerance": %v, "mean": %v}`, p.epsilon, tolerance, p.mean)
	return errors.Join(
		save(filepath.Join(dir, "x.npy"), npy.New(p.x, p.n, p.d)),
		save(filepath.Join(dir, "y.npy"), npy.New(p.y, p.n, p.d)),
		os.WriteFile(filepath.Join(dir, "problem.json"), []byte(spec), 0o644))
}

func save(path string, a *npy.Array) error {
	return atomicfile.Write(path, func(w io.Writer) error { return npy.Write(w, a) })
}

// finite reports whether all of v is.
func finite(v []float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
}

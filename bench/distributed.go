package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/internal/mpirun"
	"github.com/fortet/fortet/kernels/fold"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// distributed measures problems that several processes share, and what the model
// of Scaling needs: a pair, a point, adding up, and the link.
func distributed(ctx context.Context, s *Session) error {
	n, dims, runs := 20_000, []int{3, 64}, 2
	if s.Quick {
		n, dims, runs = 500, []int{3}, 1
	}
	group, err := mpirun.Find()
	if err != nil {
		fmt.Fprintf(s.Log, "not measured: %v\n", err)
	}
	for _, d := range dims {
		if err := s.shared(ctx, group, newProblem(n, d, 0.1), runs); err != nil {
			return err
		}
		if err := s.sweep(ctx, d); err != nil {
			return err
		}
	}
	if err := errors.Join(s.vectors(ctx), s.adding(ctx)); err != nil {
		return err
	}
	if err != nil {
		return nil
	}
	return s.link(ctx, group)
}

// setup is how a problem is shared.
type setup struct {
	processes, workers, shards int
}

func (u setup) String() string {
	text := fmt.Sprintf("%d × %d workers", u.processes, u.workers)
	if u.shards == 0 {
		text += ", not in shards"
	}
	return text
}

const sharedShards = 8

// shared solves a problem on one core, on two by threads and by processes. With
// shards the potentials must be the same, byte for byte.
func (s *Session) shared(ctx context.Context, m mpirun.MPI, p problem, runs int) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := p.write(dir); err != nil {
		return err
	}
	setups := []setup{{1, 1, sharedShards}, {1, 2, sharedShards}, {1, 2, 0}}
	if m.Found() {
		setups = append(setups, setup{2, 1, sharedShards})
	}
	var first []byte  // of the shards on one core
	var known float64 // its residual
	for _, u := range setups {
		file := filepath.Join(dir, "potentials.npz")
		var times []float64
		var got sharedResult
		for range runs {
			if got, err = s.sharedRun(ctx, m, u, p, dir, file); err != nil {
				return fmt.Errorf("%v: %w", u, err)
			}
			times = append(times, got.Seconds)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		row := Row{
			Name: "solve", Engine: Fortet, Status: OK, Seconds: Sum(times), Iterations: got.Iterations,
			Work: p.work("ladder", u.String(), u.workers), Accuracy: Accuracy{Tolerance: tolerance},
		}
		row.Processes, row.Shards = u.processes, u.shards
		residual := known
		if same := u.shards > 0 && bytes.Equal(first, data); same {
			row.Note = "the potentials of one core, byte for byte"
		} else if residual, err = p.residualOf(file); err != nil {
			return err
		} else if u.shards > 0 && first != nil {
			row.Status, row.Note = Wrong, "other potentials than on one core"
		}
		if first == nil {
			first, known = data, residual
		}
		row.Residual = &residual
		s.add(row)
	}
	return nil
}

// sharedResult is what is read of the program's answer.
type sharedResult struct {
	Status     string  `json:"status"`
	Seconds    float64 `json:"seconds"` // of solving alone
	Iterations int     `json:"iterations"`
}

func (s *Session) sharedRun(ctx context.Context, m mpirun.MPI, u setup, p problem, dir, file string) (r sharedResult, err error) {
	args := []string{
		"solve", "--device", "cpu", "--workers", fmt.Sprint(u.workers), "--source", "npy:" + filepath.Join(dir, "x.npy"),
		"--target", "npy:" + filepath.Join(dir, "y.npy"), "--epsilon", fmt.Sprint(p.epsilon), "--tol", fmt.Sprint(tolerance),
		"--potentials", file, "--quiet",
	}
	if u.shards > 0 {
		args = append(args, "--shards", fmt.Sprint(u.shards))
	}
	started := 0
	if u.processes > 1 {
		started = u.processes
		args = append(args, "--distributed", "mpi")
	}
	program, err := filepath.Abs(s.Fortet)
	if err != nil {
		return r, err
	}
	cmd := m.Command(ctx, started, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", program, err, tail(stderr.String()))
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("%s: %w", program, err)
	}
	if r.Status != "converged" {
		return r, fmt.Errorf("%s: %s, want converged", program, r.Status)
	}
	return r, nil
}

// residualOf is that of the potentials in a file of the program.
func (p problem) residualOf(file string) (float64, error) {
	archive, err := npy.ReadNPZFile(file)
	if err != nil {
		return 0, err
	}
	var v [2][]float64
	for k, name := range []string{"f", "g"} {
		a, err := archive.Get(name)
		if err != nil {
			return 0, err
		}
		if v[k] = a.Float64s(); len(v[k]) != p.n {
			return 0, fmt.Errorf("%s: %s has %d numbers, want %d", file, name, len(v[k]), p.n)
		}
	}
	return Residual(p.x, p.y, p.d, v[0], v[1], p.epsilon), nil
}

// sweep times one sweep of a streamed geometry on one core, in float32.
func (s *Session) sweep(ctx context.Context, d int) error {
	n := 8192
	if s.Quick {
		n = 512
	}
	p := newProblem(n, d, 0.05)
	dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 1})
	if err != nil {
		return err
	}
	defer dev.Close()
	geom, err := geometry.NewPoints(p.x, p.y, d, geometry.SqEuclidean)
	if err != nil {
		return err
	}
	op, err := geom.Open(dev, tensor.Float32, geometry.Options{CacheBytes: -1})
	if err != nil {
		return err
	}
	defer op.Close()
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = -math.Log(float64(n))
	}
	var v lot
	defer v.free()
	log, g, out := v.put(dev, tensor.Float32, weights), v.put(dev, tensor.Float32, make([]float64, n)), v.put(dev, tensor.Float32, make([]float64, n))
	col := v.put(dev, tensor.Float64, make([]float64, n))
	if v.err != nil {
		return v.err
	}
	times, err := repeat(ctx, time.Second, func() error { return op.Sweep(out, col, g, log, log, 1, p.epsilon) })
	if err != nil {
		return err
	}
	sums, err := tensor.Values[float64](col)
	if err != nil {
		return err
	}
	mass := 0.0
	for _, x := range sums {
		mass += x
	}
	// The plan has the mass of the source, to the rounding of its float32 terms.
	off := math.Abs(mass - 1)
	s.add(Row{
		Name: "sweep", Engine: Fortet, Status: OK, Seconds: Sum(times), Work: p.work("f32", "", 1),
		Accuracy: Accuracy{Error: &off, Budget: 1e-5}, Note: "error: of the plan's mass",
	})
	return nil
}

// lot is tensors that are freed together.
type lot struct {
	all []tensor.Tensor
	err error
}

func (l *lot) put(dev gpu.Device, dtype tensor.DType, v []float64) tensor.Tensor {
	if l.err != nil {
		return tensor.Tensor{}
	}
	var t tensor.Tensor
	if t, l.err = tensor.FromFloat64s(dev, dtype, v, len(v)); l.err == nil {
		l.all = append(l.all, t)
	}
	return t
}

func (l *lot) free() {
	for _, t := range l.all {
		t.Free()
	}
}

// idle is a geometry whose sweeps do nothing: what is left of a solver is what
// every process does itself. Its plan always misses the target by half.
type idle struct{ geometry.Points }

func (g idle) Open(dev gpu.Device, dtype tensor.DType, _ geometry.Options) (geometry.Operator, error) {
	v := make([]float64, g.M)
	for j := range v {
		v[j] = 0.5 / float64(g.M)
	}
	col, err := tensor.FromFloat64s(dev, tensor.Float64, v, g.M)
	return idleOperator{col, make([]float64, g.N), v}, err
}

type idleOperator struct {
	held        tensor.Tensor
	zeros, half []float64
}

func (o idleOperator) Softmin(out, _, _ tensor.Tensor, _ float64) error {
	return tensor.SetFloat64s(out, o.zeros)
}

func (o idleOperator) Sweep(out, col, _, _, _ tensor.Tensor, _, _ float64) error {
	return errors.Join(tensor.SetFloat64s(out, o.zeros), tensor.SetFloat64s(col, o.half))
}

func (o idleOperator) Apply(a geometry.Apply, _ float64) error {
	return tensor.SetFloat64s(a.Mean, o.zeros)
}
func (o idleOperator) Transposed() (geometry.Operator, error) { return o, nil }
func (o idleOperator) Cached() bool                           { return false }
func (o idleOperator) Close()                                 { o.held.Free() }

// vectors times what a solver does with vectors in a sweep, on one core.
func (s *Session) vectors(ctx context.Context) error {
	n := 20_000
	if s.Quick {
		n = 500
	}
	dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 1})
	if err != nil {
		return err
	}
	defer dev.Close()
	points, err := geometry.NewPoints(make([]float64, n), make([]float64, n), 1, geometry.SqEuclidean)
	if err != nil {
		return err
	}
	points.X[0] = 1
	const sweeps = 40
	var last *sinkhorn.Result
	times, err := repeat(ctx, 0, func() (err error) {
		last, err = sinkhorn.Solve(ctx, dev, sinkhorn.Problem{Geometry: idle{points}, Epsilon: 1},
			sinkhorn.Settings{Precision: solver.Single, NoAnnealing: true, MaxIterations: sweeps})
		return err
	})
	if err != nil {
		return err
	}
	for k := range times {
		times[k] /= sweeps
	}
	off := math.Abs(float64(last.Iterations - sweeps))
	s.add(Row{
		Name: "vectors", Engine: Fortet, Status: OK, Seconds: Sum(times), Accuracy: Accuracy{Error: &off},
		Work: Work{N: n, M: n, Precision: "f32", Workers: 1}, Note: "a sweep but for its pairs; error: sweeps that are missing",
	})
	return nil
}

// adding times the fold of eight rows, on one core.
func (s *Session) adding(ctx context.Context) error {
	const rows, m = sharedShards, 1 << 18
	dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 1})
	if err != nil {
		return err
	}
	defer dev.Close()
	v := make([]float64, rows*m)
	for i := range v {
		v[i] = float64(i % 1000) // sums are exact
	}
	var l lot
	defer l.free()
	flat, out := l.put(dev, tensor.Float64, v), l.put(dev, tensor.Float64, make([]float64, m))
	if l.err != nil {
		return l.err
	}
	in, err := flat.Reshape(rows, m)
	if err != nil {
		return err
	}
	times, err := repeat(ctx, 200*time.Millisecond, func() error { return fold.Rows(out, in) })
	if err != nil {
		return err
	}
	got, err := tensor.Values[float64](out)
	if err != nil {
		return err
	}
	off := 0.0
	for j, x := range got {
		want := 0.0
		for r := range rows {
			want += v[r*m+j]
		}
		off = max(off, math.Abs(x-want))
	}
	s.add(Row{
		Name: "fold", Engine: Fortet, Status: OK, Seconds: Sum(times), Accuracy: Accuracy{Error: &off},
		Work: Work{N: rows, M: m, Precision: "f64", Workers: 1},
	})
	return nil
}

// LinkTimes are what collective.Measure found, some times over.
type LinkTimes struct {
	Processes int               `json:"processes"`
	Gather    []collective.Line `json:"gather"`
	Wrong     int               `json:"wrong"` // bytes that did not arrive
}

// linkSizes are the least and the most that collective.Measure sends.
var linkSizes = []int{64, 2 << 20}

// MeasureLink times gathers of the group that this process was started in, mpi or
// nccl, on a device, and writes them as JSON where the rank is 0. All processes
// must call it.
func MeasureLink(ctx context.Context, w io.Writer, group, device string) error {
	dev, err := gpu.OpenWith(device, gpu.Options{Workers: 1})
	if err != nil {
		return err
	}
	defer dev.Close()
	g, err := collective.Open(group, dev)
	if err != nil {
		return err
	}
	out := LinkTimes{Processes: g.Size()}
	if out.Wrong, err = arrives(dev, g); err != nil {
		return err
	}
	for range 5 {
		cost, err := collective.Measure(ctx, g, dev)
		if err != nil {
			return err
		}
		out.Gather = append(out.Gather, cost.Gather)
	}
	if g.Rank() == 0 {
		if err := json.NewEncoder(w).Encode(out); err != nil {
			return err
		}
	}
	return errors.Join(g.Barrier(), g.Close())
}

// arrives counts the bytes of a gather that are not what was sent.
func arrives(dev gpu.Device, g collective.Group) (wrong int, err error) {
	const n = 1 << 16
	all, err := dev.Alloc(n * g.Size())
	if err != nil {
		return 0, err
	}
	defer dev.Free(all)
	part := all.Slice(n*g.Rank(), n)
	if err := dev.Upload(part, bytes.Repeat([]byte{byte(g.Rank() + 1)}, n)); err != nil {
		return 0, err
	}
	if err := g.Gather(all, part); err != nil {
		return 0, err
	}
	host := make([]byte, all.Bytes)
	if err := dev.Download(host, all); err != nil {
		return 0, err
	}
	for i, b := range host {
		if b != byte(i/n+1) {
			wrong++
		}
	}
	return wrong, nil
}

// link measures gathers between two processes of the runner.
func (s *Session) link(ctx context.Context, m mpirun.MPI) error {
	if s.Runner == "" {
		fmt.Fprintln(s.Log, "not measured: gathers, which need the runner")
		return nil
	}
	cmd := m.Command(ctx, 2, s.Runner, "-link", "mpi")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s -link mpi: %w: %s", s.Runner, err, tail(stderr.String()))
	}
	var l LinkTimes
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("%s -link mpi: %w", s.Runner, err)
	}
	for _, n := range linkSizes {
		off := float64(l.Wrong)
		var times []float64
		for _, line := range l.Gather {
			times = append(times, line.Seconds(n))
		}
		row := Row{
			Name: "gather", Engine: "mpi", Status: OK, Seconds: Sum(times), Accuracy: Accuracy{Error: &off},
			Work: Work{Bytes: n}, Note: "error: bytes that did not arrive",
		}
		row.Processes = l.Processes
		s.add(row)
	}
	return nil
}

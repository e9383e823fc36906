package bench

import (
	"bufio"
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
	"strings"
	"sync"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor/npy"
)

const flashSinkhorn = "flash-sinkhorn"

// gpuPeerNames are the peers of bench/peers/gpu.py.
var gpuPeerNames = []string{flashSinkhorn, pyTorch, ottJAX, "geomloss"}

// race measures solves and training steps on a GPU beside its peers there. On
// the CPU it is there for -quick alone, to see that everything works.
func race(ctx context.Context, s *Session) error {
	sizes, dim, tolerances := []int{10_000, 50_000}, 64, []float64{1e-3, 1e-5, 1e-6}
	shapes := []stepShape{{d: 2, k: 50, batch: 512, pool: 1 << 16, block: 100, scale: 1}, {d: 512, k: 10, batch: 512, pool: 1 << 13, block: 10, scale: 0.1}}
	limit := min(s.Limit, 240*time.Second)
	if s.Quick {
		sizes, dim, tolerances = []int{200}, 8, []float64{1e-3, 1e-6}
		shapes = []stepShape{{d: 2, k: 5, batch: 32, pool: 100, block: 2, scale: 1}}
		limit = min(s.Limit, 120*time.Second)
	} else if !strings.HasPrefix(s.Device, "cuda") {
		fmt.Fprintf(s.Log, "%s: left out: it wants -device cuda, or -quick\n", s.suite)
		return nil
	}
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dev, err := gpu.OpenWith(s.Device, gpu.Options{})
	if err != nil {
		return err
	}
	folders := &gpuFolders{limit: limit, solves: map[string]*raceProblem{}, steps: map[string]*stepProblem{}}
	for _, n := range sizes {
		p := &raceProblem{newProblem(n, dim, 0.05), tolerances}
		if err := s.raceSolve(ctx, dev, p); err != nil {
			return errors.Join(err, dev.Close())
		}
		folder := filepath.Join(dir, fmt.Sprintf("solve%d", n))
		if err := errors.Join(os.Mkdir(folder, 0o755), p.write(folder)); err != nil {
			return errors.Join(err, dev.Close())
		}
		folders.solves[folder] = p
	}
	for _, shape := range shapes {
		for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBBM} {
			p := newStepProblem(method, shape)
			if err := s.step(ctx, dev, p); err != nil {
				return errors.Join(err, dev.Close())
			}
			folder := filepath.Join(dir, fmt.Sprintf("%v%d", method, shape.d))
			if err := errors.Join(os.Mkdir(folder, 0o755), p.write(folder, 0)); err != nil {
				return errors.Join(err, dev.Close())
			}
			folders.steps[folder] = p
		}
	}
	// The peers have the device to themselves.
	if err := dev.Close(); err != nil {
		return err
	}
	return s.gpuPeers(ctx, folders)
}

// raceProblem is a problem that is solved to several residuals, the largest
// first.
type raceProblem struct {
	problem
	tolerances []float64
}

// write adds the tolerances to what a peer reads.
func (p *raceProblem) write(dir string) error {
	spec, err := json.Marshal(map[string]any{
		"epsilon": p.epsilon, "tolerance": p.tolerances[len(p.tolerances)-1], "tolerances": p.tolerances, "mean": p.mean,
	})
	return errors.Join(err, p.problem.write(dir), os.WriteFile(filepath.Join(dir, "problem.json"), spec, 0o644))
}

// raceSolve is Fortet with its default settings, to each tolerance.
func (s *Session) raceSolve(ctx context.Context, dev gpu.Device, p *raceProblem) error {
	geom, err := geometry.NewPoints(p.x, p.y, p.d, geometry.SqEuclidean)
	if err != nil {
		return err
	}
	for _, tol := range p.tolerances {
		if err := s.solveTo(ctx, dev, p.problem, geom, tol, 0, "default, from and to the host's memory"); err != nil {
			return err
		}
	}
	return nil
}

// gpuFolders are the problems that gpu.py is given, by folder.
type gpuFolders struct {
	limit  time.Duration
	solves map[string]*raceProblem
	steps  map[string]*stepProblem
}

// gpuLine is a line of gpu.py.
type gpuLine struct {
	Part, Problem, Peer, Settings, Way, Version, Note string
	NotRun                                            string `json:"not_run"`
	Tolerance                                         float64
	Seconds                                           []float64
	Iterations                                        int
	Converged                                         bool
	F, G                                              string
	Fit                                               *float64
	Name, Precision                                   string
	N, M, D                                           int
	Error, Budget, Flops, Bytes                       float64
}

// gpuPython is the interpreter that has PyTorch for the device, and the device by
// gpu.py's name: of a GPU $FORTET_GPU_PYTHON or else python3, where bench/peers/
// requirements-gpu.txt is on the path; otherwise that of make peers.
func (s *Session) gpuPython() (program, device string, err error) {
	if strings.HasPrefix(s.Device, "cuda") {
		program = os.Getenv("FORTET_GPU_PYTHON")
		if program == "" {
			program = "python3"
		}
		program, err = exec.LookPath(program)
		return program, "cuda", err
	}
	env, err := peerFolder()
	return filepath.Join(env, "bin", "python"), "cpu", err
}

// gpuPeers runs all peers in one process, and makes a row of each of its lines.
func (s *Session) gpuPeers(ctx context.Context, folders *gpuFolders) error {
	wanted := gpuPeerNames
	if s.Peers != nil {
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return !slices.Contains(s.Peers, name) })
	}
	if s.NoPeers || len(wanted) == 0 {
		return nil
	}
	program, device, err := s.gpuPython()
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		if s.Peers != nil {
			return err
		}
		fmt.Fprintf(s.Log, "%s: no peers: %v\n", s.suite, err)
		return nil
	}
	args := []string{filepath.Join(s.Root, "bench", "peers", "gpu.py"), "--device", device, "--limit", fmt.Sprint(folders.limit.Seconds()), "--gemm"}
	if s.Quick {
		args = append(args, "--quick")
	}
	var names []string
	for folder := range folders.solves {
		names = append(names, "--solve="+folder)
	}
	for folder := range folders.steps {
		names = append(names, "--light="+folder)
	}
	slices.Sort(names)
	// What has begun when the time is up may end, if it does so soon.
	limited, cancel := context.WithTimeout(ctx, folders.limit+folders.limit/4)
	defer cancel()
	cmd := exec.CommandContext(limited, program, append(args, names...)...)
	cmd.Env = append(os.Environ(), "XLA_PYTHON_CLIENT_PREALLOCATE=false")
	if device == "cpu" {
		env := filepath.Dir(filepath.Dir(program))
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+filepath.Join(env, "lib", "stubs"),
			"KEOPS_CACHE_FOLDER="+filepath.Join(env, "keops"), "JAX_PLATFORMS=cpu", "CUDA_VISIBLE_DEVICES=")
	}
	var messages bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &messages, 5*time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var faults []error
	for lines.Scan() {
		var l gpuLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			faults = append(faults, fmt.Errorf("gpu.py: %w in %q", err, tail(lines.Text())))
			continue
		}
		if l.Peer == "" || slices.Contains(wanted, l.Peer) {
			faults = append(faults, s.gpuRow(folders, l))
		}
	}
	faults = append(faults, lines.Err())
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(s.Log, "gpu.py: %v: %s\n", err, tail(messages.String()))
	}
	return errors.Join(faults...)
}

// gpuRow makes a row of a line, judged by our own code.
func (s *Session) gpuRow(folders *gpuFolders, l gpuLine) error {
	r := Row{Name: l.Name, Engine: l.Peer, Status: OK, Seconds: Sum(l.Seconds), Provenance: Provenance{Version: l.Version}, Iterations: l.Iterations, Note: l.Note}
	switch {
	case l.NotRun != "":
		fmt.Fprintf(s.Log, "%-8s %s %s %s%s: not run: %s\n", s.suite, l.Peer, filepath.Base(l.Problem), l.Settings, l.Way, l.NotRun)
		return nil
	case l.Part == "gemm":
		r.Work = Work{N: l.N, M: l.M, D: l.D, Precision: l.Precision, Settings: "torch.mm, cuBLAS"}
		r.Error, r.Budget = &l.Error, l.Budget
		rate := fmt.Sprintf("%s TFLOP/s", number3(l.Flops/r.Seconds.Minimum/1e12))
		if l.Bytes > 0 {
			r.Settings, rate = "torch copy_", fmt.Sprintf("%s GB/s read and written", number3(l.Bytes/r.Seconds.Minimum/1e9))
		}
		r.Note = rate
	case l.Part == "light":
		p := folders.steps[l.Problem]
		if p == nil {
			return fmt.Errorf("gpu.py: unknown problem %q", l.Problem)
		}
		worst, single, err := p.judge(l.Problem, l.Way)
		if err != nil {
			return fmt.Errorf("gpu.py: %s: %w", l.Way, err)
		}
		r.Name, r.Work, r.Error, r.Budget = stepName(p.method), p.work(l.Way, 0), &worst, ulp[float32]()
		r.Note = fmt.Sprintf("error in float32 %.1e", single)
		if l.Fit != nil {
			r.Note += fmt.Sprintf("; a step of the fit of its inverse, not counted, takes %s ms", number3(1000**l.Fit))
		}
	case l.Part == "solve":
		p := folders.solves[l.Problem]
		if p == nil {
			return fmt.Errorf("gpu.py: unknown problem %q", l.Problem)
		}
		f, errF := npy.ReadFile(filepath.Join(l.Problem, l.F))
		g, errG := npy.ReadFile(filepath.Join(l.Problem, l.G))
		if err := errors.Join(errF, errG); err != nil {
			return fmt.Errorf("gpu.py: %s: %w", l.Peer, err)
		}
		fv, gv := f.Float64s(), g.Float64s()
		if len(fv) != p.n || len(gv) != p.n || !finite(fv) || !finite(gv) {
			fmt.Fprintf(s.Log, "%s: %s: its potentials are not finite, or not of the points: no row\n", l.Peer, l.Settings)
			return nil
		}
		residual, how := p.residual(fv, gv)
		if math.IsNaN(residual) || math.IsInf(residual, 0) {
			fmt.Fprintf(s.Log, "%s: %s: its plan is not finite: no row\n", l.Peer, l.Settings)
			return nil
		}
		r.Name, r.Work = "solve", p.work("", l.Settings, 0)
		r.Residual, r.Tolerance = &residual, l.Tolerance
		r.Note = strings.Trim(r.Note+"; "+how, "; ")
		if !(residual <= l.Tolerance) {
			r.Status = Stalled
		}
	default: // what has no row
		fmt.Fprintf(s.Log, "%-8s %s %s %s\n", s.suite, l.Part, l.Peer, l.Settings)
		return nil
	}
	s.add(r)
	return nil
}

// most is how many points have their residual computed from all pairs, and how
// many rows and columns stand for more of them.
const mostPairs, sampledRows = 16_384, 2000

// residual is Residual, or where there are many points its estimate from rows and
// columns spread over all.
func (p *raceProblem) residual(f, g []float64) (residual float64, how string) {
	if p.n <= mostPairs {
		return Residual(p.x, p.y, p.d, f, g, p.epsilon), ""
	}
	rows, sr := partial(p.x, p.y, p.d, f, g, p.epsilon, sampledRows)
	cols, sc := partial(p.y, p.x, p.d, g, f, p.epsilon, sampledRows)
	return rows + cols, fmt.Sprintf("residual of %d rows and columns, standard error %.1e", sampledRows, math.Hypot(sr, sc))
}

// partial estimates Σ_i |(P1)_i - 1/n| from k rows, with its standard error.
func partial(x, y []float64, d int, f, g []float64, eps float64, k int) (mean, deviation float64) {
	n, m := len(f), len(g)
	k = min(k, n)
	off := make([]float64, k)
	var wait sync.WaitGroup
	const parts = 64
	for w := range parts {
		wait.Go(func() {
			for s := w; s < k; s += parts {
				i := s * n / k
				xi, sum := x[i*d:(i+1)*d], 0.0
				for j := range m {
					c := 0.0
					for q, v := range y[j*d : (j+1)*d] {
						t := xi[q] - v
						c += t * t
					}
					sum += math.Exp((f[i] + g[j] - c) / eps)
				}
				off[s] = math.Abs(sum/float64(m) - 1)
			}
		})
	}
	wait.Wait()
	for _, v := range off {
		mean += v / float64(k)
	}
	for _, v := range off {
		deviation += (v - mean) * (v - mean) / float64(k) / float64(k)
	}
	return mean, math.Sqrt(deviation)
}

package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/fortet/fortet/gpu"
)

// Options say what to run, and where what it needs lies.
type Options struct {
	Device  string        // as gpu.Open takes it; "" is cpu
	Quick   bool          // small sizes, to see that everything works: seconds
	Peers   []string      // which peers; nil: all that are installed
	NoPeers bool          // none
	Limit   time.Duration // of one run of a peer; 0: ten minutes
	Root    string        // the project's folder
	Fortet  string        // the program; "": bin/fortet in Root
	Runner  string        // that measures gathers between processes; "": none does
	Log     io.Writer     // progress, for people; nil: none
}

// Suite is a set of measurements that belong together.
type Suite struct {
	Name string
	Run  func(ctx context.Context, s *Session) error
}

// Suites are all suites.
func Suites() []Suite {
	return []Suite{{"kernels", kernels}, {"solvers", solvers}, {"light", light}, {"static", static}, {"exact", exacts}, {"distributed", distributed}, {"gpu", race}}
}

// Session is one run of a suite.
type Session struct {
	Options
	Provenance Provenance
	Rows       []Row
	suite      string
	wrong      int
	ceilings   measured
	dev        gpu.Device // of a comparison
}

// Run runs a suite and returns its rows. Its error wraps ErrWrong where the
// answer of a row is wrong; the rows are all there even so.
func Run(ctx context.Context, suite Suite, o Options) ([]Row, error) {
	if o.Device == "" {
		o.Device = "cpu"
	}
	if o.Limit == 0 {
		o.Limit = 10 * time.Minute
	}
	if o.Fortet == "" {
		o.Fortet = filepath.Join(o.Root, "bin", "fortet")
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	dev, err := gpu.Open(o.Device)
	if err != nil {
		return nil, err
	}
	s := &Session{Options: o, Provenance: provenance(dev, o.Root), suite: suite.Name}
	if err := dev.Close(); err != nil {
		return nil, err
	}
	if err := suite.Run(ctx, s); err != nil {
		return s.Rows, fmt.Errorf("bench: %s: %w", suite.Name, err)
	}
	if s.wrong > 0 {
		return s.Rows, fmt.Errorf("bench: %s: %w in %d of %d rows", suite.Name, ErrWrong, s.wrong, len(s.Rows))
	}
	return s.Rows, nil
}

// add judges a row, keeps it and says what it is.
func (s *Session) add(r Row) {
	version := r.Version
	r.Suite, r.Provenance = s.suite, s.Provenance
	r.Version = version
	r.Judge()
	if r.Status == Wrong {
		s.wrong++
	}
	s.Rows = append(s.Rows, r)
	fmt.Fprintf(s.Log, "%-8s %-14s %-14s %s  %.4g s", r.Suite, r.Name, r.Engine, r.Work, r.Seconds.Minimum)
	if rate, unit := r.rate(); unit != "" {
		fmt.Fprintf(s.Log, ", %.3g %s", rate, unit)
	}
	if r.Limit != nil {
		fmt.Fprintf(s.Log, ", %.0f %% of the limit", 100*r.Limit.Fraction)
	}
	if r.Error != nil {
		fmt.Fprintf(s.Log, ", error %.2g of %.2g", *r.Error, r.Budget)
	}
	if r.Residual != nil {
		fmt.Fprintf(s.Log, ", residual %.2g, %d iterations", *r.Residual, r.Iterations)
	}
	fmt.Fprintf(s.Log, "  %s\n", r.Status)
}

func (w Work) String() string {
	text := ""
	switch {
	case w.K > 0:
		text = fmt.Sprintf("%d rows d=%d K=%d ", w.N, w.D, w.K)
	case w.N > 0 && w.M == 0 && w.D == 0:
		text = fmt.Sprintf("%d elements ", w.N)
	case w.N > 0 && w.M == 0 && w.Marginals == 0:
		text = fmt.Sprintf("%d rows d=%d ", w.N, w.D)
	case w.N > 0:
		text = fmt.Sprintf("%d×%d ", w.N, w.M)
		if w.Marginals > 0 {
			text = fmt.Sprintf("%d marginals of %d ", w.Marginals, w.N)
		}
		if w.Problems > 0 {
			text = fmt.Sprintf("%d problems of ", w.Problems) + text
		}
		switch {
		case w.D > 0:
			text += fmt.Sprintf("d=%d ", w.D)
		default:
			text += "matrix "
		}
	}
	if w.Epsilon > 0 {
		text += fmt.Sprintf("ε=%g ", w.Epsilon)
	}
	if w.Precision != "" {
		text += w.Precision + " "
	}
	if w.Workers > 0 {
		text += fmt.Sprintf("%d workers", w.Workers)
	}
	return text
}

// repeat times work until it has run for a while, at least three times, after
// one run to warm up.
func repeat(ctx context.Context, atLeast time.Duration, work func() error) ([]float64, error) {
	if err := work(); err != nil {
		return nil, err
	}
	var times []float64
	for total := time.Duration(0); len(times) < 3 || total < atLeast && len(times) < 1000; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := work(); err != nil {
			return nil, err
		}
		took := time.Since(start)
		times = append(times, took.Seconds())
		total += took
	}
	return times, nil
}

// clouds draws the points that all problems are made of: a standard normal
// cloud, and a mixture of four Gaussians of deviation 0.5 whose centres are
// drawn from a normal of deviation 1.5.
func clouds(n, m, d int) (x, y []float64) {
	r := rand.New(rand.NewPCG(1940, uint64(d)))
	centres := make([]float64, 4*d)
	for i := range centres {
		centres[i] = 1.5 * r.NormFloat64()
	}
	x, y = make([]float64, n*d), make([]float64, m*d)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	for j := range m {
		c := r.IntN(4)
		for k := range d {
			y[j*d+k] = centres[c*d+k] + 0.5*r.NormFloat64()
		}
	}
	return x, y
}

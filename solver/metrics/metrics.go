// Package metrics measures how far a generated point cloud is from a reference.
//
// The definitions are plain functions: W1 and W2 (exact optimal transport with
// a certificate, from package exact), SlicedW2, Energy, MMD, BW2UVP, FID,
// MomentsOf, Modes, CRPSSum, Straightness. All run on float64 host arrays.
//
// A distance between two samples is not zero where their laws agree; for W2 it
// may be as large as the differences that one wants to see. So Metric.Compute
// gives every value with its Floor: the same metric, at the same sample size,
// between two halves of the reference or between fresh draws of it.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// ErrInvalid says that a caller's argument is wrong.
var ErrInvalid = errors.New("invalid argument")

// Cloud is a weighted set of points of ℝᴰ.
type Cloud struct {
	X []float64 // (n, D), row-major; not modified
	D int
	// W are the points' weights: finite, not negative, not all zero; only
	// their ratios matter. nil means equal weights.
	W []float64
}

// N is the number of points.
func (c Cloud) N() int {
	if c.D < 1 {
		return 0
	}
	return len(c.X) / c.D
}

// maxCoordinate keeps squares of differences finite in float64.
const maxCoordinate = 1e140

// check returns a cloud's weights, which sum to one.
func (c Cloud) check(name string) ([]float64, error) {
	if c.D < 1 {
		return nil, fmt.Errorf("metrics: %s: %w: got d = %d, want at least 1", name, ErrInvalid, c.D)
	}
	if len(c.X) == 0 || len(c.X)%c.D != 0 {
		return nil, fmt.Errorf("metrics: %s: %w: got %d numbers, want a positive multiple of d = %d", name, ErrInvalid, len(c.X), c.D)
	}
	n := c.N()
	for k, v := range c.X {
		if !(math.Abs(v) <= maxCoordinate) {
			return nil, fmt.Errorf("metrics: %s[%d, %d]: %w: got %g, want a finite coordinate of at most %g", name, k/c.D, k%c.D, ErrInvalid, v, float64(maxCoordinate))
		}
	}
	w := make([]float64, n)
	if c.W == nil {
		for i := range w {
			w[i] = 1 / float64(n)
		}
		return w, nil
	}
	if len(c.W) != n {
		return nil, fmt.Errorf("metrics: %s weights: %w: got %d, want %d", name, ErrInvalid, len(c.W), n)
	}
	largest := 0.0
	for i, v := range c.W {
		if !(v >= 0) || math.IsInf(v, 1) {
			return nil, fmt.Errorf("metrics: %s weights[%d]: %w: got %g, want a finite weight that is not negative", name, i, ErrInvalid, v)
		}
		largest = max(largest, v)
	}
	if largest == 0 {
		return nil, fmt.Errorf("metrics: %s weights: %w: got only zeros, want a positive sum", name, ErrInvalid)
	}
	total := 0.0
	for i, v := range c.W {
		w[i] = v / largest
		total += w[i]
	}
	for i := range w {
		w[i] /= total
	}
	return w, nil
}

// checkPair returns the weights of two clouds of the same dimension.
func checkPair(x, y Cloud) (a, b []float64, err error) {
	if a, err = x.check("x"); err != nil {
		return nil, nil, err
	}
	if b, err = y.check("y"); err != nil {
		return nil, nil, err
	}
	if x.D != y.D {
		return nil, nil, fmt.Errorf("metrics: y: %w: got dimension %d, want %d as in x", ErrInvalid, y.D, x.D)
	}
	return a, b, nil
}

// Value is a metric's value with the floor that sampling alone would give.
type Value struct {
	Value float64 `json:"value"`
	Floor Floor   `json:"floor"`
	// Parts are what the metric consists of, or reports beside its value.
	Parts []Part `json:"parts,omitempty"`
}

// Part is a named number of a metric, with its floor.
type Part struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Floor Floor   `json:"floor"`
}

// Floor is what a metric shows between samples of one and the same law.
type Floor struct {
	Mean        float64 `json:"mean"`
	Std         float64 `json:"std"`         // over the repetitions, with divisor repetitions − 1
	Repetitions int     `json:"repetitions"` // 0: no floor could be measured
	N           int     `json:"n"`           // points on each side, of the floor and of the value
	How         string  `json:"how"`
}

// Sampler draws fresh clouds from the reference's law. A draw is a function of
// n and seed.
type Sampler interface {
	Sample(ctx context.Context, n int, seed uint64) (Cloud, error)
}

// Options hold what can be chosen. The zero value is ready to use.
type Options struct {
	// N is the number of points on each side, of the value and of its floor
	// alike. 0 means as many as there are: the smaller of x and half of y, or
	// of x and y with a Sampler. More than there are is an error.
	N int
	// Repetitions of the floor; 0 means 5.
	Repetitions int
	// Seed of subsampling, of fresh draws and of random directions.
	Seed uint64
	// Sampler draws the reference afresh; nil means that halves of y are compared.
	Sampler Sampler
	// Workers is the number of goroutines; 0 means GOMAXPROCS. Results do not
	// depend on it.
	Workers int

	// Directions is the number of random directions of sw2; 0 means 128.
	Directions int
	// Sigma is the bandwidth of mmd; 0 means the median distance of the pooled
	// sample, which then serves for the floor too.
	Sigma float64
	// Centres (modes, D) and Radius (0: none) of the metric modes.
	Centres []float64
	Radius  float64
}

const (
	defaultRepetitions = 5
	defaultDirections  = 128
)

// Validate reports all faults of the options at once.
func (o Options) Validate() error {
	var errs []error
	for _, c := range []struct {
		name string
		v    int
	}{{"n", o.N}, {"repetitions", o.Repetitions}, {"workers", o.Workers}, {"directions", o.Directions}} {
		if c.v < 0 {
			errs = append(errs, fmt.Errorf("metrics: %s: %w: got %d, want at least 0", c.name, ErrInvalid, c.v))
		}
	}
	for _, c := range []struct {
		name string
		v    float64
	}{{"sigma", o.Sigma}, {"radius", o.Radius}} {
		if !(c.v >= 0) || math.IsInf(c.v, 1) {
			errs = append(errs, fmt.Errorf("metrics: %s: %w: got %g, want a finite number of at least 0", c.name, ErrInvalid, c.v))
		}
	}
	return errors.Join(errs...)
}

// Metric is a comparison of a generated cloud with a reference.
type Metric struct {
	Name string
	Doc  string
	// measure returns the value first and then its parts.
	measure func(ctx context.Context, x, y Cloud, o Options) ([]named, error)
	// settle fixes what the floor must share with the value; may be nil.
	settle func(ctx context.Context, x, y Cloud, o Options) (Options, error)
}

type named struct {
	name  string
	value float64
}

// Compute measures x, the generated cloud, against y, the reference, and the
// floor of the metric at the same number of points. Where a cloud has more
// points than are used, a subsample without replacement stands for it. The
// result is a function of the arguments, Workers apart.
func (m Metric) Compute(ctx context.Context, x, y Cloud, o Options) (Value, error) {
	if m.measure == nil {
		return Value{}, fmt.Errorf("metrics: metric: %w: got the zero Metric, want one of All or Parse", ErrInvalid)
	}
	if err := o.Validate(); err != nil {
		return Value{}, err
	}
	if _, _, err := checkPair(x, y); err != nil {
		return Value{}, err
	}
	if o.Repetitions == 0 {
		o.Repetitions = defaultRepetitions
	}
	if o.Directions == 0 {
		o.Directions = defaultDirections
	}
	have := min(x.N(), y.N())
	switch {
	case o.Sampler == nil && y.N() < 2:
		o.Repetitions = 0
	case o.Sampler == nil:
		have = min(x.N(), y.N()/2)
	}
	n := o.N
	if n == 0 {
		n = have
	}
	if n > have {
		return Value{}, fmt.Errorf("metrics: n: %w: got %d, want at most %d (x has %d points, y %d)", ErrInvalid, n, have, x.N(), y.N())
	}

	r := rand.New(rand.NewPCG(o.Seed, 0))
	xs := subsample(x, r.Perm(x.N())[:n])
	ys := subsample(y, r.Perm(y.N())[:n])
	if m.settle != nil {
		var err error
		if o, err = m.settle(ctx, xs, ys, o); err != nil {
			return Value{}, err
		}
	}
	values, err := m.measure(ctx, xs, ys, o)
	if err != nil {
		return Value{}, err
	}

	how := "two halves of the reference"
	if o.Sampler != nil {
		how = "two fresh draws of the reference"
	}
	if o.Repetitions == 0 {
		how = "none: the reference has a single point"
	}
	floors := make([][]float64, len(values))
	for rep := range o.Repetitions {
		p, q, err := o.twoSamples(ctx, y, n, rep)
		if err != nil {
			return Value{}, err
		}
		f, err := m.measure(ctx, p, q, o)
		if err != nil {
			return Value{}, fmt.Errorf("floor: %w", err)
		}
		for k := range f {
			floors[k] = append(floors[k], f[k].value)
		}
	}
	var out Value
	for k, v := range values {
		floor := summarise(floors[k])
		floor.N, floor.How = n, how
		if k == 0 {
			out.Value, out.Floor = v.value, floor
		} else {
			out.Parts = append(out.Parts, Part{v.name, v.value, floor})
		}
	}
	return out, nil
}

// twoSamples returns two independent samples of the reference's law.
func (o Options) twoSamples(ctx context.Context, y Cloud, n, rep int) (p, q Cloud, err error) {
	if o.Sampler == nil {
		perm := rand.New(rand.NewPCG(o.Seed, uint64(rep)+1)).Perm(y.N())
		return subsample(y, perm[:n]), subsample(y, perm[n:2*n]), nil
	}
	r := rand.New(rand.NewPCG(o.Seed, uint64(rep)+1))
	for _, c := range []*Cloud{&p, &q} {
		if *c, err = o.Sampler.Sample(ctx, n, r.Uint64()); err != nil {
			return p, q, fmt.Errorf("metrics: sampler: %w", err)
		}
		if c.D != y.D || c.N() != n {
			return p, q, fmt.Errorf("metrics: sampler: %w: got shape (%d, %d), want (%d, %d)", ErrInvalid, c.N(), c.D, n, y.D)
		}
	}
	return p, q, nil
}

func subsample(c Cloud, rows []int) Cloud {
	if len(rows) == c.N() {
		return c
	}
	out := Cloud{X: make([]float64, 0, len(rows)*c.D), D: c.D}
	for _, i := range rows {
		out.X = append(out.X, c.X[i*c.D:(i+1)*c.D]...)
	}
	if c.W != nil {
		for _, i := range rows {
			out.W = append(out.W, c.W[i])
		}
	}
	return out
}

func summarise(v []float64) Floor {
	f := Floor{Repetitions: len(v)}
	if len(v) == 0 {
		return f
	}
	for _, x := range v {
		f.Mean += x / float64(len(v))
	}
	if len(v) > 1 {
		s := 0.0
		for _, x := range v {
			s += (x - f.Mean) * (x - f.Mean)
		}
		f.Std = math.Sqrt(s / float64(len(v)-1))
	}
	return f
}

// Package fortet solves the Schrödinger bridge on a grid in one to three
// dimensions by the iteration that Robert Fortet proved to converge in 1940. Of
// all processes with given laws at times 0 and 1 the bridge is the one nearest to
// a reference in relative entropy; with the reference's kernel K from 0 to 1 its
// law at time t is φ_t φ̂_t, where
//
//	φ_0 = K φ_1,  φ̂_1 = Kᵀ φ̂_0,  φ_0 φ̂_0 = source,  φ_1 φ̂_1 = target
//
// (Schrödinger's system). A sweep is
//
//	log φ_0 = LSE(log K + log φ_1),      log φ̂_0 = log source - log φ_0,
//	log φ̂_1 = LSE(log Kᵀ + log φ̂_0),    log φ_1 ← log target - log φ̂_1
//
// all in the domain of logarithms, with a kernel that is a product over the axes:
// a sweep costs Σ n_a multiplications for each cell (package kernels/axis).
//
// References are Brownian motion and Ornstein-Uhlenbeck processes (Diffusion) and
// any others given by transition kernels for each axis (Given), which need not be
// symmetric. An arbitrary potential V(t, x) kills paths of the reference at rate V
// (Feynman-Kac); time is then split into steps, and a step is half of its killing,
// the reference's kernel, and the other half (Strang 1968). The kernel of the two
// ends, which is no product any more, is never formed.
//
// # Masses and densities
//
// A law is given by the logarithm of the mass of each cell, -Inf for an empty one.
// LogMass makes it from a density. φ̂ is a law, too: masses of cells; φ is a
// function: its values at the cells. So φ φ̂ are masses, and kernels are
// K_ij = k(x_j | x_i) w_j with w_j the width of cell j. These sums over cells are
// integrals by the trapezoidal rule, whose error falls off as exp(-2π² std²/h²)
// with the standard deviation of the kernel over the spacing h where spacings are
// equal: 3e-9 at std = h, which Solve demands of the widest spacing. Where spacings
// differ it falls off as their square alone: cells of .02 to .32 under a kernel of std
// .39 to .95 cost KL 2 to 3 percent. Mass that the reference would carry out of the
// grid is lost to it; choose a grid on which there is none.
package fortet

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/solver"
)

// Problem is what to solve. It is plain data and is never modified.
type Problem struct {
	// Axes are the coordinates of the cells' centres along one to three axes,
	// ascending, at least two each. Cells are numbered with the last axis running
	// fastest.
	Axes [][]float64
	// LogSource and LogTarget are the logarithms of the masses of the cells; both
	// laws are scaled to mass 1.
	LogSource, LogTarget []float64
	Reference            Reference
	// Potential is the rate V(t, x) at which the reference kills paths at time t in
	// [0, 1], per unit of time, which may be negative: paths of the bridge keep away
	// from where it is high. +Inf is an obstacle. nil is 0. It is called by many
	// goroutines.
	Potential func(t float64, x []float64) float64
	// Steps is the number of steps that time is split in. Their error falls off as
	// its square. 0 means 32 with a potential and 1 without. A diffusion without a
	// potential needs no steps and ignores it.
	Steps int
}

// Precision says which arithmetic does the iterations. The certificate and what
// follows from a result are always float64.
type Precision int

// The precisions.
const (
	Double Precision = iota
	Single
)

func (p Precision) String() string {
	switch p {
	case Double:
		return "f64"
	case Single:
		return "f32"
	}
	return fmt.Sprintf("Precision(%d)", int(p))
}

// Acceleration says how iterates are combined.
type Acceleration int

// The accelerations. Anderson is safeguarded: a step after which the residual is
// higher is taken back, and plain steps follow.
const (
	Anderson Acceleration = iota // of type II, in the metric of the target's masses
	None                         // plain sweeps
)

func (a Acceleration) String() string {
	switch a {
	case Anderson:
		return "anderson"
	case None:
		return "none"
	}
	return fmt.Sprintf("Acceleration(%d)", int(a))
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the L1 distance of the law at time 1 from the target at which to
	// stop. 0 means 1e-8, and 1e-4 in single precision.
	Tolerance float64
	// MaxIterations bounds the sweeps. 0 means 10000.
	MaxIterations int
	Acceleration  Acceleration
	Precision     Precision
	// NoAnnealing starts at a diffusion's ε at once, from φ_1 = 1, instead of coming
	// down from a large one. With a potential and with Given kernels there is no
	// other way.
	NoAnnealing bool
	// Trace is called after each sweep with their number and the residual. nil means
	// silence.
	Trace func(n int, residual float64)
}

func (p Problem) cells() int {
	n := 1
	for _, x := range p.Axes {
		n *= len(x)
	}
	return n
}

// steps is Steps with its default.
func (p Problem) steps() int {
	_, diffusion := p.Reference.(Diffusion)
	switch {
	case diffusion && p.Potential == nil:
		return 1
	case p.Steps > 0:
		return p.Steps
	case p.Potential != nil:
		return 32
	}
	return 1
}

func bad(what, format string, v ...any) error {
	return fmt.Errorf("fortet: %s: %w: %s", what, solver.ErrInvalid, fmt.Sprintf(format, v...))
}

// Validate reports every fault at once, a grid too coarse for the reference
// included.
func (p Problem) Validate() error {
	errs := []error{checkAxes(p.Axes)}
	if p.Steps < 0 {
		errs = append(errs, bad("steps", "got %d, want at least 1, or 0 for the default", p.Steps))
	}
	if p.Reference == nil {
		errs = append(errs, bad("reference", "missing"))
	}
	if errs[0] == nil {
		n := p.cells()
		for _, law := range []struct {
			name string
			log  []float64
		}{{"source", p.LogSource}, {"target", p.LogTarget}} {
			if _, err := scaled(law.name, law.log, n); err != nil {
				errs = append(errs, err)
			}
		}
		if p.Reference != nil && p.Steps >= 0 {
			errs = append(errs, p.Reference.check(p.Axes, p.steps()))
		}
	}
	return errors.Join(errs...)
}

func checkAxes(axes [][]float64) error {
	if len(axes) < 1 || len(axes) > 3 {
		return bad("grid", "%d axes, want 1 to 3", len(axes))
	}
	var errs []error
	cells := 1
	for a, x := range axes {
		name := fmt.Sprintf("axis %d", a)
		if len(x) < 2 {
			errs = append(errs, bad(name, "%d cells, want at least 2", len(x)))
			continue
		}
		if cells > math.MaxInt/8/len(x) {
			errs = append(errs, bad(name, "more cells than there is memory for"))
		} else {
			cells *= len(x)
		}
		for i, v := range x {
			if math.IsNaN(v) || math.IsInf(v, 0) || i > 0 && !(v > x[i-1]) {
				errs = append(errs, bad(name, "coordinate %d is %v, want finite and ascending ones", i, v))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// scaled is a law, scaled to mass 1, from the logarithms of its masses.
func scaled(name string, log []float64, cells int) ([]float64, error) {
	if len(log) != cells {
		return nil, bad(name, "%d numbers for %d cells", len(log), cells)
	}
	for i, l := range log {
		if math.IsNaN(l) || math.IsInf(l, 1) {
			return nil, bad(name, "the logarithm of the mass of cell %d is %v, want a number below +Inf", i, l)
		}
	}
	total := logSumExp(log)
	if math.IsInf(total, -1) {
		return nil, bad(name, "all cells are empty, want some mass")
	}
	out := make([]float64, cells)
	for i, l := range log {
		out[i] = l - total
	}
	return out, nil
}

func logSumExp(v []float64) float64 {
	top := math.Inf(-1)
	for _, x := range v {
		top = max(top, x)
	}
	if math.IsInf(top, 0) {
		return top
	}
	s := 0.0
	for _, x := range v {
		s += math.Exp(x - top)
	}
	return top + math.Log(s)
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	if !(s.Tolerance >= 0) {
		errs = append(errs, bad("tolerance", "got %v, want above 0", s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, bad("iteration limit", "got %d, want above 0", s.MaxIterations))
	}
	if s.Acceleration < Anderson || s.Acceleration > None {
		errs = append(errs, bad("acceleration", "got %v", s.Acceleration))
	}
	if s.Precision < Double || s.Precision > Single {
		errs = append(errs, bad("precision", "got %v", s.Precision))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if s.Tolerance == 0 {
		s.Tolerance = 1e-8
		if s.Precision == Single {
			s.Tolerance = 1e-4
		}
	}
	if s.MaxIterations == 0 {
		s.MaxIterations = 10000
	}
	return s
}

// widths are those of the cells: half the distance of a cell's neighbours, and the
// distance to the only neighbour at both ends.
func widths(x []float64) []float64 {
	n := len(x)
	w := make([]float64, n)
	for i := range w {
		w[i] = (x[min(i+1, n-1)] - x[max(i-1, 0)]) / 2
	}
	w[0], w[n-1] = 2*w[0], 2*w[n-1]
	return w
}

// LogMass is the law of a density on a grid, given by its logarithm up to a
// constant: density at the centre times volume, for each cell.
func LogMass(axes [][]float64, logDensity func(x []float64) float64) ([]float64, error) {
	if err := checkAxes(axes); err != nil {
		return nil, err
	}
	p := Problem{Axes: axes}
	out := p.volumes()
	x, at := make([]float64, len(axes)), make([]int, len(axes))
	for i := range out {
		p.at(i, at, x)
		out[i] += logDensity(x)
	}
	return out, nil
}

// volumes are the logarithms of the cells' volumes.
func (p Problem) volumes() []float64 {
	out := make([]float64, p.cells())
	log := make([][]float64, len(p.Axes))
	for a, x := range p.Axes {
		for _, w := range widths(x) {
			log[a] = append(log[a], math.Log(w))
		}
	}
	x, at := make([]float64, len(p.Axes)), make([]int, len(p.Axes))
	for i := range out {
		p.at(i, at, x)
		for a, k := range at {
			out[i] += log[a][k]
		}
	}
	return out
}

// at writes the indices along the axes and the centre of cell i.
func (p Problem) at(i int, at []int, x []float64) {
	for a := len(p.Axes) - 1; a >= 0; a-- {
		n := len(p.Axes[a])
		at[a], x[a] = i%n, p.Axes[a][i%n]
		i /= n
	}
}

// killed is -weight V(t, ·), nil where that is 0 by the lack of a potential.
func (p Problem) killed(ctx context.Context, t, weight float64) ([]float64, error) {
	if p.Potential == nil || weight == 0 {
		return nil, nil
	}
	n, row := p.cells(), len(p.Axes[len(p.Axes)-1])
	out := make([]float64, n)
	err := parallel.Each(ctx, 0, n/row, func(r int) {
		at, x := make([]int, len(p.Axes)), make([]float64, len(p.Axes))
		for i := r * row; i < (r+1)*row; i++ {
			p.at(i, at, x)
			out[i] = -weight * p.Potential(t, x)
		}
	})
	if err != nil {
		return nil, err
	}
	for i, v := range out {
		if math.IsNaN(v) || math.IsInf(v, 1) {
			at, x := make([]int, len(p.Axes)), make([]float64, len(p.Axes))
			p.at(i, at, x)
			return nil, bad("potential", "at time %v and %v it is %v, want a number above -Inf", t, x, -v/weight)
		}
	}
	return out, nil
}

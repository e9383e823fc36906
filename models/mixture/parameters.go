// Package mixture holds what all light bridges share: the Gaussian-mixture
// potential
//
//	v(y) = Σ_j α_j N(y | r_j, ε S_j)
//
// of Korotin, Gushchin and Burnaev, "Light Schrödinger bridge" (2024), as
// parameters on the host, as trainable arrays on a device, and as the part of a
// training step that does not depend on the loss. Time runs over [0, 1].
package mixture

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrInvalid is wrapped by the errors of this package that say what is wrong
// with an argument.
var ErrInvalid = errors.New("invalid mixture")

// Covariance says which S_j a mixture may have.
type Covariance int

// The kinds of covariance.
const (
	Diagonal Covariance = iota // S_j is diagonal
	Full                       // S_j is any positive definite matrix
)

func (c Covariance) String() string {
	switch c {
	case Diagonal:
		return "diagonal"
	case Full:
		return "full"
	}
	return fmt.Sprintf("Covariance(%d)", int(c))
}

// Parameters are a mixture on the host, row-major.
type Parameters struct {
	K, D    int
	Epsilon float64
	Logits  []float64 // (K): log α_j
	Means   []float64 // (K, D): r_j
	Scales  []float64 // (K, D): eigenvalues of S_j
	Axes    []float64 // (K, D, D): in its rows the eigenvectors of S_j; nil: S_j is diagonal
}

// Covariance is the kind of S.
func (p Parameters) Covariance() Covariance {
	if p.Axes == nil {
		return Diagonal
	}
	return Full
}

// Clone copies the arrays too.
func (p Parameters) Clone() Parameters {
	p.Logits, p.Means = slices.Clone(p.Logits), slices.Clone(p.Means)
	p.Scales, p.Axes = slices.Clone(p.Scales), slices.Clone(p.Axes)
	return p
}

// Validate reports every fault of p at once.
func (p Parameters) Validate() error {
	var errs []error
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, v...)...))
	}
	if p.K <= 0 || p.D <= 0 {
		bad("%d components in %d dimensions, want at least 1 of each", p.K, p.D)
		return errors.Join(errs...)
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		bad("epsilon: got %v, want a positive finite number", p.Epsilon)
	}
	for _, a := range []struct {
		name string
		v    []float64
		want int
	}{
		{"logits", p.Logits, p.K}, {"means", p.Means, p.K * p.D}, {"scales", p.Scales, p.K * p.D},
		{"axes", p.Axes, p.K * p.D * p.D},
	} {
		if a.name == "axes" && a.v == nil {
			continue
		}
		if len(a.v) != a.want {
			bad("%s: %d numbers, want %d", a.name, len(a.v), a.want)
			continue
		}
		for i, x := range a.v {
			if math.IsNaN(x) || math.IsInf(x, 0) || a.name == "scales" && !(x > 0) {
				bad("%s: element %d is %v", a.name, i, x)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Frame is the change of units between data x and the model's coordinates
//
//	z = (x - (1-t) Source - t Target) / Scale   at time t.
//
// A Schrödinger bridge of the data with ε is one of the model's coordinates
// with ε / Scale²; its drift gains the constant Target - Source, and ½E∫|α|²
// the term ½|Target - Source|². A mixture trains best where both data sets have
// mean zero and coordinates of variance about one. β of the Schrödinger-Bass
// bridge has no unit that changes.
type Frame struct {
	Source, Target []float64 // (D): means
	Scale          float64
}

// Identity is the frame that changes nothing.
func Identity(d int) Frame {
	return Frame{Source: make([]float64, d), Target: make([]float64, d), Scale: 1}
}

// FitFrame takes the means of two row-major data sets of d columns, and for the
// scale the root of their mean variance, 1 where that is zero.
func FitFrame(source, target []float64, d int) Frame {
	f := Identity(d)
	variance := (moments(source, f.Source) + moments(target, f.Target)) / 2
	if s := math.Sqrt(variance); s > 0 && !math.IsInf(s, 0) {
		f.Scale = s
	}
	return f
}

// moments sets mean and returns the mean of the variances of the columns.
func moments(x, mean []float64) float64 {
	d := len(mean)
	n := float64(len(x) / d)
	for i, v := range x {
		mean[i%d] += v / n
	}
	sum := 0.0
	for i, v := range x {
		sum += (v - mean[i%d]) * (v - mean[i%d])
	}
	return sum / (n * float64(d))
}

// Epsilon is ε in the model's coordinates.
func (f Frame) Epsilon(epsilon float64) float64 { return epsilon / (f.Scale * f.Scale) }

// Shift2 is |Target - Source|².
func (f Frame) Shift2() float64 {
	sum := 0.0
	for i := range f.Source {
		sum += (f.Target[i] - f.Source[i]) * (f.Target[i] - f.Source[i])
	}
	return sum
}

// center is coordinate j of the origin at time t.
func (f Frame) center(t float64, j int) float64 { return (1-t)*f.Source[j] + t*f.Target[j] }

// Encode brings row-major data at time t into the model's coordinates. dst may
// be x.
func (f Frame) Encode(dst, x []float64, t float64) {
	d := len(f.Source)
	for i, v := range x {
		dst[i] = (v - f.center(t, i%d)) / f.Scale
	}
}

// Decode is the inverse of Encode.
func (f Frame) Decode(dst, z []float64, t float64) {
	d := len(f.Source)
	for i, v := range z {
		dst[i] = f.Scale*v + f.center(t, i%d)
	}
}

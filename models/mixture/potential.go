package mixture

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// Potential is a trainable mixture on a device. What an optimiser changes is
// one flat vector
//
//	[log α | r | log(s - Floor) | W]
//
// whose parts begin at multiples of 256 bytes; unused elements are zero and have
// gradient zero. W is there for full covariances alone: a skew matrix a
// component by which Update turns its axes, A <- Cayley(W) A, to leave W = 0.
type Potential struct {
	dev     gpu.Device
	k, d    int
	epsilon float64
	floor   float64

	flat, gradient tensor.Tensor
	loss           tensor.Tensor // (1), after the gradient in memory
	descent        tensor.Tensor // gradient and loss: what is theirs
	at             gmm.Mixture   // scales and axes are not part of flat
	raw, turn      tensor.Tensor
	by             derivatives
	turner         *turner
}

// derivatives are views of the gradient.
type derivatives struct{ logits, means, raw, turn tensor.Tensor }

// NewPotential puts parameters on a device. Every scale must exceed floor,
// which stays its lower bound; 0 bounds nothing.
func NewPotential(dev gpu.Device, dtype tensor.DType, p Parameters, floor float64) (*Potential, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if !(floor >= 0) || math.IsInf(floor, 0) {
		return nil, fmt.Errorf("%w: floor: got %v, want at least 0", ErrInvalid, floor)
	}
	q := &Potential{dev: dev, k: p.K, d: p.D, epsilon: p.Epsilon, floor: floor}
	if err := q.alloc(dtype, p.Covariance()); err != nil {
		q.Free()
		return nil, err
	}
	if err := q.Set(p); err != nil {
		q.Free()
		return nil, err
	}
	return q, nil
}

// sections are where the parts of the flat vector begin, and where it ends.
func sections(k, d int, c Covariance) [5]int {
	sizes := [4]int{k, k * d, k * d, 0}
	if c == Full {
		sizes[3] = k * d * d
	}
	const multiple = 64
	var at [5]int
	for i, n := range sizes {
		at[i+1] = at[i] + (n+multiple-1)/multiple*multiple
	}
	return at
}

func (q *Potential) alloc(dtype tensor.DType, c Covariance) (err error) {
	at := sections(q.k, q.d, c)
	array := func(shape ...int) (t tensor.Tensor) {
		if err == nil {
			t, err = tensor.New(q.dev, dtype, shape...)
		}
		return t
	}
	q.flat, q.descent = array(at[4]), array(at[4]+1)
	q.at = gmm.Mixture{Epsilon: q.epsilon, Scales: array(q.k, q.d)}
	if c == Full {
		q.at.Axes = array(q.k, q.d, q.d)
		q.turner = newTurner(q.k, q.d)
	}
	if err != nil {
		return err
	}
	q.gradient, q.loss = q.descent.Rows(0, at[4]), q.descent.Rows(at[4], at[4]+1)
	part := func(t tensor.Tensor, i int, shape ...int) tensor.Tensor {
		n := 1
		for _, s := range shape {
			n *= s
		}
		v, e := t.Rows(at[i], at[i]+n).Reshape(shape...)
		err = errors.Join(err, e)
		return v
	}
	q.at.Logits, q.at.Means, q.raw = part(q.flat, 0, q.k), part(q.flat, 1, q.k, q.d), part(q.flat, 2, q.k, q.d)
	q.by = derivatives{part(q.gradient, 0, q.k), part(q.gradient, 1, q.k, q.d), part(q.gradient, 2, q.k, q.d), tensor.Tensor{}}
	if c == Full {
		q.turn, q.by.turn = part(q.flat, 3, q.k, q.d, q.d), part(q.gradient, 3, q.k, q.d, q.d)
	}
	return errors.Join(err, tensor.SetFloat64s(q.descent, make([]float64, at[4]+1)))
}

// Free returns the memory.
func (q *Potential) Free() {
	for _, t := range []tensor.Tensor{q.flat, q.descent, q.at.Scales, q.at.Axes} {
		t.Free()
	}
}

// Mixture is the argument of kernels. It stays valid while parameters change.
func (q *Potential) Mixture() gmm.Mixture { return q.at }

// Flat is the vector that an optimiser changes; call Update after.
func (q *Potential) Flat() tensor.Tensor { return q.flat }

// Gradient is the vector that Reduce fills, in the layout of Flat.
func (q *Potential) Gradient() tensor.Tensor { return q.gradient }

// Loss (1) is the loss that Reduce fills.
func (q *Potential) Loss() tensor.Tensor { return q.loss }

// Floor is the lower bound of scales.
func (q *Potential) Floor() float64 { return q.floor }

// Set takes over parameters of the same K, D, ε and kind of covariance.
func (q *Potential) Set(p Parameters) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if p.K != q.k || p.D != q.d || p.Epsilon != q.epsilon || (p.Axes == nil) != q.at.Axes.IsZero() {
		return fmt.Errorf("%w: %d %v components in %d dimensions with epsilon %v, want %d in %d with %v", ErrInvalid,
			p.K, p.Covariance(), p.D, p.Epsilon, q.k, q.d, q.epsilon)
	}
	at := sections(q.k, q.d, p.Covariance())
	flat := make([]float64, at[4])
	copy(flat, p.Logits)
	copy(flat[at[1]:], p.Means)
	for i, s := range p.Scales {
		if !(s > q.floor) {
			return fmt.Errorf("%w: scales: element %d is %v, want more than the floor %v", ErrInvalid, i, s, q.floor)
		}
		flat[at[2]+i] = math.Log(s - q.floor)
	}
	if err := tensor.SetFloat64s(q.flat, flat); err != nil {
		return err
	}
	if p.Axes != nil {
		if err := tensor.SetFloat64s(q.at.Axes, p.Axes); err != nil {
			return err
		}
	}
	return q.scale()
}

// Update brings scales and axes to the flat vector's state. For full
// covariances it waits for the device.
func (q *Potential) Update() error {
	if err := q.turnAxes(); err != nil {
		return err
	}
	return q.scale()
}

// turnAxes is the part of Update that waits for the device, where there are
// axes.
func (q *Potential) turnAxes() error {
	if q.turner == nil {
		return nil
	}
	return q.turner.apply(q.at.Axes, q.turn)
}

func (q *Potential) scale() error {
	return gmm.Scales(gmm.ScalesArgs{Raw: q.raw, Out: q.at.Scales, Floor: q.floor})
}

// Reduce makes gradient and loss of partial sums.
func (q *Potential) Reduce(partial tensor.Tensor) error {
	return gmm.Reduce(gmm.ReduceArgs{
		Mixture: q.at, Partial: partial, Floor: q.floor, Loss: q.loss,
		DLogits: q.by.logits, DMeans: q.by.means, DRaw: q.by.raw, DTurn: q.by.turn,
	})
}

// Parameters waits for the device and copies the parameters to the host.
func (q *Potential) Parameters() (Parameters, error) { return q.ParametersOf(q.flat) }

// ParametersOf is Parameters with another vector in the place of Flat, for
// example an average of it. Axes are the present ones.
func (q *Potential) ParametersOf(flat tensor.Tensor) (Parameters, error) {
	v, err := tensor.Float64s(flat)
	if err != nil {
		return Parameters{}, err
	}
	l := Layout{K: q.k, D: q.d, Epsilon: q.epsilon, Floor: q.floor}
	var axes []float64
	if !q.at.Axes.IsZero() {
		l.Covariance = Full
		if axes, err = tensor.Float64s(q.at.Axes); err != nil {
			return Parameters{}, err
		}
	}
	return l.Parameters(v, axes)
}

// Layout says what the arrays of State, and an average of the first, mean.
type Layout struct {
	K, D           int
	Epsilon, Floor float64
	Covariance     Covariance
}

// Parameters makes parameters of a flat vector, and of axes if they are Full.
func (l Layout) Parameters(flat, axes []float64) (Parameters, error) {
	at := sections(l.K, l.D, l.Covariance)
	p := Parameters{K: l.K, D: l.D, Epsilon: l.Epsilon, Axes: axes}
	if len(flat) != at[4] || p.Covariance() != l.Covariance {
		return p, fmt.Errorf("%w: %d numbers and %d of axes, want %d for %d %v components in %d dimensions", ErrInvalid,
			len(flat), len(axes), at[4], l.K, l.Covariance, l.D)
	}
	part := func(i, n int) []float64 { return flat[at[i] : at[i]+n : at[i]+n] }
	p.Logits, p.Means = part(0, l.K), part(1, l.K*l.D)
	p.Scales = make([]float64, l.K*l.D)
	for i, raw := range part(2, l.K*l.D) {
		p.Scales[i] = l.Floor + math.Exp(min(max(raw, -14), 14)) // as kernels clamp
	}
	return p, p.Validate()
}

// CopyFrom takes over the parameters of a potential of equal shape and floor,
// bit by bit.
func (q *Potential) CopyFrom(o *Potential) error {
	if err := tensor.Copy(q.flat, o.flat); err != nil {
		return err
	}
	if !q.at.Axes.IsZero() {
		if err := tensor.Copy(q.at.Axes, o.at.Axes); err != nil {
			return err
		}
	}
	return q.scale()
}

// Restored must be called after the arrays of State were written.
func (q *Potential) Restored() error { return q.scale() }

// The names of State.
const (
	StateParameters = "parameters" // the flat vector
	StateAxes       = "axes"       // full covariances only
)

// State is what a checkpoint must hold.
func (q *Potential) State() []run.Named {
	s := []run.Named{{Name: StateParameters, Tensor: q.flat}}
	if !q.at.Axes.IsZero() {
		s = append(s, run.Named{Name: StateAxes, Tensor: q.at.Axes})
	}
	return s
}

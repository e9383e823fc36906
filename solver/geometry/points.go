package geometry

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Points is two clouds and a cost between their points. X is (N, D), Y is
// (M, D), both row-major.
type Points struct {
	X, Y    []float64
	N, M, D int
	Ground  Cost
}

// NewPoints makes a geometry of two clouds of dimension d and reports what is
// wrong with them.
func NewPoints(x, y []float64, d int, cost Cost) (Points, error) {
	p := Points{X: x, Y: y, D: d, Ground: cost}
	if d > 0 {
		p.N, p.M = len(x)/d, len(y)/d
	}
	return p, p.Validate()
}

// Size implements Geometry.
func (p Points) Size() (n, m int) { return p.N, p.M }

// Dim implements Geometry.
func (p Points) Dim() int { return p.D }

// Cost implements Geometry.
func (p Points) Cost() Cost { return p.Ground }

// Row implements Geometry.
func (p Points) Row(i int, out []float64) {
	x := p.X[i*p.D : (i+1)*p.D]
	for j := range p.M {
		y := p.Y[j*p.D : (j+1)*p.D]
		switch p.Ground {
		case Cosine:
			out[j] = 1 - dot(x, y)/(norm(x)*norm(y))
		case Euclidean:
			out[j] = math.Sqrt(squaredDistance(x, y))
		default:
			out[j] = p.Ground.scale() * squaredDistance(x, y)
		}
	}
}

// Transpose implements Geometry.
func (p Points) Transpose() Geometry {
	return Points{X: p.Y, Y: p.X, N: p.M, M: p.N, D: p.D, Ground: p.Ground}
}

// Validate implements Geometry.
func (p Points) Validate() error {
	if p.Ground < SqEuclidean || p.Ground > Cosine {
		return fmt.Errorf("geometry: %w: cost %v between points", solver.ErrInvalid, p.Ground)
	}
	errs := []error{checkPoints("source", p.X, p.N, p.D), checkPoints("target", p.Y, p.M, p.D)}
	if p.Ground == Cosine && errors.Join(errs...) == nil {
		errs = append(errs, checkNonzero("source", p.X, p.D), checkNonzero("target", p.Y, p.D))
	}
	return errors.Join(errs...)
}

func checkNonzero(name string, v []float64, d int) error {
	for i := 0; i < len(v); i += d {
		if norm(v[i:i+d]) == 0 {
			return fmt.Errorf("geometry: %s: %w: point %d is zero, which has no direction for the cosine cost", name, solver.ErrInvalid, i/d)
		}
	}
	return nil
}

func norm(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s = math.Hypot(s, x)
	}
	return s
}

// kernelForm is the geometry that kernels see, with the same costs: points
// centred at their common mean, since float32 cannot tell points apart that
// lie far from the origin, or on the sphere for the cosine cost, where it is
// half the squared distance.
func (p Points) kernelForm() Points {
	q := p
	if p.Ground == Cosine {
		q.X, q.Y, q.Ground = onSphere(p.X, p.D), onSphere(p.Y, p.D), HalfSqEuclidean
		return q
	}
	c := make([]float64, p.D)
	total := float64(p.N + p.M)
	for k := range c {
		for i := range p.N {
			c[k] += p.X[i*p.D+k] / total
		}
		for j := range p.M {
			c[k] += p.Y[j*p.D+k] / total
		}
	}
	q.X, q.Y = shifted(p.X, c), shifted(p.Y, c)
	return q
}

func shifted(v, c []float64) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = x - c[i%len(c)]
	}
	return w
}

func onSphere(v []float64, d int) []float64 {
	w := make([]float64, len(v))
	for i := 0; i < len(v); i += d {
		s := norm(v[i : i+d])
		for k := range d {
			w[i+k] = v[i+k] / s
		}
	}
	return w
}

// Mean implements Geometry. For squared costs it follows from the moments of
// both clouds; otherwise it is summed over all pairs.
func (p Points) Mean(ctx context.Context, a, b []float64) (float64, error) {
	if err := checkWeights(a, b, p.N, p.M); err != nil {
		return 0, err
	}
	q := p.kernelForm()
	if q.Ground == Euclidean {
		mean, _, err := pairMoments(ctx, q.N, q.M, a, b, q.distance)
		return mean, err
	}
	return q.Ground.scale() * meanSquared(q, a, b), nil
}

// Std implements Geometry.
func (p Points) Std(ctx context.Context, a, b []float64) (float64, error) {
	if err := checkWeights(a, b, p.N, p.M); err != nil {
		return 0, err
	}
	q := p.kernelForm()
	if q.Ground == Euclidean {
		mean, square, err := pairMoments(ctx, q.N, q.M, a, b, q.distance)
		return math.Sqrt(max(square-mean*mean, 0)), err
	}
	mean := meanSquared(q, a, b)
	return q.Ground.scale() * math.Sqrt(max(meanFourth(q, a, b)-mean*mean, 0)), nil
}

// scale is the factor of |x-y|² in a squared cost.
func (c Cost) scale() float64 {
	if c == HalfSqEuclidean {
		return 0.5
	}
	return 1
}

// distance is |x_i - y_j|.
func (p Points) distance(i, j int) float64 {
	return math.Sqrt(squaredDistance(p.X[i*p.D:(i+1)*p.D], p.Y[j*p.D:(j+1)*p.D]))
}

// squaredDistance is |x - y|². Four sums hide the latency of an addition, which
// would otherwise set the pace.
func squaredDistance(x, y []float64) float64 {
	var a, b, c, d float64
	y = y[:len(x)]
	k := 0
	for ; k+4 <= len(x); k += 4 {
		p, q, r, s := x[k]-y[k], x[k+1]-y[k+1], x[k+2]-y[k+2], x[k+3]-y[k+3]
		a += p * p
		b += q * q
		c += r * r
		d += s * s
	}
	for ; k < len(x); k++ {
		p := x[k] - y[k]
		a += p * p
	}
	return (a + b) + (c + d)
}

// Open implements Geometry.
func (p Points) Open(dev gpu.Device, dtype tensor.DType, o Options) (Operator, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	q := p.kernelForm()
	op := &pairs{dev: dev, dtype: dtype, n: q.N, m: q.M, d: q.D, cost: q.Ground}
	var err error
	if op.x, err = upload(dev, dtype, q.X, q.N, q.D); err != nil {
		return nil, err
	}
	if op.y, err = upload(dev, dtype, q.Y, q.M, q.D); err != nil {
		op.Close()
		return nil, err
	}
	if cacheWins(dev.Properties().Kind, dtype, q, o) {
		if err := op.cache(); err != nil {
			op.Close()
			return nil, err
		}
	}
	return op, nil
}

// upload stores v on a device in a precision.
func upload(dev gpu.Device, dtype tensor.DType, v []float64, shape ...int) (tensor.Tensor, error) {
	if dtype == tensor.Float64 {
		return tensor.From(dev, v, shape...)
	}
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	return tensor.From(dev, w, shape...)
}

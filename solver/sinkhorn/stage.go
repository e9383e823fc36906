package sinkhorn

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// vector is a device vector with the host's float64 view of it.
type vector struct {
	tensor.Tensor
	host   []float64
	single []float32 // staging of a float32 tensor
}

func newVector(dev gpu.Device, dtype tensor.DType, n int) (*vector, error) {
	t, err := tensor.New(dev, dtype, n)
	if err != nil {
		return nil, err
	}
	v := &vector{Tensor: t, host: make([]float64, n)}
	if dtype == tensor.Float32 {
		v.single = make([]float32, n)
	}
	return v, nil
}

// set uploads x.
func (v *vector) set(x []float64) error {
	if v.single == nil {
		return tensor.Set(v.Tensor, x)
	}
	for i, y := range x {
		v.single[i] = float32(y)
	}
	return tensor.Set(v.Tensor, v.single)
}

// get downloads into host.
func (v *vector) get() error {
	if v.single == nil {
		return tensor.Get(v.Tensor, v.host)
	}
	if err := tensor.Get(v.Tensor, v.single); err != nil {
		return err
	}
	for i, y := range v.single {
		v.host[i] = float64(y)
	}
	return nil
}

// bench is a problem on a device in one precision.
type bench struct {
	task
	dtype          tensor.DType
	op             geometry.Operator
	g, loga, logb  *vector
	out, colVector *vector
	f              []float64 // (n) source potential of the last sweep
	logaSet        bool      // loga holds log a
}

// task is a validated problem with its defaults filled in.
type task struct {
	geom       geometry.Geometry
	n, m       int
	a, b       []float64
	loga, logb []float64
	eps        float64
	mass       float64 // of a, which residuals are relative to
	rho1, rho2 float64 // +Inf: exact
}

// damp is the factor that a KL penalty puts on an update at eps.
func damp(rho, eps float64) float64 {
	if math.IsInf(rho, 1) {
		return 1
	}
	return rho / (rho + eps)
}

func (t task) open(dev gpu.Device, dtype tensor.DType, o geometry.Options) (*bench, error) {
	op, err := t.geom.Open(dev, dtype, o)
	if err != nil {
		return nil, err
	}
	s := &bench{task: t, dtype: dtype, op: op, f: make([]float64, t.n)}
	for _, v := range []struct {
		to    **vector
		n     int
		dtype tensor.DType
	}{{&s.g, t.m, dtype}, {&s.loga, t.n, dtype}, {&s.logb, t.m, dtype}, {&s.out, t.n, dtype}, {&s.colVector, t.m, tensor.Float64}} {
		if *v.to, err = newVector(dev, v.dtype, v.n); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s.logb.set(t.logb); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *bench) close() {
	for _, v := range []*vector{s.g, s.loga, s.logb, s.out, s.colVector} {
		if v != nil {
			v.Free()
		}
	}
	s.op.Close()
}

// relaxation is the state of over-relaxed updates.
type relaxation struct {
	omega float64
	f     []float64 // the last source potential
}

// sweep evaluates the Sinkhorn map at g: image is the next g, err the L1
// residual of the optimality conditions of the plan of (s.f, g), relative to
// the mass. relax may be nil.
func (s *bench) sweep(g, image []float64, eps float64, relax *relaxation) (residual float64, err error) {
	d1, d2 := damp(s.rho1, eps), damp(s.rho2, eps)
	if err := s.g.set(g); err != nil {
		return 0, err
	}
	loga, factor := s.task.loga, d1
	if relax != nil && relax.omega != 1 {
		// f = (1-ω) f_old + ω damp out enters the weights of the rows
		// as exp(log a + (f - out)/ε).
		loga, factor = make([]float64, s.n), relax.omega*d1
		for i, l := range s.task.loga {
			loga[i] = l + (1-relax.omega)*relax.f[i]/eps
		}
	}
	if relax != nil || !s.logaSet {
		if err := s.loga.set(loga); err != nil {
			return 0, err
		}
		s.logaSet = relax == nil
	}
	if err := s.op.Sweep(s.out.Tensor, s.colVector.Tensor, s.g.Tensor, s.loga.Tensor, s.logb.Tensor, factor, eps); err != nil {
		return 0, err
	}
	if err := s.out.get(); err != nil {
		return 0, err
	}
	if err := s.colVector.get(); err != nil {
		return 0, err
	}
	out, col := s.out.host, s.colVector.host
	rows := 0.0
	for i, o := range out {
		s.f[i] = d1 * o
		if relax != nil {
			s.f[i] = (1-relax.omega)*relax.f[i] + relax.omega*d1*o
			rows += math.Abs(s.a[i]*math.Exp((s.f[i]-o)/eps) - s.wanted(s.a[i], s.f[i], s.rho1))
			relax.f[i] = s.f[i]
		}
	}
	cols, lost := 0.0, false
	for j, b := range s.b {
		image[j] = g[j]
		if b == 0 {
			continue
		}
		cols += math.Abs(col[j] - s.wanted(b, g[j], s.rho2))
		// A column that underflows has no logarithm; see below.
		lost = lost || col[j] < 1e-30*b
		image[j] = d2 * (g[j] - eps*math.Log(col[j]/b))
	}
	if lost {
		if err := s.columns(image, s.f, eps, d2); err != nil {
			return 0, err
		}
	}
	if relax != nil {
		for j := range image {
			image[j] = (1-relax.omega)*g[j] + relax.omega*image[j]
		}
	}
	return (rows + cols) / s.mass, nil
}

// wanted is the marginal that the optimality condition asks for where the
// potential is f: w, or w exp(-f/ρ) with a penalty.
func (task) wanted(w, f, rho float64) float64 {
	if math.IsInf(rho, 1) {
		return w
	}
	return w * math.Exp(-f/rho)
}

// columns computes g = damp softmin over the source given f, without the
// detour over marginals, which underflow where a target point is far from the
// plan of (f, g).
func (s *bench) columns(g, f []float64, eps, damp float64) error {
	t, err := s.op.Transposed()
	if err != nil {
		return err
	}
	if err := s.loga.set(f); err != nil { // as potential
		return err
	}
	s.logaSet = false
	loga, err := newVector(s.loga.Device(), s.dtype, s.n)
	if err != nil {
		return err
	}
	defer loga.Free()
	if err := loga.set(s.task.loga); err != nil {
		return err
	}
	if err := t.Softmin(s.g.Tensor, s.loga.Tensor, loga.Tensor, eps); err != nil {
		return err
	}
	if err := s.g.get(); err != nil {
		return err
	}
	for j, v := range s.g.host {
		g[j] = damp * v
	}
	return nil
}

package sinkhorn

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
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
	back           *back     // nil until a transposed softmin is asked for
	dual           float64   // the dual value of the last sweep but for a constant, where it plateaus
}

// back is what softmins over the source need.
type back struct {
	op           geometry.Operator // belongs to the bench's
	f, loga, out *vector
}

// task is a validated problem with its defaults filled in.
type task struct {
	geom           geometry.Geometry
	n, m           int
	a, b           []float64
	loga, logb     []float64
	eps            float64
	mass           float64 // of a, which residuals are relative to
	source, target Penalty // the zero value where exact
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
	vectors := []*vector{s.g, s.loga, s.logb, s.out, s.colVector}
	if s.back != nil {
		vectors = append(vectors, s.back.f, s.back.loga, s.back.out)
	}
	for _, v := range vectors {
		if v != nil {
			v.Free()
		}
	}
	s.op.Close()
}

// translates reports whether sweeps end with the best translation.
func (t task) translates() bool {
	plain := func(p Penalty) bool { return p.Kind == Exact || p.Kind == KL }
	return !plain(t.source) || !plain(t.target)
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
	if err := s.g.set(g); err != nil {
		return 0, err
	}
	var back []float64 // the softmin over the source, where it was computed
	if damp, ok := s.source.damp(eps); ok {
		err = s.onePass(damp, eps, relax)
	} else {
		back, err = s.twoPasses(g, eps, relax)
	}
	if err != nil {
		return 0, err
	}
	rows := 0.0
	if relax != nil {
		for i, o := range s.out.host {
			rows += math.Abs(s.a[i]*math.Exp((s.f[i]-o)/eps) - s.source.wanted(s.a[i], s.f[i], o, eps))
		}
		copy(relax.f, s.f)
	}
	col := s.colVector.host
	cols, lost := 0.0, false
	for j, b := range s.b {
		image[j] = g[j]
		if b == 0 {
			continue
		}
		var o float64
		if back != nil {
			o = back[j]
		} else {
			o = g[j] - eps*math.Log(col[j]/b)
			// A column that underflows has no logarithm; see below.
			lost = lost || col[j] < 1e-30*b
		}
		cols += math.Abs(col[j] - s.target.wanted(b, g[j], o, eps))
		image[j] = s.target.update(o, b, eps)
	}
	if lost {
		if err := s.columns(image, s.f, eps); err != nil {
			return 0, err
		}
	}
	if relax != nil {
		for j := range image {
			image[j] = s.target.project((1-relax.omega)*g[j] + relax.omega*image[j])
		}
	} else if s.translates() {
		lambda := s.translation(s.f, image)
		for j := range image {
			image[j] = s.target.project(image[j] - lambda)
		}
	}
	if s.plateaus() {
		s.dual = s.source.dual(s.f, s.a) + s.target.dual(g, s.b) - eps*measure.Mass(col)
	}
	return (rows + cols) / s.mass, nil
}

// plateaus reports whether the residual may stay as it is for many sweeps while
// the dual rises: under TV a cluster with more mass than its counterpart moves
// by ε times the logarithm of their ratio per sweep, until it reaches ±ρ.
func (t task) plateaus() bool { return t.source.Kind == TV || t.target.Kind == TV }

// onePass computes s.f, the softmins that it comes from and the second marginal
// in one pass over the pairs, where an update of the source is a factor.
func (s *bench) onePass(damp, eps float64, relax *relaxation) error {
	loga, factor := s.task.loga, damp
	if relax != nil && relax.omega != 1 {
		// f = (1-ω) f_old + ω damp out enters the weights of the rows
		// as exp(log a + (f - out)/ε).
		loga, factor = make([]float64, s.n), relax.omega*damp
		for i, l := range s.task.loga {
			loga[i] = l + (1-relax.omega)*relax.f[i]/eps
		}
	}
	if relax != nil || !s.logaSet {
		if err := s.loga.set(loga); err != nil {
			return err
		}
		s.logaSet = relax == nil
	}
	if err := s.op.Sweep(s.out.Tensor, s.colVector.Tensor, s.g.Tensor, s.loga.Tensor, s.logb.Tensor, factor, eps); err != nil {
		return err
	}
	if err := s.out.get(); err != nil {
		return err
	}
	for i, o := range s.out.host {
		s.f[i] = damp * o
		if relax != nil {
			s.f[i] = (1-relax.omega)*relax.f[i] + relax.omega*damp*o
		}
	}
	return s.colVector.get()
}

// twoPasses is onePass for any penalty of the source. It returns the softmins
// over the source, of which it makes the second marginal.
func (s *bench) twoPasses(g []float64, eps float64, relax *relaxation) ([]float64, error) {
	if err := s.op.Softmin(s.out.Tensor, s.g.Tensor, s.logb.Tensor, eps); err != nil {
		return nil, err
	}
	if err := s.out.get(); err != nil {
		return nil, err
	}
	for i, o := range s.out.host {
		s.f[i] = s.source.update(o, s.a[i], eps)
		if relax != nil {
			s.f[i] = (1-relax.omega)*relax.f[i] + relax.omega*s.f[i]
		}
	}
	back, err := s.softminOverSource(s.f, eps)
	if err != nil {
		return nil, err
	}
	for j, o := range back {
		s.colVector.host[j] = 0
		if s.b[j] > 0 {
			s.colVector.host[j] = s.b[j] * math.Exp((g[j]-o)/eps)
		}
	}
	return back, nil
}

// columns computes the update of g given f without the detour over marginals,
// which underflow where a target point is far from the plan of (f, g).
func (s *bench) columns(g, f []float64, eps float64) error {
	back, err := s.softminOverSource(f, eps)
	if err != nil {
		return err
	}
	for j, o := range back {
		g[j] = s.target.update(o, s.b[j], eps)
	}
	return nil
}

// softminOverSource returns -ε log Σ_i a_i exp((f_i - c_ij)/ε): (m), valid until
// the next call.
func (s *bench) softminOverSource(f []float64, eps float64) ([]float64, error) {
	if s.back == nil {
		op, err := s.op.Transposed()
		if err != nil {
			return nil, err
		}
		s.back = &back{op: op}
	}
	b := s.back
	for _, v := range []struct {
		to  **vector
		n   int
		set []float64
	}{{&b.f, s.n, nil}, {&b.out, s.m, nil}, {&b.loga, s.n, s.task.loga}} {
		if *v.to != nil {
			continue
		}
		to, err := newVector(s.g.Device(), s.dtype, v.n)
		if err != nil {
			return nil, err
		}
		if v.set != nil {
			if err := to.set(v.set); err != nil {
				to.Free()
				return nil, err
			}
		}
		*v.to = to
	}
	if err := b.f.set(f); err != nil {
		return nil, err
	}
	if err := b.op.Softmin(b.out.Tensor, b.f.Tensor, b.loga.Tensor, eps); err != nil {
		return nil, err
	}
	return b.out.host, b.out.get()
}

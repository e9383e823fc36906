package divergences

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// bench is the pairs of a geometry on a device in one precision, by rows and by
// columns.
type bench struct {
	dev        gpu.Device
	dtype      tensor.DType
	rows, cols *side
}

// side is one direction: its points against the others.
type side struct {
	dev           gpu.Device
	dtype         tensor.DType
	n, m          int
	x, yt, matrix tensor.Tensor
	cost          softmin.Cost
	logw, q       tensor.Tensor // (m) log weights and potential of the others
	p             tensor.Tensor // (n) own potential
	mass          tensor.Tensor // (n)
	staging       []float32
}

// open uploads everything; what fails leaves nothing behind.
func open(dev gpu.Device, dtype tensor.DType, g geometry.Geometry, loga, logb []float64) (*bench, error) {
	n, m := g.Size()
	b := &bench{
		dev: dev, dtype: dtype,
		rows: &side{dev: dev, dtype: dtype, n: n, m: m},
		cols: &side{dev: dev, dtype: dtype, n: m, m: n},
	}
	err := b.rows.costs(g)
	if err == nil {
		err = b.cols.costs(g.Transpose())
	}
	if err == nil {
		err = b.rows.vectors(logb)
	}
	if err == nil {
		err = b.cols.vectors(loga)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	for _, s := range []*side{b.rows, b.cols} {
		for _, t := range []*tensor.Tensor{&s.x, &s.yt, &s.matrix, &s.logw, &s.q, &s.p, &s.mass} {
			t.Free()
			*t = tensor.Tensor{}
		}
	}
}

// costs uploads the points, or the matrix of what is not points.
func (s *side) costs(g geometry.Geometry) (err error) {
	p, ok := g.(geometry.Points)
	if !ok {
		c := make([]float64, s.n*s.m)
		for i := range s.n {
			g.Row(i, c[i*s.m:(i+1)*s.m])
		}
		s.cost = softmin.Matrix
		s.matrix, err = s.put(c, s.n, s.m)
		return err
	}
	x, y := centred(p)
	switch p.Ground {
	case geometry.HalfSqEuclidean, geometry.Cosine:
		s.cost = softmin.HalfSqEuclidean
	case geometry.Euclidean:
		s.cost = softmin.Euclidean
	}
	if s.x, err = s.put(x, s.n, p.D); err != nil {
		return err
	}
	yt := make([]float64, len(y))
	for j := range s.m {
		for k := range p.D {
			yt[k*s.m+j] = y[j*p.D+k]
		}
	}
	s.yt, err = s.put(yt, p.D, s.m)
	return err
}

// centred are the points of a geometry less their common mean, since float32
// cannot tell points apart that lie far from the origin; of the cosine cost they
// are those on the sphere, where it is half the squared distance.
func centred(p geometry.Points) (x, y []float64) {
	x, y = make([]float64, len(p.X)), make([]float64, len(p.Y))
	if p.Ground == geometry.Cosine {
		onSphere(x, p.X, p.D)
		onSphere(y, p.Y, p.D)
		return x, y
	}
	centre := make([]float64, p.D)
	total := float64(p.N + p.M)
	for _, v := range [][]float64{p.X, p.Y} {
		for i, u := range v {
			centre[i%p.D] += u / total
		}
	}
	for i, u := range p.X {
		x[i] = u - centre[i%p.D]
	}
	for i, u := range p.Y {
		y[i] = u - centre[i%p.D]
	}
	return x, y
}

func onSphere(to, v []float64, d int) {
	for i := 0; i < len(v); i += d {
		norm := 0.0
		for _, u := range v[i : i+d] {
			norm = math.Hypot(norm, u)
		}
		for k, u := range v[i : i+d] {
			to[i+k] = u / norm
		}
	}
}

func (s *side) vectors(logw []float64) (err error) {
	if s.logw, err = s.put(logw, s.m); err != nil {
		return err
	}
	if s.q, err = tensor.New(s.dev, s.dtype, s.m); err != nil {
		return err
	}
	if s.p, err = tensor.New(s.dev, s.dtype, s.n); err != nil {
		return err
	}
	s.mass, err = tensor.New(s.dev, tensor.Float64, s.n)
	s.staging = make([]float32, max(s.n, s.m))
	return err
}

func (s *side) put(v []float64, shape ...int) (tensor.Tensor, error) {
	if s.dtype == tensor.Float64 {
		return tensor.From(s.dev, v, shape...)
	}
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	return tensor.From(s.dev, w, shape...)
}

func (s *side) set(t tensor.Tensor, v []float64) error {
	if s.dtype == tensor.Float64 {
		return tensor.Set(t, v)
	}
	for i, x := range v {
		s.staging[i] = float32(x)
	}
	return tensor.Set(t, s.staging[:len(v)])
}

func (s *side) get(t tensor.Tensor, v []float64) error {
	if s.dtype == tensor.Float64 {
		return tensor.Get(t, v)
	}
	if err := tensor.Get(t, s.staging[:len(v)]); err != nil {
		return err
	}
	for i := range v {
		v[i] = float64(s.staging[i])
	}
	return nil
}

// equation is the row equation Σ_j w_ij φ(z_ij) = 1 of a problem, the same for
// rows and columns: see package fdual.
type equation struct {
	law                 law
	slope, decay, shift float64
}

func (s *side) pairs(e equation) fdual.Pairs {
	return fdual.Pairs{
		X: s.x, YT: s.yt, Matrix: s.matrix, Cost: s.cost, Q: s.q, LogB: s.logw,
		Slope: e.slope, Decay: e.decay, Shift: e.shift, Law: e.law.kind, A: e.law.a, Delta: e.law.delta,
	}
}

// solve writes the roots p: (n) for the others' potential q: (m), and, where mass
// is not nil, the row sums at start: (n). start may be p.
func (s *side) solve(e equation, q, start, p, mass []float64) error {
	if err := s.set(s.q, q); err != nil {
		return err
	}
	a := fdual.RowsArgs{P: s.p}
	if start != nil {
		if err := s.set(s.p, start); err != nil {
			return err
		}
		a.Start, a.Mass = s.p, s.mass
	}
	if err := s.pairs(e).Rows(s.dev, a); err != nil {
		return err
	}
	if mass != nil {
		if err := tensor.Get(s.mass, mass); err != nil {
			return err
		}
	}
	return s.get(s.p, p)
}

// rowSums are what a certificate needs of the rows.
type rowSums struct{ mass, cost, f, psi, edge []float64 }

// eval sums over the rows of given potentials.
func (s *side) eval(e equation, p, q []float64) (r rowSums, err error) {
	if err = s.set(s.q, q); err != nil {
		return r, err
	}
	if err = s.set(s.p, p); err != nil {
		return r, err
	}
	var out [5]tensor.Tensor
	defer func() {
		for _, t := range out {
			t.Free()
		}
	}()
	for k := range out {
		if out[k], err = tensor.New(s.dev, tensor.Float64, s.n); err != nil {
			return r, err
		}
	}
	a := fdual.EvalArgs{P: s.p, Mass: out[0], Mean: out[1], F: out[2], Psi: out[3], Edge: out[4]}
	if err = s.pairs(e).Eval(s.dev, a); err != nil {
		return r, err
	}
	for k, v := range []*[]float64{&r.mass, &r.cost, &r.f, &r.psi, &r.edge} {
		*v = make([]float64, s.n)
		if err = tensor.Get(out[k], *v); err != nil {
			return r, err
		}
	}
	return r, nil
}

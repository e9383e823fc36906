package barycenter

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// leaf is a measure of λ > 0, with its defaults filled in.
type leaf struct {
	k       int // its place among the problem's measures
	geom    geometry.Geometry
	shared  bool // it lives on the support
	lambda  float64
	a, loga []float64
}

// task is a validated problem with its defaults filled in.
type task struct {
	leaves   []leaf
	support  geometry.Geometry // nil where no leaf shares it and nothing is debiased
	debiased bool
	n        int
	nu       []float64
	lognu    []float64
	eps      float64
	rho      float64 // +Inf: exact
	pairs    int     // of all operators together
}

// arm is a leaf on a device.
type arm struct {
	leaf
	op, back    geometry.Operator // from the measure to the support, and back
	f, loga     tensor.Tensor
	sHost, mass []float64 // (n) softmin of the support, and the plan's second marginal
}

// bench is a task on a device in one precision.
type bench struct {
	task
	dtype    tensor.DType
	arms     []*arm
	self     geometry.Operator // of the support
	g, s     tensor.Tensor     // (n)
	lognu    tensor.Tensor
	free     []func()
	selfS    []float64 // (n) softmin of d
	selfMass []float64 // (n) first marginal of Q
	beta     []float64 // (n) ε log b/ν
	mixed    []float64 // (n) exp of the above times ν
}

// open puts the task on a device.
func (t task) open(dev gpu.Device, dtype tensor.DType, o geometry.Options) (_ *bench, err error) {
	b := &bench{task: t, dtype: dtype, beta: make([]float64, t.n), mixed: make([]float64, t.n)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	vec := func(to *tensor.Tensor, n int) {
		if err == nil {
			if *to, err = tensor.New(dev, dtype, n); err == nil {
				b.free = append(b.free, to.Free)
			}
		}
	}
	operator := func(g geometry.Geometry) (op geometry.Operator) {
		if err == nil {
			if op, err = g.Open(dev, dtype, o); err == nil {
				b.free = append(b.free, op.Close)
			}
		}
		return op
	}
	vec(&b.g, t.n)
	vec(&b.s, t.n)
	vec(&b.lognu, t.n)
	if t.support != nil {
		b.self = operator(t.support)
	}
	if t.debiased {
		b.selfS, b.selfMass = make([]float64, t.n), make([]float64, t.n)
	}
	for _, l := range t.leaves {
		m := len(l.a)
		a := &arm{leaf: l, op: b.self, back: b.self, sHost: make([]float64, t.n), mass: make([]float64, t.n)}
		vec(&a.f, m)
		vec(&a.loga, m)
		if !l.shared {
			a.op = operator(l.geom)
			if err == nil {
				a.back, err = a.op.Transposed()
			}
		}
		if err != nil {
			return b, err
		}
		if err = tensor.SetFloat64s(a.loga, l.loga); err != nil {
			return b, err
		}
		b.arms = append(b.arms, a)
	}
	if err == nil {
		err = tensor.SetFloat64s(b.lognu, t.lognu)
	}
	return b, err
}

func (b *bench) close() {
	for i := len(b.free) - 1; i >= 0; i-- {
		b.free[i]()
	}
	b.free = nil
}

// cached reports whether every cost matrix is held in memory.
func (b *bench) cached() bool {
	all := true
	for _, a := range b.arms {
		all = all && a.op.Cached()
	}
	return all
}

// damp is the factor that a penalty puts on the potentials of the measures.
func (t task) damp() float64 {
	if math.IsInf(t.rho, 1) {
		return 1
	}
	return t.rho / (t.rho + t.eps)
}

// place is the part of the iterate that holds g of arm k; that of d comes after
// all arms.
func (t task) place(z []float64, k int) []float64 { return z[k*t.n : (k+1)*t.n] }

// length of an iterate.
func (t task) length() int {
	if t.debiased {
		return (len(t.leaves) + 1) * t.n
	}
	return len(t.leaves) * t.n
}

// half computes, of the g of an arm, the optimal f, and the softmin of f at the
// support; then the second marginal of the plan of (f, g).
func (b *bench) half(a *arm, g []float64) error {
	if err := tensor.SetFloat64s(b.g, g); err != nil {
		return err
	}
	if err := a.op.Softmin(a.f, b.g, b.lognu, b.eps); err != nil {
		return err
	}
	if d := b.damp(); d != 1 {
		f, err := tensor.Float64s(a.f)
		if err != nil {
			return err
		}
		for i := range f {
			f[i] *= d
		}
		if err := tensor.SetFloat64s(a.f, f); err != nil {
			return err
		}
	}
	if err := a.back.Softmin(b.s, a.f, a.loga, b.eps); err != nil {
		return err
	}
	if err := tensor.GetFloat64s(b.s, a.sHost); err != nil {
		return err
	}
	for i, s := range a.sHost {
		a.mass[i] = math.Exp(b.task.lognu[i] + (g[i]-s)/b.eps)
	}
	return nil
}

// symmetric computes the softmin of d and the marginal of Q.
func (b *bench) symmetric(d []float64) error {
	if err := tensor.SetFloat64s(b.g, d); err != nil {
		return err
	}
	if err := b.self.Softmin(b.s, b.g, b.lognu, b.eps); err != nil {
		return err
	}
	if err := tensor.GetFloat64s(b.s, b.selfS); err != nil {
		return err
	}
	for i, s := range b.selfS {
		b.selfMass[i] = math.Exp(b.task.lognu[i] + (d[i]-s)/b.eps)
	}
	return nil
}

// eval is the fixed-point map of (g_1 … g_K, d). With s_k the softmin at the
// support of the optimal f_k, S their mean Σ_k λ_k s_k, and t the softmin of d,
//
//	d <- (2d - S + t)/2,  g_k <- s_k - S + d
//
// the latter with the new d. This is Benamou et al. 2015, proposition 2, where
// d = 0, and otherwise Janati et al. 2020, algorithm 1, in the log domain and begun
// at its last line, so that Σ_k λ_k g_k = d holds of every iterate. It writes the
// image of z and returns the residual of z.
func (b *bench) eval(z, image []float64) (residual float64, err error) {
	for i := range b.beta {
		b.beta[i] = 0
	}
	var d []float64
	if b.debiased {
		d = b.place(z, len(b.arms))
		copy(b.beta, d)
		if err := b.symmetric(d); err != nil {
			return 0, err
		}
	}
	for k, a := range b.arms {
		if err := b.half(a, b.place(z, k)); err != nil {
			return 0, err
		}
		for i, s := range a.sHost {
			b.beta[i] -= a.lambda * s
		}
	}
	if b.debiased {
		to := b.place(image, len(b.arms))
		for i, v := range b.beta {
			to[i] = (d[i] + v + b.selfS[i]) / 2
			if b.nu[i] == 0 { // nothing else holds it
				to[i] = b.selfS[i]
			}
			b.beta[i] += to[i] - d[i]
		}
	}
	for i := range b.mixed {
		b.mixed[i] = 0
	}
	for k, a := range b.arms {
		to := b.place(image, k)
		for i, s := range a.sHost {
			to[i] = s + b.beta[i]
			b.mixed[i] += a.lambda * a.mass[i]
		}
	}
	mass := measure.Mass(b.mixed)
	for _, a := range b.arms {
		residual = worse(residual, distance(a.mass, b.mixed)/mass)
	}
	if b.debiased {
		residual = worse(residual, distance(b.selfMass, b.mixed)/mass)
	}
	return residual, nil
}

// worse is the larger one, NaN where either is.
func worse(a, b float64) float64 {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.NaN()
	}
	return max(a, b)
}

// distance is |p - q| in L1.
func distance(p, q []float64) float64 {
	s := 0.0
	for i, x := range p {
		s += math.Abs(x - q[i])
	}
	return s
}

// metric writes the weights of the norm in which iterates are mixed.
func (b *bench) metric(w []float64) {
	for k, a := range b.arms {
		to := b.place(w, k)
		for i, m := range a.mass {
			to[i] = a.lambda * m
		}
	}
	if b.debiased {
		copy(b.place(w, len(b.arms)), b.selfMass)
	}
}

// floor is the residual that rounding of the exponents leaves where the
// barycentre has mass: an exponent of size x is known to x times the unit
// roundoff.
func (b *bench) floor() float64 {
	x, most := 0.0, 0.0
	for _, m := range b.mixed {
		most = max(most, m)
	}
	for i, m := range b.mixed {
		if m < 1e-6*most {
			continue
		}
		for _, a := range b.arms {
			x = max(x, math.Abs(a.sHost[i]))
		}
		if b.debiased {
			x = max(x, math.Abs(b.selfS[i]))
		}
	}
	return solver.Roundoff(b.dtype) * (1 + 4*x/b.eps)
}

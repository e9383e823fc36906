package proximal_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// each runs a test in both types on every device.
func each(t *testing.T, single func(*testing.T, kerneltest.Target), double func(*testing.T, kerneltest.Target)) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { single(t, dev) })
		t.Run("float64", func(t *testing.T) { double(t, dev) })
	})
}

func emulated(dev kerneltest.Target) bool { return dev.Properties().Kind == gpu.Emulation }

// The inverse of model A at ε = 1/2, β = 4, to the digits that are known.
func TestKnownInverse(t *testing.T) { each(t, knownInverse[float32], knownInverse[float64]) }

func knownInverse[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	for _, c := range []struct {
		t0   float64
		x    []T
		want []float64
	}{
		{0, []T{.7, -.4, -1.2, .3}, []float64{0.56602857, -0.31302238, -1.02819804, 0.15802438}},
		{1, []T{.2, .9, 1.1, -.6, -.4, -.2}, []float64{0.28901384, 0.82710960, 0.76243971, -0.48006358, -0.65402295, -0.78439334}},
	} {
		for _, withoutH := range []bool{false, true} {
			p := problem[T]{m: modelA[T](), x: c.x, t0: c.t0, beta: 4, withoutH: withoutH}
			r := p.solve(t, dev.Device)
			// The map's least slope is above 1/4 here: y is within four residuals.
			require.NoError(t, kerneltest.Within(r.y, c.want, 5e-9+4*tight[T]()*1.5), "t = %v", c.t0)
			require.NoError(t, p.verify(r, 12))
		}
	}
}

type size struct{ n, k, d int }

// With the floor every sample arrives, whatever the sizes, axes and times.
func TestInverse(t *testing.T) { each(t, inverse[float32], inverse[float64]) }

func inverse[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	sizes := []size{
		{1, 1, 1}, {31, 3, 1}, {33, 50, 2}, {32, 7, 2}, {129, 33, 3}, {65, 31, 4}, {17, 5, 5}, {33, 5, 7}, {32, 10, 16},
		{9, 10, 17}, {8, 3, 31}, {7, 33, 32}, {3, 4, 33}, {5, 3, 127}, {2, 2, 129},
	}
	if emulated(dev) {
		sizes = []size{{1, 1, 1}, {7, 33, 2}, {5, 3, 3}, {2, 9, 4}, {2, 5, 5}, {1, 2, 67}}
	}
	for i, s := range sizes {
		for variant := range 4 {
			full, own := variant&1 != 0, variant&2 != 0
			rng := rand.New(rand.NewPCG(uint64(i), uint64(variant)))
			beta := []float64{4, 10, 1, 50}[(i+variant)%4]
			p := problem[T]{m: random[T](rng, s.k, s.d, 0.5, 1.05/(1+beta), 1), beta: beta, t0: []float64{0, 1, 0.37}[i%3]}
			if full {
				p.m = p.m.turned(rng)
			}
			p.x = normals[T](rng, s.n*s.d, 1.5)
			if own {
				p.t = make([]T, s.n)
				for b := range p.t {
					p.t[b] = T(rng.Float64())
				}
			}
			r := p.solve(t, dev.Device)
			require.NoError(t, p.verify(r, 30), "%+v, axes %v, own times %v, β = %v, t0 = %v", s, full, own, beta, p.t0)

			// Without H the same point, to what the tolerance leaves.
			p.withoutH = true
			q := p.solve(t, dev.Device)
			require.NoError(t, p.verify(q, 30), "without H: %+v, axes %v, own times %v", s, full, own)
			_, lost := p.misses(r)
			for b := range s.n {
				require.NoError(t, near(p, b, r.y, q.y, lost), "%+v, axes %v, own times %v, β = %v", s, full, own, beta)
			}
		}
	}
}

// near reports whether two solutions of sample b are one. The map has at least
// the slope c = β(1-t)/(1+β(1-t)), and at the end at least what 5% above the floor
// leave of it, so that a residual of δ is at most δ/c in y; both have one.
func near[T kerneltest.Float](p problem[T], b int, r, q []T, lost float64) error {
	d := p.m.d
	late := p.beta * (1 - p.time(b))
	least := max(late/(1+late), 1-1/1.05)
	var square, away float64
	for i := range d {
		e := float64(r[b*d+i]) - float64(q[b*d+i])
		away += e * e
		square += float64(p.x[b*d+i]) * float64(p.x[b*d+i])
	}
	budget := 2 * (tight[T]() + 2*lost) * max(1, math.Sqrt(square)) / least
	if away = math.Sqrt(away); !(away <= budget) {
		return fmt.Errorf("sample %d: %v apart, want at most %v", b, away, budget)
	}
	return nil
}

// The two models of the literature, K = 50 in the plane, at every β that is in
// use: no sample takes more than fifteen steps.
func TestSteps(t *testing.T) { each(t, steps[float32], steps[float64]) }

func steps[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	n := 300
	if emulated(dev) {
		n = 3
	}
	for seed := range uint64(2) {
		for _, beta := range []float64{100, 10, 4, 2, 1, 0.5} {
			for _, t0 := range []float64{0, 1} {
				rng := rand.New(rand.NewPCG(seed, 50))
				p := problem[T]{m: random[T](rng, 50, 2, 1, 1.0001/(1+beta), 3*beta/(1+beta)), beta: beta, t0: t0}
				if t0 == 1 {
					p.x = normals[T](rng, 2*n, 3)
				} else {
					p.x = normals[T](rng, 2*n, 1)
				}
				require.NoError(t, p.verify(p.solve(t, dev.Device), 15), "K = 50, β = %v, t = %v", beta, t0)
			}
		}
	}
	for _, beta := range []float64{100, 10, 4, 3} { // model A has the floor for β >= 3
		for _, t0 := range []float64{0, 1} {
			p := problem[T]{m: modelA[T](), beta: beta, t0: t0, x: normals[T](rand.New(rand.NewPCG(7, 7)), 2*n, 1.5)}
			require.NoError(t, p.verify(p.solve(t, dev.Device), 15), "model A, β = %v, t = %v", beta, t0)
		}
	}
	for _, beta := range []float64{1, 0.5} {
		p := problem[T]{m: modelA[T](), beta: beta, x: normals[T](rand.New(rand.NewPCG(7, 7)), 2*n, 1.5)}
		p.honest(t, p.solve(t, dev.Device))
		p.t0 = 1
		p.honest(t, p.solve(t, dev.Device))
	}
}

// honest checks what holds with and without the floor: finite results, the
// residual that is there, and an objective that is not above the start's.
func (p problem[T]) honest(t *testing.T, r result[T]) {
	t.Helper()
	d := p.m.d
	want, naive := make([]float64, p.n()), make([]T, p.n())
	misses, lost := p.misses(r)
	for b := range p.n() {
		x, y := p.x[b*d:b*d+d], r.y[b*d:b*d+d]
		require.InDeltaf(t, misses[b], float64(r.residual[b]), 2*lost+8*ulp[T]()*misses[b], "sample %d, y = %v", b, y)
		want[b], naive[b] = envelope[float64](p.m, p.time(b), p.beta, x, y), envelope[T](p.m, p.time(b), p.beta, x, y)
		start := envelope[float64](p.m, p.time(b), p.beta, x, x)
		slack := 64*ulp[T]()*(math.Abs(start)+math.Abs(want[b])) + 4*math.Abs(float64(naive[b])-want[b])
		require.Truef(t, want[b] <= start+slack, "sample %d: objective %v, %v at the start", b, want[b], start)
	}
	require.NoError(t, kerneltest.Close(r.value, naive, want, 64))
}

// Narrow modes at a β for which the objective is not convex: at t = 1/2 it still
// is, at t = 1 among wide modes there are minima, and without those it has no
// lower bound, where nothing can arrive.
func TestWithoutFloor(t *testing.T) { each(t, withoutFloor[float32], withoutFloor[float64]) }

func withoutFloor[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	for _, d := range []int{1, 2, 5, 20} {
		n := 200
		if emulated(dev) {
			n = 1
		}
		for _, c := range []struct {
			t0     float64
			wide   int
			arrive bool
		}{{0.5, 0, true}, {1, 2, true}, {1, 0, false}} {
			for _, withoutH := range []bool{false, true} {
				rng := rand.New(rand.NewPCG(uint64(d), 3))
				p := problem[T]{m: random[T](rng, 8, d, 0.5, 0, 2), beta: 10, t0: c.t0, withoutH: withoutH}
				for i := range p.m.scales {
					p.m.scales[i] = 1e-3
				}
				for i := range c.wide * d {
					p.m.scales[i] = 1
				}
				p.x = normals[T](rng, n*d, 2)
				r := p.solve(t, dev.Device)
				p.honest(t, r)
				done := 0
				for _, v := range r.residual {
					if float64(v) <= tight[T]() {
						done++
					}
				}
				if c.arrive {
					require.GreaterOrEqual(t, 10*done, 9*n, "of %d samples in %d dimensions so many arrived: %+v, without H: %v", n, d, c, withoutH)
				}
			}
		}
	}
}

// One component is an affine map, with a closed form.
func TestOneComponent(t *testing.T) { each(t, oneComponent[float32], oneComponent[float64]) }

func oneComponent[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	for _, d := range []int{1, 2, 3, 4, 6, 40} {
		rng := rand.New(rand.NewPCG(uint64(d), 8))
		p := problem[T]{m: random[T](rng, 1, d, 0.3, 0.4, 1), beta: 3, t0: 0.7}
		p.x = normals[T](rng, 11*d, 1)
		want := make([]float64, len(p.x))
		for i, x := range p.x {
			r, s := float64(p.m.means[i%d]), float64(p.m.scales[i%d])
			D := 1 - p.t0 + p.t0*s
			want[i] = (p.beta*float64(x) - r/D) / (p.beta + (s-1)/D)
		}
		r := p.solve(t, dev.Device)
		// The objective is a parabola: a step or two, of what rounding left.
		require.NoError(t, p.verify(r, 2))
		require.NoError(t, kerneltest.Within(r.y, want, 10*tight[T]()*max(1, math.Sqrt(float64(d)))))
	}
}

// With β = ∞, or beyond the type, y is x and the envelope is w_t.
func TestInfiniteBeta(t *testing.T) { each(t, infiniteBeta[float32], infiniteBeta[float64]) }

func infiniteBeta[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	betas := []float64{math.Inf(1)}
	if ulp[T]() > 1e-10 {
		betas = append(betas, 1e300)
	}
	for _, d := range []int{2, 6, 19} {
		for _, beta := range betas {
			rng := rand.New(rand.NewPCG(3, 3))
			p := problem[T]{m: random[T](rng, 5, d, 0.5, 0.2, 1), beta: beta, t0: 0.25, x: normals[T](rng, 9*d, 1)}
			p.start = normals[T](rng, 9*d, 1) // is not looked at
			r := p.solve(t, dev.Device)
			require.NoError(t, kerneltest.BitEqual(r.y, p.x))
			require.NoError(t, kerneltest.BitEqual(r.residual, make([]T, 9)))
			require.Equal(t, make([]int32, 9), r.iterations)
			want, naive := make([]float64, 9), make([]T, 9)
			for b := range want {
				x := p.x[b*d : b*d+d]
				want[b], naive[b] = envelope[float64](p.m, 0.25, 0, x, x), envelope[T](p.m, 0.25, 0, x, x)
			}
			require.NoError(t, kerneltest.Close(r.value, naive, want, 64))
		}
	}
	// A large β: y = x - g/β to first order, |g| β⁻² to second.
	p := problem[T]{m: modelA[T](), beta: 1e6, t0: 0.5, x: []T{0.7, -0.4}}
	r := p.solve(t, dev.Device)
	_, g := at(p.m, 0.5, []float64{0.7, -0.4})
	require.NoError(t, kerneltest.Within(r.y, []float64{0.7 - g[0]*1e-6, -0.4 - g[1]*1e-6}, 1e-11+tight[T]()))
}

// Where float32 overflows, the results say so. Nothing is NaN.
func TestOverflow(t *testing.T) { each(t, overflow[float32], overflow[float64]) }

func overflow[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	huge := T(1e30)
	if ulp[T]() < 1e-10 {
		huge *= huge * huge * huge * huge * huge
	}
	for _, d := range []int{2, 6, 18} {
		for _, withoutH := range []bool{false, true} {
			p := problem[T]{m: random[T](rand.New(rand.NewPCG(3, 4)), 5, d, 0.5, 0.2, 1), beta: 10, t0: 1, withoutH: withoutH}
			p.x = make([]T, 4*d)
			p.x[0], p.x[2*d+1] = huge, -huge
			r := p.solve(t, dev.Device)
			for b := range 4 {
				if b%2 == 0 {
					require.NoError(t, kerneltest.BitEqual(r.y[b*d:b*d+d], p.x[b*d:b*d+d]))
					require.Equal(t, math.Inf(1), float64(r.value[b]))
					require.Equal(t, math.Inf(1), float64(r.residual[b]))
					require.Zero(t, r.iterations[b])
					continue
				}
				require.LessOrEqual(t, float64(r.residual[b]), tight[T]()) // its neighbours do not suffer
			}
		}
	}
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	tensors := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	mix := gmm.Mixture{
		Logits: tensors(tensor.Float32, 3), Means: tensors(tensor.Float32, 3, 2), Scales: tensors(tensor.Float32, 3, 2), Epsilon: 1,
	}
	whole := tensors(tensor.Float32, 9, 2)
	good := proximal.Args{Mixture: mix, X: whole.Rows(0, 4), Y: tensors(tensor.Float32, 4, 2), Beta: 1}
	for _, c := range []struct {
		change func(*proximal.Args)
		is     error
		text   string
	}{
		{func(a *proximal.Args) { a.Mixture = gmm.Mixture{} }, gpu.ErrInvalid, "logits"},
		{func(a *proximal.Args) { a.Mixture.Epsilon = 0 }, gpu.ErrInvalid, "epsilon"},
		{func(a *proximal.Args) { a.X = tensor.Tensor{} }, gpu.ErrInvalid, "x: invalid argument"},
		{func(a *proximal.Args) { a.X = tensors(tensor.Float32, 8) }, gpu.ErrInvalid, "x: invalid argument"},
		{func(a *proximal.Args) { a.X = tensors(tensor.Float32, 4, 3) }, tensor.ErrInvalid, "x: invalid tensor: shape (4, 3), want (4, 2)"},
		{func(a *proximal.Args) { a.X = tensors(tensor.Float64, 4, 2) }, tensor.ErrInvalid, "x: invalid tensor: f64, want f32"},
		{func(a *proximal.Args) { a.Y = tensor.Tensor{} }, tensor.ErrInvalid, "y: invalid tensor: missing"},
		{func(a *proximal.Args) { a.T = tensors(tensor.Float32, 3) }, tensor.ErrInvalid, "t: invalid tensor"},
		{func(a *proximal.Args) { a.Value = tensors(tensor.Float64, 4) }, tensor.ErrInvalid, "value"},
		{func(a *proximal.Args) { a.Residual = tensors(tensor.Float32, 5) }, tensor.ErrInvalid, "residual"},
		{func(a *proximal.Args) { a.Iterations = tensors(tensor.Int64, 4) }, tensor.ErrInvalid, "iterations"},
		{func(a *proximal.Args) { a.Beta = 0 }, gpu.ErrInvalid, "beta: invalid argument: got 0"},
		{func(a *proximal.Args) { a.Beta = math.NaN() }, gpu.ErrInvalid, "beta"},
		{func(a *proximal.Args) { a.T0 = 1.5 }, gpu.ErrInvalid, "t0: invalid argument: got 1.5"},
		{func(a *proximal.Args) { a.T0 = math.NaN() }, gpu.ErrInvalid, "t0"},
		{func(a *proximal.Args) { a.Tolerance = -1 }, gpu.ErrInvalid, "tolerance"},
		{func(a *proximal.Args) { a.Tolerance = math.Inf(1) }, gpu.ErrInvalid, "tolerance"},
		{func(a *proximal.Args) { a.MaxIterations = -1 }, gpu.ErrInvalid, "max iterations"},
		{func(a *proximal.Args) { a.Y = whole.Rows(1, 5) }, gpu.ErrInvalid, "y: invalid argument: overlaps x"},
		{func(a *proximal.Args) { a.Y, a.Warm = a.X, true }, gpu.ErrInvalid, "y: invalid argument: overlaps x"},
		{func(a *proximal.Args) { a.Value = tensors(tensor.Float32, 4); a.Residual = a.Value }, gpu.ErrInvalid, "value: invalid argument: overlaps residual"},
		{func(a *proximal.Args) { a.Mixture.Means = whole.Rows(6, 9); a.Y = whole.Rows(4, 8) }, gpu.ErrInvalid, "overlaps means"},
	} {
		a := good
		c.change(&a)
		err := proximal.Solve(a)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	empty := good
	empty.X, empty.Y = tensors(tensor.Float32, 0, 2), tensors(tensor.Float32, 0, 2)
	require.NoError(t, proximal.Solve(empty))
}

// Whatever the numbers: an error, or results that are finite or say that they
// are not, and that tell their residual.
func FuzzSolve(f *testing.F) {
	f.Add(uint64(1), 2, 3, 5, 0.5, 0.1, 10.0, 0.5, 1.0)
	f.Add(uint64(2), 7, 1, 1, 1e-3, 1e-5, 0.5, 1.0, 100.0)
	f.Add(uint64(3), 20, 4, 2, 10.0, 3.0, math.Inf(1), 0.0, 1e20)
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, seed uint64, d, k, n int, epsilon, scale, beta, t0, spread float64) {
		small := func(v, most int) int { return 1 + int(uint(v)%uint(most)) }
		d, k, n = small(d, 40), small(k, 9), small(n, 20)
		if !(scale > 1e-6 && scale < 1e6) || !(math.Abs(spread) < 1e30) {
			t.Skip("no mixture")
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		p := problem[float32]{m: random[float32](rng, k, d, epsilon, scale, spread), beta: beta, t0: t0}
		p.x = normals[float32](rng, n*d, spread)
		mix, _ := put(t, dev, p.m)
		y, value, residual := kerneltest.Poison[float32](t, dev, n, d), kerneltest.Poison[float32](t, dev, n), kerneltest.Poison[float32](t, dev, n)
		err := proximal.Solve(proximal.Args{
			Mixture: mix, X: kerneltest.Put(t, dev, p.x, n, d).Tensor, T0: t0, Beta: beta,
			Y: y.Tensor, Value: value.Tensor, Residual: residual.Tensor,
		})
		bad := !(epsilon > 0) || math.IsInf(epsilon, 0) || !(beta > 0) || !(t0 >= 0 && t0 <= 1)
		require.Equal(t, bad, err != nil, "%v", err)
		if bad {
			return
		}
		for _, v := range append(append(y.Get(t), value.Get(t)...), residual.Get(t)...) {
			require.False(t, v != v, "a result is NaN")
		}
	})
}

// ExampleSolve inverts the transport map y + g(y)/β of a potential with one
// component, for which g(1, y) = (r + (s-1) y) / s.
func ExampleSolve() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	put := func(v []float64, shape ...int) tensor.Tensor {
		t, err := tensor.From(dev, v, shape...)
		if err != nil {
			panic(err)
		}
		return t
	}
	logits, means, scales := put([]float64{0}, 1), put([]float64{1}, 1, 1), put([]float64{0.5}, 1, 1)
	x, y := put([]float64{-1, 0, 3}, 3, 1), put(make([]float64, 3), 3, 1)
	for _, t := range []tensor.Tensor{logits, means, scales, x, y} {
		defer t.Free()
	}
	err = proximal.Solve(proximal.Args{
		Mixture: gmm.Mixture{Logits: logits, Means: means, Scales: scales, Epsilon: 1},
		X:       x, T0: 1, Beta: 4, Y: y,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, _ := tensor.Values[float64](y)
	for _, y := range v {
		fmt.Printf("%.4f: %.4f\n", y, y+(1-0.5*y)/0.5/4)
	}
	// Output:
	// -2.0000: -1.0000
	// -0.6667: 0.0000
	// 3.3333: 3.0000
}

package axis_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

type problem[T kt.Float] struct {
	outer, n, m, inner int
	in, logk, add      []T
	scale              float64
}

func (p problem[T]) String() string {
	return fmt.Sprintf("outer=%d,n=%d,m=%d,inner=%d", p.outer, p.n, p.m, p.inner)
}

// regime says how far in and logk range, in nats: within what one product of
// exponentials holds, beyond it, and with kernels so narrow that most sums lie
// far below both their factors' largest elements.
type regime int

const (
	mild regime = iota
	wide
	narrow
	holes // a third of all entries are -inf
	regimes
)

func random[T kt.Float](seed uint64, outer, n, m, inner int, how regime) problem[T] {
	r := rand.New(rand.NewPCG(seed, 3))
	p := problem[T]{outer: outer, n: n, m: m, inner: inner, scale: []float64{1, -1, -.03, 2.5}[seed%4]}
	values := func(count int, scale float64) []T {
		v := make([]T, count)
		for i := range v {
			v[i] = T(scale * r.NormFloat64())
			if how == holes && r.IntN(3) == 0 {
				v[i] = T(math.Inf(-1))
			}
		}
		return v
	}
	scale := map[regime]float64{mild: 3, wide: 2000, narrow: 100, holes: 10}[how]
	p.in, p.logk = values(outer*n*inner, scale), values(m*n, scale)
	if how == narrow {
		for i := range m {
			for j := range n {
				d := float64(i)/float64(m) - float64(j)/float64(n)
				p.logk[i*n+j] = T(-d * d * 5000)
			}
		}
	}
	if seed%3 != 0 {
		p.add = values(outer*m*inner, 5)
	}
	return p
}

// define is the definition in the precision of E, two passes over the terms.
func define[E, T kt.Float](p problem[T]) (out []E) {
	exp := func(x E) E { return E(math.Exp(float64(x))) }
	for o := range p.outer {
		for i := range p.m {
			for r := range p.inner {
				z := make([]E, p.n)
				top := E(math.Inf(-1))
				for j := range z {
					z[j] = E(p.logk[i*p.n+j]) + E(p.in[(o*p.n+j)*p.inner+r])
					if z[j] > top || z[j] != z[j] {
						top = z[j]
					}
				}
				lse := top
				if !math.IsInf(float64(top), 0) {
					var s E
					for _, x := range z {
						s += exp(x - top)
					}
					lse += E(math.Log(float64(s)))
				}
				if slices.ContainsFunc(z, func(x E) bool { return x != x }) {
					lse = E(math.NaN())
				}
				v := E(p.scale) * lse
				if p.add != nil {
					a := E(p.add[(o*p.m+i)*p.inner+r])
					if v += a; math.IsInf(float64(a), -1) && lse == lse {
						v = a
					}
				}
				out = append(out, v)
			}
		}
	}
	return out
}

func run[T kt.Float](t testing.TB, dev gpu.Device, p problem[T]) ([]T, []float64) {
	t.Helper()
	in, logk := kt.Put(t, dev, p.in, p.outer, p.n, p.inner), kt.Put(t, dev, p.logk, p.m, p.n)
	out, mass := kt.Poison[T](t, dev, p.outer, p.m, p.inner), kt.Poison[float64](t, dev, p.outer, p.m, p.inner)
	a := axis.Args{In: in.Tensor, LogK: logk.Tensor, Scale: p.scale, Out: out.Tensor, Mass: mass.Tensor}
	if p.add != nil {
		add := kt.Put(t, dev, p.add, p.outer, p.m, p.inner)
		defer add.Unmodified(t)
		a.Add = add.Tensor
	}
	require.NoError(t, axis.LogSumExp(a))
	in.Unmodified(t)
	logk.Unmodified(t)
	return out.Get(t), mass.Get(t)
}

func verify[T kt.Float](t *testing.T, dev gpu.Device, p problem[T]) {
	t.Helper()
	want := define[float64](p)
	out, mass := run(t, dev, p)
	require.NoError(t, kt.Close(out, define[T](p), want, 8), "%v", p)
	for i, v := range out { // mass is exp(out) up to the rounding of out
		w := math.Exp(float64(v))
		require.True(t, mass[i] == w || math.Abs(mass[i]-w) <= 4*w*(1+math.Abs(float64(v)))*ulp[T]()+1e-300, "mass %d of %v is %g, want %g", i, p, mass[i], w)
	}
}

func ulp[T kt.Float]() float64 {
	var v T
	if _, single := any(v).(float32); single {
		return 0x1p-23
	}
	return 0x1p-52
}

// sizes straddle the vectors and tiles of columns (32 or 64), the panels and
// tiles of rows (6, 12, 96), the blocks of terms (16, 32, 64, 128) and the
// fewest columns of a product (8).
var sizes = [][4]int{
	{1, 1, 1, 1}, {1, 5, 3, 7}, {8, 1, 1, 1}, {1, 15, 12, 8}, {3, 17, 13, 3}, {1, 64, 6, 64}, {33, 16, 7, 1}, {65, 33, 5, 1},
	{1, 129, 25, 31}, {2, 65, 96, 33}, {1, 128, 11, 63}, {5, 31, 1, 13}, {1, 1031, 33, 1}, {9, 261, 2, 2}, {1, 31, 131, 65},
}

func TestDefinition(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for how := range regimes {
			for k, s := range sizes {
				seed := uint64(how)*uint64(len(sizes)) + uint64(k)
				if dev.Properties().Kind == gpu.Emulation && s[0]*s[1]*s[2]*s[3] > 2e5 && os.Getenv("FORTET_LONG") != "1" {
					continue
				}
				verify(t, dev.Device, random[float32](seed, s[0], s[1], s[2], s[3], how))
				verify(t, dev.Device, random[float64](seed, s[0], s[1], s[2], s[3], how))
			}
		}
	})
}

// The heat flow of a normal law, far out: at 60 standard deviations there are
// 10⁻⁷⁸² of it left, whose logarithm is as good as any.
func TestTails(t *testing.T) {
	const n, h, s0, s1 = 301, .4, 1., .5
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, columns := range []int{1, 40} {
			p := problem[float64]{outer: columns, n: n, m: n, inner: 1, scale: 1}
			log := func(x, v float64) float64 { return -x*x/(2*v) - math.Log(2*math.Pi*v)/2 }
			for range columns {
				for j := range n {
					p.in = append(p.in, log((float64(j)-150)*h, s0)+math.Log(h))
				}
			}
			for i := range n {
				for j := range n {
					p.logk = append(p.logk, log(float64(i-j)*h, s1))
				}
			}
			out, _ := run(t, dev.Device, p)
			for i := range columns * n {
				x := (float64(i%n) - 150) * h
				if math.Abs(x) > 40 { // further out the grid's end is felt
					continue
				}
				want := log(x, s0+s1)
				require.InDelta(t, want, out[i], 1e-8, "x = %g", x) // the grid's sum against the integral
			}
		}
	})
}

// Two passes are the product kernel, and the order of axes does not matter.
func TestProduct(t *testing.T) {
	const n0, n1, m0, m1 = 9, 14, 11, 13
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		a := random[float64](4, 1, n0, m0, n1, mild)
		b := random[float64](8, m0, n1, m1, 1, mild)
		a.add, b.add, a.scale, b.scale = nil, nil, 1, 1
		middle, _ := run(t, dev.Device, a)
		b.in = middle
		got, _ := run(t, dev.Device, b)
		dense := problem[float64]{outer: 1, n: n0 * n1, m: m0 * m1, inner: 1, in: a.in, scale: 1}
		for i := range m0 * m1 {
			for j := range n0 * n1 {
				dense.logk = append(dense.logk, a.logk[i/m1*n0+j/n1]+b.logk[i%m1*n1+j%n1])
			}
		}
		require.NoError(t, kt.Within(got, define[float64](dense), 1e-13))
	})
}

func TestInfinitiesAndNaN(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, inner := range []int{1, 40} { // one by one, and as a product
			for _, n := range []int{3, 40, 1500} {
				if n == 1500 && inner > 1 {
					continue
				}
				fresh := func() problem[float64] {
					p := random[float64](1, 1, n, 15, inner, mild)
					p.add, p.scale = make([]float64, 15*inner), 1
					return p
				}
				last := inner - 1
				at := func(p problem[float64], i, r int) float64 { out, _ := run(t, dev.Device, p); return out[i*inner+r] }

				p := fresh()
				p.in[(n-1)*inner+last] = inf
				require.Equal(t, inf, at(p, 3, last))
				p.in[last] = nan
				require.True(t, math.IsNaN(at(p, 3, last)))
				p.in[(n-1)*inner+last], p.in[last] = nan, 0
				require.True(t, math.IsNaN(at(p, 3, last)))
				if inner > 1 {
					require.False(t, math.IsNaN(at(p, 3, 0)), "another column")
				}

				p = fresh()
				p.logk[3*n+n-1] = inf
				require.Equal(t, inf, at(p, 3, last))
				require.False(t, math.IsInf(at(p, 4, last), 0), "another row")
				p.in[(n-1)*inner+last] = -inf
				require.True(t, math.IsNaN(at(p, 3, last)), "-inf + inf")
				p = fresh()
				p.logk[3*n] = nan
				require.True(t, math.IsNaN(at(p, 3, last)))

				p = fresh()
				for j := range n {
					p.in[j*inner+last] = -inf
				}
				require.Equal(t, -inf, at(p, 3, last))
				p.scale = -2
				require.Equal(t, inf, at(p, 3, last))
				p.add[3*inner+last] = -inf
				require.Equal(t, -inf, at(p, 3, last), "no weight")
				out, mass := run(t, dev.Device, p)
				require.Zero(t, mass[3*inner+last])
				require.Equal(t, inf, out[4*inner+last])
				require.Equal(t, inf, mass[4*inner+last])
				p.in[last] = nan
				require.True(t, math.IsNaN(at(p, 3, last)), "NaN is not hidden by a weight of zero")

				p = fresh()
				for j := range n {
					p.logk[3*n+j] = -inf
				}
				require.Equal(t, -inf, at(p, 3, last))
				for j := range n { // nothing meets
					p.logk[3*n+j], p.in[j*inner+last] = []float64{-inf, 0}[j%2], []float64{0, -inf}[j%2]
				}
				require.Equal(t, -inf, at(p, 3, last))
			}
		}
	})
}

// Adding a constant to all terms adds it to the result.
func TestShift(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for how := range holes {
			p := random[float64](8, 2, 70, 19, 20, how)
			p.add, p.scale = nil, 1
			before, _ := run(t, dev.Device, p)
			for i := range p.in {
				p.in[i] += 1024
			}
			after, _ := run(t, dev.Device, p)
			for i := range before {
				require.InDelta(t, before[i]+1024, after[i], 64*0x1p-52*(1024+math.Abs(before[i])), "%v", how)
			}
		}
	})
}

func TestRepeatsAndWorkers(t *testing.T) {
	for how := range regimes {
		p := random[float32](5, 7, 130, 200, 11, how)
		var first []float32
		for _, workers := range []int{1, 1, 2, 5} {
			dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			got, _ := run(t, dev, p)
			if first == nil {
				first = got
			}
			require.NoError(t, kt.BitEqual(first, got))
			dev.Close()
		}
	}
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		p := random[float64](5, 3, 40, 50, 13, wide)
		first, _ := run(t, dev.Device, p)
		for range 5 {
			again, _ := run(t, dev.Device, p)
			require.NoError(t, kt.BitEqual(first, again))
		}
	})
}

// Out may be Add, and mass may be all that is asked for.
func TestInPlace(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		p := random[float64](1, 3, 20, 30, 5, mild)
		want, mass := run(t, dev.Device, p)
		in, logk := kt.Put(t, dev.Device, p.in, p.outer, p.n, p.inner), kt.Put(t, dev.Device, p.logk, p.m, p.n)
		add := kt.Put(t, dev.Device, p.add, p.outer, p.m, p.inner)
		only := kt.Poison[float64](t, dev.Device, p.outer, p.m, p.inner)
		require.NoError(t, axis.LogSumExp(axis.Args{In: in.Tensor, LogK: logk.Tensor, Add: add.Tensor, Scale: p.scale, Mass: only.Tensor}))
		require.NoError(t, kt.BitEqual(mass, only.Get(t)))
		require.NoError(t, axis.LogSumExp(axis.Args{In: in.Tensor, LogK: logk.Tensor, Add: add.Tensor, Scale: p.scale, Out: add.Tensor}))
		require.NoError(t, kt.BitEqual(want, add.Get(t)))
	})
}

func TestInvalid(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	array := func(shape ...int) tensor.Tensor { return kt.New(t, dev, tensor.Float64, shape...) }
	good := axis.Args{In: array(2, 3, 4), LogK: array(5, 3), Out: array(2, 5, 4)}
	require.NoError(t, axis.LogSumExp(good))
	for name, change := range map[string]func(*axis.Args){
		"in":        func(a *axis.Args) { a.In = tensor.Tensor{} },
		"in axes":   func(a *axis.Args) { a.In = array(6, 4) },
		"logk":      func(a *axis.Args) { a.LogK = array(5, 4) },
		"logk axes": func(a *axis.Args) { a.LogK = array(15) },
		"add":       func(a *axis.Args) { a.Add = array(2, 3, 4) },
		"out":       func(a *axis.Args) { a.Out = array(2, 3, 4) },
		"none":      func(a *axis.Args) { a.Out = tensor.Tensor{} },
		"mass":      func(a *axis.Args) { a.Mass = kt.New(t, dev, tensor.Float32, 2, 5, 4) },
		"NaN":       func(a *axis.Args) { a.Scale = math.NaN() },
		"infinite":  func(a *axis.Args) { a.Scale = math.Inf(1) },
		"empty":     func(a *axis.Args) { a.In, a.Out = array(0, 3, 4), array(0, 5, 4) },
		"alias":     func(a *axis.Args) { a.In = array(2, 5, 4); a.LogK = array(5, 5); a.Out = a.In },
		"both":      func(a *axis.Args) { a.Mass = a.Out },
		"dtype":     func(a *axis.Args) { a.LogK = kt.New(t, dev, tensor.Float32, 5, 3) },
	} {
		a := good
		change(&a)
		err := axis.LogSumExp(a)
		require.Error(t, err, name)
		require.True(t, errors.Is(err, gpu.ErrInvalid) || errors.Is(err, tensor.ErrInvalid), "%s: %v", name, err)
	}
}

func FuzzLogSumExp(f *testing.F) {
	f.Add(3, 5, 7, 2, uint64(1))
	f.Add(0, 1, 40, 40, uint64(2))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, outer, n, m, inner int, seed uint64) {
		small := func(v int) int { return int(uint(v) % 50) }
		outer, n, m, inner = small(outer), small(n), small(m), small(inner)
		p := random[float32](seed, outer, n, m, inner, regime(seed%uint64(regimes)))
		if outer*n*m*inner == 0 {
			require.Error(t, axis.LogSumExp(axis.Args{
				In: kt.New(t, dev, tensor.Float32, outer, n, inner), LogK: kt.New(t, dev, tensor.Float32, m, n),
				Out: kt.New(t, dev, tensor.Float32, outer, m, inner)}))
			return
		}
		verify(t, dev, p)
	})
}

// The AVX-512 body, compiled for AVX2 and run in its place.
func TestWideBody(t *testing.T) {
	if os.Getenv("FORTET_LONG") != "1" {
		t.Skip("not run: compiles the kernels again (FORTET_LONG=1 runs it)")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("not run: only amd64 has several levels")
	}
	cmd := exec.Command("go", "test", "-count=1", ".")
	cmd.Env = append(os.Environ(), "CGO_CFLAGS=-O3 -DFORTET_WIDE_ON_AVX2", "FORTET_CPU_LEVEL=avx2", "FORTET_NO_EMU=1", "FORTET_LONG=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A product over axes is the dense kernel, for each array of a batch.
func TestProductOverAxes(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		const batch = 2
		shape := [][2]int{{3, 4}, {5, 2}, {6, 7}} // n, m
		n, m := 1, 1
		dense := problem[float64]{outer: 1, inner: 1, scale: -.5}
		var logk []tensor.Tensor
		var host [][]float64
		for k, s := range shape {
			n, m = n*s[0], m*s[1]
			host = append(host, random[float64](uint64(k), 1, s[1], s[0], 1, mild).logk)
			logk = append(logk, kt.Put(t, dev.Device, host[k], s[0], s[1]).Tensor)
		}
		in, add := random[float64](9, 1, batch*m, 1, 1, mild).in, random[float64](10, 1, batch*n, 1, 1, mild).in
		dense.n, dense.m = m, n
		for i := range n {
			for j := range m {
				z, p, q := 0., i, j
				for k := 2; k >= 0; k-- {
					z += host[k][p%shape[k][0]*shape[k][1]+q%shape[k][1]]
					p, q = p/shape[k][0], q/shape[k][1]
				}
				dense.logk = append(dense.logk, z)
			}
		}
		out, mass := kt.Poison[float64](t, dev.Device, batch, n), kt.Poison[float64](t, dev.Device, batch, n)
		p := axis.Product{In: kt.Put(t, dev.Device, in, batch, m).Tensor, LogK: logk, Batch: batch, Scale: -.5,
			Add: kt.Put(t, dev.Device, add, batch, n).Tensor, Out: out.Tensor, Mass: mass.Tensor}
		require.NoError(t, p.LogSumExp())
		got, weight := out.Get(t), mass.Get(t)
		for b := range batch {
			dense.in, dense.add = in[b*m:(b+1)*m], add[b*n:(b+1)*n]
			want := define[float64](dense)
			require.NoError(t, kt.Within(got[b*n:(b+1)*n], want, 1e-13))
			for i, w := range want {
				require.InEpsilon(t, math.Exp(w), weight[b*n+i], 1e-12)
			}
		}
		p.Out = kt.New(t, dev.Device, tensor.Float64, batch*n+1)
		before := dev.Memory().InUse
		require.Error(t, p.LogSumExp())
		require.Equal(t, before, dev.Memory().InUse, "what it had is given back")
		for _, bad := range []axis.Product{{}, {In: p.In}, {In: p.In, LogK: []tensor.Tensor{{}}}, {LogK: logk}} {
			require.ErrorIs(t, bad.LogSumExp(), gpu.ErrInvalid)
		}

		v, err := axis.Affine(p.In, tensor.Tensor{}, -3)
		require.NoError(t, err)
		defer v.Free()
		got, err = tensor.Values[float64](v)
		require.NoError(t, err)
		for i, x := range in {
			require.Equal(t, -3*x, got[i])
		}
		_, err = axis.Affine(p.In, out.Tensor, 1)
		require.Error(t, err)
		_, err = axis.Affine(tensor.Tensor{}, out.Tensor, 1)
		require.ErrorIs(t, err, gpu.ErrInvalid)
	})
}

package fdual_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor { return kt.New(t, dev, dtype, shape...) }
	d := tensor.Float64
	good := fdual.Pairs{X: put(d, 4, 2), YT: put(d, 2, 3), Q: put(d, 3), Slope: -1}
	out := put(d, 4)
	for _, c := range []struct {
		change func(*fdual.Pairs, *fdual.RowsArgs)
		text   string
	}{
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Law = 9 }, "law"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Cost = -1 }, "cost"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Slope = 1 }, "slope: invalid argument: got 1, want at most 0"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Slope = math.NaN() }, "slope"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Law, p.A = fdual.Power, 0.5 }, "at least 0 for one that falls"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Law, p.A = fdual.Power, 1 }, "a: invalid argument: got 1"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Law = fdual.TotalVariation }, "delta"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Decay = -1 }, "decay"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Shift = math.Inf(1) }, "shift"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.YT = put(d, 3, 2) }, "y: invalid tensor: shape (3, 2), want (2, 2)"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Q = tensor.Tensor{} }, "q: invalid tensor: missing"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Matrix = put(d, 4, 3) }, "matrix"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.Cost, p.Matrix = softmin.Matrix, put(d, 4, 3) }, "want none with a cost matrix"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.X = put(d, 4) }, "x: invalid tensor"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.X = put(tensor.Int32, 4, 2) }, "want f32 or f64"},
		{func(p *fdual.Pairs, _ *fdual.RowsArgs) { p.X = put(d, 0, 2) }, "at least one of each"},
		{func(_ *fdual.Pairs, a *fdual.RowsArgs) { a.P = put(d, 5) }, "p: invalid tensor: shape (5,), want (4,)"},
		{func(_ *fdual.Pairs, a *fdual.RowsArgs) { a.Mass = put(d, 4) }, "mass"},
		{func(p *fdual.Pairs, a *fdual.RowsArgs) { p.Q, p.YT = a.P.Rows(0, 3), put(d, 2, 3) }, "p: invalid argument: overlaps an input"},
	} {
		p, a := good, fdual.RowsArgs{P: out}
		c.change(&p, &a)
		require.ErrorContains(t, p.Rows(dev, a), c.text)
	}
	require.ErrorContains(t, good.Rows(nil, fdual.RowsArgs{P: out}), "device")
	require.ErrorContains(t, good.Eval(dev, fdual.EvalArgs{P: out}), "no result is asked for")
	require.ErrorContains(t, good.Eval(dev, fdual.EvalArgs{P: out, Mass: put(tensor.Float32, 4)}), "mass: invalid tensor: f32, want f64")
}

// Whatever the arguments: an error, or rows that fulfil their equation or are NaN.
func FuzzRows(f *testing.F) {
	f.Add(3, 5, 2, 1, 2.0, -1.0, 0.0, 0.0, uint64(1))
	f.Add(1, 40, 1, 1, 0.0, 0.0, 2.0, 5.0, uint64(2))
	f.Add(2, 17, 3, 2, 0.0, 1.0, 0.0, 0.0, uint64(3))
	f.Add(2, 3, 1, 3, 0.0, -1e9, 0.0, 0.0, uint64(4))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, m, d, law int, a, slope, decay, shift float64, seed uint64) {
		small := func(v, most int) int { return int(uint(v)%uint(most)) + 1 }
		p := fdual.Pairs{Law: fdual.Law(law), A: a, Slope: slope, Decay: decay, Shift: shift, Delta: 0.1}
		s := instance[float64](p, small(n, 5), small(m, 60), small(d, 4), seed)
		pairs, _ := s.upload(t, dev)
		out := kt.Poison[float64](t, dev, s.n)
		if pairs.Rows(dev, fdual.RowsArgs{P: out.Tensor}) != nil {
			return
		}
		for i, v := range out.Get(t) {
			extreme := math.Abs(slope) > 100 || decay > 20 || math.Abs(shift) > 40 || math.Abs(a-1) < 0.1 || math.Abs(a) > 10
			if extreme || p.Law == fdual.TotalVariation || math.IsNaN(v) {
				continue
			}
			// The sum passes 1 within some rounding of z around the root.
			size := math.Abs(v)
			for j := range s.m {
				if _, _, z, ok := s.pair(i, j); ok {
					size = math.Max(size, math.Abs(z))
				}
			}
			below, _, _, _, _, _ := s.sums(i, v-64*0x1p-53*size)
			above, _, _, _, _, _ := s.sums(i, v+64*0x1p-53*size)
			if falls(p) {
				below, above = above, below
			}
			require.LessOrEqual(t, below, 1+1e-11)
			require.False(t, above < 1-1e-11, "%v", above) // NaN is outside of the domain
		}
	})
}

// Example solves one row of quadratically regularised transport, whose plan is
// sparse: φ = (1 + y)₊ at ε = 1.
func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	from := func(v []float64, shape ...int) tensor.Tensor {
		t, err := tensor.From(dev, v, shape...)
		if err != nil {
			panic(err)
		}
		return t
	}
	third := math.Log(1.0 / 3)
	pairs := fdual.Pairs{
		X: from([]float64{0}, 1, 1), YT: from([]float64{0, 1, 3}, 1, 3),
		Q: from(make([]float64, 3), 3), LogB: from([]float64{third, third, third}, 3),
		Law: fdual.Power, A: 2, Slope: -1,
	}
	p, _ := tensor.New(dev, tensor.Float64, 1)
	if err := pairs.Rows(dev, fdual.RowsArgs{P: p}); err != nil {
		fmt.Println(err)
		return
	}
	v, _ := tensor.Values[float64](p)
	for _, c := range []float64{0, 1, 9} {
		fmt.Printf("%.4f\n", max(v[0]-c, 0)/3)
	}
	// Output:
	// 0.6667
	// 0.3333
	// 0.0000
}

func BenchmarkRows(b *testing.B) {
	for _, dev := range kt.Hardware(b) {
		for _, name := range []string{"alpha 2", "alpha 0", "alpha 0.7", "js", "exp", "alpha 0 gibbs"} {
			b.Run(dev.Name+"/"+name, func(b *testing.B) {
				const n, m, d = 512, 4096, 3
				s := instance[float32](laws()[name], n, m, d, 1)
				pairs, _ := s.upload(b, dev.Device)
				p := kt.New(b, dev.Device, tensor.Float32, n)
				for b.Loop() {
					require.NoError(b, pairs.Rows(dev.Device, fdual.RowsArgs{P: p}))
					require.NoError(b, dev.Sync())
				}
				v, err := tensor.Values[float32](p)
				require.NoError(b, err)
				sum, _, _, _, _, sensitivity := s.sums(0, float64(v[0]))
				require.InDelta(b, 0, math.Log(sum), 0x1p-24*(256+16*sensitivity))
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(n*m), "ns/pair")
			})
		}
	}
}

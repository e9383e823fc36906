package geometry_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

func draws(seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64()
	}
	return v
}

// line is n points on [0, 1].
func line(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = (float64(i) + .5) / float64(n)
	}
	return v
}

// pair is a grid and the same costs, entry by entry, from their definition.
type pair struct {
	name  string
	grid  geometry.Grid
	dense geometry.Matrix
}

func pairs(t testing.TB) []pair {
	t.Helper()
	given := geometry.Matrix{C: draws(9, 5*4), N: 5, M: 4}
	var out []pair
	add := func(name string, g geometry.Grid) {
		require.NoError(t, g.Validate())
		n, m := g.Size()
		d := geometry.Matrix{N: n, M: m}
		for i := range n {
			for j := range m {
				c, p, q := 0., i, j
				for k := len(g.Axes) - 1; k >= 0; k-- {
					a := g.Axes[k]
					y := a.Y
					if y == nil {
						y = a.X
					}
					if a.Given.C != nil {
						c += a.Given.C[p%a.Given.N*a.Given.M+q%a.Given.M]
						p, q = p/a.Given.N, q/a.Given.M
						continue
					}
					w := 1.
					if a.Weight != 0 {
						w = a.Weight
					}
					if g.Ground == geometry.HalfSqEuclidean {
						w /= 2
					}
					c += w * (a.X[p%len(a.X)] - y[q%len(y)]) * (a.X[p%len(a.X)] - y[q%len(y)])
					p, q = p/len(a.X), q/len(y)
				}
				d.C = append(d.C, c)
			}
		}
		out = append(out, pair{name, g, d})
	}
	add("line", geometry.Grid{Axes: []geometry.Axis{{X: draws(1, 33), Y: draws(2, 70)}}})
	add("image", geometry.Grid{Axes: []geometry.Axis{{X: line(13)}, {X: line(11)}}, Ground: geometry.HalfSqEuclidean})
	add("anisotropic", geometry.Grid{Axes: []geometry.Axis{{X: line(6), Y: draws(3, 7), Weight: 2.5}, {X: line(9), Weight: .3}, {X: draws(4, 3), Y: draws(5, 5)}}})
	add("given", geometry.Grid{Axes: []geometry.Axis{{X: line(6), Y: draws(3, 7)}, {Given: given}}})
	add("four", geometry.Grid{Axes: []geometry.Axis{{X: line(3)}, {X: line(4), Y: line(2)}, {Given: given}, {X: draws(1, 2), Y: draws(6, 3)}}})
	return out
}

func TestGridHost(t *testing.T) {
	for _, c := range pairs(t) {
		t.Run(c.name, func(t *testing.T) {
			n, m := c.grid.Size()
			require.Equal(t, c.dense.N, n)
			require.Equal(t, c.dense.M, m)
			row, back := make([]float64, m), make([]float64, n)
			for i := range n {
				c.grid.Row(i, row)
				require.InDeltaSlice(t, c.dense.C[i*m:(i+1)*m], row, 1e-12)
			}
			tr := c.grid.Transpose()
			require.NoError(t, tr.Validate())
			for j := range m {
				tr.Row(j, back)
				for i := range n {
					require.InDelta(t, c.dense.C[i*m+j], back[i], 1e-12)
				}
			}
			require.Equal(t, c.grid.Cost() == geometry.GivenMatrix, c.name != "line" && c.name != "image")

			a, b := make([]float64, n), make([]float64, m)
			for i := range a {
				a[i] = float64(i % 4)
			}
			for j := range b {
				b[j] = 1 + float64(j*j%5)
			}
			for _, w := range [][2][]float64{{a, b}, {nil, nil}} {
				for name, moment := range map[string]func(geometry.Geometry) (float64, error){
					"mean": func(g geometry.Geometry) (float64, error) { return g.Mean(t.Context(), w[0], w[1]) },
					"std":  func(g geometry.Geometry) (float64, error) { return g.Std(t.Context(), w[0], w[1]) },
				} {
					want, err := moment(c.dense)
					require.NoError(t, err)
					got, err := moment(c.grid)
					require.NoError(t, err)
					require.InDelta(t, want, got, 1e-11*(1+math.Abs(want)), name)
				}
			}
			_, err := c.grid.Mean(t.Context(), a[1:], b)
			require.ErrorIs(t, err, solver.ErrInvalid)
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = c.grid.Mean(canceled, a, b)
			require.ErrorIs(t, err, context.Canceled)

			points, err := c.grid.Points()
			if c.grid.Dim() == 0 {
				require.ErrorIs(t, err, solver.ErrInvalid)
				return
			}
			require.NoError(t, err)
			require.Equal(t, points.Dim(), c.grid.Dim())
			for i := range n {
				points.Row(i, row)
				require.InDeltaSlice(t, c.dense.C[i*m:(i+1)*m], row, 1e-12)
			}
		})
	}
}

// answers is all that an operator says.
type answers map[string][]float64

func ask(t *testing.T, dev gpu.Device, g geometry.Geometry, dtype tensor.DType, eps float64, grad bool) answers {
	t.Helper()
	op, err := g.Open(dev, dtype, geometry.Options{})
	require.NoError(t, err)
	defer op.Close()
	n, m := g.Size()
	var made []tensor.Tensor
	put := func(dtype tensor.DType, v []float64, shape ...int) tensor.Tensor {
		u, err := tensor.FromFloat64s(dev, dtype, v, shape...)
		require.NoError(t, err)
		made = append(made, u)
		return u
	}
	scaled := func(seed uint64, k int, s float64) []float64 {
		v := draws(seed, k)
		for i := range v {
			v[i] *= s
		}
		return v
	}
	got := answers{}
	read := func(name string, u tensor.Tensor) {
		v, err := tensor.Float64s(u)
		require.NoError(t, err)
		got[name] = v
	}
	loga, logb := draws(6, n), draws(7, m)
	loga[0], logb[m-1] = math.Inf(-1), math.Inf(-1)
	const k = 3
	potential, a, b, v := put(dtype, scaled(5, m, eps), m), put(dtype, loga, n), put(dtype, logb, m), put(dtype, draws(8, m*k), m, k)
	for _, damp := range []float64{1, .6} {
		out, col, back := put(dtype, make([]float64, n), n), put(tensor.Float64, make([]float64, m), m), put(dtype, make([]float64, m), m)
		require.NoError(t, op.Softmin(out, potential, b, 2*eps))
		read(fmt.Sprint("softmin at another epsilon, ", damp), out)
		require.NoError(t, op.Sweep(out, col, potential, a, b, damp, eps))
		tr, err := op.Transposed()
		require.NoError(t, err)
		require.NoError(t, tr.Softmin(back, out, a, eps))
		read(fmt.Sprint("softmin, ", damp), out)
		read(fmt.Sprint("column sums, ", damp), col)
		read(fmt.Sprint("transposed softmin, ", damp), back)
		mass, mean, r := put(dtype, make([]float64, n), n), put(dtype, make([]float64, n), n), put(dtype, make([]float64, n*k), n, k)
		apply := geometry.Apply{F: out, G: potential, LogB: b, V: v, Mass: mass, Mean: mean, R: r}
		var slope tensor.Tensor
		if grad {
			slope = put(dtype, make([]float64, n*g.Dim()), n, g.Dim())
			apply.Grad = slope
		}
		require.NoError(t, op.Apply(apply, eps))
		read("mass", mass)
		read("mean", mean)
		read("r", r)
		if grad {
			read("grad", slope)
		}
	}
	for _, u := range made {
		u.Free()
	}
	op.Close()
	require.Zero(t, dev.Memory().InUse, "the operator gives its memory back")
	return got
}

// A grid answers as its points do, and as its cost matrix does.
func TestGridOperator(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		cpu, err := gpu.OpenCPU(gpu.CPUOptions{})
		require.NoError(t, err)
		defer cpu.Close()
		for _, c := range pairs(t) {
			for _, eps := range []float64{1, .01} {
				grad := c.grid.Dim() > 0
				others := []geometry.Geometry{c.dense}
				if grad {
					points, err := c.grid.Points()
					require.NoError(t, err)
					others[0] = points
				}
				for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
					unit := 0x1p-52
					if dtype == tensor.Float32 {
						unit = 0x1p-23
					}
					n, m := c.grid.Size()
					biggest, row := 0., make([]float64, m)
					for i := range n {
						c.grid.Row(i, row)
						for _, x := range row {
							biggest = max(biggest, math.Abs(x))
						}
					}
					// Exponents of up to z are known to z times the unit.
					z := 10 + 2*biggest/eps
					got := ask(t, dev.Device, c.grid, dtype, eps, grad)
					want := ask(t, cpu, others[0], tensor.Float64, eps, grad)
					for i := range want["grad"] { // the points' coordinates carry the weights
						if w := c.grid.Axes[i%len(c.grid.Axes)].Weight; w != 0 {
							want["grad"][i] *= math.Sqrt(w)
						}
					}
					require.Len(t, got, len(want))
					for name, w := range want {
						scale := 1. // relative to the largest
						for _, x := range w {
							if !math.IsInf(x, 0) {
								scale = max(scale, math.Abs(x))
							}
						}
						for i, x := range w {
							g := got[name][i]
							if g == x {
								continue
							}
							require.True(t, math.Abs(g-x) <= 8*z*unit*scale, "%s, %v, eps %g: %s[%d] is %g, want %g", c.name, dtype, eps, name, i, g, x)
						}
					}
				}
			}
		}
	})
}

// blobs are the weights of a picture with empty pixels.
func blobs(n int, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	w := make([]float64, n*n)
	for range 3 {
		x, y, s := r.Float64()*float64(n), r.Float64()*float64(n), .15*float64(n)
		for i := range w {
			d := (math.Pow(float64(i/n)-x, 2) + math.Pow(float64(i%n)-y, 2)) / (s * s)
			if d < 2 {
				w[i] += math.Exp(-d)
			}
		}
	}
	total := 0.
	for _, x := range w {
		total += x
	}
	for i := range w {
		w[i] /= total
	}
	return w
}

// Whole solves on the grid and on its points agree, with annealing, both
// precisions and empty pixels.
func TestGridSinkhorn(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{})
	require.NoError(t, err)
	defer dev.Close()
	const n = 17
	grid, err := geometry.NewGrid(geometry.SqEuclidean, line(n), line(n))
	require.NoError(t, err)
	points, err := grid.Points()
	require.NoError(t, err)
	for _, c := range []struct {
		eps      float64
		settings sinkhorn.Settings
	}{
		{eps: .1}, {eps: 2e-3}, {eps: .02, settings: sinkhorn.Settings{Precision: solver.Ladder}},
		{eps: .02, settings: sinkhorn.Settings{Acceleration: sinkhorn.Overrelaxed}},
	} {
		c.settings.Tolerance = 1e-9
		solve := func(g geometry.Geometry) *sinkhorn.Result {
			r, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: g, A: blobs(n, 1), B: blobs(n, 2), Epsilon: c.eps}, c.settings)
			require.NoError(t, err)
			require.NoError(t, r.Status.Err(), "eps %g: %+v", c.eps, r.Certificate)
			return r
		}
		want, got := solve(points), solve(grid)
		for _, v := range [][2]float64{
			{want.Certificate.Primal, got.Certificate.Primal}, {want.Certificate.Dual, got.Certificate.Dual},
			{want.Certificate.TransportCost, got.Certificate.TransportCost}, {want.Certificate.Mass, got.Certificate.Mass},
		} {
			require.InDelta(t, v[0], v[1], 1e-8)
		}
		require.InDeltaSlice(t, want.Plan.Matrix(), got.Plan.Matrix(), 1e-9)
		x := draws(3, n*n)
		moved, err := got.Plan.Transport(t.Context(), dev, x, 1)
		require.NoError(t, err)
		expected, err := want.Plan.Transport(t.Context(), dev, x, 1)
		require.NoError(t, err)
		require.InDeltaSlice(t, expected, moved, 1e-6)
	}
}

func TestGridInvalid(t *testing.T) {
	ok := geometry.Axis{X: line(3)}
	for name, g := range map[string]geometry.Grid{
		"no axes":          {},
		"five axes":        {Axes: []geometry.Axis{ok, ok, ok, ok, ok}},
		"empty axis":       {Axes: []geometry.Axis{ok, {}}},
		"NaN":              {Axes: []geometry.Axis{{X: []float64{0, math.NaN()}}}},
		"infinite target":  {Axes: []geometry.Axis{{X: line(3), Y: []float64{math.Inf(1)}}}},
		"cost":             {Axes: []geometry.Axis{ok}, Ground: geometry.Euclidean},
		"weight":           {Axes: []geometry.Axis{{X: line(3), Weight: -1}}},
		"NaN weight":       {Axes: []geometry.Axis{{X: line(3), Weight: math.NaN()}}},
		"both":             {Axes: []geometry.Axis{{X: line(3), Given: geometry.Matrix{C: make([]float64, 9), N: 3, M: 3}}}},
		"given":            {Axes: []geometry.Axis{{Given: geometry.Matrix{C: make([]float64, 8), N: 3, M: 3}}}},
		"more than memory": {Axes: []geometry.Axis{{Given: geometry.Matrix{C: make([]float64, 1), N: math.MaxInt / 16, M: 1}}, {X: line(30)}}},
	} {
		require.ErrorIs(t, g.Validate(), solver.ErrInvalid, name)
	}
	several := geometry.Grid{Axes: []geometry.Axis{{X: []float64{math.NaN()}, Weight: -1}, {}}, Ground: geometry.Cosine}.Validate()
	for _, part := range []string{"axis 0: geometry: source", "weight -1", "cosine", "axis 1 of 0"} {
		require.ErrorContains(t, several, part)
	}
	dev, err := gpu.OpenCPU(gpu.CPUOptions{})
	require.NoError(t, err)
	defer dev.Close()
	_, err = geometry.Grid{}.Open(dev, tensor.Float64, geometry.Options{})
	require.ErrorIs(t, err, solver.ErrInvalid)
	given := geometry.Grid{Axes: []geometry.Axis{{Given: geometry.Matrix{C: make([]float64, 4), N: 2, M: 2}}}}
	op, err := given.Open(dev, tensor.Float64, geometry.Options{})
	require.NoError(t, err)
	defer op.Close()
	v := kerneltest.New(t, dev, tensor.Float64, 2)
	require.ErrorIs(t, op.Softmin(v, v, v, -1), solver.ErrInvalid)
	require.ErrorIs(t, op.Softmin(kerneltest.New(t, dev, tensor.Float64, 3), v, v, 1), tensor.ErrInvalid)
	require.ErrorIs(t, op.Apply(geometry.Apply{F: v, G: v, LogB: v, Grad: kerneltest.New(t, dev, tensor.Float64, 2, 1)}, 1), gpu.ErrUnsupported)
	require.ErrorIs(t, op.Apply(geometry.Apply{F: v, G: v, LogB: v, V: kerneltest.New(t, dev, tensor.Float64, 2, 1)}, 1), solver.ErrInvalid)
}

// A plan between two pictures of 64 × 64 pixels: 17 million pairs, of which none
// is ever looked at by itself.
func ExampleGrid() {
	const n = 64
	pixels := make([]float64, n)
	for i := range pixels {
		pixels[i] = (float64(i) + .5) / n
	}
	g, err := geometry.NewGrid(geometry.SqEuclidean, pixels, pixels)
	if err != nil {
		log.Fatal(err)
	}
	square := func(corner int) []float64 {
		w := make([]float64, n*n)
		for i := range 16 * 16 {
			w[(corner+i/16)*n+corner+i%16] = 1. / 256
		}
		return w
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	r, err := sinkhorn.Solve(context.Background(), dev, sinkhorn.Problem{Geometry: g, A: square(8), B: square(40), Epsilon: .01}, sinkhorn.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v, cost %.3f\n", r.Status, r.Certificate.TransportCost) // twice (1/2)², and a blur
	// Output: converged, cost 0.507
}

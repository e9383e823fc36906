package exact

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// long says whether the slow sizes were asked for.
func long(b *testing.B) {
	b.Helper()
	if os.Getenv("FORTET_LONG") != "1" {
		b.Skip("FORTET_LONG=1 runs this size")
	}
}

func eightGaussians(r *rand.Rand, n int) []float64 {
	x := normals(r, 2*n)
	for i := range n {
		angle := float64(r.IntN(8)) * math.Pi / 4
		x[2*i] = 5*math.Cos(angle) + math.Sqrt(.1)*x[2*i]
		x[2*i+1] = 5*math.Sin(angle) + math.Sqrt(.1)*x[2*i+1]
	}
	return x
}

// BenchmarkSolve reports, beside the time, the pricing rounds and pivots. An
// answer without a certificate fails.
func BenchmarkSolve(b *testing.B) {
	for _, c := range []struct {
		name     string
		n, m, d  int
		metric   Metric
		weighted bool
		slow     bool
	}{
		{"w2-2d", 1000, 1000, 2, SqEuclidean, false, false},
		{"w2-2d", 5000, 5000, 2, SqEuclidean, false, false},
		{"w2-2d", 10000, 10000, 2, SqEuclidean, false, true},
		{"w2-2d", 20000, 20000, 2, SqEuclidean, false, true},
		{"w2-2d-weighted", 10000, 10000, 2, SqEuclidean, true, true},
		{"w2-2d-weighted", 20000, 20000, 2, SqEuclidean, true, true},
		{"w1-2d", 10000, 10000, 2, Euclidean, false, true},
		{"w1-2d", 20000, 20000, 2, Euclidean, false, true},
		{"w1-2d-weighted", 20000, 20000, 2, Euclidean, true, true},
		{"w2", 5000, 5000, 64, SqEuclidean, false, true},
		{"w2", 20000, 20000, 64, SqEuclidean, false, true},
		{"w2", 3000, 3000, 512, SqEuclidean, false, true},
		{"w2", 5000, 5000, 512, SqEuclidean, false, true},
		{"w2-2d", 20000, 1000, 2, SqEuclidean, false, true},
	} {
		b.Run(fmt.Sprintf("%s/n=%d/m=%d/d=%d", c.name, c.n, c.m, c.d), func(b *testing.B) {
			if c.slow {
				long(b)
			}
			r := rand.New(rand.NewPCG(1, 3))
			p := Points{X: normals(r, c.n*c.d), D: c.d, Metric: c.metric}
			if c.d == 2 {
				p.Y = eightGaussians(r, c.m)
			} else {
				p.Y = normals(r, c.m*c.d)
				for i := range p.Y {
					p.Y[i] = .5 + 1.5*p.Y[i]
				}
			}
			prob := Problem{Costs: p}
			if c.weighted {
				prob.A, prob.B = make([]float64, c.n), make([]float64, c.m)
				for _, w := range [][]float64{prob.A, prob.B} {
					sum := 0.0
					for i := range w {
						w[i] = r.ExpFloat64()
						sum += w[i]
					}
					for i := range w {
						w[i] /= sum
					}
				}
			}
			var res *Result
			for b.Loop() {
				var err error
				if res, err = (Solver{}).Solve(context.Background(), prob); err != nil {
					b.Fatal(err)
				}
				if res.Status != Converged || !(math.Abs(res.Gap) <= 1e-12*math.Abs(res.Cost)) {
					b.Fatalf("%v, gap %g of %g", res.Status, res.Gap, res.Cost)
				}
			}
			b.ReportMetric(float64(res.Rounds), "rounds")
			b.ReportMetric(float64(res.Pivots), "pivots")
			b.ReportMetric(float64(res.Arcs), "arcs")
		})
	}
}

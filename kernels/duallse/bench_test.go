package duallse

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// The chain x - y - t on the CPU with all cores; ns/pair is over the pairs of
// both arms and includes all passes. Every row checks its last answer.
func BenchmarkLogE(b *testing.B) {
	for _, c := range []struct {
		n, d   int
		points bool
	}{{128, 2, false}, {1024, 2, false}, {1024, 2, true}, {128, 64, false}, {128, 512, false}, {128, 512, true}, {1024, 64, false}} {
		b.Run(fmt.Sprintf("f32/n=%d/d=%d/points=%v", c.n, c.d, c.points), func(b *testing.B) { benchmarkLogE[float32](b, c.n, c.d, c.points) })
		b.Run(fmt.Sprintf("f64/n=%d/d=%d/points=%v", c.n, c.d, c.points), func(b *testing.B) { benchmarkLogE[float64](b, c.n, c.d, c.points) })
	}
}

func benchmarkLogE[T kerneltest.Float](b *testing.B, n, d int, points bool) {
	dev, err := gpu.Open("cpu")
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	p := rounded[T](randomProblem(rand.New(rand.NewPCG(31, 1)), n, d, []int{n, n}, 0b0001))
	l := load[T](b, dev, p)
	out := Output{Value: l.value.Tensor, Potential: l.dbeta.Tensor,
		Arms: []ArmOutput{{Potential: l.dgamma[0].Tensor}, {Potential: l.dgamma[1].Tensor}}}
	if points {
		out.Points, out.Arms[0].Points, out.Arms[1].Points = l.dy.Tensor, l.dt[0].Tensor, l.dt[1].Tensor
	}
	for b.Loop() {
		if err := LogE(dev, l.star, out); err != nil {
			b.Fatal(err)
		}
	}
	if err := dev.Sync(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n*n), "ns/pair")
	want := p.messages()
	rel := relative[T](p, want)
	checks := []error{
		kerneltest.Within(l.value.Get(b)[:1], []float64{want.logE}, rel),
		kerneltest.Within(l.dbeta.Get(b), want.dbeta, rel*largest(want.dbeta)),
		kerneltest.Within(l.dgamma[1].Get(b), want.dgamma[1], rel*largest(want.dgamma[1])),
	}
	if points {
		checks = append(checks, kerneltest.Within(l.dy.Get(b), want.dy, rel*want.spread), kerneltest.Within(l.dt[0].Get(b), want.dt[0], rel*want.spread))
	}
	for _, err := range checks {
		if err != nil {
			b.Fatal("wrong answer: ", err)
		}
	}
}

// All triples of a batch of 64.
func BenchmarkPenalty(b *testing.B) {
	for _, d := range divergences()[:8] {
		b.Run("f32/"+d.name(), func(b *testing.B) { benchmarkPenalty[float32](b, d) })
		b.Run("f64/"+d.name(), func(b *testing.B) { benchmarkPenalty[float64](b, d) })
	}
}

func benchmarkPenalty[T kerneltest.Float](b *testing.B, d Divergence) {
	const n = 64
	dev, err := gpu.Open("cpu")
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	d.Delta = 0.1
	p := rounded[T](randomProblem(rand.New(rand.NewPCG(32, 1)), n, 2, []int{n, n}, 0b0001))
	l := load[T](b, dev, p)
	value := kerneltest.Poison[float64](b, dev, 3)
	out := PenaltyOutput{Value: value.Tensor, Gradients: []tensor.Tensor{l.dbeta.Tensor, l.dgamma[0].Tensor, l.dgamma[1].Tensor}}
	for b.Loop() {
		if err := Penalty(dev, l.star, d, nil, out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(n*n*n), "ns/tuple")
	want := p.penalty(d, nil)
	budget := want.budget(unit[T](), p)
	for _, err := range []error{
		kerneltest.Within(value.Get(b)[:1], []float64{want.penalty}, budget),
		kerneltest.Within(l.dgamma[1].Get(b), want.gradients[2], budget),
	} {
		if err != nil {
			b.Fatal("wrong answer: ", err)
		}
	}
}

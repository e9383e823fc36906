package exact

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

func gauss(seed uint64, n, d int, mean, std float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float64, n*d)
	for i := range x {
		x[i] = mean + std*r.NormFloat64()
	}
	return x
}

func eight(seed uint64, n int, std float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float64, n*2)
	for i := range n {
		k := float64(r.IntN(8)) * math.Pi / 4
		x[2*i] = 5*math.Cos(k) + std*r.NormFloat64()
		x[2*i+1] = 5*math.Sin(k) + std*r.NormFloat64()
	}
	return x
}

func TestScratch(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("N"))
	r := rand.New(rand.NewPCG(7, 7))
	weights := func(n int) []float64 {
		w := make([]float64, n)
		s := 0.0
		for i := range w {
			w[i] = r.ExpFloat64()
			s += w[i]
		}
		for i := range w {
			w[i] /= s
		}
		return w
	}
	grid := func(n, g int) []float64 {
		x := make([]float64, 2*n)
		for i := range x {
			x[i] = float64(r.IntN(g))
		}
		return x
	}
	for _, c := range []struct {
		name string
		p    Problem
	}{
		{"gauss->8g", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: eight(2, n, .316), D: 2}}},
		{"8g->8g", Problem{Costs: Points{X: eight(1, n, .316), Y: eight(2, n, .316), D: 2}}},
		{"8g->8g W1", Problem{Costs: Points{X: eight(1, n, .316), Y: eight(2, n, .316), D: 2, Metric: Euclidean}}},
		{"gauss W1", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: gauss(2, n, 2, 0, 1), D: 2, Metric: Euclidean}}},
		{"gauss->8g weights", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: eight(2, n, .316), D: 2}, A: weights(n), B: weights(n)}},
		{"gauss->8g weights W1", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: eight(2, n, .316), D: 2, Metric: Euclidean}, A: weights(n), B: weights(n)}},
		{"n m/3", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: eight(2, n/3, .316), D: 2}}},
		{"m=10", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: eight(2, 10, .316), D: 2}}},
		{"grid 30", Problem{Costs: Points{X: grid(n, 30), Y: grid(n, 30), D: 2}}},
		{"grid 30 W1", Problem{Costs: Points{X: grid(n, 30), Y: grid(n, 30), D: 2, Metric: Euclidean}}},
		{"grid 5", Problem{Costs: Points{X: grid(n, 5), Y: grid(n, 5), D: 2}}},
		{"identical points", Problem{Costs: Points{X: grid(n, 1), Y: grid(n, 1), D: 2}}},
		{"identical sets", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: gauss(1, n, 2, 0, 1), D: 2}}},
		{"shift 1e6", Problem{Costs: Points{X: gauss(1, n, 2, 0, 1), Y: gauss(1, n, 2, 1e6, 1), D: 2}}},
		{"1-D", Problem{Costs: Points{X: gauss(1, n, 1, 0, 1), Y: gauss(2, n, 1, 1, 2), D: 1}}},
		{"1-D W1", Problem{Costs: Points{X: gauss(1, n, 1, 0, 1), Y: gauss(2, n, 1, 1, 2), D: 1, Metric: Euclidean}}},
		{"heavy", Problem{Costs: Points{X: heavy(1, n), Y: heavy(2, n), D: 2}}},
		{"heavy W1", Problem{Costs: Points{X: heavy(1, n), Y: heavy(2, n), D: 2, Metric: Euclidean}}},
		{"random matrix", Problem{Costs: Matrix{C: gauss(1, min(n, 6000), min(n, 6000), 0, 1), N: min(n, 6000), M: min(n, 6000)}}},
	} {
		if n > 6000 && c.name == "random matrix" {
			continue
		}
		if o := os.Getenv("ONLY"); o != "" && o != c.name {
			continue
		}
		t0 := time.Now()
		r, err := Solver{}.Solve(context.Background(), c.p)
		fmt.Printf("%-20s %8.3f s ", c.name, time.Since(t0).Seconds())
		if err == nil {
			var ms runtime.MemStats
			runtime.ReadMemStats(&ms)
			fmt.Println(r.Status, r.Cost, r.Gap, r.Slack, r.Rounds, r.Pivots, r.Arcs, len(r.Plan), ms.Sys>>20)
		} else {
			fmt.Println(err)
		}
	}
}

func heavy(seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float64, 2*n)
	for i := range x {
		x[i] = r.NormFloat64() / math.Sqrt(r.ExpFloat64())
	}
	return x
}

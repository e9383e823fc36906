package geometry

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Matrix is a given cost matrix C: (N, M), row-major.
type Matrix struct {
	C    []float64
	N, M int
}

// Size implements Geometry.
func (g Matrix) Size() (n, m int) { return g.N, g.M }

// Dim implements Geometry: there are no points.
func (g Matrix) Dim() int { return 0 }

// Cost implements Geometry.
func (g Matrix) Cost() Cost { return GivenMatrix }

func (g Matrix) at(i, j int) float64 { return g.C[i*g.M+j] }

// Row implements Geometry.
func (g Matrix) Row(i int, out []float64) { copy(out, g.C[i*g.M:(i+1)*g.M]) }

// Transpose implements Geometry.
func (g Matrix) Transpose() Geometry {
	t := make([]float64, len(g.C))
	for i := range g.N {
		for j := range g.M {
			t[j*g.N+i] = g.C[i*g.M+j]
		}
	}
	return Matrix{t, g.M, g.N}
}

// Validate implements Geometry.
func (g Matrix) Validate() error {
	if g.N < 1 || g.M < 1 || g.N > math.MaxInt/8/g.M || len(g.C) != g.N*g.M {
		return fmt.Errorf("geometry: cost matrix: %w: %d numbers for %d × %d", solver.ErrInvalid, len(g.C), g.N, g.M)
	}
	for k, c := range g.C {
		if math.IsNaN(c) || math.IsInf(c, 0) {
			return fmt.Errorf("geometry: cost matrix: %w: entry (%d, %d) is %v, want a finite number", solver.ErrInvalid, k/g.M, k%g.M, c)
		}
	}
	return nil
}

// Mean implements Geometry.
func (g Matrix) Mean(ctx context.Context, a, b []float64) (float64, error) {
	mean, _, err := g.moments(ctx, a, b)
	return mean, err
}

// Std implements Geometry.
func (g Matrix) Std(ctx context.Context, a, b []float64) (float64, error) {
	mean, square, err := g.moments(ctx, a, b)
	return math.Sqrt(max(square-mean*mean, 0)), err
}

func (g Matrix) moments(ctx context.Context, a, b []float64) (first, second float64, err error) {
	if err := checkWeights(a, b, g.N, g.M); err != nil {
		return 0, 0, err
	}
	return pairMoments(ctx, g.N, g.M, a, b, g.at)
}

// Open implements Geometry.
func (g Matrix) Open(dev gpu.Device, dtype tensor.DType, _ Options) (Operator, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	c, err := upload(dev, dtype, g.C, g.N, g.M)
	if err != nil {
		return nil, err
	}
	return &pairs{dev: dev, dtype: dtype, n: g.N, m: g.M, cost: GivenMatrix, matrix: c, given: g}, nil
}

package metrics

import (
	"context"
	"fmt"
	"math"
)

// Paths are trajectories on an even grid of times.
type Paths struct {
	X       []float64 // (N, T, D)
	N, T, D int
	Step    float64 // time between two points of a path
}

func (p Paths) check(shortest int) error {
	if p.N < 1 || p.D < 1 || p.T < shortest {
		return fmt.Errorf("metrics: paths: %w: got shape (%d, %d, %d), want at least 1 path, %d times and 1 dimension", ErrInvalid, p.N, p.T, p.D, shortest)
	}
	if len(p.X)%p.T != 0 || len(p.X)/p.T%p.D != 0 || len(p.X)/p.T/p.D != p.N {
		return fmt.Errorf("metrics: paths: %w: got %d numbers, want %d × %d × %d", ErrInvalid, len(p.X), p.N, p.T, p.D)
	}
	if !(p.Step > 0) || math.IsInf(p.Step, 1) {
		return fmt.Errorf("metrics: paths step: %w: got %g, want a positive finite time", ErrInvalid, p.Step)
	}
	for k, v := range p.X {
		if !(math.Abs(v) <= maxCoordinate) {
			return fmt.Errorf("metrics: paths[%d]: %w: got %g, want a finite coordinate of at most %g", k, ErrInvalid, v, float64(maxCoordinate))
		}
	}
	return nil
}

// Straightness is the mean curvature of paths along each axis,
//
//	mean over paths and inner times of |x_{t+1} − 2x_t + x_{t−1}| / h²
//
// (Deng et al. 2024, eq. 38): 0 for straight lines at constant speed. It has no
// sampling floor but that; Floor.Std is the standard error of the mean over the
// paths, 0 for one path.
func Straightness(ctx context.Context, p Paths) ([]Value, error) {
	if err := p.check(3); err != nil {
		return nil, err
	}
	perPath := make([][]float64, p.D)
	for i := range p.N {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sums := make([]float64, p.D)
		for t := 1; t+1 < p.T; t++ {
			at := (i*p.T + t) * p.D
			for k := range sums {
				sums[k] += math.Abs(p.X[at+p.D+k]-2*p.X[at+k]+p.X[at-p.D+k]) / (p.Step * p.Step)
			}
		}
		for k, s := range sums {
			perPath[k] = append(perPath[k], s/float64(p.T-2))
		}
	}
	out := make([]Value, p.D)
	for k, s := range perPath {
		out[k] = overPaths(s)
	}
	return out, nil
}

// Deviation is ∫ E|X_T − X_0 − dX/dt|² dt on the time scale [0, 1], the
// straightness of rectified flows (Liu et al. 2023, section 2.2): 0 for straight
// lines at constant speed. dX/dt is the difference quotient of each interval.
func Deviation(ctx context.Context, p Paths) (Value, error) {
	if err := p.check(2); err != nil {
		return Value{}, err
	}
	perPath := make([]float64, p.N)
	for i := range perPath {
		if err := ctx.Err(); err != nil {
			return Value{}, err
		}
		path := p.X[i*p.T*p.D : (i+1)*p.T*p.D]
		last := path[(p.T-1)*p.D:]
		for t := 0; t+1 < p.T; t++ {
			for k := range p.D {
				e := last[k] - path[k] - (path[(t+1)*p.D+k]-path[t*p.D+k])*float64(p.T-1)
				perPath[i] += e * e / float64(p.T-1)
			}
		}
	}
	return overPaths(perPath), nil
}

func overPaths(v []float64) Value {
	s := summarise(v)
	return Value{Value: s.Mean, Floor: Floor{
		Std: s.Std / math.Sqrt(float64(len(v))), Repetitions: len(v), N: len(v),
		How: "0 for straight paths; std is the standard error over the paths",
	}}
}

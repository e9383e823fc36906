package metrics

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// quantileLevels are 0.05, 0.10, … 0.95.
const quantileLevels = 19

// Forecast is an ensemble of sampled futures of several series.
type Forecast struct {
	Samples []float64 // (N, T, K): sample paths, times, series
	Target  []float64 // (T, K): what came
	N, T, K int
}

func (f Forecast) check() error {
	if f.N < 1 || f.T < 1 || f.K < 1 {
		return fmt.Errorf("metrics: forecast: %w: got shape (%d, %d, %d), want at least 1 sample, time and series", ErrInvalid, f.N, f.T, f.K)
	}
	if len(f.Target)%f.T != 0 || len(f.Target)/f.T != f.K {
		return fmt.Errorf("metrics: forecast target: %w: got %d numbers, want %d × %d", ErrInvalid, len(f.Target), f.T, f.K)
	}
	if len(f.Samples)%len(f.Target) != 0 || len(f.Samples)/len(f.Target) != f.N {
		return fmt.Errorf("metrics: forecast samples: %w: got %d numbers, want %d × %d × %d", ErrInvalid, len(f.Samples), f.N, f.T, f.K)
	}
	for _, s := range []struct {
		name string
		x    []float64
	}{{"samples", f.Samples}, {"target", f.Target}} {
		for k, v := range s.x {
			if !(math.Abs(v) <= maxCoordinate) {
				return fmt.Errorf("metrics: forecast %s[%d]: %w: got %g, want a finite number of at most %g", s.name, k, ErrInvalid, v, float64(maxCoordinate))
			}
		}
	}
	return nil
}

// summed adds the series.
func (f Forecast) summed() Forecast {
	sum := func(x []float64) []float64 {
		out := make([]float64, len(x)/f.K)
		for i := range out {
			for _, v := range x[i*f.K : (i+1)*f.K] {
				out[i] += v
			}
		}
		return out
	}
	return Forecast{Samples: sum(f.Samples), Target: sum(f.Target), N: f.N, T: f.T, K: 1}
}

// CRPS is the continuous ranked probability score as GluonTS estimates it: the
// mean over the levels q = 0.05 … 0.95 of the weighted quantile losses
//
//	2 Σ |(ŷ_q − y)(1[y ≤ ŷ_q] − q)| / Σ |y|
//
// over all times and series, where ŷ_q is the sample of rank (N−1)q, rounded
// half to even and without interpolation. It is not the CRPS of the sample.
func CRPS(ctx context.Context, f Forecast) (float64, error) {
	losses, err := QuantileLosses(ctx, f)
	return mean(losses), err
}

// QuantileLosses are the weighted quantile losses of CRPS at 0.05 … 0.95.
func QuantileLosses(ctx context.Context, f Forecast) ([]float64, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	scale := 0.0
	for _, y := range f.Target {
		scale += math.Abs(y)
	}
	if scale == 0 {
		return nil, fmt.Errorf("metrics: forecast target: %w: got only zeros, want a scale to divide by", ErrInvalid)
	}
	return f.losses(ctx, scale)
}

func (f Forecast) losses(ctx context.Context, scale float64) ([]float64, error) {
	losses := make([]float64, quantileLevels)
	samples := make([]float64, f.N)
	for c, y := range f.Target {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for s := range samples {
			samples[s] = f.Samples[s*f.T*f.K+c]
		}
		slices.Sort(samples)
		for l := range losses {
			q := float64(l+1) / (quantileLevels + 1)
			at := samples[int(math.RoundToEven(float64(f.N-1)*q))]
			below := 0.0
			if y <= at {
				below = 1
			}
			losses[l] += 2 * math.Abs((at-y)*(below-q)) / scale
		}
	}
	return losses, nil
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(max(1, len(x)))
}

// floorPaths bounds the sample paths that the floor of CRPSSum holds out.
const floorPaths = 50

// CRPSSum is the CRPS of the sum of the series, as forecasting papers report it.
//
// Its floor is what a calibrated forecast would score: sample paths, at most 50
// of them evenly spread, take the part of the target in turn and are scored by
// the other paths, divided by the true target's scale.
func CRPSSum(ctx context.Context, f Forecast) (Value, error) {
	if err := f.check(); err != nil {
		return Value{}, err
	}
	s := f.summed()
	v, err := CRPS(ctx, s)
	if err != nil {
		return Value{}, err
	}
	if f.N == 1 {
		return Value{Value: v, Floor: Floor{How: "none: a single sample path"}}, nil
	}
	scale := 0.0
	for _, y := range s.Target {
		scale += math.Abs(y)
	}
	scores := make([]float64, min(f.N, floorPaths))
	for k := range scores {
		held := k * f.N / len(scores)
		others := Forecast{
			Samples: slices.Concat(s.Samples[:held*s.T], s.Samples[(held+1)*s.T:]),
			Target:  s.Samples[held*s.T : (held+1)*s.T],
			N:       f.N - 1, T: s.T, K: 1,
		}
		losses, err := others.losses(ctx, scale)
		if err != nil {
			return Value{}, err
		}
		scores[k] = mean(losses)
	}
	floor := summarise(scores)
	floor.N, floor.How = f.N-1, "sample paths held out and scored by the others"
	return Value{Value: v, Floor: floor}, nil
}

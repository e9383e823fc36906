package metrics

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/internal/parallel"
)

// Estimator says how an expectation over pairs of one sample is estimated.
type Estimator int

// The estimators.
const (
	// VStatistic averages over all pairs, a point with itself included: biased
	// upwards, never negative.
	VStatistic Estimator = iota
	// UStatistic averages over pairs of different points: unbiased.
	UStatistic
	// HalfUStatistic is half of the UStatistic: for the energy distance it is
	// what the LightSB papers (Korotin et al. 2024; Gushchin et al. 2024) call MMD.
	HalfUStatistic
)

func (e Estimator) String() string {
	switch e {
	case VStatistic:
		return "V-statistic"
	case UStatistic:
		return "U-statistic"
	case HalfUStatistic:
		return "half U-statistic"
	}
	return fmt.Sprintf("Estimator(%d)", int(e))
}

// Energy is the energy distance 2E|X−Y| − E|X−X'| − E|Y−Y'| (Székely and
// Rizzo 2013). With weights a, the U-statistic divides Σ a_i a_j over i ≠ j by
// 1 − Σ a_i².
func Energy(ctx context.Context, x, y Cloud, e Estimator) (float64, error) {
	return energyDistance(ctx, 0, x, y, e)
}

func energyDistance(ctx context.Context, workers int, x, y Cloud, e Estimator) (float64, error) {
	xy, xx, yy, err := pairMeans(ctx, workers, x, y, e, math.Sqrt, 0)
	v := 2*xy - xx - yy
	if e == HalfUStatistic {
		v /= 2
	}
	return v, err
}

// MMD is the squared maximum mean discrepancy E k(X,X') + E k(Y,Y') − 2E k(X,Y)
// of the kernel k(x, y) = exp(−|x−y|²/(2σ²)) (Gretton et al. 2012, eq. 3 and 5).
// sigma 0 means MedianDistance.
func MMD(ctx context.Context, x, y Cloud, sigma float64, e Estimator) (float64, error) {
	return mmdSquared(ctx, 0, x, y, sigma, e)
}

func mmdSquared(ctx context.Context, workers int, x, y Cloud, sigma float64, e Estimator) (float64, error) {
	if !(sigma >= 0) || math.IsInf(sigma, 1) {
		return 0, fmt.Errorf("metrics: sigma: %w: got %g, want a finite number of at least 0", ErrInvalid, sigma)
	}
	if sigma == 0 {
		var err error
		if sigma, err = MedianDistance(ctx, x, y); err != nil {
			return 0, err
		}
	}
	kernel := func(s float64) float64 { return math.Exp(-s / sigma / sigma / 2) }
	xy, xx, yy, err := pairMeans(ctx, workers, x, y, e, kernel, 1)
	v := xx + yy - 2*xy
	if e == HalfUStatistic {
		v /= 2
	}
	return v, err
}

// pairMeans returns E f(|X−Y|²), E f(|X−X'|²) and E f(|Y−Y'|²). same is f(0).
func pairMeans(ctx context.Context, workers int, x, y Cloud, e Estimator, f func(float64) float64, same float64) (xy, xx, yy float64, err error) {
	if e < VStatistic || e > HalfUStatistic {
		return 0, 0, 0, fmt.Errorf("metrics: estimator: %w: got %v, want a V- or U-statistic", ErrInvalid, e)
	}
	a, b, err := checkPair(x, y)
	if err != nil {
		return 0, 0, 0, err
	}
	if xy, err = pairMean(ctx, workers, x.X, y.X, x.D, a, b, f); err != nil {
		return 0, 0, 0, err
	}
	for _, s := range []struct {
		name string
		c    Cloud
		w    []float64
		out  *float64
	}{{"x", x, a, &xx}, {"y", y, b, &yy}} {
		mean, err := pairMean(ctx, workers, s.c.X, s.c.X, s.c.D, s.w, s.w, f)
		if err != nil {
			return 0, 0, 0, err
		}
		if e != VStatistic {
			diagonal, heavy := 0.0, 0
			for _, v := range s.w {
				diagonal += v * v
				if v > 0 {
					heavy++
				}
			}
			if heavy < 2 {
				return 0, 0, 0, fmt.Errorf("metrics: %s: %w: got %d point with weight, want at least 2 for a U-statistic", s.name, ErrInvalid, heavy)
			}
			mean = (mean - diagonal*same) / (1 - diagonal)
		}
		*s.out = mean
	}
	return xy, xx, yy, nil
}

const (
	pairRows = 32  // rows of a tile, whose sum one worker takes
	pairCols = 256 // columns between two looks at the context
)

// pairMean is Σ_ij a_i b_j f(|x_i − y_j|²), tile by tile, tiles added in order.
func pairMean(ctx context.Context, workers int, x, y []float64, d int, a, b []float64, f func(float64) float64) (float64, error) {
	n, m := len(a), len(b)
	sums := make([]float64, (n+pairRows-1)/pairRows)
	err := parallel.Each(ctx, workers, len(sums), func(tile int) {
		i0, i1 := tile*pairRows, min((tile+1)*pairRows, n)
		for j0 := 0; j0 < m; j0 += pairCols {
			if ctx.Err() != nil {
				return
			}
			j1 := min(j0+pairCols, m)
			for i := i0; i < i1; i++ {
				row, p := 0.0, x[i*d:(i+1)*d]
				for j := j0; j < j1; j++ {
					row += b[j] * f(squaredDistance(p, y[j*d:(j+1)*d]))
				}
				sums[tile] += a[i] * row
			}
		}
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total, err
}

func squaredDistance(p, q []float64) float64 {
	if len(p) == 2 && len(q) == 2 {
		e, f := p[0]-q[0], p[1]-q[1]
		return e*e + f*f
	}
	s := 0.0
	for k, v := range p {
		e := v - q[k]
		s += e * e
	}
	return s
}

// medianPoints is the size of the pooled sample whose pairwise distances give
// the median bandwidth: two million pairs, whose median is far better known
// than a bandwidth matters.
const medianPoints = 2000

// MedianDistance is the median of the distances between all pairs of different
// points of the pooled sample, weights aside: the median heuristic for a
// bandwidth (Gretton et al. 2012, section 8). Samples of more than 2,000 points
// are thinned evenly. Where more than half of the distances are zero it is the
// mean distance, and 1 where all points agree.
func MedianDistance(ctx context.Context, x, y Cloud) (float64, error) {
	if _, _, err := checkPair(x, y); err != nil {
		return 0, err
	}
	d, total := x.D, x.N()+y.N()
	n := min(total, medianPoints)
	points := make([]float64, 0, n*d)
	for k := range n {
		i, src := int(int64(k)*int64(total)/int64(n)), x.X
		if i >= x.N() {
			i, src = i-x.N(), y.X
		}
		points = append(points, src[i*d:(i+1)*d]...)
	}
	distances := make([]float64, 0, n*(n-1)/2)
	mean := 0.0
	for i := range n {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		for j := range i {
			s := math.Sqrt(squaredDistance(points[i*d:(i+1)*d], points[j*d:(j+1)*d]))
			distances = append(distances, s)
			mean += s
		}
	}
	slices.Sort(distances)
	h := len(distances) / 2
	median := distances[h]
	if len(distances)%2 == 0 {
		median = (distances[h-1] + distances[h]) / 2
	}
	switch {
	case median > 0:
		return median, nil
	case mean > 0:
		return mean / float64(len(distances)), nil
	}
	return 1, nil
}

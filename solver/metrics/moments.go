package metrics

import (
	"context"
	"fmt"
	"math"
)

// Moments describe a cloud.
type Moments struct {
	Gaussian
	Std      []float64 // (D) roots of the covariance's diagonal
	Skewness []float64 // (D) m₃/m₂^1.5 of each axis; 0 on an axis without spread
	Kurtosis []float64 // (D) m₄/m₂² − 3 of each axis; 0 on an axis without spread
}

// MomentsOf returns mean, covariance (divisor n − 1) and, of each axis, skewness
// and excess kurtosis (central moments with divisor n).
func MomentsOf(ctx context.Context, x Cloud) (Moments, error) {
	w, err := x.check("x")
	if err != nil {
		return Moments{}, err
	}
	d := x.D
	m := Moments{Std: make([]float64, d), Skewness: make([]float64, d), Kurtosis: make([]float64, d)}
	if m.Gaussian, err = gaussianOf(ctx, x, w); err != nil {
		return Moments{}, err
	}
	for k := range d {
		m.Std[k] = math.Sqrt(m.Cov[k*d+k])
		// In units of the deviation, so that no power overflows.
		if s := m.Std[k]; s > 0 {
			var m2, m3, m4 float64
			for i, wi := range w {
				e := (x.X[i*d+k] - m.Mean[k]) / s
				m2 += wi * e * e
				m3 += wi * e * e * e
				m4 += wi * e * e * e * e
			}
			m.Skewness[k] = m3 / math.Pow(m2, 1.5)
			m.Kurtosis[k] = m4/(m2*m2) - 3
		}
	}
	return m, nil
}

// measureMoments compares moments: |m − m'|, |Σ − Σ'|_F and the largest
// differences along an axis of skewness and kurtosis.
func measureMoments(ctx context.Context, x, y Cloud, _ Options) ([]named, error) {
	if _, _, err := checkPair(x, y); err != nil {
		return nil, err
	}
	p, err := MomentsOf(ctx, x)
	if err != nil {
		return nil, err
	}
	q, err := MomentsOf(ctx, y)
	if err != nil {
		return nil, err
	}
	var skew, kurtosis float64
	for k := range p.Skewness {
		skew = max(skew, math.Abs(p.Skewness[k]-q.Skewness[k]))
		kurtosis = max(kurtosis, math.Abs(p.Kurtosis[k]-q.Kurtosis[k]))
	}
	return []named{
		{"mean", math.Sqrt(squaredDistance(p.Mean, q.Mean))},
		{"covariance", math.Sqrt(squaredDistance(p.Cov, q.Cov))},
		{"skewness", skew},
		{"kurtosis", kurtosis},
	}, nil
}

// ModeReport says how a cloud spreads over given modes.
type ModeReport struct {
	Mass     []float64 // (modes) share of the points that are nearest to each centre
	Std      float64   // root of the mean squared deviation, per axis, from the mode's own mean
	ModeStd  []float64 // (modes) the same of each mode; 0 where a mode is empty
	Outliers float64   // share of the points farther than the radius from every centre
}

// Modes assigns every point to its nearest centre, (modes, D) row-major. Points
// farther than radius from every centre are outliers: they count in Mass, not in
// the deviations. Radius 0 means no limit.
func Modes(ctx context.Context, x Cloud, centres []float64, radius float64) (ModeReport, error) {
	w, err := x.check("x")
	if err != nil {
		return ModeReport{}, err
	}
	d := x.D
	if len(centres) == 0 || len(centres)%d != 0 {
		return ModeReport{}, fmt.Errorf("metrics: centres: %w: got %d numbers, want a positive multiple of d = %d", ErrInvalid, len(centres), d)
	}
	for k, v := range centres {
		if !(math.Abs(v) <= maxCoordinate) {
			return ModeReport{}, fmt.Errorf("metrics: centres[%d, %d]: %w: got %g, want a finite coordinate of at most %g", k/d, k%d, ErrInvalid, v, float64(maxCoordinate))
		}
	}
	if !(radius >= 0) || math.IsInf(radius, 1) {
		return ModeReport{}, fmt.Errorf("metrics: radius: %w: got %g, want a finite number of at least 0", ErrInvalid, radius)
	}
	count := len(centres) / d
	r := ModeReport{Mass: make([]float64, count), ModeStd: make([]float64, count)}
	mode, inside := make([]int, len(w)), make([]float64, count)
	offset := make([]float64, len(centres)) // of a mode's mean from its centre
	for i, wi := range w {
		if i%1024 == 0 && ctx.Err() != nil {
			return ModeReport{}, ctx.Err()
		}
		point, best := x.X[i*d:(i+1)*d], math.Inf(1)
		for c := range count {
			if s := squaredDistance(point, centres[c*d:(c+1)*d]); s < best {
				mode[i], best = c, s
			}
		}
		c := mode[i]
		r.Mass[c] += wi
		if radius > 0 && best > radius*radius {
			r.Outliers += wi
			mode[i] = -1
			continue
		}
		inside[c] += wi
		for k, v := range point {
			offset[c*d+k] += wi * (v - centres[c*d+k])
		}
	}
	for i, c := range mode {
		if c < 0 || inside[c] == 0 {
			continue
		}
		for k, v := range x.X[i*d : (i+1)*d] {
			e := v - centres[c*d+k] - offset[c*d+k]/inside[c]
			r.ModeStd[c] += w[i] * e * e
		}
	}
	within, total := 0.0, 0.0
	for c, s := range r.ModeStd {
		within += s
		total += inside[c]
		if inside[c] > 0 {
			r.ModeStd[c] = math.Sqrt(s / (inside[c] * float64(d)))
		}
	}
	if total > 0 {
		r.Std = math.Sqrt(within / (total * float64(d)))
	}
	return r, nil
}

// TotalVariation is ½ Σ|p_k − q_k|.
func TotalVariation(p, q []float64) (float64, error) {
	if len(p) != len(q) {
		return 0, fmt.Errorf("metrics: masses: %w: got lengths %d and %d, want the same", ErrInvalid, len(p), len(q))
	}
	s := 0.0
	for k := range p {
		s += math.Abs(p[k] - q[k])
	}
	return s / 2, nil
}

func measureModes(ctx context.Context, x, y Cloud, o Options) ([]named, error) {
	if len(o.Centres) == 0 {
		return nil, fmt.Errorf("metrics: centres: %w: got none, want the modes' centres for this metric", ErrInvalid)
	}
	if _, _, err := checkPair(x, y); err != nil {
		return nil, err
	}
	p, err := Modes(ctx, x, o.Centres, o.Radius)
	if err != nil {
		return nil, err
	}
	q, err := Modes(ctx, y, o.Centres, o.Radius)
	if err != nil {
		return nil, err
	}
	tv, err := TotalVariation(p.Mass, q.Mass)
	return []named{
		{"mode_mass_tv", tv},
		{"within_mode_std", p.Std},
		{"within_mode_std_error", math.Abs(p.Std - q.Std)},
		{"outliers", p.Outliers},
	}, err
}

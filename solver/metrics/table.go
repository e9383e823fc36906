package metrics

import (
	"context"
	"fmt"
	"strings"
)

// All lists the metrics that Parse knows.
func All() []Metric {
	one := func(f func(ctx context.Context, x, y Cloud, o Options) (float64, error)) func(context.Context, Cloud, Cloud, Options) ([]named, error) {
		return func(ctx context.Context, x, y Cloud, o Options) ([]named, error) {
			v, err := f(ctx, x, y, o)
			return []named{{"", v}}, err
		}
	}
	energy := func(e Estimator) func(context.Context, Cloud, Cloud, Options) ([]named, error) {
		return one(func(ctx context.Context, x, y Cloud, o Options) (float64, error) {
			return energyDistance(ctx, o.Workers, x, y, e)
		})
	}
	mmd := func(e Estimator) func(context.Context, Cloud, Cloud, Options) ([]named, error) {
		return one(func(ctx context.Context, x, y Cloud, o Options) (float64, error) {
			return mmdSquared(ctx, o.Workers, x, y, o.Sigma, e)
		})
	}
	bandwidth := func(ctx context.Context, x, y Cloud, o Options) (Options, error) {
		var err error
		if o.Sigma == 0 {
			o.Sigma, err = MedianDistance(ctx, x, y)
		}
		return o, err
	}
	return []Metric{
		{Name: "w2", Doc: "exact 2-Wasserstein distance, the root of the optimal mean of |x-y|²", measure: one(func(ctx context.Context, x, y Cloud, o Options) (float64, error) {
			return w2(ctx, o.Workers, x, y)
		})},
		{Name: "w1", Doc: "exact 1-Wasserstein distance, the optimal mean of |x-y|", measure: one(func(ctx context.Context, x, y Cloud, o Options) (float64, error) {
			return w1(ctx, o.Workers, x, y)
		})},
		{Name: "sw2", Doc: "sliced 2-Wasserstein distance over random directions", measure: one(func(ctx context.Context, x, y Cloud, o Options) (float64, error) {
			return slicedW2(ctx, o.Workers, x, y, RandomDirections(o.Directions, x.D, o.Seed))
		})},
		{Name: "energy", Doc: "energy distance 2E|X-Y| - E|X-X'| - E|Y-Y'|, V-statistic", measure: energy(VStatistic)},
		{Name: "energy-u", Doc: "energy distance, unbiased U-statistic; may be negative", measure: energy(UStatistic)},
		{Name: "energy-half", Doc: "half of energy-u: the \"MMD\" of the LightSB papers", measure: energy(HalfUStatistic)},
		{Name: "mmd", Doc: "squared maximum mean discrepancy, Gaussian kernel, V-statistic", measure: mmd(VStatistic), settle: bandwidth},
		{Name: "mmd-u", Doc: "squared maximum mean discrepancy, Gaussian kernel, unbiased U-statistic; may be negative", measure: mmd(UStatistic), settle: bandwidth},
		{Name: "bw2uvp", Doc: "Bures-Wasserstein distance of mean and covariance, in percent of half the reference's variance", measure: one(func(ctx context.Context, x, y Cloud, _ Options) (float64, error) {
			return BW2UVP(ctx, x, y)
		})},
		{Name: "fid", Doc: "Fréchet distance of mean and covariance of the given features", measure: one(func(ctx context.Context, x, y Cloud, _ Options) (float64, error) {
			return FID(ctx, x, y)
		})},
		{Name: "moments", Doc: "distance of the means; parts: covariance, largest differences of skewness and kurtosis along an axis", measure: measureMoments},
		{Name: "modes", Doc: "total variation of the masses of given modes; parts: standard deviation within modes, outliers", measure: measureModes},
	}
}

// Parse reads a list of names as "w2,w1,sw2". Blanks around names are ignored.
func Parse(list string) ([]Metric, error) {
	all := All()
	var out []Metric
	seen := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		found := false
		for _, m := range all {
			if m.Name == name {
				found = true
				if !seen[name] {
					out = append(out, m)
				}
				seen[name] = true
			}
		}
		if !found {
			known := make([]string, len(all))
			for i, m := range all {
				known[i] = m.Name
			}
			return nil, fmt.Errorf("metrics: name: %w: got %q, want some of %s", ErrInvalid, name, strings.Join(known, ","))
		}
	}
	return out, nil
}

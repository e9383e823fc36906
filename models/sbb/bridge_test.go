package sbb_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor"
)

func cpu(t *testing.T) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

// scalar is a row of MATH.md's table B.2: N(0, 1) to N(0, variance), ε = T = 1.
type scalar struct{ beta, variance, r, q0, sigma0, sigmaT, covariance, j float64 }

var scalars = []scalar{
	{2, 10, 0.5121260333, 1.0497096962, 2.1046200219, 1.3441998750, 2.0497096962, 2.9055164745},
	{2, .1, -3.6718677803, -0.7859528465, 0.7178872401, 0.3526175287, 0.2140471535, 1.2493964852},
	{10, 10, 0.6141332565, 1.5915682472, 1.1892824125, 1.0654317042, 2.5915682472, 3.4875310875},
	{10, .1, -6.1180498008, -0.8595120815, 0.9208516851, 0.6204224533, 0.1404879185, 1.8154425208},
	{100, 10, 0.6284750346, 1.6916091597, 1.0172071697, 1.0063244982, 2.6916091597, 3.5922457502},
	{100, .1, -9.0781423870, -0.9007753650, 0.9910726616, 0.9167739550, 0.0992246350, 2.2254031687},
}

// exact is the one-component potential of a row: w_T'(y) = κ y with
// κ = βR/(β-R), and a component has κ = (S-1)/S.
func (s scalar) exact(mean float64) mixture.Parameters {
	kappa := s.beta * s.r / (s.beta - s.r)
	return mixture.Parameters{
		K: 1, D: 1, Epsilon: 1, Logits: []float64{0}, Means: []float64{mean}, Scales: []float64{1 / (1 - kappa)},
	}
}

func normals(n int, mean, std float64, purpose uint8) []float64 {
	s := philox.NewStream(philox.Draw{Seed: 11, Purpose: purpose})
	x := make([]float64, n)
	for i := range x {
		x[i] = mean + std*s.NormFloat64()
	}
	return x
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}

// within fails unless |got - want| <= budget, for NaN too.
func within(t *testing.T, what string, got, want, budget float64) {
	t.Helper()
	if !(math.Abs(got-want) <= budget) {
		t.Errorf("%s: got %v, want %v within %.3g", what, got, want, budget)
	}
}

// The exact potential of Gaussian problems gives the closed form's controls,
// its law at the end and its cost, in frames of every unit.
func TestGaussianProblems(t *testing.T) {
	const n = 40_000
	for _, dtype := range []tensor.DType{tensor.Float64, tensor.Float32} {
		round := 1e-8 // the table's digits
		if dtype == tensor.Float32 {
			round = 2e-5
		}
		for _, row := range scalars {
			for _, frame := range []mixture.Frame{
				mixture.Identity(1),
				{Source: []float64{3}, Target: []float64{-4}, Scale: 2.5},
			} {
				// The table is for ε = 1 in the coordinates of the frame.
				unit, shift := frame.Scale, frame.Target[0]-frame.Source[0]
				b, err := sbb.New(cpu(t), dtype, row.exact(0), row.beta, frame)
				require.NoError(t, err)
				defer b.Close()
				within(t, "epsilon", b.Epsilon(), unit*unit, 1e-12*unit*unit)

				x := []float64{frame.Source[0] + 0.7*unit}
				c, err := b.Controls(t.Context(), 0, x, true)
				require.NoError(t, err)
				within(t, "drift at 0", c.Drift[0], unit*row.q0*0.7+shift, 10*round*unit)
				within(t, "volatility at 0", c.Volatility[0], unit*row.sigma0, 10*round*unit)
				c, err = b.Controls(t.Context(), 1, []float64{frame.Target[0] - 0.3*unit}, true)
				require.NoError(t, err)
				within(t, "drift at 1", c.Drift[0], -unit*row.r*0.3+shift, 10*round*unit*math.Abs(row.r))
				within(t, "volatility at 1", c.Volatility[0], unit*row.sigmaT, 10*round*unit)

				source := normals(n, frame.Source[0], unit, 1)
				end, err := b.Sample(t.Context(), source, sbb.Draw{Seed: 5})
				require.NoError(t, err)
				mean, variance := moments(end)
				want := row.variance * unit * unit
				// Standard errors: of a mean √(v/n), of a variance v √(2/n); four of them.
				within(t, "mean of the end", mean, frame.Target[0], 4*math.Sqrt(want/n))
				within(t, "variance of the end", variance, want, 4*want*math.Sqrt(2./n))
				covariance, m0 := 0.0, 0.0
				for i := range source {
					m0 += source[i] / n
				}
				for i := range source {
					covariance += (source[i] - m0) * (end[i] - mean) / n
				}
				cov := row.covariance * unit * unit
				within(t, "covariance with the start", covariance, cov, 4*math.Sqrt((unit*unit*want+cov*cov)/n))

				target := normals(n, frame.Target[0], unit*math.Sqrt(row.variance), 2)
				bound, err := b.Certify(t.Context(), source, target, sbb.Draw{Seed: 6})
				require.NoError(t, err)
				require.Zero(t, bound.Unconverged)
				half := unit*unit*row.j/2 + shift*shift/2
				require.Less(t, bound.DualError, 0.05*half)
				require.Less(t, bound.PrimalError, 0.05*half)
				within(t, "dual", bound.Dual, half, 4*bound.DualError+20*round*half)
				within(t, "primal", bound.Primal, half, 4*bound.PrimalError+20*round*half)
			}
		}
	}
}

// wild is a potential without symmetry, with the floor of β.
func wild(beta float64, full bool) mixture.Parameters {
	p := mixture.Parameters{
		K: 3, D: 2, Epsilon: 0.5, Logits: []float64{-.3, .2, -1.1},
		Means:  []float64{1, -.5, -.8, .6, .3, 1.4},
		Scales: []float64{.4, 1.5, .9, .25, 2, .7},
	}
	for i := range p.Scales {
		p.Scales[i] += sbb.Floor(beta, 1e-3)
	}
	if full {
		for _, th := range []float64{.3, -.9, 1.2} {
			p.Axes = append(p.Axes, math.Cos(th), math.Sin(th), -math.Sin(th), math.Cos(th))
		}
	}
	return p
}

// The transport map inverts, controls satisfy α = s(t, Y), and paths begin at x
// and end where Sample does.
func TestPathsAndMaps(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, beta := range []float64{0.5, 4, 100, math.Inf(1)} {
			frame := mixture.Frame{Source: []float64{1, 2}, Target: []float64{-1, 0}, Scale: 3}
			b, err := sbb.New(cpu(t), tensor.Float64, wild(beta, full), beta, frame)
			require.NoError(t, err)
			defer b.Close()
			x := normals(2*500, 1, 3, 3)
			times := []float64{0, 0.25, 0.5, 0.99, 1}
			paths, ys, err := b.Paths(t.Context(), x, times, sbb.Draw{Seed: 1, Index: 7})
			require.NoError(t, err)
			if math.IsInf(beta, 1) {
				require.Equal(t, paths, ys)
			}
			// Y is where the inverse of the map takes X.
			middle := make([]float64, 1000)
			for i := range 500 {
				copy(middle[2*i:2*i+2], paths[i*10+4:])
			}
			back, err := b.Invert(t.Context(), times[2], middle)
			require.NoError(t, err)
			for i, v := range middle {
				within(t, "Y of X", back.Y[i], ys[i/2*10+4+i%2], 1e-7*(1+math.Abs(v)))
			}
			end, err := b.Sample(t.Context(), x, sbb.Draw{Seed: 1, Index: 7})
			require.NoError(t, err)
			for i := range 500 {
				for j := range 2 {
					within(t, "start", paths[i*10+j], x[2*i+j], 1e-8*(1+math.Abs(x[2*i+j])))
					within(t, "end", paths[i*10+8+j], end[2*i+j], 1e-12*(1+math.Abs(end[2*i+j])))
				}
			}

			// A row's sample does not depend on the others.
			one, err := b.Sample(t.Context(), x[2*9:2*10], sbb.Draw{Seed: 1, Index: 16})
			require.NoError(t, err)
			require.Equal(t, end[18:20], one)

			inverse, err := b.Invert(t.Context(), 0.5, x)
			require.NoError(t, err)
			require.Zero(t, inverse.Unconverged)
			c, err := b.Controls(t.Context(), 0.5, x, false)
			require.NoError(t, err)
			for i := range x {
				// x = y + s/β with α = s + shift of means, all in data units.
				s := c.Drift[i] - (frame.Target[i%2] - frame.Source[i%2])
				within(t, "map of the inverse", inverse.Y[i]+s/beta, x[i], 1e-8*(1+math.Abs(x[i])))
			}
		}
	}
}

// Euler and Maruyama's law tends to the exact one as steps grow.
func TestSimulate(t *testing.T) {
	const n = 40_000
	row := scalars[2]
	b, err := sbb.New(cpu(t), tensor.Float32, row.exact(0), row.beta, mixture.Identity(1))
	require.NoError(t, err)
	defer b.Close()
	source := normals(n, 0, 1, 4)
	end, err := b.Simulate(t.Context(), source, 400, sbb.Draw{Seed: 2})
	require.NoError(t, err)
	_, variance := moments(end)
	// dV/dt = 2κV + 1 with κ <= κ_T = .654 on [0, 1]: Euler's relative error of V
	// stays below κ²·h = 1.1e-3, that of the sample at four standard errors 2.8 %.
	within(t, "variance", variance, row.variance, row.variance*(4*math.Sqrt(2./n)+4e-3))
}

func TestInvalid(t *testing.T) {
	dev := cpu(t)
	good := wild(4, false)
	for name, bad := range map[string]func() error{
		"beta": func() error {
			_, err := sbb.New(dev, tensor.Float32, good, 0, mixture.Identity(2))
			return err
		},
		"beta NaN": func() error {
			_, err := sbb.New(dev, tensor.Float32, good, math.NaN(), mixture.Identity(2))
			return err
		},
		"frame": func() error {
			_, err := sbb.New(dev, tensor.Float32, good, 1, mixture.Identity(3))
			return err
		},
	} {
		require.ErrorIs(t, bad(), sbb.ErrInvalid, name)
	}
	b, err := sbb.New(dev, tensor.Float32, good, 4, mixture.Identity(2))
	require.NoError(t, err)
	defer b.Close()
	ctx := t.Context()
	for name, bad := range map[string]func() error{
		"length": func() error { _, err := b.Sample(ctx, []float64{1, 2, 3}, sbb.Draw{}); return err },
		"empty":  func() error { _, err := b.Sample(ctx, nil, sbb.Draw{}); return err },
		"NaN":    func() error { _, err := b.Sample(ctx, []float64{1, math.NaN()}, sbb.Draw{}); return err },
		"time":   func() error { _, err := b.Controls(ctx, 1.5, []float64{1, 2}, false); return err },
		"times":  func() error { _, _, err := b.Paths(ctx, []float64{1, 2}, []float64{.5, .5}, sbb.Draw{}); return err },
		"steps":  func() error { _, err := b.Simulate(ctx, []float64{1, 2}, 0, sbb.Draw{}); return err },
		"few":    func() error { _, err := b.Certify(ctx, []float64{1, 2}, []float64{1, 2}, sbb.Draw{}); return err },
	} {
		require.ErrorIs(t, bad(), sbb.ErrInvalid, name)
	}
}

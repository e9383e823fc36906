package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/gaussian"
	"github.com/fortet/fortet/solver/metrics"
)

func Example() {
	fmt.Println(spread{Mean: 1.23456, Std: .0123}, "|", spread{Mean: 2}, "|", spread{Mean: -.05, Std: .3})
	// Output: 1.235 ± 0.012 | 2 | -0.050 ± 0.30
}

// The page is the template filled in with the results that are kept, and every
// picture that it shows is there.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../light-bridges.md")
	require.NoError(t, err)
	want, err := render("../template/light-bridges.md.tmpl", "../data")
	require.NoError(t, err)
	require.Equal(t, string(want), string(page), "the page is not what its template and docs/data make: run `make docs-long`, or `bin/light -only none`")
	pictures := regexp.MustCompile(`\]\((pictures/[^)]+)\)`).FindAllSubmatch(page, -1)
	require.NotEmpty(t, pictures)
	for _, p := range pictures {
		require.FileExists(t, filepath.Join("..", string(p[1])))
	}
}

func newTestLab(t *testing.T) *lab {
	t.Helper()
	l, err := newLab(t.Context(), "", t.TempDir(), true, io.Discard)
	require.NoError(t, err)
	t.Cleanup(l.close)
	return l
}

// An experiment goes from training to a table, and what is not made is left out.
func TestGenerate(t *testing.T) {
	out := t.TempDir()
	var log bytes.Buffer
	require.NoError(t, generate(t.Context(), []string{"-root", "../..", "-out", out, "-quick", "-only", "point"}, &log))
	require.Contains(t, log.String(), "point")
	page, err := os.ReadFile(filepath.Join(out, "light-bridges.md"))
	require.NoError(t, err)
	require.Contains(t, string(page), "## From a point")
	require.NotContains(t, string(page), "## Heavy tails")
	require.Contains(t, string(page), "- commit ")

	require.NoError(t, generate(t.Context(), []string{"-root", "../..", "-out", out, "-only", "none"}, &log))
	again, err := os.ReadFile(filepath.Join(out, "light-bridges.md"))
	require.NoError(t, err)
	require.Equal(t, string(page), string(again))

	require.ErrorContains(t, generate(t.Context(), []string{"-root", "../..", "-quick"}, &log), "-out")
	require.ErrorContains(t, generate(t.Context(), []string{"-root", "../..", "-out", out, "-only", "nothing"}, &log), "nothing")
	require.NoError(t, os.WriteFile(dataFile(filepath.Join(out, "data"), "point"), []byte("{"), 0o666))
	require.ErrorContains(t, generate(t.Context(), []string{"-root", "../..", "-out", out, "-only", "none"}, &log), "light_point.json")
}

// The first error of shared jobs ends them.
func TestShare(t *testing.T) {
	l := newTestLab(t)
	done := make([]bool, 20)
	require.NoError(t, l.share(3, len(done), func(_ *lab, i int) error {
		done[i] = true
		return nil
	}))
	require.NotContains(t, done, false)
	err := l.share(2, 1000, func(_ *lab, i int) error {
		if i == 3 {
			return fmt.Errorf("job %d", i)
		}
		return nil
	})
	require.ErrorContains(t, err, "job 3")
}

// The exact potential has the exact cost, and another one's cost is what its
// bridge shows.
func TestCost(t *testing.T) {
	for _, beta := range []float64{.5, 4, math.Inf(1)} {
		r := stream(100, 1)
		p := gaussian.BassProblem{Source: someNormal(r, 3, .3, 2, true), Target: someNormal(r, 3, .1, 6, true), Epsilon: .7, Beta: beta}
		exact, err := gaussian.SolveBass(t.Context(), p)
		require.NoError(t, err)
		var e mat.EigenSym
		require.True(t, e.Factorize(exact.S, true))
		var vectors mat.Dense
		e.VectorsTo(&vectors)
		c := component{scales: e.Values(nil), mean: exact.Offset, axes: mat.DenseCopyOf(vectors.T())}
		require.InEpsilon(t, exact.J, c.cost(p, mixture.Identity(3)), 1e-9, "β = %v", beta)
		require.InDelta(t, 0, apart(c.function(func(s float64) float64 { return s }), exact.S), 1e-12)

		// In other units, and not optimal.
		f := mixture.Frame{Source: []float64{.1, -.2, .3}, Target: []float64{.5, .1, -.4}, Scale: 1.7}
		c.scales = []float64{.8, 1.1, 1.9}
		c.mean = []float64{.05, -.1, .02}
		axes := c.axes.RawMatrix().Data
		l := newTestLab(t)
		b, err := sbb.New(l.dev, 2, mixture.Parameters{
			K: 1, D: 3, Epsilon: f.Epsilon(p.Epsilon), Logits: []float64{0}, Means: c.mean, Scales: c.scales, Axes: axes,
		}, beta, f)
		require.NoError(t, err)
		defer b.Close()
		// Along the paths, by the drift and the volatility in the data's units: a
		// midpoint rule whose points are exact.
		const n, steps = 4000, 20
		x := exactPool(r, p.Source, n)
		sum, squares := make([]float64, n), 0.
		for k := range steps {
			at := (float64(k) + .5) / steps
			y, _, err := b.Paths(t.Context(), x, []float64{at}, sbb.Draw{Seed: 3})
			require.NoError(t, err)
			controls, err := b.Controls(t.Context(), at, y, true)
			require.NoError(t, err)
			for i := range n {
				for j := range 3 {
					sum[i] += controls.Drift[3*i+j] * controls.Drift[3*i+j] / steps
					if math.IsInf(beta, 1) {
						continue
					}
					for m := range 3 {
						s := controls.Volatility[9*i+3*j+m]
						if j == m {
							s -= math.Sqrt(p.Epsilon)
						}
						sum[i] += beta * s * s / steps
					}
				}
			}
		}
		s := spreadOf(sum)
		squares = s.Std / math.Sqrt(n)
		require.InDelta(t, s.Mean, c.cost(p, f), 4*squares+2e-3*s.Mean, "β = %v", beta)
	}
}

func TestExactPool(t *testing.T) {
	r := stream(101, 1)
	law := someNormal(r, 4, .1, 5, true)
	x := exactPool(r, law, 200)
	g, err := metrics.GaussianOf(t.Context(), metrics.Cloud{X: x, D: 4})
	require.NoError(t, err)
	for i := range 4 {
		require.InDelta(t, law.Mean[i], g.Mean[i], 1e-12)
		for j := range 4 {
			require.InDelta(t, law.Cov.At(i, j), g.Cov[4*i+j]*199/200, 1e-11)
		}
	}
}

// Conditional moments against those of draws from the plan.
func TestMoments(t *testing.T) {
	l := newTestLab(t)
	p := mixture.Parameters{
		K: 3, D: 2, Epsilon: .5, Logits: []float64{-.3, .2, -1.1},
		Means: []float64{1, -.5, -.8, .6, .3, 1.4}, Scales: []float64{.4, 1.5, .9, .25, 2, .7},
	}
	f := mixture.Frame{Source: []float64{.3, -.2}, Target: []float64{1, 2}, Scale: 1.5}
	b, err := sbb.New(l.dev, 2, p, math.Inf(1), f)
	require.NoError(t, err)
	defer b.Close()
	x := []float64{.7, -.4}
	const n = 1 << 16
	var repeated []float64
	for range n {
		repeated = append(repeated, x...)
	}
	ends, err := b.Sample(t.Context(), repeated, sbb.Draw{Seed: 4})
	require.NoError(t, err)
	want, err := metrics.GaussianOf(t.Context(), metrics.Cloud{X: ends, D: 2})
	require.NoError(t, err)
	got := moments(p, f, x)
	for i := range 2 {
		v := want.Cov[3*i]
		require.InDelta(t, want.Mean[i], got.Mean[i], 5*math.Sqrt(v/n))
		for j := range 2 {
			// The kurtosis of these mixtures is below 8.
			require.InDelta(t, want.Cov[2*i+j], got.Cov[2*i+j], 5*math.Sqrt(8*v*want.Cov[3*j]/n))
		}
	}
	// The weights of MATH.md A.6's model at this point.
	own := moments(p, mixture.Identity(2), x)
	require.InDelta(t, .886028226*1.28-.050996082*.17+.062975692*1.7, own.Mean[0], 1e-8)
	require.InDelta(t, -.886028226*1.1+.050996082*.5+.062975692*1.12, own.Mean[1], 1e-8)
}

func TestStudent(t *testing.T) {
	for freedom, kl := range map[float64]float64{2.5: 1.571178, 3: .645461, 5: .124769} {
		v, err := studentReference(t.Context(), freedom, math.Inf(1))
		require.NoError(t, err)
		require.InDelta(t, kl, v, 2e-3*kl)
	}
	v, err := studentReference(t.Context(), 2, math.Inf(1))
	require.NoError(t, err)
	require.Zero(t, v)
	v, err = studentReference(t.Context(), 5, 2)
	require.NoError(t, err)
	require.InDelta(t, .066429, v, 1e-4) // 60 cuts off 5e-5

	floor := studentSample(3, 10_000)
	// √n KS has mean .8687 and standard deviation .2603 (Kolmogorov's law).
	require.InDelta(t, .008687, floor.KS.Mean, 4*.002603/math.Sqrt(5))
	require.Less(t, floor.W1.Mean, .1)
	ks, w1 := studentDistances([]float64{0, 0}, 3)
	require.InDelta(t, .5, ks, 1e-12)
	require.InDelta(t, .7649, w1, 1e-3) // the quartile
}

func TestStratify(t *testing.T) {
	centres := []float64{0, 0, 5, 0}
	x := []float64{1, 0, 4, 0, -1, 0, 6, 0, .5, 0}
	require.Equal(t, []float64{1, 0, 4, 0, -1, 0, 6, 0}, stratify(x, centres, 2))
	require.Nil(t, stratify(x, centres, 3))
	require.Len(t, eightCentres(), 16)
}

func TestSpread(t *testing.T) {
	s := spreadOf([]float64{1, 2, 3})
	require.InDelta(t, 2, s.Mean, 1e-12)
	require.InDelta(t, 1, s.Std, 1e-12)
	require.Equal(t, spread{Mean: 4}, spreadOf([]float64{4}))
	require.Equal(t, "∞", price(math.Inf(1)))
	require.Equal(t, "0.5", price(.5))
	require.Equal(t, "lightsb-m", run.LightSBM.String())
}

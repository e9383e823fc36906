package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// W2 between two samples of the eight Gaussians (radius 5, standard deviation
// .5623) with exactly n/8 points in every mode of both, against an independent
// measurement, .190 ± .004 at n = 2000. Four repetitions on each side, four
// standard errors.
func TestFloorOfEightGaussians(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	sample := func(n int) Cloud {
		c := Cloud{X: make([]float64, 2*n), D: 2}
		for i := range n {
			angle := float64(i%8) * math.Pi / 4
			c.X[2*i] = 5*math.Cos(angle) + .5623*r.NormFloat64()
			c.X[2*i+1] = 5*math.Sin(angle) + .5623*r.NormFloat64()
		}
		return c
	}
	var values []float64
	for range 4 {
		v, err := W2(background, sample(2000), sample(2000))
		require.NoError(t, err)
		values = append(values, v)
	}
	within(t, summarise(values).Mean, .190, 4*.004*math.Sqrt(1./4+1./4)+.0005, "W2 of stratified samples")
}

type normalSampler struct{ d int }

func (s normalSampler) Sample(_ context.Context, n int, seed uint64) (Cloud, error) {
	if n == 13 {
		return Cloud{X: []float64{1}, D: 1}, nil
	}
	if n == 17 {
		return Cloud{}, errors.New("no more")
	}
	return normals(seed, n, s.d), nil
}

func TestFloors(t *testing.T) {
	x, y := moved(normals(1, 150, 2), 3, 1), normals(2, 400, 2)
	o := Options{Seed: 4, Centres: []float64{-1, 0, 1, 0}}
	for _, m := range All() {
		v, err := m.Compute(background, x, y, o)
		require.NoError(t, err, m.Name)
		require.Equal(t, 150, v.Floor.N, m.Name)
		require.Equal(t, defaultRepetitions, v.Floor.Repetitions, m.Name)
		require.Positive(t, v.Floor.Std, m.Name)
		require.Greater(t, v.Value, v.Floor.Mean+5*v.Floor.Std, "%s: a cloud three deviations away is not noise", m.Name)

		// Bit-equal again and with other workers.
		more := o
		more.Workers = 3
		again, err := m.Compute(background, x, y, more)
		require.NoError(t, err)
		require.Equal(t, v, again, m.Name)

		// A cloud of the reference's own law lies in the noise, with halves as
		// with fresh draws: 20 repetitions, 6 of their deviations.
		o := Options{Seed: 5, Repetitions: 20, Centres: o.Centres, N: 100}
		same, err := m.Compute(background, normals(8, 200, 2), y, o)
		require.NoError(t, err)
		within(t, same.Value, same.Floor.Mean, 6*same.Floor.Std, m.Name+" of equal laws, halves")
		o.Sampler = normalSampler{2}
		same, err = m.Compute(background, normals(8, 200, 2), y, o)
		require.NoError(t, err)
		within(t, same.Value, same.Floor.Mean, 6*same.Floor.Std, m.Name+" of equal laws, fresh draws")
		require.Equal(t, 100, same.Floor.N)
		require.Contains(t, same.Floor.How, "fresh")
		_, err = json.Marshal(same)
		require.NoError(t, err)
	}
	w2 := All()[0]
	for _, bad := range []Options{{N: 201}, {N: -1}, {Repetitions: -1}, {Workers: -1}, {Directions: -1}, {Sigma: math.NaN()}, {Radius: -1}, {N: 13, Sampler: normalSampler{2}}} {
		_, err := w2.Compute(background, normals(8, 500, 2), y, bad)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err := w2.Compute(background, x, y, Options{N: 17, Sampler: normalSampler{2}})
	require.ErrorContains(t, err, "no more")
	_, err = Metric{}.Compute(background, x, y, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	modes, err := Parse("modes")
	require.NoError(t, err)
	_, err = modes[0].Compute(background, x, y, Options{})
	require.ErrorIs(t, err, ErrInvalid)

	// One reference point leaves nothing to compare.
	v, err := w2.Compute(background, x, Cloud{X: []float64{1, 1}, D: 2}, Options{})
	require.NoError(t, err)
	require.Zero(t, v.Floor.Repetitions)
	require.Equal(t, 1, v.Floor.N)
}

func TestParse(t *testing.T) {
	ms, err := Parse("w2, w1,sw2,energy,mmd,bw2uvp,moments,w2")
	require.NoError(t, err)
	require.Len(t, ms, 7)
	for _, m := range ms {
		require.NotEmpty(t, m.Doc)
	}
	_, err = Parse("w2,wat")
	require.ErrorIs(t, err, ErrInvalid)
	for _, m := range All() {
		require.Contains(t, err.Error(), m.Name)
	}
	_, err = Parse("")
	require.ErrorIs(t, err, ErrInvalid)
}

func TestInvalidAndOdd(t *testing.T) {
	good := Cloud{X: []float64{0, 1, 2, 3}, D: 2}
	o := Options{Centres: []float64{0, 0}}
	bad := map[string]Cloud{
		"no d":      {X: []float64{1}},
		"empty":     {D: 2},
		"ragged":    {X: []float64{1, 2, 3}, D: 2},
		"nan":       {X: []float64{1, math.NaN()}, D: 2},
		"inf":       {X: []float64{1, math.Inf(-1)}, D: 2},
		"dimension": {X: []float64{1, 2}, D: 1},
		"weights":   {X: []float64{1, 2}, D: 2, W: []float64{1, 1}},
		"negative":  {X: good.X, D: 2, W: []float64{1, -1}},
		"zero":      {X: good.X, D: 2, W: []float64{0, 0}},
		"nan w":     {X: good.X, D: 2, W: []float64{0, math.NaN()}},
	}
	odd := map[string]Cloud{
		"single":     {X: []float64{1e6, 2}, D: 2},
		"duplicates": {X: slices.Repeat([]float64{1, 2}, 9), D: 2},
		"far":        {X: []float64{1e6, 1e6, 1e6 + 1, 1e6}, D: 2},
		"tiny w":     {X: good.X, D: 2, W: []float64{1e-300, 1e-300}},
	}
	for _, m := range All() {
		for name, c := range bad {
			for _, pair := range [][2]Cloud{{good, c}, {c, good}} {
				_, err := m.Compute(background, pair[0], pair[1], o)
				require.ErrorIs(t, err, ErrInvalid, "%s %s", m.Name, name)
				require.False(t, strings.Contains(err.Error(), "\n"))
				_, err = m.measure(background, pair[0], pair[1], Options{Directions: 3, Centres: o.Centres})
				require.ErrorIs(t, err, ErrInvalid, "%s %s", m.Name, name)
			}
		}
		for name, c := range odd {
			for _, pair := range [][2]Cloud{{good, c}, {c, good}, {c, c}} {
				v, err := m.measure(background, pair[0], pair[1], Options{Directions: 3, Centres: o.Centres})
				if err != nil {
					// U-statistics need two points and bw2uvp a reference with spread.
					require.ErrorIs(t, err, ErrInvalid)
					require.True(t, strings.HasSuffix(m.Name, "-u") || m.Name == "energy-half" || m.Name == "bw2uvp", "%s %s: %v", m.Name, name, err)
					continue
				}
				for _, p := range v {
					require.False(t, math.IsNaN(p.value) || math.IsInf(p.value, 0), "%s %s", m.Name, name)
				}
			}
		}
	}
}

func TestCancel(t *testing.T) {
	done, cancel := context.WithCancel(background)
	cancel()
	x, y := normals(1, 20, 2), normals(2, 40, 2)
	for _, m := range All() {
		_, err := m.Compute(done, x, y, Options{Centres: []float64{0, 0}})
		require.ErrorIs(t, err, context.Canceled, m.Name)
	}
	big, other := normals(1, 12000, 24), normals(2, 24000, 24)
	for _, m := range All()[:8] {
		ctx, cancel := context.WithCancel(background)
		var at time.Time
		time.AfterFunc(60*time.Millisecond, func() { at = time.Now(); cancel() })
		_, err := m.Compute(ctx, big, other, Options{Directions: 2000})
		require.ErrorIs(t, err, context.Canceled, m.Name)
		late := time.Since(at)
		t.Logf("%s: returned within %v", m.Name, late)
		require.Less(t, late, 2*time.Second, "far above the tenth of a second that is meant, for a busy machine")
	}
}

func FuzzCompute(f *testing.F) {
	f.Add(uint64(1), 4, 9, 2, 0, 3)
	f.Add(uint64(2), 1, 1, 1, 5, 1)
	f.Fuzz(func(t *testing.T, seed uint64, n, m, d, which, size int) {
		if n > 30 || m > 30 || d > 4 || n < -3 || m < -3 || d < -3 {
			t.Skip("larger than a fuzz case should be")
		}
		all := All()
		x, y := normals(seed, max(0, n), max(0, d)), normals(seed+1, max(0, m), max(0, d))
		x.D, y.D = d, d
		for i := range x.X {
			x.X[i] = math.Round(2 * x.X[i])
		}
		if which%3 == 0 {
			x.W = slices.Repeat([]float64{1}, len(x.X))
		}
		metric := all[((which%len(all))+len(all))%len(all)]
		v, err := metric.Compute(background, x, y, Options{N: size, Repetitions: 2, Directions: 3, Centres: make([]float64, max(0, d))})
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.False(t, math.IsNaN(v.Value) || math.IsInf(v.Value, 0))
		require.False(t, math.IsNaN(v.Floor.Mean) || math.IsNaN(v.Floor.Std))
	})
}

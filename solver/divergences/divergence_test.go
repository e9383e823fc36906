package divergences

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
)

func all() []Divergence {
	out := []Divergence{
		{Family: KL}, {Family: ReverseKL}, {Family: PearsonChi2}, {Family: NeymanChi2}, {Family: SquaredHellinger},
		{Family: JensenShannon}, {Family: TotalVariation, Delta: 0.3}, {Family: TotalVariation},
	}
	for _, a := range []float64{1.5, 3, 0.5, -1, 2, -2, 0.3, 5} {
		out = append(out, Divergence{Family: Alpha, Alpha: a})
	}
	return out
}

// The table of values of ψ and ψ'.
func TestTable(t *testing.T) {
	at := []float64{-1.5, -.4, .3}
	for _, c := range []struct {
		d    Divergence
		want [3][2]float64
	}{
		{Divergence{Family: KL}, [3][2]float64{{-.77686984, .22313016}, {-.329679954, .670320046}, {.349858808, 1.349858808}}},
		{Divergence{Family: ReverseKL}, [3][2]float64{{-.916290732, .4}, {-.336472237, .714285714}, {.356674944, 1.428571429}}},
		{Divergence{Family: PearsonChi2}, [3][2]float64{{-.9375, .25}, {-.36, .8}, {.3225, 1.15}}},
		{Divergence{Family: NeymanChi2}, [3][2]float64{{-1.16227766, .632455532}, {-.366431913, .845154255}, {.326679947, 1.195228609}}},
		{Divergence{Family: SquaredHellinger}, [3][2]float64{{-.6, .16}, {-.285714286, .510204082}, {.428571429, 2.040816327}}},
		{Divergence{Family: JensenShannon}, [3][2]float64{{-.574853299, .125574848}, {-.284938277, .504121344}, {.430565721, 2.07625486}}},
		{Divergence{Family: Alpha, Alpha: 1.5}, [3][2]float64{{-.65625, .0625}, {-.325333333, .64}, {.34725, 1.3225}}},
		{Divergence{Family: Alpha, Alpha: 3}, [3][2]float64{{-.333333333, 0}, {-.303519094, .447213595}, {.341285901, 1.26491106}}},
		{Divergence{Family: TotalVariation}, [3][2]float64{{-.5, 0}, {-.4, 1}, {.3, 1}}},
	} {
		for k, y := range at {
			require.InDelta(t, c.want[k][0], c.d.Psi(y), 5e-9, "%v ψ(%v)", c.d, y)
			require.InDelta(t, c.want[k][1], c.d.Density(y), 5e-9, "%v ψ'(%v)", c.d, y)
		}
	}
}

// The families inside the alpha family: D_alpha times a factor.
func TestAlphaIdentities(t *testing.T) {
	for _, c := range []struct {
		a, factor float64
		d         Divergence
	}{
		{1, 1, Divergence{Family: KL}},
		{0, 1, Divergence{Family: ReverseKL}},
		{2, 2, Divergence{Family: PearsonChi2}},
		{0.5, 0.5, Divergence{Family: SquaredHellinger}},
		{-1, 2, Divergence{Family: NeymanChi2}},
	} {
		alpha := Divergence{Family: Alpha, Alpha: c.a}
		for _, x := range []float64{1e-3, 0.4, 1, 1.7, 30} {
			require.InDelta(t, c.factor*alpha.F(x), c.d.F(x), 1e-12*(1+c.d.F(x)), "%v f(%v)", c.d, x)
		}
		for _, y := range []float64{-7, -1.5, -1e-9, 0, 0.3, 0.9} {
			require.InDelta(t, c.factor*alpha.Psi(y/c.factor), c.d.Psi(y), 1e-12*(1+math.Abs(c.d.Psi(y))), "%v ψ(%v)", c.d, y)
			require.InDelta(t, alpha.Density(y/c.factor), c.d.Density(y), 1e-12*(1+c.d.Density(y)), "%v ψ'(%v)", c.d, y)
		}
		require.Equal(t, c.factor*alpha.Domain(), c.d.Domain())
	}
	// The limits a → 1 and a → 0.
	for _, a := range []float64{1 + 1e-6, 1 - 1e-6} {
		require.InDelta(t, Divergence{}.Psi(0.3), Divergence{Family: Alpha, Alpha: a}.Psi(0.3), 1e-6)
	}
	require.InDelta(t, Divergence{Family: ReverseKL}.Psi(0.3), Divergence{Family: Alpha, Alpha: 1e-6}.Psi(0.3), 1e-5)
}

// ψ is the conjugate of f: brute force over a grid that is refined around its
// best point; and Fenchel and Young's inequality, with equality at x = ψ'(y).
func TestConjugates(t *testing.T) {
	for _, d := range all() {
		for _, y := range []float64{-3, -1.5, -0.7, -0.4, -1e-3, 0, 0.1, 0.3, 0.45} {
			if y >= d.Domain() {
				continue
			}
			lo, hi := 0.0, 1e3
			best, at := math.Inf(-1), 0.0
			for range 60 {
				step := (hi - lo) / 200
				for k := range 201 {
					x := lo + float64(k)*step
					if v := x*y - d.F(x); v > best {
						best, at = v, x
					}
				}
				lo, hi = max(at-2*step, 0), at+2*step
			}
			require.InDelta(t, best, d.Psi(y), 1e-9, "%v ψ(%v)", d, y)
			phi := d.Density(y)
			require.InDelta(t, phi*y-d.F(phi), d.Psi(y), 1e-12*(1+phi), "%v at %v", d, y)
			for _, x := range []float64{0, 1e-3, 0.5, 1, 2, 40} {
				require.GreaterOrEqual(t, d.F(x)+d.Psi(y), x*y-1e-12, "%v x %v y %v", d, x, y)
			}
		}
		require.InDelta(t, 0, d.F(1), 1e-15, d.String())
		require.InDelta(t, 0, d.Psi(0), 1e-15, d.String())
		require.InDelta(t, 1, d.Density(0), 1e-15, d.String())
	}
}

// ψ' is the derivative of ψ, and Slope that of log ψ'.
func TestDerivatives(t *testing.T) {
	const h = 1e-5
	for _, d := range all() {
		for _, y := range []float64{-3.1, -1.3, -0.65, -0.2, 0.05, 0.3} {
			if y+h >= d.Domain() {
				continue
			}
			phi := d.Density(y)
			require.InDelta(t, (d.Psi(y+h)-d.Psi(y-h))/(2*h), phi, 1e-7*(1+phi), "%v ψ'(%v)", d, y)
			if phi > 0 {
				want := (math.Log(d.Density(y+h)) - math.Log(d.Density(y-h))) / (2 * h)
				require.InDelta(t, want, d.Slope(y), 1e-7*(1+want*want), "%v slope at %v", d, y)
			} else {
				require.Zero(t, d.Slope(y))
			}
		}
	}
}

// The law of the kernels is the same function.
func TestLaws(t *testing.T) {
	for _, d := range all() {
		if d.Family == TotalVariation && d.Delta == 0 {
			continue
		}
		l := d.law()
		for _, y := range []float64{-800, -3, -0.5, 0, 0.2, 0.49} {
			if y < d.Domain() {
				require.InDelta(t, d.Density(y), l.density(2*l.half+l.rate*y), 1e-13*(1+d.Density(y)), "%v at %v", d, y)
			}
		}
	}
}

func TestEndsOfDomains(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		d         Divergence
		end, psi  float64 // psi there
		zero, low float64 // f(0), ψ(-∞)
	}{
		{Divergence{Family: KL}, inf, inf, 1, -1},
		{Divergence{Family: ReverseKL}, 1, inf, inf, -inf},
		{Divergence{Family: PearsonChi2}, inf, inf, 1, -1},
		{Divergence{Family: NeymanChi2}, 1, 2, inf, -inf},
		{Divergence{Family: SquaredHellinger}, 1, inf, 1, -1},
		{Divergence{Family: JensenShannon}, math.Ln2, inf, math.Ln2, -math.Ln2},
		{Divergence{Family: Alpha, Alpha: -2}, 1.0 / 3, 0.5, inf, -inf},
		{Divergence{Family: Alpha, Alpha: 0.5}, 2, inf, 2, -2},
		{Divergence{Family: Alpha, Alpha: 3}, inf, inf, 1.0 / 3, -1.0 / 3},
		{Divergence{Family: TotalVariation}, 0.5, 0.5, 0.5, -0.5},
		{Divergence{Family: TotalVariation, Delta: 0.2}, inf, inf, 0.6, -0.6},
	} {
		what := c.d.String()
		if math.IsInf(c.end, 1) {
			require.Equal(t, c.end, c.d.Domain(), what)
		} else {
			require.InDelta(t, c.end, c.d.Domain(), 1e-15, what)
			require.Equal(t, inf, c.d.Psi(c.end+1e-6), what)
			require.Equal(t, inf, c.d.Density(c.end+1e-6), what)
			if !math.IsInf(c.psi, 1) {
				require.InDelta(t, c.psi, c.d.Psi(c.end-1e-15), 1e-6, what)
			}
		}
		if math.IsInf(c.zero, 1) {
			require.Equal(t, inf, c.d.F(0), what)
		} else {
			require.InDelta(t, c.zero, c.d.F(0), 1e-15, what)
			require.InDelta(t, c.low, c.d.Psi(-1e300), 1e-12, what)
		}
		require.True(t, math.IsNaN(c.d.F(-1)), what)
		for _, v := range []float64{c.d.F(math.NaN()), c.d.Psi(math.NaN()), c.d.Density(math.NaN()), c.d.Slope(math.NaN())} {
			require.True(t, math.IsNaN(v), what)
		}
	}
}

func TestInvalidDivergences(t *testing.T) {
	for _, d := range []Divergence{
		{Family: -1}, {Family: TotalVariation + 1},
		{Family: Alpha, Alpha: math.NaN()}, {Family: Alpha, Alpha: math.Inf(1)}, {Family: Alpha, Alpha: 1e-300}, {Family: Alpha, Alpha: -1e-8}, {Family: Alpha, Alpha: 1 - 1e-9},
		{Family: TotalVariation, Delta: -1}, {Family: TotalVariation, Delta: math.NaN()}, {Family: KL, Delta: 0.1},
	} {
		require.ErrorIs(t, d.Validate(), solver.ErrInvalid, "%+v", d)
	}
	names := fmt.Sprint(Divergence{}, Divergence{Family: Alpha, Alpha: 3}, Divergence{Family: TotalVariation, Delta: 0.1}, Family(9), Kind(7), Gibbs)
	require.Equal(t, "kl alpha(3) total-variation(smoothed by 0.1) Family(9) Kind(7) gibbs", names)
}

package duallse

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// divergences are one of each kind, and alphas on all sides of 0 and 1.
func divergences() []Divergence {
	var d []Divergence
	for k := KL; k <= TotalVariation; k++ {
		if k != Alpha {
			d = append(d, Divergence{Kind: k})
		}
	}
	for _, a := range []float64{-1, -0.3, 0.5, 0.9, 1.5, 2, 3} {
		d = append(d, Divergence{Kind: Alpha, Alpha: a})
	}
	return d
}

func (d Divergence) name() string {
	if d.Kind == Alpha {
		return fmt.Sprint(d.Kind, d.Alpha)
	}
	return d.Kind.String()
}

// ψ and ψ' at -1.5, -0.4 and 0.3, computed independently, to eight decimals.
func TestPsiValues(t *testing.T) {
	for _, c := range []struct {
		d    Divergence
		want [6]float64
	}{
		{Divergence{}, [6]float64{-.77686984, .22313016, -.329679954, .670320046, .349858808, 1.349858808}},
		{Divergence{Kind: ReverseKL}, [6]float64{-.916290732, .4, -.336472237, .714285714, .356674944, 1.428571429}},
		{Divergence{Kind: Pearson}, [6]float64{-.9375, .25, -.36, .8, .3225, 1.15}},
		{Divergence{Kind: Neyman}, [6]float64{-1.16227766, .632455532, -.366431913, .845154255, .326679947, 1.195228609}},
		{Divergence{Kind: Hellinger}, [6]float64{-.6, .16, -.285714286, .510204082, .428571429, 2.040816327}},
		{Divergence{Kind: JensenShannon}, [6]float64{-.574853299, .125574848, -.284938277, .504121344, .430565721, 2.07625486}},
		{Divergence{Kind: Alpha, Alpha: 1.5}, [6]float64{-.65625, .0625, -.325333333, .64, .34725, 1.3225}},
		{Divergence{Kind: Alpha, Alpha: 3}, [6]float64{-.333333333, 0, -.303519094, .447213595, .341285901, 1.26491106}},
		{Divergence{Kind: TotalVariation}, [6]float64{-.5, 0, -.4, 1, .3, 1}},
	} {
		for i, y := range []float64{-1.5, -.4, .3} {
			psi, derivative, _ := c.d.Psi(y)
			require.InDelta(t, c.want[2*i], psi, 5.1e-9, c.d.name())
			require.InDelta(t, c.want[2*i+1], derivative, 5.1e-9, c.d.name())
		}
	}
}

// Identities between the families.
func TestAlphaFamily(t *testing.T) {
	for y := -3.0; y < 0.45; y += 0.05 {
		same := func(a float64, of Divergence, factor float64) {
			t.Helper()
			// D_alpha = factor D_f has ψ_alpha(y) = factor ψ_f(y/factor)
			psi, derivative, slope := Divergence{Kind: Alpha, Alpha: a}.Psi(y)
			p, d, s := of.Psi(y / factor)
			require.InDelta(t, factor*p, psi, 1e-12)
			require.InDelta(t, d, derivative, 1e-12)
			require.InDelta(t, s/factor, slope, 1e-12)
		}
		same(1, Divergence{}, 1)
		same(0, Divergence{Kind: ReverseKL}, 1)
		same(2, Divergence{Kind: Pearson}, 0.5)
		same(-1, Divergence{Kind: Neyman}, 0.5)
		same(0.5, Divergence{Kind: Hellinger}, 2)
		near, _, _ := Divergence{Kind: Alpha, Alpha: 1 + 1e-9}.Psi(y)
		require.InDelta(t, math.Expm1(y), near, 1e-7)
	}
}

// ψ is the conjugate of f: brute force over a fine grid of x. Beyond Cap it is
// that of f under the constraint x <= ψ'(Cap), or with total variation's extra term.
func TestConjugate(t *testing.T) {
	const step = 1e-4
	for _, d := range divergences() {
		d.Delta = 0.2
		most := 40.0
		if end := d.Cap(); !math.IsInf(end, 1) && d.Kind != TotalVariation {
			_, most, _ = d.Psi(end)
		}
		for _, y := range []float64{-4, -2.5, -1.2, -0.6, -0.5, -0.1, 0, 0.1, 0.3, 0.48, 0.55, 0.7, 0.95, 1.3} {
			best := math.Inf(-1)
			for i := 0; ; i++ {
				x := min(float64(i)*step, most)
				f := d.F(x)
				if d.Kind == TotalVariation && x > 1 {
					f += d.Delta / 2 * (x - 1) * (x - 1)
				}
				best = max(best, x*y-f)
				if x == most || (i > 1000 && x*y-f < best-20) {
					break
				}
			}
			psi, _, _ := d.Psi(y)
			// The grid misses the maximum by at most a step, at which f is
			// flat to second order, except at x = 0, where f may have a
			// vertical tangent: √step.
			if diff := psi - best; !(diff >= -1e-12 && diff <= 1e-4) && !(y < -2 && math.Abs(diff) <= 0.02) {
				t.Errorf("%s at %v: %v, brute force %v", d.name(), y, psi, best)
			}
		}
	}
}

// ψ' and (log ψ')' against differences, ψ and ψ' continuous at Cap, ψ convex.
func TestDerivatives(t *testing.T) {
	const h = 1e-5
	for _, d := range divergences() {
		psi, derivative, _ := d.Psi(0)
		require.Equal(t, []float64{0, 1}, []float64{psi, derivative}, d.name())
		d.Delta = 0.05
		end := d.Cap()
		for y := -3.03; y < 2; y += 0.0701 {
			p0, d0, _ := d.Psi(y - h)
			p1, d1, slope := d.Psi(y)
			p2, d2, _ := d.Psi(y + h)
			if math.Abs(y-end) < 2*h || d0 == 0 && d2 != 0 || d.Kind == TotalVariation && math.Abs(y-0.5) < 2*h {
				continue // a kink
			}
			require.InEpsilon(t, 1+d1, 1+(p2-p0)/(2*h), 1e-5, "%s at %v", d.name(), y)
			if d1 > 0 && d0 > 0 {
				require.InEpsilon(t, 1+slope, 1+(math.Log(d2)-math.Log(d0))/(2*h), 1e-4, "%s at %v", d.name(), y)
			}
			require.GreaterOrEqual(t, p2-2*p1+p0, -0x1p-49*(1+math.Abs(p1)), "%s is not convex at %v", d.name(), y)
		}
		if !math.IsInf(end, 1) {
			p0, d0, _ := d.Psi(end - 1e-10)
			p1, d1, _ := d.Psi(end + 1e-10)
			require.InEpsilon(t, d0, d1, 1e-6, d.name())
			require.InDelta(t, p0+2e-10*d0, p1, 1e-12*(1+math.Abs(p0)), d.name())
		}
	}
}

// Evaluate against Psi on every device.
func TestEvaluate(t *testing.T) { both(t, testEvaluate[float32], testEvaluate[float64]) }

func testEvaluate[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	n := 4096 + 257
	y := make([]T, n)
	for i := range y {
		y[i] = T(-8 + 10*float64(i)/float64(n))
	}
	y[7], y[11] = T(math.NaN()), 0
	for _, d := range divergences() {
		in := kerneltest.Put(t, dev, y)
		psi, dpsi, slope := kerneltest.Poison[T](t, dev, n), kerneltest.Poison[T](t, dev, n), kerneltest.Poison[T](t, dev, n)
		require.NoError(t, Evaluate(dev, d, in.Tensor, PsiOutput{psi.Tensor, dpsi.Tensor, slope.Tensor}))
		in.Unmodified(t)
		a, b, c := psi.Get(t), dpsi.Get(t), slope.Get(t)
		end := d.Cap()
		for i, v := range y {
			p, q, s := d.Psi(float64(v))
			if math.IsNaN(p) {
				if a[i] == a[i] || b[i] == b[i] || c[i] == c[i] {
					t.Fatalf("%s: NaN became %v, %v, %v", d.name(), a[i], b[i], c[i])
				}
				continue
			}
			// Rounding y and Cap, and 1-y or 2-e^y, is amplified by ψ' in ψ
			// and by (log ψ')' in ψ' and in the slope itself; ψ' is a
			// power, whose error grows with its logarithm.
			_, _, steep := d.Psi(min(float64(v), d.Cap()))
			u := unit[T]() * (1 + math.Abs(float64(v)))
			amplify := 8 + 8*steep + 4*math.Abs(math.Log(max(q, 1e-300)))
			tangent := 0.0 // ψ' enters ψ beyond Cap
			if float64(v) > end {
				tangent = u * amplify * q * (float64(v) - end)
			}
			if !(math.Abs(float64(a[i])-p) <= 8*u*(1+math.Abs(p)+q)+tangent) {
				t.Fatalf("%s: ψ(%v) = %v, want %v", d.name(), v, a[i], p)
			}
			if !(math.Abs(float64(b[i])-q) <= u*amplify*q+1e-300) {
				t.Fatalf("%s: ψ'(%v) = %v, want %v", d.name(), v, b[i], q)
			}
			if near := math.Abs(float64(v)-end) <= 4*u; !near && !(math.Abs(float64(c[i])-s) <= u*amplify*(1+s)) {
				t.Fatalf("%s: slope(%v) = %v, want %v", d.name(), v, c[i], s)
			}
		}
	}
}

func TestDivergenceErrors(t *testing.T) {
	for _, d := range []Divergence{
		{Kind: -1}, {Kind: TotalVariation + 1}, {Kind: Alpha, Alpha: math.NaN()}, {Kind: Alpha, Alpha: math.Inf(1)},
		{Kind: ReverseKL, Delta: 1}, {Kind: JensenShannon, Delta: 0.7}, {Delta: -1}, {Delta: math.NaN()},
		{Delta: math.Inf(1)}, {Kind: TotalVariation, Delta: 0.5}, {Kind: Alpha, Alpha: -1, Delta: 0.5},
	} {
		require.ErrorIs(t, d.Validate(), gpu.ErrInvalid, "%+v", d)
	}
	require.Equal(t, "jensen-shannon", JensenShannon.String())
	require.Equal(t, "Kind(9)", Kind(9).String())
	each(t, func(t *testing.T, dev gpu.Device) {
		y := kerneltest.Put(t, dev, []float32{1, 2})
		wide := kerneltest.Put(t, dev, []float32{1, 2, 3})
		require.ErrorIs(t, Evaluate(nil, Divergence{}, y.Tensor, PsiOutput{}), gpu.ErrInvalid)
		require.ErrorIs(t, Evaluate(dev, Divergence{Delta: 1e-9}, y.Tensor, PsiOutput{}), gpu.ErrInvalid)
		require.ErrorIs(t, Evaluate(dev, Divergence{}, tensor.Tensor{}, PsiOutput{}), tensor.ErrInvalid)
		require.ErrorIs(t, Evaluate(dev, Divergence{}, y.Tensor, PsiOutput{Psi: wide.Tensor}), tensor.ErrInvalid)
		require.NoError(t, Evaluate(dev, Divergence{}, y.Tensor, PsiOutput{}))
	})
}

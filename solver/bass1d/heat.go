package bass1d

import "math"

// heat convolves with the normal density of variance v on an equidistant grid,
// in the domain of logarithms:
//
//	out_i = log Σ_j exp(a_j - (i-j)²q/2),  q = dx²/v
//
// A row of a plain log-sum-exp costs n exponentials. Here rows in a strip of
// 2·half+1 share those of the middle row c, since
// -(c+k-j)²q/2 = -(c-j)²q/2 + k(j-c)q - k²q/2, and what is left is a product with
// exp(k(j-c)q), tabulated. half is small enough for that factor to stay within
// e^±300, so that what underflows in the middle row is nothing in the others.
// n²(1 + 1/17) products against n² exponentials.
type heat struct {
	n, half int
	q, dx   float64
	tilt    [][]float64 // of k from 0 to half: exp(k·j·q), j from -(n-1) to n-1
	base    []float64
}

func newHeat(n int, dx, v float64) *heat {
	h := &heat{n: n, q: dx * dx / v, dx: dx, base: make([]float64, n)}
	h.half = int(min(8, 300/(h.q*float64(n))))
	for k := range h.half + 1 {
		row := make([]float64, 2*n-1)
		for j := range row {
			row[j] = math.Exp(float64(k) * float64(j-(n-1)) * h.q)
		}
		h.tilt = append(h.tilt, row)
	}
	return h
}

// apply convolves a. mean and variance, where not nil, receive mean and
// variance of z - y under the weights exp(a_j - …) of each row, y = row's place.
func (h *heat) apply(out, mean, variance, a []float64) {
	for first := 0; first < h.n; first += 2*h.half + 1 {
		c := min(first+h.half, h.n-1)
		top := math.Inf(-1)
		for j, v := range a {
			top = max(top, v-float64((c-j)*(c-j))*h.q/2)
		}
		low, high := h.n, 0
		for j, v := range a {
			h.base[j] = math.Exp(v - float64((c-j)*(c-j))*h.q/2 - top)
			if h.base[j] > 0 {
				low, high = min(low, j), j+1
			}
		}
		for i := first; i < min(first+2*h.half+1, h.n); i++ {
			if math.IsInf(top, -1) {
				out[i] = top
				continue
			}
			k := i - c
			s0, s1, s2 := h.row(k, c, low, max(low, high), mean != nil)
			out[i] = top + math.Log(s0) - float64(k*k)*h.q/2
			if mean != nil {
				m := s1 / s0
				mean[i] = (m - float64(k)) * h.dx
				variance[i] = max(0, s2/s0-m*m) * h.dx * h.dx
			}
		}
	}
}

// row sums base·tilt·(j-c)^p over j for p = 0, 1, 2.
func (h *heat) row(k, c, low, high int, moments bool) (s0, s1, s2 float64) {
	base := h.base[low:high]
	tilt := h.tilt[max(k, -k)]
	if k >= 0 {
		tilt = tilt[low-c+h.n-1:][:len(base)]
		if !moments {
			for j, b := range base {
				s0 += b * tilt[j]
			}
			return s0, 0, 0
		}
		for j, b := range base {
			p, u := b*tilt[j], float64(j+low-c)
			s0 += p
			p *= u
			s1 += p
			s2 += p * u
		}
		return s0, s1, s2
	}
	at := c - low + h.n - 1 // exp(-k·j·q) stands where j is -j
	for j, b := range base {
		p, u := b*tilt[at-j], float64(j+low-c)
		s0 += p
		p *= u
		s1 += p
		s2 += p * u
	}
	return s0, s1, s2
}

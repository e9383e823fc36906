// Package mixing accelerates fixed-point iterations.
package mixing

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// window is how many past steps Anderson mixing combines. A sweep over all
// pairs costs thousands of vector operations, so that a long memory is cheap.
const window = 20

// Anderson is type-II Anderson mixing of a fixed-point map T (Walker and Ni
// 2011): with residuals r_k = T(g_k) - g_k, the next iterate is
//
//	g = Σ γ_k T(g_k)   where   γ = argmin |Σ γ_k r_k|_w,  Σ γ_k = 1
//
// The norm is the weighted one |r|²_w = Σ w_j r_j²: choose the weights in whose
// inner product the linear part of T is self-adjoint (of Sinkhorn's map the
// weights of the marginal). One Anderson belongs to one iteration; it is not safe
// for concurrent use.
type Anderson struct {
	w      []float64 // weights of the norm
	g, r   []float64 // the last iterate and its residual
	dT, dR [][]float64
	gram   [][]float64 // gram[p][q] = <dR[q], dR[p]>_w for q up to p, each made once
	filled bool        // g and r hold something
}

// NewAnderson has nothing remembered. w: (n), which it keeps; see Reweigh.
func NewAnderson(w []float64) *Anderson {
	return &Anderson{w: w, g: make([]float64, len(w)), r: make([]float64, len(w))}
}

// Forget drops the memory, as after a step that was taken back.
func (a *Anderson) Forget() { a.dT, a.dR, a.gram, a.filled = nil, nil, nil, false }

// Reweigh must be called where the weights of the norm were changed.
func (a *Anderson) Reweigh() {
	for p, row := range a.gram {
		for q := range row {
			row[q] = weightedDot(a.w, a.dR[q], a.dR[p])
		}
	}
}

// Mix takes an iterate g: (n) and its image T(g): (n) and writes the next iterate
// to out: (n), which may be g or image.
func (a *Anderson) Mix(out, g, image []float64) {
	n := len(a.w)
	if a.filled {
		dT, dR := make([]float64, n), make([]float64, n)
		if len(a.dT) == window { // reuse the oldest
			dT, dR = a.dT[0], a.dR[0]
			a.dT, a.dR, a.gram = a.dT[1:], a.dR[1:], a.gram[1:]
			for p := range a.gram {
				a.gram[p] = a.gram[p][1:]
			}
		}
		for j := range n {
			r := image[j] - g[j]
			dR[j] = r - a.r[j]
			dT[j] = image[j] - (a.g[j] + a.r[j])
		}
		a.dT, a.dR = append(a.dT, dT), append(a.dR, dR)
		last := make([]float64, len(a.dR))
		for q, other := range a.dR {
			last[q] = weightedDot(a.w, other, dR)
		}
		a.gram = append(a.gram, last)
	}
	for j := range n {
		a.g[j], a.r[j] = g[j], image[j]-g[j]
	}
	a.filled = true
	gamma := a.solve()
	copy(out, image)
	for k, c := range gamma {
		for j, t := range a.dT[k] {
			out[j] -= c * t
		}
	}
}

// solve returns argmin |r - Σ γ_k dR_k|_w, with the normal equations
// regularised by rounding's size.
func (a *Anderson) solve() []float64 {
	k := len(a.dR)
	if k == 0 {
		return nil
	}
	gram := mat.NewSymDense(k, nil)
	rhs := mat.NewVecDense(k, nil)
	for p := range k {
		for q := p; q < k; q++ {
			gram.SetSym(p, q, a.gram[q][p])
		}
		rhs.SetVec(p, weightedDot(a.w, a.dR[p], a.r))
	}
	// Scaling to a unit diagonal makes one ridge fit differences whose sizes
	// fall by orders of magnitude along the window.
	s := make([]float64, k)
	for p := range k {
		s[p] = 1 / math.Sqrt(gram.At(p, p))
		if math.IsInf(s[p], 0) || math.IsNaN(s[p]) {
			return nil
		}
	}
	for p := range k {
		for q := p; q < k; q++ {
			gram.SetSym(p, q, gram.At(p, q)*s[p]*s[q])
		}
		gram.SetSym(p, p, 1+1e-12)
		rhs.SetVec(p, rhs.AtVec(p)*s[p])
	}
	var chol mat.Cholesky
	var x mat.VecDense
	if !chol.Factorize(gram) || chol.SolveVecTo(&x, rhs) != nil {
		return nil
	}
	gamma := make([]float64, k)
	for p := range k {
		gamma[p] = x.AtVec(p) * s[p]
	}
	return gamma
}

func weightedDot(w, a, b []float64) float64 {
	s := 0.0
	for j, x := range w {
		s += x * a[j] * b[j]
	}
	return s
}

package fdual_test

import (
	"math"
	"math/rand/v2"

	"github.com/fortet/fortet/kernels/fdual"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
)

// density is φ(z) and |φ'(z)|, written out; f and ψ of that φ.
func density(p fdual.Pairs, z float64) (phi, rate, f, psi float64) {
	xlog := func(x, y float64) float64 {
		if x == 0 {
			return 0
		}
		return x * math.Log(y)
	}
	if inf := math.Inf(1); falls(p) && z <= 0 { // outside of the domain
		return inf, inf, inf, inf
	}
	switch p.Law {
	case fdual.Exp:
		phi = math.Exp(z)
		return phi, phi, xlog(phi, phi) - phi + 1, phi - 1
	case fdual.JensenShannon:
		y := math.Ln2 - z
		phi = 1 / math.Expm1(z)
		return phi, phi * (1 + phi), xlog(phi, phi) - (1+phi)*math.Log((1+phi)/2), -math.Log(2 - math.Exp(y))
	case fdual.TotalVariation:
		switch {
		case z > 0.5:
			phi, rate = 1+(z-0.5)/p.Delta, 1/p.Delta
		case z < -0.5:
			phi, rate = 1+(z+0.5)/p.Delta, 1/p.Delta
		default:
			phi = 1
		}
		if phi <= 0 {
			phi, rate = 0, 0
		}
		return phi, rate, math.Abs(phi-1) / 2, math.Max(z, -0.5)
	}
	a := p.A
	if a > 1 && z < 0 {
		z = 0
	}
	phi = math.Pow(z, 1/(a-1))
	rate = math.Abs(phi / z / (a - 1))
	if phi == 0 {
		rate = 0
	}
	if a == 0 {
		return phi, rate, -math.Log(phi) + phi - 1, -math.Log(z)
	}
	return phi, rate, (math.Pow(phi, a) - a*phi + a - 1) / (a * (a - 1)), (math.Pow(z, a/(a-1)) - 1) / a
}

// problem is a random instance, with float64 copies of what T holds.
type problem[T kt.Float] struct {
	n, m, d         int
	x, y            []T // y: (m, d)
	matrix, q, logb []T
	pairs           fdual.Pairs
}

func instance[T kt.Float](p fdual.Pairs, n, m, d int, seed uint64) problem[T] {
	rng := rand.New(rand.NewPCG(seed, 9))
	s := problem[T]{n: n, m: m, d: d, pairs: p}
	normals := func(k int, scale float64) []T {
		v := make([]T, k)
		for i := range v {
			v[i] = T(scale * rng.NormFloat64())
		}
		return v
	}
	s.x, s.y, s.q, s.logb = normals(n*d, 1), normals(m*d, 1), normals(m, 0.3), make([]T, m)
	for j := range s.logb {
		s.logb[j] = T(math.Log(0.5+rng.Float64()) - math.Log(float64(m)))
		if m > 2 && rng.IntN(5) == 0 {
			s.logb[j] = T(math.Inf(-1))
			s.q[j] = T(math.NaN()) // what has no weight does not count
		}
	}
	if p.Decay != 0 {
		// The gauge that leaves a falling law its digits: q >= 0, and 0 somewhere.
		least := T(math.Inf(1))
		for j, q := range s.q {
			if !math.IsInf(float64(s.logb[j]), -1) {
				least = min(least, q)
			}
		}
		for j := range s.q {
			s.q[j] -= least
		}
	}
	if p.Cost == softmin.Matrix {
		s.matrix = make([]T, n*m)
		for i := range s.matrix {
			s.matrix[i] = T(3 * rng.Float64())
			if m > 2 && rng.IntN(9) == 0 {
				s.matrix[i] = T(math.Inf(1))
			}
		}
	}
	return s
}

// pair is (c_ij, log w_ij, z_ij - p_i); ok is false where the weight is zero.
func (s problem[T]) pair(i, j int) (c, logw, z float64, ok bool) {
	if s.pairs.Cost == softmin.Matrix {
		c = float64(s.matrix[i*s.m+j])
	} else {
		for k := range s.d {
			t := float64(s.x[i*s.d+k]) - float64(s.y[j*s.d+k])
			c += t * t
		}
		switch s.pairs.Cost {
		case softmin.HalfSqEuclidean:
			c /= 2
		case softmin.Euclidean:
			c = math.Sqrt(c)
		}
	}
	logw, z = float64(s.logb[j])+s.pairs.Shift, float64(s.q[j])
	if s.pairs.Decay != 0 {
		logw -= s.pairs.Decay * c
	}
	if s.pairs.Slope != 0 {
		z += s.pairs.Slope * c
	}
	return c, logw, z, !math.IsInf(logw, -1)
}

func falls(p fdual.Pairs) bool {
	return p.Law == fdual.JensenShannon || p.Law == fdual.Power && p.A < 1
}

// sums are what Eval returns for a row, and the sensitivity of log mass to
// relative errors of what z and log w are made of.
func (s problem[T]) sums(i int, p float64) (mass, mean, f, psi, edge, sensitivity float64) {
	rises := !falls(s.pairs)
	edge = math.Inf(1)
	if rises {
		edge = math.Inf(-1)
	}
	for j := range s.m {
		c, logw, z, ok := s.pair(i, j)
		if !ok {
			continue
		}
		w := math.Exp(logw)
		phi, rate, fv, psiv := density(s.pairs, p+z)
		mass += w * phi
		if phi > 0 {
			mean += w * phi * c
			size := math.Abs(p) + math.Abs(float64(s.q[j])) + float64(s.d+4)*math.Abs(s.pairs.Slope)*c
			sensitivity += w * (rate*size + phi*(math.Abs(logw)+float64(s.d+4)*s.pairs.Decay*c))
		}
		f += w * fv
		psi += w * psiv
		if rises == (p+z > edge) && p+z != edge {
			edge = p + z
		}
	}
	return mass, mean, f, psi, edge, sensitivity / mass
}

// root is the definition: bisection on the sum.
func (s problem[T]) root(i int) float64 {
	rises := !falls(s.pairs)
	end := math.Inf(1)
	for j := range s.m {
		if _, _, z, ok := s.pair(i, j); ok {
			end = math.Min(end, z)
		}
	}
	lo, hi := -1e6, 1e6
	if !rises {
		lo = -end
	}
	for range 400 {
		mid := lo + (hi-lo)/2
		if mass, _, _, _, _, _ := s.sums(i, mid); (mass > 1) == rises {
			hi = mid
		} else {
			lo = mid
		}
	}
	return lo
}

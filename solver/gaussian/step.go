package gaussian

import (
	"context"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// hessian is the operator H of an equation at a point, in the eigenbasis of δ.
type hessian struct {
	*point
	k    *mat.Dense
	half mat.Dense // E Ω
}

func (e equation) hessian(p *point) *hessian {
	d := len(p.delta)
	h := &hessian{point: p, k: mat.NewDense(d, d, nil)}
	h.k.Apply(func(i, j int, _ float64) float64 {
		x, y := p.delta[i], p.delta[j]
		return (1 + e.u*(x+y)) / (x * y * (1 + e.u*x) * (1 + e.u*y))
	}, h.k)
	return h
}

// diagonal is the factor of E_ij in H(E)_ij.
func (h *hessian) diagonal(i, j int) float64 {
	return h.g[i]*h.omega.At(j, j) + h.g[j]*h.omega.At(i, i) + h.k.At(i, j)
}

// apply writes H(E), for a symmetric E, to dst.
func (h *hessian) apply(dst, e *mat.Dense) {
	h.half.Mul(e, h.omega)
	dst.Apply(func(i, j int, v float64) float64 {
		return h.g[i]*h.half.At(i, j) + h.g[j]*h.half.At(j, i) + h.k.At(i, j)*v
	}, e)
}

// smallDimension is up to where H is written out as a matrix: 528 unknowns.
const smallDimension = 32

// newton solves H(E) = -gradient, down to tol where it iterates.
func (h *hessian) newton(ctx context.Context, tol float64) *mat.Dense {
	if len(h.delta) <= smallDimension {
		if e := h.direct(); e != nil {
			return e
		}
	}
	return h.iterate(ctx, tol)
}

// direct is by Cholesky's method, in coordinates that give H the diagonal 1:
// what is then left of a condition of 1e16 it bears, and iterate does not. It
// returns nil where rounding has left H no positive definite matrix.
func (h *hessian) direct() *mat.Dense {
	d := len(h.delta)
	n := d * (d + 1) / 2
	place := func(i, j int) int { return i*d - i*(i-1)/2 + j - i } // of (i, j), i ≤ j
	scale, right := make([]float64, n), mat.NewVecDense(n, nil)
	for i := range d {
		for j := i; j < d; j++ {
			norm := h.diagonal(i, j) // <E, H(E)> of the unit E below
			if i == j {
				norm /= 2
			}
			scale[place(i, j)] = math.Sqrt(0.5 / norm)
		}
	}
	matrix := mat.NewSymDense(n, nil)
	unit, image := mat.NewDense(d, d, nil), mat.NewDense(d, d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			// The unit has E_ij = E_ji = c; on the diagonal, too, c.
			a := place(i, j)
			c := scale[a]
			unit.Set(i, j, c)
			unit.Set(j, i, c)
			h.apply(image, unit)
			unit.Set(i, j, 0)
			unit.Set(j, i, 0)
			for q := i; q < d; q++ {
				for r := q; r < d; r++ {
					if b := place(q, r); b >= a {
						matrix.SetSym(a, b, twice(q, r)*image.At(q, r)*scale[b])
					}
				}
			}
			right.SetVec(a, -twice(i, j)*h.gradient.At(i, j)*c)
		}
	}
	var chol mat.Cholesky
	var x mat.VecDense
	if !chol.Factorize(matrix) || solved(chol.SolveVecTo(&x, right)) != nil {
		return nil
	}
	step := mat.NewDense(d, d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			v := x.AtVec(place(i, j)) * scale[place(i, j)]
			step.Set(i, j, v)
			step.Set(j, i, v)
		}
	}
	return step
}

// twice is how often entry (i, j) occurs in an inner product.
func twice(i, j int) float64 {
	if i == j {
		return 1
	}
	return 2
}

// iterate is by conjugate gradients, scaled by the diagonal of H; one product
// of (d, d) matrices each.
func (h *hessian) iterate(ctx context.Context, tol float64) *mat.Dense {
	d := len(h.delta)
	step, image, z := mat.NewDense(d, d, nil), mat.NewDense(d, d, nil), mat.NewDense(d, d, nil)
	divide := func(i, j int, v float64) float64 { return v / h.diagonal(i, j) }
	rest := mat.NewDense(d, d, nil)
	rest.Scale(-1, h.gradient)
	z.Apply(divide, rest)
	direction := mat.DenseCopyOf(z)
	rho := dot(rest, z)
	enough := tol * tol * rho
	for range 1000 {
		if !(rho > enough) || ctx.Err() != nil {
			break
		}
		h.apply(image, direction)
		alpha := rho / dot(direction, image)
		floats.AddScaled(step.RawMatrix().Data, alpha, direction.RawMatrix().Data)
		floats.AddScaled(rest.RawMatrix().Data, -alpha, image.RawMatrix().Data)
		z.Apply(divide, rest)
		next := dot(rest, z)
		direction.Scale(next/rho, direction)
		direction.Add(direction, z)
		rho = next
	}
	return step
}

func dot(a, b *mat.Dense) float64 { return floats.Dot(a.RawMatrix().Data, b.RawMatrix().Data) }

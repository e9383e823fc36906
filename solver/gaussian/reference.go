package gaussian

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"
)

// Reference is a linear process dX = A X dt + dW on [0, T] whose noise W has
// covariance D per unit of time: Brownian, OU or Linear.
type Reference interface {
	// Validate says what is wrong with the process itself.
	Validate() error
	// Horizon is T.
	Horizon() float64

	dim() int // 0: any
	sde(d int) (a *mat.Dense, noise *mat.SymDense)
	over(elapsed float64, d int) transition
}

// Brownian is √Epsilon times Brownian motion on [0, T].
type Brownian struct {
	Epsilon float64 // variance per unit of time
	T       float64 // 0 means 1
}

// Validate says what is wrong.
func (b Brownian) Validate() error {
	return errors.Join(positive("epsilon", b.Epsilon), positive("horizon", b.Horizon()))
}

// Horizon is T.
func (b Brownian) Horizon() float64 { return horizon(b.T) }

func (b Brownian) dim() int { return 0 }

func (b Brownian) sde(d int) (*mat.Dense, *mat.SymDense) {
	return mat.NewDense(d, d, nil), identity(d, b.Epsilon)
}

func (b Brownian) over(elapsed float64, d int) transition {
	return transition{mat.DenseCopyOf(identity(d, 1)), identity(d, b.Epsilon*elapsed)}
}

// OU is the Ornstein–Uhlenbeck or variance-preserving process
// dX = -½ Rate X dt + √Rate dW on [0, T], stationary under N(0, I). A schedule
// b(t) is the same process in the time ∫b: Rate 1 and T = ∫b.
type OU struct {
	Rate float64 // per unit of time
	T    float64 // 0 means 1
}

// Validate says what is wrong.
func (o OU) Validate() error {
	return errors.Join(positive("rate", o.Rate), positive("horizon", o.Horizon()))
}

// Horizon is T.
func (o OU) Horizon() float64 { return horizon(o.T) }

func (o OU) dim() int { return 0 }

func (o OU) sde(d int) (*mat.Dense, *mat.SymDense) {
	return mat.DenseCopyOf(identity(d, -o.Rate/2)), identity(d, o.Rate)
}

func (o OU) over(elapsed float64, d int) transition {
	b := o.Rate * elapsed
	return transition{mat.DenseCopyOf(identity(d, math.Exp(-b/2))), identity(d, -math.Expm1(-b))}
}

// Linear is dX = A X dt + dW with noise of covariance D per unit of time, both
// constant. D may be singular where the covariance over [0, T] is not.
type Linear struct {
	A *mat.Dense    // (d, d)
	D *mat.SymDense // (d, d), no negative eigenvalue
	T float64       // 0 means 1
}

// Validate says what is wrong.
func (l Linear) Validate() error {
	if l.A == nil || l.D == nil || l.D.IsEmpty() {
		return bad("linear reference", "no matrices A and D")
	}
	d := l.D.SymmetricDim()
	if r, c := l.A.Dims(); r != d || c != d {
		return bad("linear reference", "A is (%d, %d), want (%d, %d) as D", r, c, d, d)
	}
	if err := errors.Join(finite("linear reference A", l.A), positive("horizon", l.Horizon())); err != nil {
		return err
	}
	_, err := Normal{Mean: make([]float64, d), Cov: l.D}.root("linear reference D")
	return err
}

// Horizon is T.
func (l Linear) Horizon() float64 { return horizon(l.T) }

func (l Linear) dim() int { return l.D.SymmetricDim() }

func (l Linear) sde(int) (*mat.Dense, *mat.SymDense) { return l.A, l.D }

// over takes F and Q of a short time from one matrix exponential (Van Loan
// 1978) and doubles them, F(2h) = F², Q(2h) = Q + FQFᵀ, since the exponential of
// a long time holds exp(-Ah) and drowns Q where A is stable.
func (l Linear) over(elapsed float64, d int) transition {
	doublings := 0
	h := elapsed
	for h*mat.Norm(l.A, 1) > 0.5 {
		h /= 2
		doublings++
	}
	block := mat.NewDense(2*d, 2*d, nil)
	for i := range d {
		for j := range d {
			block.Set(i, j, -h*l.A.At(i, j))
			block.Set(i, d+j, h*l.D.At(i, j))
			block.Set(d+i, d+j, h*l.A.At(j, i))
		}
	}
	var e mat.Dense
	e.Exp(block)
	f := mat.DenseCopyOf(e.Slice(d, 2*d, d, 2*d).T())
	q := product(f, e.Slice(0, d, d, 2*d))
	for range doublings {
		q.Add(q, product(f, q, f.T()))
		f = product(f, f)
	}
	return transition{f, symmetric(q)}
}

func horizon(t float64) float64 {
	if t == 0 {
		return 1
	}
	return t
}

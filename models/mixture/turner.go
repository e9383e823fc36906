package mixture

import (
	"fmt"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/fortet/fortet/tensor"
)

// turner turns the axes of full covariances on the host. All memory is taken
// once.
type turner struct {
	k, d       int
	axes, turn []float64
	left       blas64.General // I - W/2, then its LU factors
	right      blas64.General // (I + W/2) A, then the new A
	pivots     []int
}

func newTurner(k, d int) *turner {
	square := func() blas64.General { return blas64.General{Rows: d, Cols: d, Stride: d, Data: make([]float64, d*d)} }
	return &turner{
		k: k, d: d, axes: make([]float64, k*d*d), turn: make([]float64, k*d*d),
		left: square(), right: square(), pivots: make([]int, d),
	}
}

// cayley sets A <- (I - W/2)⁻¹ (I + W/2) A, Cayley's orthogonal matrix near
// exp(W). The skew part of W alone counts, so that rounding cannot
// take A away from orthogonality but by its own.
func (t *turner) cayley(a, w []float64) error {
	d := t.d
	for i := range d {
		for j := range d {
			skew := (w[i*d+j] - w[j*d+i]) / 2
			t.left.Data[i*d+j] = -skew / 2
		}
		t.left.Data[i*d+i]++
	}
	old := blas64.General{Rows: d, Cols: d, Stride: d, Data: a}
	// (I + W/2) A = 2 A - (I - W/2) A.
	copy(t.right.Data, a)
	blas64.Gemm(blas.NoTrans, blas.NoTrans, -1, t.left, old, 2, t.right)
	if !lapack64.Getrf(t.left, t.pivots) {
		return fmt.Errorf("mixture: turn of axes is not finite")
	}
	lapack64.Getrs(blas.NoTrans, t.left, t.right, t.pivots)
	copy(a, t.right.Data)
	return nil
}

// apply turns the axes of every component by W, and sets W to zero.
func (t *turner) apply(axes, turn tensor.Tensor) error {
	if err := tensor.GetFloat64s(axes, t.axes); err != nil {
		return err
	}
	if err := tensor.GetFloat64s(turn, t.turn); err != nil {
		return err
	}
	for j := range t.k {
		at := j * t.d * t.d
		if err := t.cayley(t.axes[at:at+t.d*t.d], t.turn[at:at+t.d*t.d]); err != nil {
			return err
		}
	}
	clear(t.turn)
	if err := tensor.SetFloat64s(axes, t.axes); err != nil {
		return err
	}
	return tensor.SetFloat64s(turn, t.turn)
}

package axis

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Product is the log-sum-exp over all axes of grids with a kernel that is a
// product over them: with i = (i_1 … i_d) and j = (j_1 … j_d),
//
//	out_i = Scale log Σ_j exp(Σ_k logk_k[i_k, j_k] + in_j) + add_i,  mass_i = exp out_i
//
// for each of Batch arrays. It is one LogSumExp for each axis, the last first.
type Product struct {
	In    tensor.Tensor   // (Batch, m_1, …, m_d), of any shape
	LogK  []tensor.Tensor // (n_k, m_k) for each axis
	Batch int             // 0 means 1
	Scale float64         // finite; 0 means 1

	Add, Out, Mass tensor.Tensor // (Batch, n_1, …, n_d), of any shape; as in Args
}

// LogSumExp queues the computation of the outputs that are given. The arrays
// between the axes are its own.
func (p Product) LogSumExp() error {
	batch := max(p.Batch, 1)
	inner, outer := 1, batch
	for k, logk := range p.LogK {
		if logk.IsZero() || len(logk.Shape()) != 2 {
			return fmt.Errorf("%s: kernel of axis %d: %w: got %v, want a matrix", op, k, gpu.ErrInvalid, logk)
		}
		outer *= logk.Dim(1)
	}
	if len(p.LogK) == 0 || outer == 0 || p.In.IsZero() {
		return fmt.Errorf("%s: %w: %d axes of %d elements of %v, want at least one", op, gpu.ErrInvalid, len(p.LogK), outer, p.In)
	}
	in, own := p.In, tensor.Tensor{} // own is in, where it is no one else's
	defer func() { own.Free() }()
	for k := len(p.LogK) - 1; k >= 0; k-- {
		n, m := p.LogK[k].Dim(0), p.LogK[k].Dim(1)
		outer /= m
		a := Args{LogK: p.LogK[k]}
		var errs [4]error
		a.In, errs[0] = in.Reshape(outer, m, inner)
		shape := []int{outer, n, inner}
		if k > 0 {
			a.Out, errs[1] = tensor.New(in.Device(), in.DType(), shape...)
		} else {
			a.Scale = p.Scale
			for i, t := range []struct{ from, to *tensor.Tensor }{{&p.Add, &a.Add}, {&p.Out, &a.Out}, {&p.Mass, &a.Mass}} {
				if !t.from.IsZero() {
					*t.to, errs[i+1] = t.from.Reshape(shape...)
				}
			}
		}
		err := errors.Join(errs[:]...)
		if err == nil {
			err = LogSumExp(a)
		}
		own.Free() // the queue may still use it
		own = tensor.Tensor{}
		if k > 0 {
			own = a.Out
		}
		if err != nil {
			return fmt.Errorf("axis %d: %w", k, err)
		}
		in = a.Out
		inner *= n
	}
	return nil
}

// Affine queues out = scale in + add, element by element, into a new array of the
// shape of in; without add that is 0. As everywhere here, an add of -∞ makes -∞,
// unless in is NaN.
func Affine(in, add tensor.Tensor, scale float64) (out tensor.Tensor, err error) {
	if in.IsZero() {
		return out, fmt.Errorf("%s: in: %w: missing", op, gpu.ErrInvalid)
	}
	// A kernel of one entry, the logarithm of 1, makes a sum of one term.
	zeros := make([]float64, 1)
	one, err := tensor.FromFloat64s(in.Device(), in.DType(), zeros, 1, 1)
	if err != nil {
		return out, err
	}
	defer one.Free()
	if out, err = tensor.New(in.Device(), in.DType(), in.Shape()...); err != nil {
		return out, err
	}
	var errs [4]error
	a := Args{LogK: one, Scale: scale}
	a.In, errs[0] = in.Reshape(1, 1, in.Len())
	a.Out, errs[1] = out.Reshape(1, 1, in.Len())
	if !add.IsZero() {
		a.Add, errs[2] = add.Reshape(1, 1, in.Len())
	}
	if errs[3] = errors.Join(errs[:3]...); errs[3] == nil {
		errs[3] = LogSumExp(a)
	}
	if errs[3] != nil {
		out.Free()
		return tensor.Tensor{}, errs[3]
	}
	return out, nil
}

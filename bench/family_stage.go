package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// stage is the arrays of a case. What goes wrong first stays in err, so that a
// family makes its arrays one after the other and looks once.
type stage struct {
	dev   gpu.Device
	dtype tensor.DType
	all   []tensor.Tensor
	first []restore
	seed  uint64
	err   error
}

// restore is what an array holds before a run.
type restore struct {
	tensor.Tensor
	values tensor.Tensor // the zero Tensor: poison
}

func newStage(dev gpu.Device, s Setting) *stage {
	return &stage{dev: dev, dtype: s.DType, seed: 1940 + uint64(s.Size)}
}

func (s *stage) keep(t tensor.Tensor, err error) tensor.Tensor {
	if s.err = errors.Join(s.err, err); err == nil {
		s.all = append(s.all, t)
	}
	return t
}

// room is an array that nothing is in yet.
func (s *stage) room(dtype tensor.DType, shape ...int) tensor.Tensor {
	if s.err != nil {
		return tensor.Tensor{}
	}
	return s.keep(tensor.New(s.dev, dtype, shape...))
}

// normals is an input of standard normals, drawn on the device.
func (s *stage) normals(shape ...int) tensor.Tensor {
	t := s.room(s.dtype, shape...)
	if s.err != nil {
		return t
	}
	s.seed++
	flat, err := t.Reshape(shape[0], t.Len()/shape[0])
	if err == nil {
		err = philox.Normal(flat, philox.Draw{Seed: s.seed})
	}
	s.err = err
	return t
}

// put is an input that is given.
func (s *stage) put(v []float64, shape ...int) tensor.Tensor {
	if s.err != nil {
		return tensor.Tensor{}
	}
	return s.keep(tensor.FromFloat64s(s.dev, s.dtype, v, shape...))
}

// out is an output in the type of the case, and outOf one of another.
func (s *stage) out(shape ...int) tensor.Tensor { return s.outOf(s.dtype, shape...) }

func (s *stage) outOf(dtype tensor.DType, shape ...int) tensor.Tensor {
	t := s.room(dtype, shape...)
	s.first = append(s.first, restore{Tensor: t})
	return t
}

// state is an array that a run changes, with what it begins as.
func (s *stage) state(first tensor.Tensor) tensor.Tensor {
	if s.err != nil {
		return tensor.Tensor{}
	}
	t := s.room(first.DType(), first.Shape()...)
	s.first = append(s.first, restore{t, first})
	return t
}

// reset makes the arrays what they are before a run, a mebibyte or so at a time.
func (s *stage) reset() error {
	for _, r := range s.first {
		flat, err := r.Reshape(r.Len())
		if err != nil {
			return err
		}
		var values tensor.Tensor
		if !r.values.IsZero() {
			if values, err = r.values.Reshape(r.Len()); err != nil {
				return err
			}
		}
		const most = 1 << 18
		for lo := 0; lo < flat.Len(); lo += most {
			hi := min(lo+most, flat.Len())
			part := flat.Rows(lo, hi)
			if r.values.IsZero() {
				err = poison(part)
			} else {
				err = tensor.Copy(part, values.Rows(lo, hi))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// poison fills an array with NaN, or with what no kernel writes.
func poison(t tensor.Tensor) error {
	n := t.Len()
	switch t.DType() {
	case tensor.Float32:
		return tensor.Set(t, slices.Repeat([]float32{float32(math.NaN())}, n))
	case tensor.Float64:
		return tensor.Set(t, slices.Repeat([]float64{math.NaN()}, n))
	case tensor.Int32:
		return tensor.Set(t, slices.Repeat([]int32{math.MinInt32}, n))
	case tensor.Uint32:
		return tensor.Set(t, slices.Repeat([]uint32{0xdeadbeef}, n))
	}
	return fmt.Errorf("bench: poison of %v: %w", t, gpu.ErrInvalid)
}

// finish makes a case of the arrays, or frees them.
func (s *stage) finish(c *Case) (*Case, error) {
	if s.err == nil {
		s.err = s.reset()
	}
	if s.err != nil {
		s.free()
		return nil, s.err
	}
	c.Reset = s.reset
	for _, r := range s.first {
		c.written = append(c.written, r.Tensor)
	}
	free := c.Free
	c.Free = func() {
		s.free()
		if free != nil {
			free()
		}
	}
	return c, nil
}

func (s *stage) free() {
	for _, t := range s.all {
		t.Free()
	}
}

// rows are rows [lo, hi) of an array, in float64.
func (s *stage) rows(t tensor.Tensor, lo, hi int) []float64 {
	if s.err != nil || t.IsZero() {
		return make([]float64, max(hi-lo, 0)*max(t.Len(), 1)) // the error is told
	}
	v, err := tensor.Float64s(t.Rows(lo, hi))
	if s.err = err; err != nil {
		return make([]float64, t.Rows(lo, hi).Len())
	}
	return v
}

// every is a whole array, in float64.
func (s *stage) every(t tensor.Tensor) []float64 { return s.rows(t, 0, t.Dim(0)) }

// spans are parts of n rows that stand for all, where each row is computed by
// itself: up to 16 runs of up to 64 rows, the first and the last among them.
func spans(n int) [][2]int {
	const runs, long = 16, 64
	if n <= runs*long {
		return [][2]int{{0, n}}
	}
	var all [][2]int
	for r := range runs {
		lo := r * (n - long) / (runs - 1)
		all = append(all, [2]int{lo, lo + long})
	}
	return all
}

// verdict keeps the comparison that used most of its budget.
type verdict struct {
	worst, budget, used float64
	compared            int
}

// compare wants |got - want| ≤ budget.
func (v *verdict) compare(got, want, budget float64) {
	diff := math.Abs(got - want)
	used := diff / budget
	if diff == 0 && budget >= 0 {
		used = 0
	}
	if v.compared == 0 || !(used <= v.used) && v.used == v.used {
		v.worst, v.budget, v.used = diff, budget, used
	}
	v.compared++
}

// end is what a Check answers.
func (v *verdict) end(s *stage) (worst, budget float64, err error) {
	if s.err == nil && v.compared == 0 {
		s.err = errors.New("bench: nothing was compared")
	}
	if !(v.worst <= math.MaxFloat64) { // JSON has no NaN
		return math.MaxFloat64, v.budget, s.err
	}
	return v.worst, v.budget, s.err
}

// total is a sum whose error does not grow with the number of its terms, as
// Neumaier (1974) corrects it.
type total struct{ sum, lost float64 }

func (t *total) add(x float64) {
	s := t.sum + x
	if math.Abs(t.sum) >= math.Abs(x) {
		t.lost += (t.sum - s) + x
	} else {
		t.lost += (x - s) + t.sum
	}
	t.sum = s
}

func (t *total) value() float64 { return t.sum + t.lost }

// unit is the spacing of numbers at 1 of an element type.
func unit(t tensor.DType) float64 {
	if t == tensor.Float32 {
		return 0x1p-23
	}
	return 0x1p-52
}

package selftest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// A trial is one call of an operation with fixed inputs, made to be repeated and
// to be compared over devices. It is laid out on a stage: a device, an element
// type and a size.
type trial struct {
	name string // family, then what is particular
	// lay puts the inputs, which are the same numbers on every device and in
	// both element types, declares the outputs and returns the call.
	lay func(s *stage) func() error
	// only is the one element type that the trial has; 0: Float32 and Float64.
	only tensor.DType
}

func (t trial) types() []tensor.DType {
	if t.only != 0 {
		return []tensor.DType{t.only}
	}
	return []tensor.DType{tensor.Float32, tensor.Float64}
}

// promise says what an output has in common on two devices.
type promise int

const (
	near     promise = iota // the error of float32 arithmetic, see agree
	same                    // the bits
	repeated                // nothing: only that it repeats on each
)

// stage is where a trial is laid out.
type stage struct {
	dev     *watched
	dtype   tensor.DType
	large   bool // the GPU is to have several waves of blocks
	seed    uint64
	all     []tensor.Tensor
	outs    []*output
	err     error
	release []func()
}

// output is what a trial writes, and what lies there before each run.
type output struct {
	name    string
	promise promise
	fixed   bool    // its type does not depend on that of the trial
	budget  float64 // of near, where it is not 0: the largest difference
	at      tensor.Tensor
	before  []byte
}

// watched is a device that notes which kernels were launched on it.
type watched struct {
	gpu.Device
	mu       sync.Mutex
	launched map[string]bool
}

func watch(dev gpu.Device) *watched { return &watched{Device: dev, launched: map[string]bool{}} }

func (w *watched) Launch(k *gpu.Kernel, args unsafe.Pointer, tiles int) error {
	w.mu.Lock()
	w.launched[k.Name] = true
	w.mu.Unlock()
	return w.Device.Launch(k, args, tiles)
}

// pick is a size: on a GPU one that fills it several times over, since blocks
// that disturb each other can only be seen where there are many.
func (s *stage) pick(small, large int) int {
	if s.large {
		return large
	}
	return small
}

func (s *stage) keep(t tensor.Tensor, err error) tensor.Tensor {
	if s.err = errors.Join(s.err, err); err == nil {
		s.all = append(s.all, t)
	}
	return t
}

// draw is float32 normals, as float64.
func (s *stage) draw(count int) []float64 {
	v, w := make([]float32, count), make([]float64, count)
	s.seed++
	s.err = errors.Join(s.err, philox.HostNormal(v, 1, philox.Draw{Seed: s.seed}))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// put is an input of numbers that float32 can hold.
func (s *stage) put(v []float64, shape ...int) tensor.Tensor {
	return s.keep(tensor.FromFloat64s(s.dev, s.dtype, v, shape...))
}

// normal is an input of normals; the others are made of them.
func (s *stage) normal(shape ...int) tensor.Tensor {
	return s.mapped(func(x float64) float64 { return x }, shape...)
}

func (s *stage) mapped(f func(float64) float64, shape ...int) tensor.Tensor {
	v := s.draw(product(shape))
	for i, x := range v {
		v[i] = float64(float32(f(x)))
	}
	return s.put(v, shape...)
}

// positive is numbers from 0.5 on; times are in (0, 1).
func (s *stage) positive(shape ...int) tensor.Tensor {
	return s.mapped(func(x float64) float64 { return 0.5 + math.Abs(x) }, shape...)
}

func (s *stage) times(n int) tensor.Tensor {
	return s.mapped(func(x float64) float64 { return 0.05 + 0.9*math.Abs(math.Sin(x)) }, n)
}

// uniform is log weights that are all equal.
func (s *stage) uniform(n int) tensor.Tensor {
	return s.mapped(func(float64) float64 { return -math.Log(float64(n)) }, n)
}

// points is a cloud around shift, and its largest norm.
func (s *stage) points(n, d int, shift float64) (tensor.Tensor, float64) {
	v, radius := s.draw(n*d), 0.0
	for i := range n {
		sum := 0.0
		for k := range d {
			v[i*d+k] = float64(float32(v[i*d+k] + shift))
			sum += v[i*d+k] * v[i*d+k]
		}
		radius = max(radius, math.Sqrt(sum))
	}
	return s.put(v, n, d), radius
}

// out declares an output of the stage's element type, or of another one.
func (s *stage) out(name string, p promise, shape ...int) tensor.Tensor {
	t := s.typed(name, p, s.dtype, shape...)
	s.outs[len(s.outs)-1].fixed = false
	return t
}

func (s *stage) typed(name string, p promise, dtype tensor.DType, shape ...int) tensor.Tensor {
	// Bytes of 0xff are a NaN of either type, and -1.
	poison := bytes.Repeat([]byte{0xff}, product(shape)*dtype.Size())
	t := s.keep(tensor.New(s.dev, dtype, shape...))
	s.outs = append(s.outs, &output{name: name, promise: p, fixed: true, at: t, before: poison})
	return t
}

// updated declares an array that is read and written: before each run it holds v.
func (s *stage) updated(name string, p promise, v []float64, shape ...int) tensor.Tensor {
	t := s.put(v, shape...)
	o := &output{name: name, promise: p, at: t}
	if s.err == nil {
		o.before = make([]byte, t.Buffer().Bytes)
		s.err = s.dev.Download(o.before, t.Buffer())
	}
	s.outs = append(s.outs, o)
	return t
}

// view is an array in another shape.
func (s *stage) view(t tensor.Tensor, shape ...int) tensor.Tensor {
	if s.err != nil {
		return t
	}
	v, err := t.Reshape(shape...)
	s.err = err
	return v
}

// counter is an array of one count, which a run moves.
func (s *stage) counter(name string, from uint32) tensor.Tensor {
	t := s.typed(name, same, tensor.Uint32, 1)
	s.outs[len(s.outs)-1].before = binary.NativeEndian.AppendUint32(nil, from)
	return t
}

// within sets the budget of the output that was declared last.
func (s *stage) within(budget float64) { s.outs[len(s.outs)-1].budget = budget }

func product(shape []int) int {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return n
}

// act lays a trial out on a device and runs it so many times, each time into
// fresh poison. It answers what the first run left, and that every other left
// the same.
func act(tr trial, dev *watched, dtype tensor.DType, large bool, times int) ([]*output, [][]byte, error) {
	s := &stage{dev: dev, dtype: dtype, large: large}
	defer func() {
		for _, t := range s.all {
			t.Free()
		}
		for _, f := range s.release {
			f()
		}
	}()
	call := tr.lay(s)
	if s.err != nil {
		return nil, nil, s.err
	}
	var first [][]byte
	for i := range times {
		for _, o := range s.outs {
			if err := dev.Upload(o.at.Buffer(), o.before); err != nil {
				return nil, nil, err
			}
		}
		if err := call(); err != nil {
			return nil, nil, err
		}
		for k, o := range s.outs {
			got := make([]byte, len(o.before))
			if err := dev.Download(got, o.at.Buffer()); err != nil {
				return nil, nil, err
			}
			if i == 0 {
				if slices.Equal(got, o.before) {
					return nil, nil, fmt.Errorf("%s: nothing was written", o.name)
				}
				first = append(first, got)
			} else if !bytes.Equal(got, first[k]) {
				at := slices.IndexFunc(indices(got), func(b int) bool { return got[b] != first[k][b] })
				return nil, nil, fmt.Errorf("%s: run %d differs from the first at element %d of %d", o.name, i+1,
					at/o.at.DType().Size(), o.at.Len())
			}
		}
	}
	return s.outs, first, nil
}

func indices(v []byte) []int {
	at := make([]int, len(v))
	for i := range at {
		at[i] = i
	}
	return at
}

// numbers reads the bytes of an array as float64.
func numbers(t testing.TB, b []byte, dtype tensor.DType) []float64 {
	t.Helper()
	n := len(b) / dtype.Size()
	v := make([]float64, n)
	for i := range v {
		p := unsafe.Pointer(&b[i*dtype.Size()])
		switch dtype {
		case tensor.Float32:
			v[i] = float64(*(*float32)(p))
		case tensor.Float64:
			v[i] = *(*float64)(p)
		case tensor.Int32:
			v[i] = float64(*(*int32)(p))
		default:
			t.Fatalf("no numbers of %v", dtype)
		}
	}
	return v
}

// worst is the largest error of v, and the largest magnitude of the reference.
// Infinities must be the same; a NaN is an error of NaN.
func worst(v, ref []float64) (err, scale float64) {
	for i, r := range ref {
		if math.IsInf(r, 0) && v[i] == r {
			continue
		}
		if d := math.Abs(v[i] - r); d > err || math.IsNaN(d) {
			err = d
		}
		if math.IsNaN(err) {
			return err, scale
		}
		scale = max(scale, math.Abs(r))
	}
	return err, scale
}

// isGPU says that a target is a GPU and not its emulation.
func isGPU(dev kerneltest.Target) bool { return dev.Properties().Kind == gpu.CUDA }

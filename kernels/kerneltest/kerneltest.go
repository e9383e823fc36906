// Package kerneltest is the one place that says what "correct" means.
//
// A kernel under test gets its arrays from Put and Poison: each lies between
// NaN guards, and outputs begin as NaN, so that a kernel which writes outside
// its array, does not write, or was not launched cannot pass. Get checks the
// guards; Array.Unmodified checks that an input was only read. Close compares
// with a budget derived from a naive evaluation in the same precision.
package kerneltest

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Float is the element type of kernels under test.
type Float interface{ float32 | float64 }

// Target is a device with the name that subtests carry.
type Target struct {
	Name string
	gpu.Device
}

// Devices opens every device that this run must cover: the CPU at each
// instruction level that the processor has, the emulation, and a GPU.
//
// The emulation library must be there unless FORTET_NO_EMU=1; the GPU must be
// there if FORTET_REQUIRE_GPU=1. What is not covered is logged.
// FORTET_CPU_LEVEL limits the CPU to one level.
func Devices(tb testing.TB) []Target {
	tb.Helper()
	var out []Target
	open := func(name string, d gpu.Device, err error) {
		tb.Helper()
		if err != nil {
			tb.Fatalf("kerneltest: %s: %v", name, err)
		}
		tb.Cleanup(func() { d.Close() })
		out = append(out, Target{name, d})
	}
	only := os.Getenv("FORTET_CPU_LEVEL")
	for level := gpu.Baseline; level <= gpu.AVX512; level++ {
		switch {
		case only != "" && only != level.String():
		case level > gpu.BestLevel():
			tb.Logf("not run: CPU level %v, which this processor does not have", level)
		default:
			d, err := gpu.OpenCPU(gpu.CPUOptions{Level: level, Workers: 3})
			open("cpu-"+level.String(), d, err)
		}
	}
	if os.Getenv("FORTET_NO_EMU") == "1" {
		tb.Log("not run: emulation (FORTET_NO_EMU=1)")
	} else {
		d, err := gpu.Open("emu")
		if err != nil {
			tb.Fatalf("kerneltest: %v (build it with ./build.sh emu, or set FORTET_NO_EMU=1)", err)
		}
		open("emu", d, nil)
	}
	if d, err := gpu.Open("cuda"); err == nil {
		open("cuda", d, nil)
	} else if os.Getenv("FORTET_REQUIRE_GPU") == "1" {
		tb.Fatalf("kerneltest: FORTET_REQUIRE_GPU=1: %v", err)
	}
	return out
}

// Hardware is Devices but the emulation, which is for tests and not for
// benchmarks.
func Hardware(tb testing.TB) []Target {
	tb.Helper()
	return slices.DeleteFunc(Devices(tb), func(t Target) bool { return t.Properties().Kind == gpu.Emulation })
}

// New is an array of a test that is freed with it.
func New(tb testing.TB, dev gpu.Device, dtype tensor.DType, shape ...int) tensor.Tensor {
	tb.Helper()
	out, err := tensor.New(dev, dtype, shape...)
	if err != nil {
		tb.Fatalf("kerneltest: %v", err)
	}
	tb.Cleanup(out.Free)
	return out
}

// Each runs body as a subtest on every device.
func Each(t *testing.T, body func(t *testing.T, dev Target)) {
	t.Helper()
	for _, dev := range Devices(t) {
		t.Run(dev.Name, func(t *testing.T) { body(t, dev) })
	}
}

const guard = 64 // elements on each side; keeps 256-byte alignment

// Array is a device array between NaN guards.
type Array[T Float] struct {
	tensor.Tensor
	whole tensor.Tensor
	start []T // what was uploaded
}

// Put uploads v between guards. The memory is freed when the test ends.
func Put[T Float](tb testing.TB, dev gpu.Device, v []T, shape ...int) *Array[T] {
	tb.Helper()
	if len(shape) == 0 {
		shape = []int{len(v)}
	}
	whole := make([]T, len(v)+2*guard)
	for i := range whole {
		whole[i] = T(math.NaN())
	}
	copy(whole[guard:], v)
	base, err := tensor.From(dev, whole, len(whole))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(base.Free)
	inner, err := base.Rows(guard, guard+len(v)).Reshape(shape...)
	if err != nil {
		tb.Fatal(err)
	}
	return &Array[T]{inner, base, slices.Clone(v)}
}

// Poison is Put of an output: all NaN.
func Poison[T Float](tb testing.TB, dev gpu.Device, shape ...int) *Array[T] {
	tb.Helper()
	n := 1
	for _, s := range shape {
		n *= s
	}
	v := make([]T, n)
	for i := range v {
		v[i] = T(math.NaN())
	}
	return Put(tb, dev, v, shape...)
}

// Get downloads the array and fails the test where a guard was written.
func (a *Array[T]) Get(tb testing.TB) []T {
	tb.Helper()
	v, err := a.read()
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// Unmodified fails the test where the array is no longer, bit for bit, what
// was uploaded.
func (a *Array[T]) Unmodified(tb testing.TB) {
	tb.Helper()
	v, err := a.read()
	if err != nil {
		tb.Fatal(err)
	}
	if i := firstDifference(v, a.start); i >= 0 {
		tb.Fatalf("input was modified: [%d] is %v, was %v", i, v[i], a.start[i])
	}
}

func (a *Array[T]) read() ([]T, error) {
	whole, err := tensor.Values[T](a.whole)
	if err != nil {
		return nil, err
	}
	n := len(whole) - 2*guard
	for i := range guard {
		if whole[i] == whole[i] {
			return nil, fmt.Errorf("write %d elements before the array", guard-i)
		}
		if whole[guard+n+i] == whole[guard+n+i] {
			return nil, fmt.Errorf("write %d elements behind the array", i+1)
		}
	}
	return whole[guard : guard+n], nil
}

// firstDifference is the first index at which a and b differ in their bits, or -1.
func firstDifference[T Float](a, b []T) int {
	bits := func(v *T) uint64 {
		if unsafe.Sizeof(*v) == 4 {
			return uint64(*(*uint32)(unsafe.Pointer(v)))
		}
		return *(*uint64)(unsafe.Pointer(v))
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	for i := range a {
		if bits(&a[i]) != bits(&b[i]) {
			return i
		}
	}
	return -1
}

// BitEqual reports where a and b first differ in their bits.
func BitEqual[T Float](a, b []T) error {
	if i := firstDifference(a, b); i >= 0 {
		if len(a) != len(b) {
			return fmt.Errorf("%d elements against %d", len(a), len(b))
		}
		return fmt.Errorf("[%d] %v is not bit-equal to %v", i, a[i], b[i])
	}
	return nil
}

// Close reports whether got is as good as can be asked of its precision: its
// worst error against the float64 reference is at most twice the worst error
// of naive, a plain evaluation of the definition in the same precision, or
// floor units in the last place of the reference's largest magnitude, whichever
// is more. NaN never passes; an infinity passes only against the same infinity.
//
// For T = float64, whose naive evaluation may be the reference itself, floor
// alone decides.
func Close[T Float](got, naive []T, ref []float64, floor float64) error {
	if len(naive) != len(ref) {
		return fmt.Errorf("lengths: naive %d, reference %d", len(naive), len(ref))
	}
	var worst float64
	for i, r := range ref {
		if e := math.Abs(float64(naive[i]) - r); e > worst && !math.IsInf(e, 0) {
			worst = e
		}
	}
	return Within(got, ref, max(2*worst, floor*epsilon[T]()*scale(ref)))
}

// Within reports whether every element of got is within budget of ref. NaN
// never passes, in got, in ref or as the budget; an infinity passes only
// against the same infinity.
func Within[T Float](got []T, ref []float64, budget float64) error {
	if len(got) != len(ref) {
		return fmt.Errorf("%d elements, want %d", len(got), len(ref))
	}
	var faults []string
	bad := 0
	for i, r := range ref {
		g := float64(got[i])
		if math.IsInf(r, 0) && g == r {
			continue
		}
		if diff := math.Abs(g - r); !(diff <= budget) || math.IsInf(r, 0) {
			if bad++; bad <= 3 {
				faults = append(faults, fmt.Sprintf("[%d] got %v, want %v: |diff| %.3g > %.3g", i, g, r, diff, budget))
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d wrong: %s", bad, len(ref), strings.Join(faults, "; "))
	}
	return nil
}

func epsilon[T Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-23
	}
	return 0x1p-52
}

func scale(ref []float64) float64 {
	s := 0.0
	for _, r := range ref {
		if !math.IsInf(r, 0) {
			s = max(s, math.Abs(r))
		}
	}
	return s
}

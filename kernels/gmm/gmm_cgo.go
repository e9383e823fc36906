package gmm

// #cgo CFLAGS: -O3 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "gmm.h"
//
// #define ENTRIES(name) \
//   int fortet_gmm_##name##_f32_cpu(const void *, int64_t, int64_t, int); \
//   int fortet_gmm_##name##_f64_cpu(const void *, int64_t, int64_t, int)
// ENTRIES(scales);
// ENTRIES(evaluate);
// ENTRIES(likelihood);
// ENTRIES(match);
// ENTRIES(reduce);
import "C"

import (
	_ "embed"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed gmm.h
var header string

var contract = include.Contract(header)

// kernel is a kernel for float32 and one for float64, of argument struct A.
type kernel[A any] struct {
	f32, f64 gpu.Kernel
	spare    sync.Pool // argument structs, which escape from a launch: *A
}

func kernelOf[A any](name string, f32, f64 unsafe.Pointer) *kernel[A] {
	var a A
	one := func(suffix string, cpu unsafe.Pointer) gpu.Kernel {
		return gpu.Kernel{Name: "gmm_" + name + suffix, Op: "gmm", CPU: cpu, ArgsBytes: unsafe.Sizeof(a), Contract: contract}
	}
	return &kernel[A]{f32: one("_f32", f32), f64: one("_f64", f64), spare: sync.Pool{New: func() any { return new(A) }}}
}

func (k *kernel[A]) launch(dev gpu.Device, dtype tensor.DType, args A, tiles int) error {
	p := k.spare.Get().(*A)
	defer k.spare.Put(p)
	*p = args
	if dtype == tensor.Float32 {
		return dev.Launch(&k.f32, unsafe.Pointer(p), tiles)
	}
	return dev.Launch(&k.f64, unsafe.Pointer(p), tiles)
}

var (
	scales     = kernelOf[C.fortet_gmm_scales_args]("scales", C.fortet_gmm_scales_f32_cpu, C.fortet_gmm_scales_f64_cpu)
	evaluate   = kernelOf[C.fortet_gmm_evaluate_args]("evaluate", C.fortet_gmm_evaluate_f32_cpu, C.fortet_gmm_evaluate_f64_cpu)
	likelihood = kernelOf[C.fortet_gmm_likelihood_args]("likelihood", C.fortet_gmm_likelihood_f32_cpu, C.fortet_gmm_likelihood_f64_cpu)
	match      = kernelOf[C.fortet_gmm_match_args]("match", C.fortet_gmm_match_f32_cpu, C.fortet_gmm_match_f64_cpu)
	reduce     = kernelOf[C.fortet_gmm_reduce_args]("reduce", C.fortet_gmm_reduce_f32_cpu, C.fortet_gmm_reduce_f64_cpu)
)

func (m Mixture) c() C.fortet_mixture {
	return C.fortet_mixture{
		logits: m.Logits.Ptr(), means: m.Means.Ptr(), scales: m.Scales.Ptr(), axes: m.Axes.Ptr(),
		k: C.int64_t(m.Components()), d: C.int64_t(m.Dim()), epsilon: C.double(m.Epsilon),
	}
}

func launchScales(a ScalesArgs) error {
	n := a.Raw.Len()
	return scales.launch(a.Raw.Device(), a.Raw.DType(), C.fortet_gmm_scales_args{
		raw: a.Raw.Ptr(), out: a.Out.Ptr(), n: C.int64_t(n), floor: C.double(a.Floor),
	}, pieces(n, C.FORTET_GMM_ELEMENTS))
}

func launchEvaluate(a EvaluateArgs, n int) error {
	return evaluate.launch(a.Logits.Device(), a.Logits.DType(), C.fortet_gmm_evaluate_args{
		m: a.Mixture.c(), x: a.X.Ptr(), t: a.T.Ptr(), v: a.V.Ptr(),
		value: a.Value.Ptr(), drift: a.Drift.Ptr(), weights: a.Weights.Ptr(), jacobian: a.Jacobian.Ptr(),
		product: a.Product.Ptr(), trace: a.Trace.Ptr(), norm2: a.Norm2.Ptr(),
		n: C.int64_t(n), t0: C.double(a.T0),
	}, pieces(n, C.FORTET_GMM_ROWS))
}

func launchLikelihood(a LikelihoodArgs, rows [2]int, chunks int) error {
	args := C.fortet_gmm_likelihood_args{m: a.Mixture.c(), partial: a.Partial.Ptr()}
	width := partialWidth(a.Mixture)
	for i, term := range a.Terms {
		args.term[i] = C.fortet_gmm_term{
			x: term.X.Ptr(), n: C.int64_t(rows[i]), chunk: C.int64_t(chunkRows(width, rows[i])),
			t: C.double(term.T), weight: C.double(term.Weight),
		}
	}
	return likelihood.launch(a.Logits.Device(), a.Logits.DType(), args, chunks)
}

func launchMatch(a MatchArgs, n, chunks int) error {
	return match.launch(a.Logits.Device(), a.Logits.DType(), C.fortet_gmm_match_args{
		m: a.Mixture.c(), x: a.X.Ptr(), u: a.U.Ptr(), t: a.T.Ptr(),
		n: C.int64_t(n), chunk: C.int64_t(chunkRows(partialWidth(a.Mixture), n)),
		weight: C.double(a.Weight), partial: a.Partial.Ptr(),
	}, chunks)
}

func launchReduce(a ReduceArgs) error {
	const elements = 2048 // of a tile's largest sum
	k, d := a.Components(), a.Dim()
	each := d
	if !a.Axes.IsZero() {
		each = d * d
	}
	group := max(1, min(k, elements/each))
	return reduce.launch(a.Logits.Device(), a.Logits.DType(), C.fortet_gmm_reduce_args{
		partial: a.Partial.Ptr(), chunks: C.int64_t(a.Partial.Dim(0)), m: a.Mixture.c(), floor: C.double(a.Floor),
		loss: a.Loss.Ptr(), dlogits: a.DLogits.Ptr(), dmeans: a.DMeans.Ptr(), draw: a.DRaw.Ptr(), dturn: a.DTurn.Ptr(),
		group: C.int64_t(group),
	}, pieces(k, group))
}

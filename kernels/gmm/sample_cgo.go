package gmm

// #include "gmm.h"
// #include "gmm_sample.h"
//
// int fortet_gmm_sample_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_gmm_sample_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

var (
	sampleF32 = sampleKernel("gmm_sample_f32", C.fortet_gmm_sample_f32_cpu)
	sampleF64 = sampleKernel("gmm_sample_f64", C.fortet_gmm_sample_f64_cpu)
)

func sampleKernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "gmm", CPU: cpu, ArgsBytes: C.sizeof_fortet_gmm_sample_args, Contract: contract}
}

// The constant of gmm_sample.h.
var _ [0]struct{} = [sampleRows - C.FORTET_GMM_SAMPLE_ROWS]struct{}{}

// Argument structs escape to the device: they are used again.
var sampleArgs = sync.Pool{New: func() any { return new(C.fortet_gmm_sample_args) }}

func launchSample(a *SampleArgs) error {
	m, n := &a.Mixture, a.X0.Dim(0)
	k := sampleF32
	if a.X0.DType() == tensor.Float64 {
		k = sampleF64
	}
	p := sampleArgs.Get().(*C.fortet_gmm_sample_args)
	defer sampleArgs.Put(p)
	*p = C.fortet_gmm_sample_args{
		m: C.fortet_mixture{
			logits: m.Logits.Ptr(), means: m.Means.Ptr(), scales: m.Scales.Ptr(), axes: m.Axes.Ptr(),
			k: C.int64_t(m.Components()), d: C.int64_t(m.Dim()), epsilon: C.double(m.Epsilon),
		},
		x0: a.X0.Ptr(), t: a.T.Ptr(), x1: a.X1.Ptr(), xt: a.Xt.Ptr(), component: a.Component.Ptr(),
		n: C.int64_t(n), t0: C.double(a.T0),
		draw: C.fortet_draw{
			seed: C.uint64_t(a.Draw.Seed), index: C.uint64_t(a.Draw.Index),
			step: C.uint32_t(a.Draw.Step), purpose: C.uint32_t(a.Draw.Purpose),
		},
	}
	return a.X0.Device().Launch(k, unsafe.Pointer(p), (n+sampleRows-1)/sampleRows)
}

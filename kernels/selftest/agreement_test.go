package selftest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// repeats is FORTET_REPEATS, or few.
func repeats(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FORTET_REPEATS")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 2 {
		t.Fatalf("FORTET_REPEATS: got %q, want a number of at least 2", text)
	}
	return n
}

// Every operation leaves the same bits whenever it is repeated, into outputs that
// were poisoned anew: on a GPU, at sizes of several waves of blocks, a race
// between blocks shows as one run of many that differs.
func TestRepeats(t *testing.T) {
	times := repeats(t)
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		w, ran := watch(dev.Device), 0
		for _, tr := range trials() {
			t.Run(tr.name, func(t *testing.T) {
				for _, dtype := range tr.types() {
					_, _, err := act(tr, w, dtype, isGPU(dev) && !testing.Short(), times)
					require.NoError(t, err, "%v", dtype)
				}
				ran++
			})
		}
		if ran == len(trials()) && dev.Properties().Kind != gpu.CPU {
			complete(t, w)
		}
	})
}

// complete wants every entry point of the device library to have been launched,
// but those that answer that there is no such kernel.
func complete(t *testing.T, w *watched) {
	t.Helper()
	sources, err := filepath.Glob("../*/*.cu")
	require.NoError(t, err)
	missing := map[string]string{}
	for _, file := range sources {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, name := range entries(string(text)) {
			missing[name] = file
		}
	}
	require.GreaterOrEqual(t, len(missing), 60, "entry points were not found")
	require.Contains(t, missing, "softmin_bf16x3")
	require.Contains(t, missing, "duallse_triple_reduce_f64")
	require.NotContains(t, missing, "apply_tf32")
	for name := range w.launched {
		delete(missing, name)
	}
	require.Empty(t, missing, "entry points that no trial launches")
}

// Every operation computes on all devices what it does on the first CPU: the
// same bits where its documentation promises them. Elsewhere a result in float32
// is compared with what the CPU makes of the same inputs in float64. The error
// of the CPU's own float32 is what rounding does to this problem in one order of
// operations; another device has another order and may err four times as much,
// or eight units in the last place of the largest element. Float64 has the same
// budget in its own units, doubled since neither answer is exact.
func TestAgreement(t *testing.T) {
	devices := kerneltest.Devices(t)
	cpu := devices[0]
	require.Equal(t, gpu.CPU, cpu.Properties().Kind)
	require.Greater(t, len(devices), 1, "nothing to compare with")
	for _, tr := range trials() {
		t.Run(tr.name, func(t *testing.T) {
			compare(t, tr, cpu, devices[1:], false)
			compare(t, tr, cpu, devices[1:], true)
		})
	}
}

// compare compares the devices that this size is for.
func compare(t *testing.T, tr trial, cpu kerneltest.Target, devices []kerneltest.Target, large bool) {
	reference := map[tensor.DType][][]byte{}
	for _, dev := range devices {
		if (isGPU(dev) && !testing.Short()) != large {
			continue
		}
		for _, dtype := range tr.types() {
			outs, got, err := act(tr, watch(dev.Device), dtype, large, 1)
			require.NoError(t, err, "%v on %s", dtype, dev.Name)
			for k, o := range outs {
				for _, in := range o.references(dtype) {
					if reference[in] == nil {
						_, reference[in], err = act(tr, watch(cpu.Device), in, large, 1)
						require.NoError(t, err, "%v on %s", in, cpu.Name)
					}
				}
				require.NoError(t, agree(t, o, dtype, got[k], k, reference), "%v on %s: %s", dtype, dev.Name, o.name)
			}
		}
	}
}

// references are the element types in which the CPU's answer is needed.
func (o *output) references(dtype tensor.DType) []tensor.DType {
	if o.promise == near {
		return []tensor.DType{tensor.Float32, tensor.Float64}
	}
	return []tensor.DType{dtype}
}

func agree(t *testing.T, o *output, dtype tensor.DType, got []byte, k int, reference map[tensor.DType][][]byte) error {
	switch {
	case o.promise == repeated:
		return nil
	case o.promise == same:
		if !bytes.Equal(got, reference[dtype][k]) {
			return fmt.Errorf("not bit-equal to the CPU's, as is promised")
		}
		return nil
	}
	// An output of one type in both element types is so in the reference.
	width := func(in tensor.DType) tensor.DType {
		if o.fixed {
			return o.at.DType()
		}
		return in
	}
	exact := numbers(t, reference[tensor.Float64][k], width(tensor.Float64))
	values := numbers(t, got, o.at.DType())
	if o.budget > 0 {
		return budgeted(values, exact, o.budget)
	}
	const eps32, eps64 = 0x1p-23, 0x1p-52
	plain, scale := worst(numbers(t, reference[tensor.Float32][k], width(tensor.Float32)), exact)
	budget := max(4*plain, 8*eps32*scale)
	if dtype == tensor.Float64 {
		budget *= 2 * eps64 / eps32
	}
	return budgeted(values, exact, budget)
}

func budgeted(got, want []float64, budget float64) error {
	if diff, _ := worst(got, want); !(diff <= budget) {
		return fmt.Errorf("differs by %.3g, want at most %.3g", diff, budget)
	}
	return nil
}

var (
	exported = regexp.MustCompile(`FORTET_EXPORT int fortet_(\w+(?:##\w+)*)\(void \*[^)]*\)( \{ return FORTET_UNSUPPORTED; \})?`)
	expanded = regexp.MustCompile(`(?m)^(?:ENTRIES|PSI)\((\w+)`)
)

// entries lists the entry points of a source, those of its macros too.
func entries(source string) []string {
	var names []string
	for _, m := range exported.FindAllStringSubmatch(source, -1) {
		name := m[1]
		switch {
		case m[2] != "":
		case !strings.Contains(name, "##"):
			names = append(names, name)
		default: // op_##name##_##type, or op_psi_##type
			stem, _, _ := strings.Cut(name, "##")
			for _, use := range expanded.FindAllStringSubmatch(source, -1) {
				if kind := use[1] == "f32" || use[1] == "f64"; strings.Contains(name, "##name") == kind {
					continue
				}
				if strings.Contains(name, "##name") {
					names = append(names, stem+use[1]+"_f32", stem+use[1]+"_f64")
				} else {
					names = append(names, stem+use[1])
				}
			}
		}
	}
	return names
}

package multimarginal

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// BenchmarkSweep compares a sweep over a chain of five marginals with the softmins
// of its edges alone, both ways: sweep/softmin is what all else costs. The two
// take turns, so that what else the machine does falls on both.
func BenchmarkSweep(b *testing.B) {
	const n, d = 4096, 10
	for _, free := range []bool{false, true} {
		for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
			b.Run(fmt.Sprintf("free=%v/%v", free, dtype), func(b *testing.B) {
				p := Problem{Dim: d, Epsilon: 1}
				for k := range 5 {
					p.Nodes = append(p.Nodes, Node{X: normals(uint64(k), n, d, float64(k)/4), Free: free && k > 0 && k < 4})
					if k > 0 {
						p.Edges = append(p.Edges, Edge{I: k - 1, J: k})
					}
				}
				t, err := p.task(b.Context())
				require.NoError(b, err)
				w, err := t.open(device(b), dtype, geometry.Options{})
				require.NoError(b, err)
				defer w.close()
				var sweeps []*sweep
				for _, q := range t.parts() {
					sweeps = append(sweeps, newSweep(w, q, t.eps))
				}
				sweep := func() {
					for _, s := range sweeps {
						_, err := s.eval(make([]float64, s.size), make([]float64, s.size))
						require.NoError(b, err)
					}
				}
				out := make([]float64, n)
				require.NoError(b, w.give(0, out, 0, 1))
				softmins := func() {
					for e, edge := range t.edges {
						for _, to := range []int{edge.i, edge.j} {
							op, err := w.operator(e, to, true)
							require.NoError(b, err)
							from := edge.i + edge.j - to
							require.NoError(b, op.Softmin(w.found[to], w.given[from], w.logw[from], t.eps))
							require.NoError(b, tensor.GetFloat64s(w.found[to], out))
						}
					}
				}
				sweep()
				softmins()
				best := [2]time.Duration{1 << 62, 1 << 62}
				for b.Loop() {
					for k, do := range []func(){sweep, softmins} {
						start := time.Now()
						do()
						best[k] = min(best[k], time.Since(start))
					}
				}
				b.ReportMetric(best[0].Seconds()*1e3, "sweep-ms")
				b.ReportMetric(best[1].Seconds()*1e3, "softmins-ms")
				b.ReportMetric(float64(best[0])/float64(best[1]), "sweep/softmin")
			})
		}
	}
}

package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver/exact"
)

func TestQuickExact(t *testing.T) {
	rows, err := Run(t.Context(), Suite{"exact", exacts}, Options{Quick: true, NoPeers: true, Root: ".."})
	require.NoError(t, err)
	require.Len(t, rows, 3)
	for _, r := range rows {
		require.NoError(t, r.Validate())
		require.LessOrEqual(t, *r.Error, 1e-12)
	}
}

// A certificate of the right answer is near rounding, and every part that can be
// spoiled is seen.
func TestCertify(t *testing.T) {
	for _, weighted := range []bool{false, true} {
		p := newExactProblem(60, 3, weighted)
		solve := func() *exact.Result {
			res, err := exact.Solver{}.Solve(context.Background(), exact.Problem{Costs: exact.Points{X: p.x, Y: p.y, D: p.d}, A: p.a, B: p.b})
			require.NoError(t, err)
			return res
		}
		res := solve()
		c := p.certify(res)
		require.InEpsilon(t, res.Cost, c.cost, 1e-12)
		require.LessOrEqual(t, c.gap, 1e-12)
		require.LessOrEqual(t, c.excess, 1e-12)
		require.LessOrEqual(t, c.marginal, 1e-12)

		res.U[5] += 1e-6 * res.Cost
		require.Greater(t, p.certify(res).excess, 1e-9)
		res = solve()
		res.V[7] -= 1e-4 * res.Cost
		require.Greater(t, p.certify(res).gap, 1e-9)
		res = solve()
		res.Plan[3].Mass *= 1.001
		require.Greater(t, p.certify(res).marginal, 1e-9)
		res = solve()
		res.Plan[3].J, res.Plan[4].J = res.Plan[4].J, res.Plan[3].J
		c = p.certify(res)
		require.True(t, c.gap > 1e-9 || c.marginal > 1e-9)
		res = solve()
		res.U[2] = math.NaN()
		require.True(t, math.IsNaN(p.certify(res).gap))
	}
}

// A peer is judged by its cost. It is a script here.
func TestExactPeerRows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env := t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	for off, want := range map[float64]Status{0: OK, 1e-8: Wrong} {
		script := "#!/bin/sh\n" + fmt.Sprintf(`echo '{"version":"POT 0","seconds":[0.5],"cost":%.17g,"peak":1000,"note":""}'`, 2*(1+off)) + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script), 0o755))
		s := &Session{Options: Options{Log: &bytes.Buffer{}, Limit: time.Minute, Root: ".."}, Provenance: goodRow().Provenance, suite: "exact"}
		require.NoError(t, s.exactPeer(t.Context(), potEMD, newExactProblem(10, 2, true), 2))
		require.Len(t, s.Rows, 1)
		require.NoError(t, s.Rows[0].Validate())
		require.Equal(t, want, s.Rows[0].Status)
		require.Equal(t, "POT 0", s.Rows[0].Version)
	}
}

func TestExactTables(t *testing.T) {
	ours := goodRow()
	ours.Suite, ours.Name, ours.Residual = "exact", exactName, nil
	ours.Error, ours.Budget, ours.Seconds = pointer(1e-15), exactBudget, Sum([]float64{2})
	ours.Work, ours.Note, ours.Memory = newExactProblem(10, 2, false).work("", 2), "cost 3", &Memory{PeakBytes: 5e6, Budget: 1e9}
	theirs := ours
	theirs.Engine, theirs.Version, theirs.Seconds = potEMD, "POT 0", Sum([]float64{9})
	theirs.Settings += "; ot.emd2"
	var b bytes.Buffer
	exactTables(&b, []Row{ours, theirs})
	for _, want := range []string{"| 10 | 2 | uniform weights | fortet | 2.00 |", "| pot | 9.00 | 9.00 | 0 % | 1 | 4.50 | 5 |", "Versions: POT 0", "cost 3"} {
		require.Contains(t, b.String(), want)
	}
	b.Reset()
	exactTables(&b, nil)
	require.Empty(t, b.String())
}

package light_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor/npy"
)

// train makes a run with settings on top of the method's defaults.
func train(t *testing.T, dev gpu.Device, method run.Method, settings ...string) (*run.Folder, *run.Result) {
	t.Helper()
	var c run.Config
	for _, s := range append([]string{"device=cpu", "data.pool=4096", "train.batch=128", "light.components=8"}, settings...) {
		require.NoError(t, c.Set(s))
	}
	require.NoError(t, c.Resolve(method))
	require.NoError(t, light.Check(c))
	f, err := run.Create(filepath.Join(t.TempDir(), "run"), c, false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	r, err := light.Train(t.Context(), dev, f, run.Options{})
	require.NoError(t, err)
	require.NoError(t, r.Err())
	return f, r
}

func metric(t *testing.T, m []run.Metric, name string) float64 {
	t.Helper()
	for _, x := range m {
		if x.Name == name {
			return x.Value
		}
	}
	t.Fatalf("no metric %s in %v", name, m)
	return 0
}

// A model that is opened again is the bridge that was trained: its certificate
// is the same number.
func TestOpen(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	for _, settings := range [][]string{
		nil,
		{"train.ema=0.9"},
		{"light.covariance=full"},
	} {
		f, r := train(t, dev, run.LightSBB, append(settings, "data.source=normal", "data.target=moons", "train.steps=60", "train.lr=0.05")...)
		m, err := light.Open(t.Context(), dev, f)
		require.NoError(t, err)
		defer m.Close()
		require.Equal(t, 60, m.Step)
		again, err := m.Certify(t.Context())
		require.NoError(t, err)
		for _, name := range []string{"dual", "primal", "gap", "dead_components"} {
			require.Equal(t, metric(t, r.Metrics, name), metric(t, again, name), name)
		}
	}
}

// Shifting both data sets shifts the bridge and adds half the squared distance
// of the means; scaling them by c with ε by c² scales ½J by c².
func TestUnits(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	_, plain := train(t, dev, run.LightSBB, "data.source=normal", "data.target=normal?std=2", "light.epsilon=1", "train.steps=400", "dtype=f64")
	_, moved := train(t, dev, run.LightSBB, "data.source=normal?mean=3,0&std=10", "data.target=normal?mean=0,4&std=20", "light.epsilon=100", "train.steps=400", "dtype=f64")
	want := 100*metric(t, plain.Metrics, "dual") + 5.*5/2
	// Both runs draw other numbers; four standard errors of their difference.
	budget := 4 * math.Hypot(100*metric(t, plain.Metrics, "dual_error"), metric(t, moved.Metrics, "dual_error"))
	got := metric(t, moved.Metrics, "dual")
	require.InDelta(t, want, got, budget)
	require.Less(t, budget, 0.2*100*metric(t, plain.Metrics, "dual"), "a vacuous comparison")
}

// Pictures go through principal components and come back.
func TestDigits(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	f, _ := train(t, dev, run.LightSBB, "data.source=digits?class=3", "data.target=digits?class=8", "data.pca=12", "train.steps=150", "light.epsilon=0.3", "train.lr=0.05")
	m, err := light.Open(t.Context(), dev, f)
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, 64, m.DataDim())
	require.Equal(t, 12, m.Dim())
	starts, err := m.Starts(200, 1)
	require.NoError(t, err)
	ends, err := m.Draw(t.Context(), starts.X, 0, 1)
	require.NoError(t, err)
	require.Len(t, ends, 200*64)
	// The mean end is nearer to the mean eight than to the mean three.
	eights, err := m.Ends(174, 1)
	require.NoError(t, err)
	distance := func(x, y []float64) (sum float64) {
		for j := range 64 {
			mx, my := 0.0, 0.0
			for i := j; i < len(x); i += 64 {
				mx += x[i] / float64(len(x)/64)
			}
			for i := j; i < len(y); i += 64 {
				my += y[i] / float64(len(y)/64)
			}
			sum += (mx - my) * (mx - my)
		}
		return sum
	}
	require.Less(t, distance(ends, eights.X), 0.2*distance(ends, starts.X))

	paths, err := m.DrawPaths(t.Context(), starts.X[:64], []float64{0, 0.5, 1}, 1)
	require.NoError(t, err)
	require.Len(t, paths, 3*64)
	_, err = m.Sample(t.Context(), starts.X[:64], sbb.Draw{})
	require.ErrorIs(t, err, sbb.ErrInvalid, "64 numbers are no rows of 12")
	_, err = m.Encode(starts.X[:63])
	require.Error(t, err, "63 numbers are no rows of 64")
}

// Training takes the same way on every device: in float64, twelve steps apart
// by rounding alone.
func TestDevicesAgree(t *testing.T) {
	devices := kerneltest.Devices(t)
	// Few rows, because certificates of generators are estimated from many,
	// which takes the emulation minutes.
	const rows = 100
	var sets [2]string
	for i, uri := range []string{"normal", "moons"} {
		set, err := dataset.Open(uri)
		require.NoError(t, err)
		points, err := set.Sample(rows, 1)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "x.npy")
		require.NoError(t, npy.WriteFile(path, npy.New(points.X, rows, 2)))
		sets[i] = "npy:" + path
	}
	for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBB, run.LightSBBM} {
		for _, covariance := range []string{"diagonal", "full"} {
			var first *run.Result
			for _, dev := range devices {
				_, r := train(t, dev.Device, method, "dtype=f64", "data.source="+sets[0], "data.target="+sets[1], "train.batch=32",
					"train.steps=12", "light.components=3", "light.outer=1", "light.covariance="+covariance)
				if first == nil {
					first = r
					continue
				}
				for _, name := range []string{"loss", "dual", "primal"} {
					want := metric(t, first.Metrics, name)
					require.InDelta(t, want, metric(t, r.Metrics, name), 1e-9*(1+math.Abs(want)), "%v, %s covariance on %s: %s", method, covariance, dev.Name, name)
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		settings []string
		says     string
	}{
		{[]string{"data.source=normal?d=3", "data.target=moons"}, "dimension 2, want 3"},
		{[]string{"data.source=normal", "data.target=mons"}, "moons"},
		{[]string{"data.source=normal", "data.target=moons", "data.pca=3"}, "data.pca"},
		{[]string{"data.source=digits?class=1", "data.target=digits?class=2", "light.components=1000"}, "light.components"},
	} {
		var config run.Config
		for _, s := range c.settings {
			require.NoError(t, config.Set(s))
		}
		require.NoError(t, config.Resolve(run.LightSB))
		require.ErrorContains(t, light.Check(config), c.says)
	}
}

package main

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/tensor/npy"
)

func sum(v []float64) (s float64) {
	for _, x := range v {
		s += x
	}
	return s
}

func TestBarycenterOfImages(t *testing.T) {
	dir := t.TempDir()
	out, picture := filepath.Join(dir, "b.npy"), filepath.Join(dir, "b.png")
	v := object(t, 0, "barycenter", "--images", "digits?class=3&n=4", "--images", "digits?class=8&n=1", "--epsilon", "0.5", "--weights", "1,1,1,1,4", "--out", out, "--plot", picture)
	require.Equal(t, "converged", at(t, v, "status"))
	require.Equal(t, "grid", at(t, v, "problem", "support"))
	require.Len(t, at(t, v, "marginal_error"), 5)
	parts := at(t, v, "parts").([]any)
	require.Len(t, parts, 1)
	require.Equal(t, .5, at(t, parts[0], "epsilon"))
	require.Equal(t, .5, at(t, parts[0], "lambda").([]any)[4])
	near(t, float(t, parts[0], "primal")-float(t, parts[0], "dual"), float(t, v, "gap"), 1e-15, "gap")
	near(t, float(t, parts[0], "dual"), float(t, v, "objective"), 0, "objective")
	require.LessOrEqual(t, float(t, v, "residual"), 1e-6)

	// The brightness is the mean one.
	digits := func(uri string) []float64 {
		s, err := dataset.Open(uri)
		require.NoError(t, err)
		p, err := s.Load()
		require.NoError(t, err)
		return p.X
	}
	a, err := npy.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, []int{8, 8}, a.Shape)
	near(t, (sum(digits("digits?class=3&n=4"))+4*sum(digits("digits?class=8&n=1")))/8, sum(a.Float64s()), 1e-9, "brightness")
	drawn, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(drawn, []byte("\x89PNG")))

	// Between two images, from one to the other.
	object(t, 0, "barycenter", "--images", "digits?class=3&n=1", "--images", "digits?class=8&n=1", "--interpolate", "3", "--epsilon", "0.3", "--debiased", "--tol", "1e-8", "--out", out, "--plot", picture)
	a, err = npy.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, []int{3, 8, 8}, a.Shape)
	for i, uri := range []string{"digits?class=3&n=1", "digits?class=8&n=1"} {
		for k, want := range digits(uri) {
			near(t, want, a.Float64s()[2*i*64+k], 1e-3, "end of the interpolation")
		}
	}

	// The mean of a class is one measure.
	v = object(t, 0, "barycenter", "--mean", "--grid", "--images", "digits?class=3", "--images", "digits?class=8", "--epsilon", "0.1", "--epsilon-scale", "mean", "--dtype", "f32", "--tol", "1e-3")
	require.Len(t, at(t, v, "marginal_error"), 2)
	require.Equal(t, "f32", at(t, v, "problem", "dtype"))
}

func writePicture(t *testing.T, path string, m image.Image) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

// Each colour is a measure of its own.
func TestBarycenterOfColours(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"a.png", "b.png"} {
		m := image.NewRGBA(image.Rect(0, 0, 5, 4))
		for k := range 20 {
			m.Set(k%5, k/5, color.RGBA{10, 0, 20, 255})
		}
		m.Set(3*i, 1, color.RGBA{250, 200, 20, 255})
		writePicture(t, filepath.Join(dir, name), m)
	}
	out := filepath.Join(dir, "o.npy")
	v := object(t, 0, "barycenter", "--images", "images:"+dir, "--weights", "0,1", "--epsilon", "0.05", "--debiased", "--tol", "1e-8", "--out", out)
	require.Len(t, at(t, v, "parts"), 3)
	require.Nil(t, at(t, v, "parts").([]any)[0].(map[string]any)["marginal_error"].([]any)[0], "a measure of weight 0 has no plan")
	a, err := npy.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, []int{4, 5, 3}, a.Shape)
	for i, want := range [][3]float64{{10, 0, 20}, {250, 200, 20}} {
		pixel := a.Float64s()[3*(5+3*i):]
		for c := range 3 {
			near(t, want[c]/255, pixel[c], 1e-3, "colour")
		}
	}
}

func TestBarycenterOfClouds(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a := save(t, file("a.npy"), []float64{3, 0, 1, 77}, 4, 1)
	b := save(t, file("b.npy"), []float64{10, 16, 12}, 3, 1)
	w := save(t, file("w.npy"), []float64{2, 2, 2, 0}, 4)
	v := object(t, 0, "barycenter", "--measure", "npy:"+a, "--measure", "npy:"+b, "--measure-weights", "0="+w, "--support", "3", "--weights", "0.75,0.25",
		"--epsilon", "0.01", "--tol", "1e-6", "--out", file("o.npy"), "--plot", file("o.svg"))
	require.Equal(t, "converged", at(t, v, "status"))
	require.Equal(t, "free", at(t, v, "problem", "support"))
	require.LessOrEqual(t, float(t, v, "movement"), 1e-6)
	require.LessOrEqual(t, float(t, v, "residual"), 1e-5)
	o, err := npy.ReadFile(file("o.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{3, 1}, o.Shape)
	x := o.Float64s()
	slices.Sort(x)
	for i, want := range []float64{2.5, 3.75, 6.25} {
		near(t, want, x[i], 1e-4, "point")
	}
	require.FileExists(t, file("o.svg"))

	v = object(t, 0, "barycenter", "--measure", "moons?n=40", "--measure", "8gaussians?n=50", "--support", "20", "--epsilon", "0.1", "--epsilon-scale", "mean", "--interpolate", "2", "--debiased", "--out", file("i.npy"))
	require.Len(t, at(t, v, "parts"), 2)
	o, err = npy.ReadFile(file("i.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{2, 20, 2}, o.Shape)
}

func TestBarycenterEnds(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "o.npy")
	images := []string{"barycenter", "--images", "digits?class=3&n=3", "--epsilon", "0.1", "--out", out}
	v := object(t, 3, append(images, "--max-iter", "2")...)
	require.Equal(t, "max-iterations", at(t, v, "status"))
	require.FileExists(t, out)
	require.NoError(t, os.Remove(out))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{images, {"barycenter", "--measure", "moons?n=50", "--measure", "moons?n=50", "--epsilon", "1", "--out", out}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 130, execute(ctx, args, &stdout, &stderr), stderr.String())
		require.Empty(t, stdout.String())
		require.NoFileExists(t, out)
	}
}

func TestBarycenterBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	black := filepath.Join(t.TempDir(), "black")
	require.NoError(t, os.Mkdir(black, 0o700))
	writePicture(t, filepath.Join(black, "a.png"), image.NewGray(image.Rect(0, 0, 4, 4)))
	weights := save(t, file("w.npy"), []float64{1, -1}, 2)
	pair := save(t, file("pair.npy"), []float64{1, 2}, 2, 1)
	digits := func(more ...string) []string {
		return append([]string{"barycenter", "--images", "digits?n=3", "--epsilon", "1"}, more...)
	}
	clouds := func(more ...string) []string {
		return append([]string{"barycenter", "--measure", "moons?n=9", "--measure", "8gaussians?n=9", "--epsilon", "1"}, more...)
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"no measures":       {[]string{"barycenter", "--epsilon", "1"}, []string{"--measure", "--images"}},
		"both":              {digits("--measure", "moons"), []string{"--measure", "--images"}},
		"no epsilon":        {[]string{"barycenter", "--images", "digits?n=2"}, []string{"--epsilon"}},
		"epsilon":           {digits("--epsilon", "-1"), []string{"--epsilon", "-1"}},
		"epsilon scale":     {digits("--epsilon-scale", "median"), []string{"median", "mean"}},
		"cost":              {digits("--cost", "euclidean"), []string{"euclidean", "halfsqeuclidean"}},
		"tol":               {digits("--tol", "0"), []string{"--tol"}},
		"max-iter":          {digits("--max-iter", "0"), []string{"--max-iter"}},
		"weights negative":  {digits("--weights", "1,-1,1"), []string{"--weights", "-1"}},
		"weights zero":      {digits("--weights", "0,0,0"), []string{"--weights", "0"}},
		"weights short":     {digits("--weights", "1,1"), []string{"--weights", "2", "3"}},
		"weights word":      {digits("--weights", "a"), []string{"weights", "a"}},
		"interpolate":       {digits("--interpolate", "5"), []string{"--interpolate", "3 measures"}},
		"interpolate one":   {clouds("--interpolate", "1"), []string{"--interpolate", "1"}},
		"interpolate twice": {clouds("--interpolate", "3", "--weights", "1,1"), []string{"--interpolate", "--weights"}},
		"support":           {clouds("--support", "0"), []string{"--support", "0"}},
		"support of images": {digits("--support", "9"), []string{"--support", "--grid"}},
		"grid of clouds":    {clouds("--grid"), []string{"--grid", "--support"}},
		"mean of clouds":    {clouds("--mean"), []string{"--mean"}},
		"no images":         {[]string{"barycenter", "--images", "moons?n=4", "--epsilon", "1"}, []string{"moons", "images"}},
		"shapes":            {digits("--images", "images:"+black+"?channels=1"), []string{"black", "4x4", "8x8"}},
		"black":             {[]string{"barycenter", "--images", "images:" + black, "--epsilon", "1"}, []string{"channel 0", "measure 0", "sum to 0"}},
		"negative":          {[]string{"barycenter", "--images", "digits?n=2&scale=-1", "--epsilon", "1"}, []string{"measure 0", "-"}},
		"dimensions":        {clouds("--measure", "digits?n=3"), []string{"digits", "64", "2"}},
		"unknown set":       {clouds("--measure", "mons"), []string{"mons"}},
		"measure weights":   {clouds("--measure-weights", "2="+weights), []string{"--measure-weights", "0 to 1"}},
		"weights of images": {digits("--measure-weights", "0="+weights), []string{"--measure-weights", "pixels"}},
		"weights length":    {clouds("--measure-weights", "0="+weights), []string{"w.npy", "(2,)"}},
		"weights of points": {[]string{"barycenter", "--measure", "npy:" + pair, "--measure-weights", "0=" + weights, "--epsilon", "1"}, []string{"measure 0", "weight 1"}},
		"images as svg":     {digits("--plot", file("o.svg")), []string{"--plot", ".png"}},
		"argument":          {digits("x"), []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, append(c.args, "--out", file("o.npy"))...)
			require.Equal(t, 2, code, stderr)
			require.Empty(t, stdout)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			for _, s := range c.says {
				require.Contains(t, stderr, s)
			}
			require.NoFileExists(t, file("o.npy"))
		})
	}
}

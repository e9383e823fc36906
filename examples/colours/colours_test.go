package main

import (
	"context"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
)

func TestLabIsInvertible(t *testing.T) {
	var all []color.NRGBA
	for r := 0; r < 256; r += 15 {
		for g := 0; g < 256; g += 15 {
			for b := 0; b < 256; b += 15 {
				all = append(all, color.NRGBA{uint8(r), uint8(g), uint8(b), 255})
			}
		}
	}
	for _, s := range []space{rgb, lab} {
		require.Equal(t, all, s.colours(s.coordinates(all)))
	}
}

// Published values of the sRGB primaries under D65, to the digits published
// (Lindbloom's calculator); the matrices have seven digits.
func TestLabValues(t *testing.T) {
	for _, c := range []struct {
		p    color.NRGBA
		want [3]float64
	}{
		{color.NRGBA{255, 255, 255, 255}, [3]float64{1, 0, 0}},
		{color.NRGBA{255, 0, 0, 255}, [3]float64{.532408, .800925, .672032}},
		{color.NRGBA{0, 0, 255, 255}, [3]float64{.322970, .791875, -1.078602}},
	} {
		got := lab.coordinates([]color.NRGBA{c.p})
		for k, w := range c.want {
			if !(math.Abs(got[k]-w) <= 1e-4) {
				t.Errorf("%v, coordinate %d: got %v, want %v", c.p, k, got[k], w)
			}
		}
	}
}

// mean colour of a picture, of values in [0, 1].
func mean(im *image.NRGBA) (m [3]float64) {
	x := rgb.coordinates(opaque(im))
	for i, v := range x {
		m[i%3] += 3 * v / float64(len(x))
	}
	return m
}

// With every pixel in the plan, the mean of the moved pixels is that of the
// target, since the plan's second marginal is; the rest is rounding to bytes.
func TestTransferKeepsTheTargetsMean(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	from, to := sunset(24, 16), forest(20, 16)
	got, r, err := transfer(context.Background(), dev, from, to, options{space: rgb, pixels: 1000, epsilon: .02})
	require.NoError(t, err)
	require.NoError(t, r.Status.Err())
	require.Equal(t, from.Bounds(), got.Bounds())
	a, b, before := mean(got), mean(to), mean(from)
	distance := 0.
	for k := range a {
		distance += math.Abs(before[k] - b[k])
		if !(math.Abs(a[k]-b[k]) <= .5/255+1e-6) {
			t.Errorf("channel %d: mean %v, want %v", k, a[k], b[k])
		}
	}
	require.Greater(t, distance, .1, "the scenes are too alike for the test to say anything")
}

func TestTransparencyIsKept(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	from := sunset(8, 8)
	from.Pix[3], from.Pix[7] = 0, 100
	got, _, err := transfer(context.Background(), dev, from, forest(8, 8), options{pixels: 64, epsilon: .1})
	require.NoError(t, err)
	require.Equal(t, []uint8{0, 0, 0, 0}, got.Pix[:4])
	require.Equal(t, uint8(100), got.Pix[7])

	_, _, err = transfer(context.Background(), dev, image.NewNRGBA(image.Rect(0, 0, 3, 3)), from, options{pixels: 64, epsilon: .1})
	require.ErrorContains(t, err, "transparent")
}

func TestSampleIsSeeded(t *testing.T) {
	im := forest(40, 30)
	draw := func(seed uint64) []color.NRGBA { return sample(im, 50, rand.New(rand.NewPCG(seed, 0))) }
	require.Equal(t, draw(1), draw(1))
	require.NotEqual(t, draw(1), draw(2))
	require.Len(t, draw(1), 50)
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	out, both := filepath.Join(dir, "c.png"), filepath.Join(dir, "both.png")
	a := filepath.Join(dir, "a.png")
	require.NoError(t, write("a", a, sunset(30, 20)))
	require.NoError(t, run(context.Background(), []string{"-device", "cpu", "-pixels", "200", "-source", a, "-target", a, "-out", out, "-compare", both}, io.Discard))
	f, err := os.Open(both)
	require.NoError(t, err)
	defer f.Close()
	im, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, image.Pt(3*30+2*8, 20), im.Bounds().Size())

	junk := filepath.Join(dir, "junk.png")
	require.NoError(t, os.WriteFile(junk, []byte("no picture"), 0o666))
	for _, c := range []struct {
		want string
		args []string
	}{
		{"-source: open", []string{"-source", filepath.Join(dir, "none.png")}},
		{"want a .png or .jpg picture", []string{"-target", junk}},
		{"-out: got", []string{"-out", "c.jpg"}},
		{"-pixels: got 0", []string{"-pixels", "0"}},
		{"epsilon", []string{"-epsilon", "-1"}},
		{"want rgb or lab", []string{"-space", "hsv"}},
		{"unexpected argument", []string{"a.png"}},
		{"-out: open", []string{"-pixels", "9", "-source", a, "-target", a, "-out", filepath.Join(dir, "no", "c.png")}},
	} {
		require.ErrorContains(t, run(context.Background(), append([]string{"-device", "cpu"}, c.args...), io.Discard), c.want)
	}
	none, err := filepath.Glob(filepath.Join(dir, "no", "*"))
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	out := filepath.Join(t.TempDir(), "c.png")
	require.ErrorIs(t, run(ctx, []string{"-device", "cpu", "-out", out}, io.Discard), context.Canceled)
	require.NoFileExists(t, out)
}

package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func normals(n int, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 0))
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

// figures holds one of each kind, of a size that is quick to draw.
func figures() map[string]Figure {
	two := []Cloud{{"source", 2, normals(80, 1)}, {"target", 2, normals(60, 2)}}
	figs := map[string]Figure{
		"scatter":       Scatter{Title: "Clouds <a & b>", Clouds: two, From: normals(20, 3), To: normals(20, 4)},
		"scatter arrow": Scatter{Clouds: two[:1], From: normals(2, 3), To: normals(2, 4), Arrows: true},
		"scatter empty": Scatter{Clouds: []Cloud{{"none", 2, nil}}},
		"paths":         Paths{Title: "Paths", N: 5, T: 7, D: 2, X: normals(70, 5), Source: &two[0], Target: &two[1]},
		"curves":        Curves{Title: "Curves", XLabel: "x", YLabel: "y", Series: []Series{{"one", nil, normals(50, 6)}, {"two", normals(9, 7), normals(9, 8)}}, Levels: []Level{{"floor", -3}}},
		"curves log":    Curves{LogX: true, LogY: true, Series: []Series{{"", []float64{1, 10, 1e4}, []float64{1, 1e-3, 1e-9}}}},
		"density":       Density{Clouds: two, Column: 1},
		"density range": Density{Clouds: two, Low: -1, High: 1, Bins: 7},
		"bars":          Bars{Names: []string{"a", "b"}, Series: []Series{{Label: "one", Y: []float64{1, -2}}, {Label: "two", Y: []float64{0, 3}}}},
		"bars many":     Bars{Series: []Series{{Y: make([]float64, 300)}}},
		"grid":          Grid{Title: "Grid", H: 3, W: 2, C: 3, Rows: []Row{{"row", normals(36, 1)}, {"", nil}}, Columns: []string{"a", "a long label"}},
		"strip":         Strip("Strip", normals(2*3*4, 1), 2, []float64{0, .5, 1}, 2, 2, 1),
	}
	for _, d := range []int{1, 3, 17} {
		c := Cloud{"cloud", d, normals(30*d, 9)}
		figs[fmt.Sprintf("scatter d=%d", d)] = Scatter{Clouds: []Cloud{c, c}, From: normals(d, 1), To: normals(d, 2)}
		figs[fmt.Sprintf("paths d=%d", d)] = Paths{N: 3, T: 4, D: d, X: normals(12*d, 3), Times: []float64{0, 1, 3, 7}, Source: &c, Target: &c}
	}
	return figs
}

// degenerate holds figures of one point and of equal points: zero, huge, tiny.
func degenerate() map[string]Figure {
	figs := map[string]Figure{}
	for name, v := range map[string]float64{"0": 0, "1": 1, "huge": largest, "tiny": 1e-300, "negative": -1e17} {
		for _, n := range []int{1, 3} {
			for _, d := range []int{1, 2, 5} {
				x := make([]float64, n*d)
				for i := range x {
					x[i] = v
				}
				name := fmt.Sprintf("%s, n=%d, d=%d", name, n, d)
				figs["scatter "+name] = Scatter{Clouds: []Cloud{{"", d, x}}, From: x, To: x, Arrows: true}
				figs["paths "+name] = Paths{N: 1, T: 2, D: d, X: append(x[:d:d], x[:d]...)}
				figs["density "+name] = Density{Clouds: []Cloud{{"", d, x}}}
			}
		}
		figs["curves "+name] = Curves{Series: []Series{{"", nil, []float64{v}}}}
		figs["bars "+name] = Bars{Series: []Series{{Y: []float64{v, v}}}}
		if v > 0 && v >= 1/largest {
			figs["curves log "+name] = Curves{LogX: true, LogY: true, Series: []Series{{"", []float64{v, v}, []float64{v, v}}}}
		}
	}
	figs["curves wide"] = Curves{LogY: true, Series: []Series{{"", []float64{-largest, largest}, []float64{1 / largest, largest}}}}
	return figs
}

// TestFigures: every figure decodes, is what it was the first time, has ink on
// it, and leaves its input alone.
func TestFigures(t *testing.T) {
	for name, fig := range figures() {
		before := fmt.Sprintf("%v", fig)
		var first, second bytes.Buffer
		require.NoError(t, Encode(&first, fig, PNG), name)
		require.NoError(t, Encode(&second, fig, PNG), name)
		require.True(t, bytes.Equal(first.Bytes(), second.Bytes()), "%s: two drawings differ", name)
		m, err := png.Decode(&first)
		require.NoError(t, err, name)
		require.Positive(t, inked(m), name)

		if _, ok := fig.(Grid); ok {
			require.ErrorIs(t, Encode(io.Discard, fig, SVG), ErrInvalid)
			continue
		}
		require.Equal(t, checkSVG(t, name, fig), checkSVG(t, name, fig), name)
		require.Equal(t, before, fmt.Sprintf("%v", fig), name)
	}
}

// TestDegenerate: ranges without width are drawn, and with finite coordinates.
func TestDegenerate(t *testing.T) {
	for name, fig := range degenerate() {
		checkSVG(t, name, fig)
	}
	for _, name := range []string{"scatter huge, n=1, d=2", "paths 0, n=1, d=1", "curves tiny", "bars 0", "density negative, n=3, d=1"} {
		require.NoError(t, Encode(io.Discard, degenerate()[name], PNG), name)
	}
}

// checkSVG returns a figure as SVG that is well-formed and has no NaN in it.
func checkSVG(t *testing.T, name string, fig Figure) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Encode(&b, fig, SVG), name)
	content := b.String()
	require.NotContains(t, content, "NaN", name)
	require.NotContains(t, content, "Inf", name)
	for d := xml.NewDecoder(&b); ; {
		_, err := d.Token()
		if err == io.EOF {
			return content
		}
		require.NoError(t, err, name)
	}
}

// inked counts pixels that are not white.
func inked(m image.Image) int {
	canvas := image.NewRGBA(m.Bounds())
	draw.Draw(canvas, canvas.Rect, m, m.Bounds().Min, draw.Src)
	n := 0
	for k := 0; k < len(canvas.Pix); k += 4 {
		if canvas.Pix[k]&canvas.Pix[k+1]&canvas.Pix[k+2] != 0xff {
			n++
		}
	}
	return n
}

func TestInvalid(t *testing.T) {
	good := []float64{1, 2}
	cloud := Cloud{"", 2, good}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 2 * largest} {
		x := []float64{1, bad}
		c := Cloud{"", 2, x}
		for _, fig := range []Figure{
			Scatter{Clouds: []Cloud{c}},
			Scatter{Clouds: []Cloud{cloud}, From: x, To: good},
			Scatter{Clouds: []Cloud{cloud}, From: good, To: x},
			Paths{N: 1, T: 2, D: 1, X: x},
			Paths{N: 1, T: 2, D: 1, X: good, Times: x},
			Paths{N: 1, T: 2, D: 2, X: []float64{1, 2, 3, 4}, Target: &c},
			Curves{Series: []Series{{"", nil, x}}},
			Curves{Series: []Series{{"", x, good}}},
			Curves{Series: []Series{{"", nil, good}}, Levels: []Level{{"", bad}}},
			Density{Clouds: []Cloud{c}},
			Density{Clouds: []Cloud{cloud}, Low: 0, High: bad},
			Bars{Series: []Series{{Y: x}}},
			Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", x}}},
			Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", good}}, Low: -1, High: bad},
		} {
			require.ErrorIs(t, Encode(io.Discard, fig, PNG), ErrInvalid, "%+v", fig)
		}
	}
	for i, fig := range []Figure{
		Scatter{},
		Scatter{Clouds: []Cloud{{"", 0, nil}}},
		Scatter{Clouds: []Cloud{{"", 2, []float64{1, 2, 3}}}},
		Scatter{Clouds: []Cloud{cloud, {"", 1, good}}},
		Scatter{Clouds: []Cloud{cloud}, From: good},
		Scatter{Clouds: []Cloud{cloud}, From: []float64{1}, To: []float64{1}},
		Paths{},
		Paths{N: 1, T: 1, D: 1, X: []float64{1}},
		Paths{N: 2, T: 2, D: 1, X: good},
		Paths{N: math.MaxInt, T: math.MaxInt, D: 2, X: good},
		Paths{N: 1, T: 2, D: 1, X: good, Times: []float64{0}},
		Paths{N: 1, T: 2, D: 1, X: good, Times: []float64{1, 1}},
		Paths{N: 1, T: 2, D: 1, X: good, Source: &cloud},
		Curves{},
		Curves{Series: []Series{{"", good, nil}}},
		Curves{LogY: true, Series: []Series{{"", nil, []float64{1, 0}}}},
		Curves{LogX: true, Series: []Series{{"", nil, good}}},
		Curves{LogY: true, Series: []Series{{"", nil, good}}, Levels: []Level{{"", -1}}},
		Density{},
		Density{Clouds: []Cloud{cloud}, Column: 2},
		Density{Clouds: []Cloud{cloud}, Column: -1},
		Density{Clouds: []Cloud{cloud}, Bins: -1},
		Density{Clouds: []Cloud{cloud}, Low: 2, High: 1},
		Bars{},
		Bars{Series: []Series{{}}},
		Bars{Series: []Series{{Y: good}, {Y: good[:1]}}},
		Bars{Series: []Series{{Y: good}}, Names: []string{"a"}},
		Grid{},
		Grid{H: 1, W: 1, C: 2, Rows: []Row{{"", good}}},
		Grid{H: 1, W: 1, C: 1},
		Grid{H: 2, W: 2, C: 1, Rows: []Row{{"", good}}},
		Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", good}}, Columns: []string{"a"}},
		Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", good}}, Zoom: -1},
		Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", good}}, Low: 3, High: 2},
		Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", make([]float64, 1000)}}, Zoom: 1024},
		Strip("", nil, 0, nil, 1, 1, 1),
		Strip("", good, 1, []float64{0}, 1, 1, 1),
	} {
		err := Encode(io.Discard, fig, PNG)
		require.ErrorIs(t, err, ErrInvalid, "%d: %+v", i, fig)
		require.NotContains(t, err.Error(), "\n")
	}
	require.ErrorIs(t, Encode(io.Discard, Scatter{Clouds: []Cloud{cloud}}, Format(7)), ErrInvalid)
}

// TestGridPixels reads the tiles back: every value is a square of its level.
func TestGridPixels(t *testing.T) {
	g := Grid{H: 2, W: 3, C: 3, Low: -1, High: 1, Zoom: 5}
	x := make([]float64, 2*g.H*g.W*g.C) // two images, one of them out of range
	for i := range x[:18] {
		x[i] = -1 + 2*float64(i)/17
		x[18+i] = []float64{-5, 5}[i%2]
	}
	g.Rows = []Row{{"", x}}
	var b bytes.Buffer
	require.NoError(t, Encode(&b, g, PNG))
	m, err := png.Decode(&b)
	require.NoError(t, err)
	const margin, gap = 16, 4
	require.Equal(t, image.Pt(2*margin+gap+2*3*5, 2*margin+2*5), m.Bounds().Size())
	for k := range 2 {
		for h := range g.H {
			for w := range g.W {
				var want [3]uint8
				for c := range 3 {
					v := min(max(x[((k*2+h)*3+w)*3+c], -1), 1)
					want[c] = uint8(math.Round((v + 1) / 2 * 255))
				}
				for _, at := range []image.Point{{0, 0}, {4, 4}} {
					left := margin + k*(15+gap) + 5*w + at.X
					got := color.NRGBAModel.Convert(m.At(left, margin+5*h+at.Y))
					require.Equal(t, color.NRGBA{want[0], want[1], want[2], 255}, got)
				}
			}
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	fig := Curves{Series: []Series{{"", nil, []float64{1, 2}}}}
	for name, start := range map[string]string{"a.png": "\x89PNG", "b.PNG": "\x89PNG", "c.svg": "<?xml"} {
		require.NoError(t, Write(filepath.Join(dir, name), fig))
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(content), start))
	}
	require.ErrorIs(t, Write(filepath.Join(dir, "d.pdf"), fig), ErrInvalid)
	require.ErrorIs(t, Write(filepath.Join(dir, "e.png"), Curves{}), ErrInvalid)
	require.ErrorIs(t, Write(filepath.Join(dir, "f.svg"), Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", []float64{1}}}}), ErrInvalid)
	require.Error(t, Write(filepath.Join(dir, "none", "g.png"), fig))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 3)
	// A writer that fails is an error.
	for name, fig := range map[string]Figure{"curves": fig, "grid": Grid{H: 1, W: 1, C: 1, Rows: []Row{{"", []float64{1}}}}} {
		require.Error(t, Encode(full{}, fig, PNG), name)
	}
	require.Error(t, Encode(full{}, fig, SVG))
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

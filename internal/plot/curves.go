package plot

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is one curve, or one set of bars.
type Series struct {
	Label string
	X     []float64 // nil: 0, 1, 2, …
	Y     []float64
}

// Level is a dashed line at a height: a tolerance, a sampling floor.
type Level struct {
	Label string
	Y     float64
}

// Curves shows series over a common axis: losses, residuals, metrics.
type Curves struct {
	Title          string
	XLabel, YLabel string
	LogX, LogY     bool
	Series         []Series
	Levels         []Level
}

func (c Curves) encode(w io.Writer, format Format) error {
	if len(c.Series) == 0 {
		return invalid("curves: no series, want at least one")
	}
	f := &frame{title: c.Title, width: 6.4 * vg.Inch, height: 4.2 * vg.Inch}
	f.x, f.y = newAxis(c.XLabel), newAxis(c.YLabel)
	f.x.log, f.y.log = c.LogX, c.LogY
	for i, l := range c.Levels {
		if err := checkAxis(fmt.Sprintf("level %d", i), []float64{l.Y}, c.LogY); err != nil {
			return err
		}
		f.y.span(l.Y)
	}
	for i, s := range c.Series {
		x := s.X
		if x == nil {
			for k := range s.Y {
				x = append(x, float64(k))
			}
		}
		if len(x) != len(s.Y) {
			return invalid("series %d: %d x and %d y, want as many", i, len(x), len(s.Y))
		}
		if err := checkAxis(fmt.Sprintf("series %d, x", i), x, c.LogX); err != nil {
			return err
		}
		if err := checkAxis(fmt.Sprintf("series %d, y", i), s.Y, c.LogY); err != nil {
			return err
		}
		points := make([]point, len(x))
		for k := range x {
			points[k] = point{x[k], s.Y[k]}
		}
		f.cover(points...)
		color := seriesColor(i)
		f.layers = append(f.layers, strokes{[][]point{points}, draw.LineStyle{Color: color, Width: 1.3, Dashes: seriesDashes(i)}, false})
		if len(points) <= 30 {
			f.layers = append(f.layers, dots{points, 2, color})
		}
		if s.Label != "" {
			f.legend = append(f.legend, entry{s.Label, line, color, seriesDashes(i)})
		}
	}
	f.x.pad(0.02)
	f.y.pad(0.05)
	for i, l := range c.Levels {
		dashes := [][]vg.Length{{4, 2.5}, {1.5, 2}, {6, 2, 1.5, 2}}[i%3]
		ends := []point{{f.x.low, l.Y}, {f.x.high, l.Y}}
		f.layers = append(f.layers, strokes{[][]point{ends}, draw.LineStyle{Color: grey, Width: 0.9, Dashes: dashes}, false})
		if l.Label != "" {
			f.legend = append(f.legend, entry{l.Label, line, grey, dashes})
		}
	}
	return f.encode(w, format)
}

// checkAxis refuses what has no place on a linear or logarithmic axis.
func checkAxis(what string, x []float64, log bool) error {
	if err := checkValues(what, x, 1); err != nil {
		return err
	}
	if i := slices.IndexFunc(x, func(v float64) bool { return !(v >= 1/largest) }); log && i >= 0 {
		return invalid("%s: element %d: %g, want at least %g on a logarithmic axis", what, i, x[i], 1/largest)
	}
	return nil
}

// Density compares histograms of one coordinate of several clouds, normalised
// so that a cloud inside the range has area 1.
type Density struct {
	Title     string
	XLabel    string // "" : chosen
	Clouds    []Cloud
	Column    int
	Bins      int     // 0: the square root of the largest n, 10 to 100
	Low, High float64 // range; both 0: that of the data
}

func (h Density) encode(w io.Writer, format Format) error {
	if len(h.Clouds) == 0 {
		return invalid("density: no cloud, want at least one")
	}
	if h.Bins < 0 || h.Bins > 10_000 {
		return invalid("density: %d bins, want 1 to 10000, or 0", h.Bins)
	}
	if err := checkValues("density: range", []float64{h.Low, h.High}, 2); err != nil {
		return err
	}
	f := &frame{title: h.Title, width: 6.4 * vg.Inch, height: 4 * vg.Inch}
	f.x, f.y = newAxis(h.XLabel), newAxis("density")
	columns, most := make([][]float64, len(h.Clouds)), 0
	for i, c := range h.Clouds {
		if err := checkRows(fmt.Sprintf("cloud %d", i), c.X, c.D); err != nil {
			return err
		}
		if h.Column < 0 || h.Column >= c.D {
			return invalid("cloud %d: column %d, want 0 to %d", i, h.Column, c.D-1)
		}
		for k := h.Column; k < len(c.X); k += c.D {
			columns[i] = append(columns[i], c.X[k])
		}
		f.x.span(columns[i]...)
		most = max(most, len(columns[i]))
		if h.XLabel == "" && c.D > 1 {
			f.x.label = "coordinate " + strconv.Itoa(h.Column)
		} else if h.XLabel == "" {
			f.x.label = "x"
		}
	}
	if h.Low != 0 || h.High != 0 {
		if !(h.Low < h.High) {
			return invalid("density: range %g to %g, want ascending", h.Low, h.High)
		}
		f.x.low, f.x.high = h.Low, h.High
	} else {
		f.x.pad(0)
	}
	bins := h.Bins
	if bins == 0 {
		bins = min(max(int(math.Sqrt(float64(most))), 10), 100)
	}
	f.y.span(0)
	for i, column := range columns {
		outline := histogram(column, f.x.low, f.x.high, bins)
		f.cover(outline...)
		color := seriesColor(i)
		f.layers = append(f.layers,
			area{outline, translucent(color, 0.18)},
			strokes{[][]point{outline}, draw.LineStyle{Color: color, Width: 1.2, Dashes: seriesDashes(i)}, false})
		if h.Clouds[i].Label != "" {
			f.legend = append(f.legend, entry{h.Clouds[i].Label, line, color, seriesDashes(i)})
		}
	}
	f.x.pad(0.02)
	f.y.pad(0)
	f.y.high += 0.05 * (f.y.high - f.y.low)
	return f.encode(w, format)
}

// histogram returns the outline of the bars, from and to the axis.
func histogram(x []float64, low, high float64, bins int) []point {
	count := make([]float64, bins)
	width := (high - low) / float64(bins)
	for _, v := range x {
		if v >= low && v <= high {
			count[min(int((v-low)/width), bins-1)]++
		}
	}
	outline := []point{{low, 0}}
	for k, n := range count {
		height := n / (float64(max(len(x), 1)) * width)
		outline = append(outline, point{low + float64(k)*width, height}, point{low + float64(k+1)*width, height})
	}
	return append(outline, point{high, 0})
}

// Bars shows groups of bars: masses of modes, marginals, metrics.
type Bars struct {
	Title          string
	XLabel, YLabel string
	Names          []string // of the groups; nil: 0, 1, 2, …
	Series         []Series // Y has one value a group; X is not used
}

func (b Bars) encode(w io.Writer, format Format) error {
	if len(b.Series) == 0 || len(b.Series[0].Y) == 0 {
		return invalid("bars: no series or an empty one, want at least one bar")
	}
	groups := len(b.Series[0].Y)
	names := b.Names
	if names == nil {
		for k := range groups {
			names = append(names, strconv.Itoa(k))
		}
	}
	if len(names) != groups {
		return invalid("bars: %d names, want %d", len(names), groups)
	}
	f := &frame{title: b.Title, width: min(max(6.4, 0.64*vg.Length(groups)), 12.8) * vg.Inch, height: 4 * vg.Inch}
	f.x, f.y = newAxis(b.XLabel), newAxis(b.YLabel)
	f.x.ticks = nameTicks(names)
	f.x.span(-0.5, float64(groups)-0.5)
	f.y.span(0)
	const filled = 0.8 // of the width of a group
	width := filled / float64(len(b.Series))
	for i, s := range b.Series {
		if len(s.Y) != groups {
			return invalid("series %d: %d bars, want %d as the first", i, len(s.Y), groups)
		}
		if err := checkValues(fmt.Sprintf("series %d", i), s.Y, 1); err != nil {
			return err
		}
		for k, v := range s.Y {
			left := float64(k) - filled/2 + float64(i)*width
			right := left + 0.92*width
			f.layers = append(f.layers, area{[]point{{left, 0}, {left, v}, {right, v}, {right, 0}}, seriesColor(i)})
			f.y.span(v)
		}
		if s.Label != "" {
			f.legend = append(f.legend, entry{s.Label, box, seriesColor(i), nil})
		}
	}
	touches := f.y.low == 0
	f.y.pad(0.05)
	if touches && f.y.high > 0 {
		f.y.low = 0
	}
	return f.encode(w, format)
}

// short writes a number for people.
func short(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

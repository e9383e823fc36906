package plot

import (
	"io"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Paths shows the paths of a bridge, coloured by time: in the plane, or, of
// more than two dimensions, in that of the first two principal components. In
// one dimension time is the horizontal axis. Of more than 100,000 steps in all,
// every k-th path is drawn.
type Paths struct {
	Title          string
	XLabel, YLabel string // "" : chosen
	N, T, D        int
	X              []float64 // (N, T, D), row-major
	Times          []float64 // T ascending times; nil: 0 to 1 in equal steps
	Source, Target *Cloud    // shown under the paths, in the colours of the first and last time; or nil
}

// maxSegments bounds the work.
const maxSegments = 100_000

func (p Paths) check() error {
	if p.N < 1 || p.T < 2 || p.D < 1 {
		return invalid("paths: %d paths of %d times in dimension %d, want at least 1, 2, 1", p.N, p.T, p.D)
	}
	if p.N > len(p.X) || p.T > len(p.X) || p.D > len(p.X) || len(p.X) != p.N*p.T*p.D {
		return invalid("paths: length %d, want %d·%d·%d", len(p.X), p.N, p.T, p.D)
	}
	if err := checkValues("paths", p.X, p.D); err != nil {
		return err
	}
	if p.Times != nil && len(p.Times) != p.T {
		return invalid("times: %d, want %d", len(p.Times), p.T)
	}
	if err := checkValues("times", p.Times, 1); err != nil {
		return err
	}
	for i := 1; i < len(p.Times); i++ {
		if !(p.Times[i] > p.Times[i-1]) {
			return invalid("times: %g after %g, want ascending", p.Times[i], p.Times[i-1])
		}
	}
	for what, c := range map[string]*Cloud{"source": p.Source, "target": p.Target} {
		if c != nil {
			if err := c.check(what, p.D); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p Paths) encode(w io.Writer, format Format) error {
	if err := p.check(); err != nil {
		return err
	}
	times := p.Times
	if times == nil {
		times = make([]float64, p.T)
		for k := range times {
			times[k] = float64(k) / float64(p.T-1)
		}
	}
	arrays := [][]float64{p.X}
	for _, c := range []*Cloud{p.Source, p.Target} {
		if c != nil {
			arrays = append(arrays, c.X)
		}
	}
	pl := newPlane(p.D, arrays...)
	f := planeFrame(p.Title, pl, p.XLabel, p.YLabel)
	if p.D == 1 {
		f.width, f.height = 6.4*vg.Inch, 4*vg.Inch
		f.x.label, f.y.label = "time", "x"
		if p.XLabel != "" {
			f.x.label = p.XLabel
		}
		if p.YLabel != "" {
			f.y.label = p.YLabel
		}
	}
	f.addEnds(pl, p, times)

	every := max(1, p.N*(p.T-1)/maxSegments)
	first, last := times[0], times[p.T-1]
	var at [][]point
	for i := 0; i < p.N; i += every {
		path := pl.all(p.X[i*p.T*p.D : (i+1)*p.T*p.D])
		if p.D == 1 {
			for k := range path {
				path[k] = point{times[k], path[k].x}
			}
		}
		f.cover(path...)
		at = append(at, path)
	}
	// One layer a time step, so that late parts lie over early ones.
	alpha := min(max(1.1-0.25*math.Log10(float64(len(at))), 0.3), 0.9)
	for k := range p.T - 1 {
		segments := make([][]point, len(at))
		for i, path := range at {
			segments[i] = path[k : k+2]
		}
		t := ((times[k]+times[k+1])/2 - first) / (last - first)
		f.layers = append(f.layers, strokes{segments, draw.LineStyle{Color: translucent(timeColor(t), alpha), Width: 0.6}, false})
	}
	f.legend = append(f.legend, entry{"time " + short(first) + " to " + short(last), ramp, ink, nil})
	return f.finish(w, format)
}

// addEnds draws the clouds at both ends of time.
func (f *frame) addEnds(pl plane, p Paths, times []float64) {
	for i, c := range []*Cloud{p.Source, p.Target} {
		if c == nil {
			continue
		}
		e := entry{c.Label, dot, timeColor(float64(i)), nil}
		if p.D > 1 {
			f.addCloud(pl, *c, i, e)
			continue
		}
		// A little outside of time, as the marginal that the paths end in.
		span := times[p.T-1] - times[0]
		at := times[0] - 0.03*span
		if i == 1 {
			at = times[p.T-1] + 0.03*span
		}
		points := pl.all(c.X)
		for k, q := range points {
			points[k] = point{at, q.x}
		}
		f.cover(points...)
		f.layers = append(f.layers, dots{points, 1.5, translucent(e.color, 0.4)})
		if e.label != "" {
			f.legend = append(f.legend, e)
		}
	}
}

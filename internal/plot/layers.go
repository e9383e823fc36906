package plot

import (
	"image/color"
	"math"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Layers are what is drawn inside the axes, in data coordinates.

// point is a place in the plane.
type point struct{ x, y float64 }

// place returns the map from data to canvas.
func place(c draw.Canvas, p *gonum.Plot) func(point) vg.Point {
	x, y := p.Transforms(&c)
	return func(q point) vg.Point { return vg.Point{X: x(q.x), Y: y(q.y)} }
}

// dots are filled circles.
type dots struct {
	at     []point
	radius vg.Length
	color  color.NRGBA
}

func (l dots) Plot(c draw.Canvas, p *gonum.Plot) {
	to := place(c, p)
	c.SetColor(l.color)
	for _, q := range l.at {
		c.Fill(circle(to(q), l.radius))
	}
}

// strokes are open polygons of one style. They are stroked as one path, so
// that translucent lines do not add up.
type strokes struct {
	lines [][]point
	style draw.LineStyle
	heads bool // an arrow head at the end of each
}

func (l strokes) Plot(c draw.Canvas, p *gonum.Plot) {
	to := place(c, p)
	var path vg.Path
	for _, points := range l.lines {
		var last, now vg.Point
		for i, q := range points {
			last, now = now, to(q)
			if i == 0 {
				path.Move(now)
			} else {
				path.Line(now)
			}
		}
		if l.heads && len(points) > 1 {
			head(&path, last, now)
		}
	}
	if len(path) == 0 {
		return
	}
	c.SetLineStyle(l.style)
	c.Stroke(path)
}

// head adds the two barbs of an arrow, shorter on a short arrow.
func head(path *vg.Path, from, to vg.Point) {
	const longest, angle = 4, math.Pi / 7
	dx, dy := float64(from.X-to.X), float64(from.Y-to.Y)
	length := math.Hypot(dx, dy)
	if length == 0 {
		return
	}
	size := min(longest, length/2) / length
	for _, a := range []float64{-angle, angle} {
		sin, cos := math.Sincos(a)
		path.Move(to)
		path.Line(vg.Point{
			X: to.X + vg.Length(size*(dx*cos-dy*sin)),
			Y: to.Y + vg.Length(size*(dx*sin+dy*cos)),
		})
	}
}

// area is a filled polygon.
type area struct {
	outline []point
	color   color.NRGBA
}

func (l area) Plot(c draw.Canvas, p *gonum.Plot) {
	to := place(c, p)
	var path vg.Path
	for i, q := range l.outline {
		if i == 0 {
			path.Move(to(q))
		} else {
			path.Line(to(q))
		}
	}
	path.Close()
	c.SetColor(l.color)
	c.Fill(path)
}

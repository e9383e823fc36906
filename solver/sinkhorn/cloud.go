package sinkhorn

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// units are how long a unit of each of the plan's coordinates is among those of its
// cloud; nil where they are the same.
type units []float64

func (u units) of(k int) float64 {
	if u == nil {
		return 1
	}
	return u[k]
}

// cloud has the cloud's coordinates of x: (k, d), which need not be copied.
func (u units) cloud(x []float64) []float64 {
	return u.each(x, func(x, unit float64) float64 { return x * unit })
}

// own has the plan's coordinates of x.
func (u units) own(x []float64) []float64 {
	return u.each(x, func(x, unit float64) float64 { return x / unit })
}

func (u units) each(x []float64, f func(x, unit float64) float64) []float64 {
	if u == nil {
		return x
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = f(v, u[i%len(u)])
	}
	return out
}

// cloud is the plan's geometry as points, where it has coordinates. The weights of a
// grid's axes become units.
func (p Plan) cloud() (geometry.Points, units, error) {
	if err := p.Validate(); err != nil {
		return geometry.Points{}, nil, err
	}
	switch g := geometry.Whole(p.Geometry).(type) {
	case geometry.Points:
		return g, nil, nil
	case geometry.Grid:
		var u units
		for k, a := range g.Axes {
			switch {
			case a.Given.C != nil:
				return geometry.Points{}, nil, fmt.Errorf("plan: %w: its geometry is a grid with given costs along axis %d, want coordinates", solver.ErrInvalid, k)
			case a.Weight == 0:
				u = append(u, 1)
			default:
				u = append(u, math.Sqrt(a.Weight))
			}
		}
		points, err := g.Points()
		return points, u, err
	}
	return geometry.Points{}, nil, fmt.Errorf("plan: %w: its geometry is a %v, which has no points", solver.ErrInvalid, p.Geometry.Cost())
}

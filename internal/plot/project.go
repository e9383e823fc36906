package plot

import (
	"math"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// plane maps points of d dimensions to the plane that is drawn: as they are up
// to d = 2, else to their first two principal components.
type plane struct {
	d      int
	mean   []float64 // d > 2
	axes   [2][]float64
	labels [2]string
}

// newPlane fits the plane to the rows of all arrays together.
func newPlane(d int, arrays ...[]float64) plane {
	switch d {
	case 1:
		return plane{d: d, labels: [2]string{"x", ""}}
	case 2:
		return plane{d: d, labels: [2]string{"x1", "x2"}}
	}
	// 512 evenly spaced rows say where most of the variance lies, and bound
	// the work for images.
	const most = 512
	total := 0
	for _, x := range arrays {
		total += len(x) / d
	}
	step := max(1, (total+most-1)/most)
	p := plane{d: d, mean: make([]float64, d), labels: [2]string{"first principal component", "second principal component"}}
	var rows []float64
	i := 0
	for _, x := range arrays {
		for ; len(x) > 0; x = x[d:] {
			if i%step == 0 {
				rows = append(rows, x[:d]...)
			}
			i++
		}
	}
	n := len(rows) / d
	var scale float64
	for i := range n {
		for k := range d {
			p.mean[k] += rows[i*d+k] / float64(n)
		}
	}
	for _, v := range rows {
		scale = max(scale, math.Abs(v))
	}
	var pc stat.PC
	vectors := mat.NewDense(d, d, nil)
	if n >= 2 && scale > 0 {
		for k := range rows {
			rows[k] /= scale // its square must not overflow
		}
		if pc.PrincipalComponents(mat.NewDense(n, d, rows), nil) {
			vectors = &mat.Dense{}
			pc.VectorsTo(vectors)
		}
	}
	_, columns := vectors.Dims()
	for a := range p.axes {
		p.axes[a] = make([]float64, d)
		if a < columns {
			mat.Col(p.axes[a], a, vectors)
		}
		if mat.Norm(mat.NewVecDense(d, p.axes[a]), 2) == 0 {
			p.axes[a][a] = 1 // one point, or none: any axis will do
		}
		orient(p.axes[a])
	}
	return p
}

// orient fixes the sign, which an eigenvector leaves open: the largest
// component is positive.
func orient(v []float64) {
	largest := 0.
	for _, x := range v {
		if math.Abs(x) > math.Abs(largest) {
			largest = x
		}
	}
	if largest < 0 {
		for k := range v {
			v[k] = -v[k]
		}
	}
}

// at returns the place of a point; of d = 1, on the line y = 0.
func (p plane) at(x []float64) point {
	switch p.d {
	case 1:
		return point{x[0], 0}
	case 2:
		return point{x[0], x[1]}
	}
	var q point
	for k, v := range x {
		q.x += (v - p.mean[k]) * p.axes[0][k]
		q.y += (v - p.mean[k]) * p.axes[1][k]
	}
	return q
}

func (p plane) all(x []float64) []point {
	var points []point
	for ; len(x) > 0; x = x[p.d:] {
		points = append(points, p.at(x[:p.d]))
	}
	return points
}

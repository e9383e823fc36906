package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	"gonum.org/v1/gonum/stat/distuv"
)

// plane makes a generator in two dimensions with the stretch options.
func plane(o *options, labels int, draw func(r *rand.Rand) (x, y float64, label int)) *generator {
	sx, sy := o.number("stretch_x", 1), o.number("stretch_y", 1)
	return &generator{dim: 2, labels: labels, draw: func(r *rand.Rand, p []float64) int {
		x, y, label := draw(r)
		p[0], p[1] = sx*x, sy*y
		return label
	}}
}

// eightGaussians draws radius·(cos kπ/4, sin kπ/4) + noise; the label is k.
// torchcfm, and after it the programs of LightSBB-M, hand √0.1 to a
// multivariate normal as its covariance, so that the standard deviation is
// 0.1^¼ where the text says that the variance is 0.1.
func eightGaussians(o *options) *generator {
	radius := o.number("radius", 5)
	std := math.Pow(0.1, 0.25)
	switch noise := o.text("noise", "code"); noise {
	case "code":
	case "paper":
		std = math.Sqrt(0.1)
	default:
		std = o.deviation("noise", noise, "code, paper or a standard deviation of at least 0")
	}
	return plane(o, 8, func(r *rand.Rand) (x, y float64, label int) {
		k := r.IntN(8)
		sin, cos := math.Sincos(float64(k) * math.Pi / 4)
		return radius*cos + std*r.NormFloat64(), radius*sin + std*r.NormFloat64(), k
	})
}

// moons draws the two half circles of torchdyn, (cos t, sin t) and
// (1 − cos t, ½ − sin t), adds noise, multiplies by 3 and subtracts 1, as
// torchcfm does. The angle is uniform on [0, π] and the halves are a fair
// coin's, where torchdyn takes equally spaced angles and equal halves: a draw
// must not depend on their number.
func moons(o *options) *generator {
	noise := o.text("noise", "code")
	var std float64
	if noise != "code" {
		std = o.deviation("noise", noise, "code or a standard deviation of at least 0")
	}
	return plane(o, 2, func(r *rand.Rand) (x, y float64, label int) {
		label = r.IntN(2)
		y, x = math.Sincos(math.Pi * r.Float64())
		if label == 1 {
			x, y = 1-x, 0.5-y
		}
		if noise == "code" {
			shift := 0.2 * r.Float64()
			x, y = x+shift, y+shift
		} else {
			x, y = x+std*r.NormFloat64(), y+std*r.NormFloat64()
		}
		return 3*x - 1, 3*y - 1, label
	})
}

// swissRoll is the first and third coordinate of scikit-learn's
// make_swiss_roll, divided by 7.5, as Korotin et al. and LightSB use it.
func swissRoll(o *options) *generator {
	std := o.deviation("noise", o.text("noise", "0.8"), "a standard deviation of at least 0")
	return plane(o, 0, func(r *rand.Rand) (x, y float64, label int) {
		t := 1.5 * math.Pi * (1 + 2*r.Float64())
		sin, cos := math.Sincos(t)
		return (t*cos + std*r.NormFloat64()) / 7.5, (t*sin + std*r.NormFloat64()) / 7.5, 0
	})
}

// spiral is that of VSDM's programs; with stretch_y=8 it is spiral-8Y.
func spiral(o *options) *generator {
	std := o.deviation("noise", o.text("noise", "0.25"), "a standard deviation of at least 0")
	return plane(o, 0, func(r *rand.Rand) (x, y float64, label int) {
		t := 3*math.Pi*math.Sqrt(r.Float64()) - math.Pi/2
		sin, cos := math.Sincos(t)
		radius := t + math.Pi
		return 0.4 * (radius*cos + std*r.NormFloat64()), 0.4 * (radius*sin + std*r.NormFloat64()), 0
	})
}

// checkerboard is that of VSDM's programs; with stretch_x=6 it is
// checkerboard-6X.
func checkerboard(o *options) *generator {
	return plane(o, 0, func(r *rand.Rand) (x, y float64, label int) {
		for {
			x, y = 2*math.Pi*(2*r.Float64()-1), 2*math.Pi*(2*r.Float64()-1)
			if math.Sin(x)*math.Sin(y) < 0 {
				return x, y, 0
			}
		}
	})
}

func normal(o *options) *generator {
	mean, std := o.numbers("mean", 0), o.numbers("std", 1)
	for _, s := range std {
		if s < 0 {
			o.fail("std", strconv.FormatFloat(s, 'g', -1, 64), "at least 0")
		}
	}
	d := o.dimension(2, "mean", "std")
	return &generator{dim: d, mean: mean, std: std, draw: func(r *rand.Rand, x []float64) int {
		for k := range x {
			x[k] = mean[k%len(mean)] + std[k%len(std)]*r.NormFloat64()
		}
		return 0
	}}
}

func studentT(o *options) *generator {
	df := o.number("df", 3)
	if df <= 0 {
		o.fail("df", o.text("df", ""), "a number above 0")
	}
	d := o.dimension(1)
	return &generator{dim: d, draw: func(r *rand.Rand, x []float64) int {
		t := distuv.StudentsT{Sigma: 1, Nu: df, Src: r}
		for k := range x {
			x[k] = t.Rand()
		}
		return 0
	}}
}

func delta(o *options) *generator {
	at := o.numbers("at", 0)
	d := o.dimension(1, "at")
	return &generator{dim: d, mean: at, std: []float64{0}, draw: func(_ *rand.Rand, x []float64) int {
		for k := range x {
			x[k] = at[k%len(at)]
		}
		return 0
	}}
}

// deviation reads a standard deviation.
func (o *options) deviation(key, text, want string) float64 {
	std, err := strconv.ParseFloat(text, 64)
	if err != nil || !(std >= 0) || math.IsInf(std, 0) {
		o.fail(key, text, want)
	}
	return std
}

// dimension returns the option d, or else the length of the longest of the
// lists, or else otherwise. Lists must have one element or d.
func (o *options) dimension(otherwise int, lists ...string) int {
	d := 1
	for _, key := range lists {
		d = max(d, len(o.list(key)))
	}
	if d == 1 {
		d = otherwise
	}
	const maxDim = 1 << 24
	d = o.integer("d", d, 1, maxDim)
	for _, key := range lists {
		if n := len(o.list(key)); n > 1 && n != d {
			o.fail(key, o.text(key, ""), fmt.Sprintf("1 or %d numbers", d))
		}
	}
	return d
}

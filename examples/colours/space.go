package main

import (
	"fmt"
	"image/color"
	"math"
)

// space is where colours are points. The zero space is rgb.
type space int

const (
	rgb space = iota // sRGB values in [0, 1]
	lab              // CIE 1976 L*a*b* over 100, white D65: distance is closer to what one sees
)

// String implements flag.Value.
func (s *space) String() string {
	if s != nil && *s == lab {
		return "lab"
	}
	return "rgb"
}

// Set implements flag.Value.
func (s *space) Set(text string) error {
	switch text {
	case "rgb":
		*s = rgb
	case "lab":
		*s = lab
	default:
		return fmt.Errorf("want rgb or lab")
	}
	return nil
}

// coordinates returns colours as points (n, 3).
func (s space) coordinates(pixels []color.NRGBA) []float64 {
	out := make([]float64, 0, 3*len(pixels))
	for _, p := range pixels {
		v := [3]float64{float64(p.R) / 255, float64(p.G) / 255, float64(p.B) / 255}
		if s == lab {
			v = labOf(v)
		}
		out = append(out, v[:]...)
	}
	return out
}

// colours is the inverse of coordinates; what no screen shows is clipped.
func (s space) colours(x []float64) []color.NRGBA {
	out := make([]color.NRGBA, 0, len(x)/3)
	for i := 0; i+2 < len(x); i += 3 {
		v := [3]float64{x[i], x[i+1], x[i+2]}
		if s == lab {
			v = rgbOf(v)
		}
		var b [3]uint8
		for k, c := range v {
			b[k] = uint8(math.Round(255 * min(max(c, 0), 1)))
		}
		out = append(out, color.NRGBA{b[0], b[1], b[2], 255})
	}
	return out
}

// From linear sRGB to CIE XYZ (IEC 61966-2-1) and the white point D65.
var (
	toXYZ = [3][3]float64{{.4124564, .3575761, .1804375}, {.2126729, .7151522, .0721750}, {.0193339, .1191920, .9503041}}
	toRGB = [3][3]float64{{3.2404542, -1.5371385, -.4985314}, {-.9692660, 1.8760108, .0415560}, {.0556434, -.2040259, 1.0572252}}
	white = [3]float64{.95047, 1, 1.08883}
)

// The CIE's two constants, in their exact form (CIE 15:2004): where the cube
// root gives way to a line, and that line's slope.
const (
	labEpsilon = 216. / 24389
	labKappa   = 24389. / 27
)

func labOf(v [3]float64) [3]float64 {
	for k, c := range v {
		if c <= .04045 {
			v[k] = c / 12.92
		} else {
			v[k] = math.Pow((c+.055)/1.055, 2.4)
		}
	}
	var f [3]float64
	for k, t := range times(toXYZ, v) {
		if t /= white[k]; t > labEpsilon {
			f[k] = math.Cbrt(t)
		} else {
			f[k] = (labKappa*t + 16) / 116
		}
	}
	return [3]float64{1.16*f[1] - .16, 5 * (f[0] - f[1]), 2 * (f[1] - f[2])}
}

func rgbOf(v [3]float64) [3]float64 {
	y := (v[0] + .16) / 1.16
	f := [3]float64{y + v[1]/5, y, y - v[2]/2}
	for k, t := range f {
		if f[k] = t * t * t; f[k] <= labEpsilon {
			f[k] = (116*t - 16) / labKappa
		}
		f[k] *= white[k]
	}
	out := times(toRGB, f)
	for k, c := range out {
		if c <= .0031308 {
			out[k] = 12.92 * c
		} else {
			out[k] = 1.055*math.Pow(c, 1/2.4) - .055
		}
	}
	return out
}

func times(m [3][3]float64, v [3]float64) (out [3]float64) {
	for i, row := range m {
		out[i] = row[0]*v[0] + row[1]*v[1] + row[2]*v[2]
	}
	return out
}

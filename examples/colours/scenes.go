package main

import (
	"image"
	"image/color"
	"math"
)

// sunset paints a sun over the sea.
func sunset(w, h int) *image.NRGBA {
	return paint(w, h, func(x, y, grain float64) [3]float64 {
		const horizon = .62
		sun := math.Hypot((x-.62)*1.6, y-.52)
		glow := math.Exp(-sun * 4)
		if y < horizon {
			sky := mix([3]float64{.16, .13, .36}, [3]float64{.97, .52, .25}, math.Pow(y/horizon, 1.7))
			cloud := smooth(.55, .75, noise(x*5, y*22, 1)) * smooth(.05, .3, y)
			sky = mix(sky, [3]float64{.85, .36, .42}, .6*cloud)
			sky = mix(sky, [3]float64{1, .86, .5}, glow)
			if sun < .085 {
				sky = [3]float64{1, .95, .74}
			}
			if hill := horizon - .05 - .09*noise(x*4, 3, 2); x < .5 && y > hill+.16*x {
				sky = [3]float64{.2, .13, .24}
			}
			return add(sky, .015*grain)
		}
		depth := (y - horizon) / (1 - horizon)
		sea := mix([3]float64{.7, .38, .33}, [3]float64{.07, .09, .24}, math.Sqrt(depth))
		ripple := noise(x*(30-20*depth), y*120, 3)
		lane := math.Exp(-math.Pow((x-.62)/(.05+.12*depth), 2))
		sea = mix(sea, [3]float64{1, .76, .42}, lane*smooth(.35, .75, ripple))
		return add(mix(sea, [3]float64{.5, .3, .38}, .25*ripple), .015*grain)
	})
}

// forest paints trees in morning mist.
func forest(w, h int) *image.NRGBA {
	return paint(w, h, func(x, y, grain float64) [3]float64 {
		back := mix([3]float64{.82, .9, .86}, [3]float64{.36, .56, .3}, smooth(.05, .75, y+.2*noise(x*6, y*6, 5)))
		for layer := range 3 { // far to near
			k := float64(layer)
			column := x*(9-2*k) + .37*k
			cell := math.Floor(column)
			at := .5 + .5*(noise(cell*7.3, k, 6)-.5)
			width := .05 + .05*k*noise(cell*3.1, k, 7)
			trunk := mix([3]float64{.52, .58, .5}, [3]float64{.17, .11, .06}, k/2)
			if math.Abs(column-cell-at) < width && y < .72+.1*k {
				back = mix(trunk, [3]float64{.3, .22, .14}, .5*noise(x*90, y*14, 8))
			}
			leaf := mix([3]float64{.56, .72, .46}, [3]float64{.1, .3, .07}, k/2)
			if crown := noise(x*(8+6*k), y*(9+5*k), 9+uint32(layer)); crown > .42+.75*y+.06*k {
				back = mix(leaf, [3]float64{.66, .75, .2}, .7*noise(x*45, y*45, 13))
			}
		}
		ground := smooth(.74, .86, y+.06*noise(x*10, y*5, 14))
		moss := mix([3]float64{.34, .24, .12}, [3]float64{.28, .46, .13}, smooth(.35, .65, noise(x*24, y*40, 15)))
		return add(mix(back, moss, ground), .015*grain)
	})
}

// paint evaluates a scene at every pixel, x and y in [0, 1), and film grain.
func paint(w, h int, scene func(x, y, grain float64) [3]float64) *image.NRGBA {
	im := image.NewNRGBA(image.Rect(0, 0, w, h))
	for j := range h {
		for i := range w {
			grain := 2*lattice(int32(i), int32(j), 0) - 1
			v := scene(float64(i)/float64(w), float64(j)/float64(h), grain)
			c := rgb.colours(v[:])[0]
			im.SetNRGBA(i, j, color.NRGBA{c.R, c.G, c.B, 255})
		}
	}
	return im
}

// noise is value noise in [0, 1]: two octaves of a smoothly interpolated lattice.
func noise(x, y float64, seed uint32) float64 {
	return (2*octave(x, y, seed) + octave(2*x+17, 2*y+31, seed)) / 3
}

func octave(x, y float64, seed uint32) float64 {
	i, j := math.Floor(x), math.Floor(y)
	u, v := smooth(0, 1, x-i), smooth(0, 1, y-j)
	at := func(di, dj float64) float64 { return lattice(int32(i+di), int32(j+dj), seed) }
	top := at(0, 0) + u*(at(1, 0)-at(0, 0))
	bottom := at(0, 1) + u*(at(1, 1)-at(0, 1))
	return top + v*(bottom-top)
}

// lattice is a uniform number in [0, 1) for a lattice point, by the finaliser
// of MurmurHash3 (Appleby 2011).
func lattice(i, j int32, seed uint32) float64 {
	h := uint32(i)*0x9e3779b1 ^ uint32(j)*0x85ebca77 ^ seed*0xc2b2ae3d
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	h ^= h >> 16
	return float64(h) / (1 << 32)
}

func smooth(low, high, x float64) float64 {
	t := min(max((x-low)/(high-low), 0), 1)
	return t * t * (3 - 2*t)
}

func mix(a, b [3]float64, t float64) [3]float64 {
	for k := range a {
		a[k] += t * (b[k] - a[k])
	}
	return a
}

func add(a [3]float64, t float64) [3]float64 {
	for k := range a {
		a[k] += t
	}
	return a
}

package main

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math/rand/v2"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

type options struct {
	space   space
	pixels  int
	epsilon float64
	seed    uint64
}

// transfer moves the colours of from to those of to.
func transfer(ctx context.Context, dev gpu.Device, from, to image.Image, o options) (*image.NRGBA, *sinkhorn.Result, error) {
	if o.pixels < 1 {
		return nil, nil, fmt.Errorf("-pixels: got %d, want at least 1", o.pixels)
	}
	source, target := nrgba(from), nrgba(to)
	random := rand.New(rand.NewPCG(o.seed, 0))
	x := o.space.coordinates(sample(source, o.pixels, random))
	y := o.space.coordinates(sample(target, o.pixels, random))
	if len(x) == 0 || len(y) == 0 {
		return nil, nil, fmt.Errorf("a picture has no pixel that is not transparent")
	}
	points, err := geometry.NewPoints(x, y, 3, geometry.SqEuclidean)
	if err != nil {
		return nil, nil, err
	}
	solved, err := sinkhorn.Solve(ctx, dev,
		sinkhorn.Problem{Geometry: points, Epsilon: o.epsilon, Scale: sinkhorn.Mean}, sinkhorn.Settings{})
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}

	// A map of colours treats equal pixels equally: one evaluation each.
	index := map[color.NRGBA]int{}
	var distinct []color.NRGBA
	for _, c := range opaque(source) {
		if _, seen := index[c]; !seen {
			index[c] = len(distinct)
			distinct = append(distinct, c)
		}
	}
	const chunk = 1 << 14
	moved := make([]color.NRGBA, 0, len(distinct))
	for i := 0; i < len(distinct); i += chunk {
		part := distinct[i:min(i+chunk, len(distinct))]
		z, err := solved.Plan.Map(ctx, dev, o.space.coordinates(part))
		if err != nil {
			return nil, nil, err
		}
		moved = append(moved, o.space.colours(z)...)
	}
	out := image.NewNRGBA(source.Bounds())
	for i := 0; i < len(source.Pix); i += 4 {
		c := color.NRGBA{source.Pix[i], source.Pix[i+1], source.Pix[i+2], 255}
		if a := source.Pix[i+3]; a > 0 {
			m := moved[index[c]]
			out.Pix[i], out.Pix[i+1], out.Pix[i+2], out.Pix[i+3] = m.R, m.G, m.B, a
		}
	}
	return out, solved, nil
}

// nrgba is a copy whose rows follow each other without a gap.
func nrgba(im image.Image) *image.NRGBA {
	b := im.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(out, out.Bounds(), im, b.Min, draw.Src)
	return out
}

// opaque lists the pixels that one can see, without their transparency.
func opaque(im *image.NRGBA) []color.NRGBA {
	out := make([]color.NRGBA, 0, len(im.Pix)/4)
	for i := 0; i < len(im.Pix); i += 4 {
		if im.Pix[i+3] > 0 {
			out = append(out, color.NRGBA{im.Pix[i], im.Pix[i+1], im.Pix[i+2], 255})
		}
	}
	return out
}

// sample draws k pixels without replacement, or all if there are fewer.
func sample(im *image.NRGBA, k int, random *rand.Rand) []color.NRGBA {
	all := opaque(im)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(k, len(all))]
}

// sideBySide sets pictures next to each other, top aligned.
func sideBySide(pictures ...image.Image) *image.NRGBA {
	const gap = 8
	w, h := -gap, 0
	for _, p := range pictures {
		w += p.Bounds().Dx() + gap
		h = max(h, p.Bounds().Dy())
	}
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.Draw(out, out.Bounds(), image.White, image.Point{}, draw.Src)
	x := 0
	for _, p := range pictures {
		b := p.Bounds()
		draw.Draw(out, image.Rect(x, 0, x+b.Dx(), b.Dy()), p, b.Min, draw.Over)
		x += b.Dx() + gap
	}
	return out
}

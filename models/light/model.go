package light

import (
	"context"
	"errors"
	"fmt"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
)

// DataDim is the dimension of points as the data sets have them.
func (m *Model) DataDim() int { return m.data.from }

// Source and Target are the run's data sets.
func (m *Model) Source() dataset.Source { return m.data.source }

// Target is the run's target.
func (m *Model) Target() dataset.Source { return m.data.target }

// Starts draws n points of the run's source: fresh draws of a generator, and of
// a finite set all rows in their order, again from the first where n is more.
func (m *Model) Starts(n int, seed uint64) (dataset.Points, error) {
	return m.draw(m.data.source, n, seed, streamStarts)
}

func (m *Model) draw(set dataset.Source, n int, seed, stream uint64) (dataset.Points, error) {
	rows, finite := set.Finite()
	if !finite {
		// Not the draws that the bridge was trained on, whatever the seed.
		return set.Sample(n, run.StreamSeed(m.Config.Seed+seed, stream))
	}
	p, err := set.Load()
	if err != nil {
		return p, err
	}
	x := make([]float64, n*p.D)
	for i := range n {
		copy(x[i*p.D:(i+1)*p.D], p.Row(i%rows))
	}
	return dataset.Points{N: n, D: p.D, X: x, Image: p.Image}, nil
}

// Ends draws n points of the run's target as Starts does of its source.
func (m *Model) Ends(n int, seed uint64) (dataset.Points, error) {
	return m.draw(m.data.target, n, seed, streamEnds)
}

// Draw draws ends of the bridge from points as the data sets have them, exactly,
// or with steps above 0 by Euler and Maruyama's method.
func (m *Model) Draw(ctx context.Context, x []float64, steps int, seed uint64) ([]float64, error) {
	z, err := m.Encode(x)
	if err != nil {
		return nil, err
	}
	if steps > 0 {
		z, err = m.Simulate(ctx, z, steps, sbb.Draw{Seed: seed})
	} else {
		z, err = m.Sample(ctx, z, sbb.Draw{Seed: seed})
	}
	if err != nil {
		return nil, err
	}
	return m.Decode(z)
}

// DrawPaths draws paths (n, times, d) whose ends are those of Draw.
func (m *Model) DrawPaths(ctx context.Context, x, times []float64, seed uint64) ([]float64, error) {
	z, err := m.Encode(x)
	if err != nil {
		return nil, err
	}
	paths, err := m.Walk(ctx, z, times, seed)
	if err != nil {
		return nil, err
	}
	return m.Decode(paths)
}

// Walk is DrawPaths in the space of the bridge.
func (m *Model) Walk(ctx context.Context, z, times []float64, seed uint64) ([]float64, error) {
	paths, _, err := m.Paths(ctx, z, times, sbb.Draw{Seed: seed})
	return paths, err
}

// Check reports what is wrong with the data of a configuration before there is
// a folder for it: sets that cannot be opened or do not fit together, more
// components than rows to begin at, more principal components than there can
// be.
func Check(c run.Config) error {
	d, err := openSets(c)
	if err != nil {
		return err
	}
	var errs []error
	fault := func(key string, got, most int, what string) {
		errs = append(errs, fmt.Errorf("config: %s: %w: got %d, want at most the %d %s", key, run.ErrInvalid, got, most, what))
	}
	if c.Data.PCA > d.from {
		fault("data.pca", c.Data.PCA, d.from, "coordinates of the data")
	}
	k := c.Light.Components
	n0, finite0 := d.source.Finite()
	n1, finite1 := d.target.Finite()
	switch c.Light.Init {
	case run.FromTarget, run.Spread:
		if finite1 && k > n1 {
			fault("light.components", k, n1, "rows of the target, at which components begin")
		}
	case run.FromSourceTarget:
		if finite0 && k/2 > n0 {
			fault("light.components", k, 2*n0, "rows of the source, at which half of them begin")
		}
		if finite1 && k-k/2 > n1 {
			fault("light.components", k, 2*n1, "rows of the target, at which half of them begin")
		}
	}
	if rows := n0 + n1; finite0 && finite1 && c.Data.PCA > rows-1 {
		fault("data.pca", c.Data.PCA, rows-1, "directions of the rows of both sets")
	}
	return errors.Join(errs...)
}

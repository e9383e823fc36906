package light

import (
	"fmt"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/latent"
	"github.com/fortet/fortet/models/run"
)

// data are the two sets of a run, and the principal components between them
// and the bridge.
type data struct {
	source, target dataset.Source
	from           int         // dimension of the sets
	dim            int         // of the bridge
	pca            *latent.PCA // nil: none
}

// openSets opens the data sets of a configuration.
func openSets(c run.Config) (*data, error) {
	source, err := dataset.Open(c.Data.Source)
	if err != nil {
		return nil, fmt.Errorf("data.source: %w", err)
	}
	target, err := dataset.Open(c.Data.Target)
	if err != nil {
		return nil, fmt.Errorf("data.target: %w", err)
	}
	if source.Dim() != target.Dim() {
		return nil, fmt.Errorf("data.target: %w: %s has dimension %d, want %d as %s", dataset.ErrInvalid,
			c.Data.Target, target.Dim(), source.Dim(), c.Data.Source)
	}
	return &data{source: source, target: target, from: source.Dim(), dim: source.Dim()}, nil
}

// openData is openSets with principal components, which are fitted and kept in
// the folder when the run begins, and read from there after.
func openData(f *run.Folder, old bool) (*data, error) {
	c := f.Config()
	d, err := openSets(c)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Data.PCA == 0:
	case old:
		if d.pca, err = latent.Load(f.PCA()); err != nil {
			return nil, err
		}
		if d.pca.D != d.from || d.pca.K != c.Data.PCA {
			return nil, fmt.Errorf("%s: %d components of %d coordinates, want %d of %d", f.PCA(), d.pca.K, d.pca.D, c.Data.PCA, d.from)
		}
		d.dim = c.Data.PCA
	default:
		if err := d.fit(c); err != nil {
			return nil, err
		}
		if err := d.pca.Save(f.PCA()); err != nil {
			return nil, err
		}
		d.dim = c.Data.PCA
	}
	return d, nil
}

// fit finds the principal components of both sets together.
func (d *data) fit(c run.Config) error {
	x0, err := d.rows(d.source, frameRows, c.Seed, streamSource)
	if err != nil {
		return err
	}
	x1, err := d.rows(d.target, frameRows, c.Seed, streamTarget)
	if err != nil {
		return err
	}
	all := append(x0, x1...)
	d.pca, err = latent.Fit(all, len(all)/d.from, d.from, c.Data.PCA)
	return err
}

// rows are up to n points in the space of the bridge: the rows of a finite set,
// draws of a stream of a generator.
func (d *data) rows(set dataset.Source, n int, seed, stream uint64) ([]float64, error) {
	var points dataset.Points
	var err error
	if rows, finite := set.Finite(); finite {
		if points, err = set.Load(); err == nil && rows > n {
			points.X = points.X[:n*d.from]
		}
	} else {
		points, err = set.Sample(max(1, min(n, (1<<26)/d.from)), run.StreamSeed(seed, stream))
	}
	if err != nil {
		return nil, err
	}
	if d.pca == nil {
		return append([]float64(nil), points.X...), nil
	}
	z := make([]float64, len(points.X)/d.from*d.dim)
	return z, d.encode(z, points.X)
}

// encode brings points of the sets into the space of the bridge.
func (d *data) encode(dst, src []float64) error {
	if d.pca == nil {
		copy(dst, src)
		return nil
	}
	return d.pca.Encode(dst, src)
}

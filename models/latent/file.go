package latent

import (
	"github.com/fortet/fortet/tensor/npy"
	"github.com/fortet/fortet/tensor/safetensors"
)

// format marks files of this package in their metadata.
const format = "fortet.pca.1"

// Save makes path hold p, as float64 arrays in the safetensors format: mean (D),
// basis (K, D), variance (K), total and scale. The file is replaced as a whole.
func (p *PCA) Save(path string) error {
	if err := p.Validate(); err != nil {
		return err
	}
	return safetensors.WriteFile(path, map[string]*npy.Array{
		"mean":     npy.New(p.Mean, p.D),
		"basis":    npy.New(p.Basis, p.K, p.D),
		"variance": npy.New(p.Variance, p.K),
		"total":    npy.Scalar(p.Total),
		"scale":    npy.Scalar(p.Scale),
	}, map[string]string{"format": format})
}

// Load reads what Save has written, and checks it.
func Load(path string) (*PCA, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	if got := f.Metadata()["format"]; got != format {
		return nil, bad(path, "metadata format %.80q, want %q", got, format)
	}
	p := &PCA{}
	var total, scale []float64
	for _, part := range []struct {
		name string
		axes int
		dst  *[]float64
	}{{"mean", 1, &p.Mean}, {"basis", 2, &p.Basis}, {"variance", 1, &p.Variance}, {"total", 0, &total}, {"scale", 0, &scale}} {
		a, err := f.Read(part.name)
		if err != nil {
			return nil, err
		}
		values, ok := a.Data.([]float64)
		if !ok || len(a.Shape) != part.axes {
			return nil, bad(path, "%s is %v of shape %v, want float64 with %d axes", part.name, a.DType(), a.Shape, part.axes)
		}
		*part.dst = values
		if part.name == "basis" {
			p.K, p.D = a.Shape[0], a.Shape[1]
		}
	}
	p.Total, p.Scale = total[0], scale[0]
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

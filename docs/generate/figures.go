package main

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/tensor/npy"
)

// shown images of a grid.
const shown = 12

// picture puts a picture that a command has drawn into docs/pictures and shows it.
func (b *book) picture(r *record, file, text string) (string, error) {
	to := filepath.Join(b.root, "docs", "pictures", filepath.Base(file))
	if r.skipped {
		if _, err := os.Stat(to); err != nil {
			return "", fmt.Errorf("%s: was not run, and its picture is not here: %w", r.Name, err)
		}
		return page.Link(file, text), nil
	}
	data, err := os.ReadFile(filepath.Join(b.work, file))
	if err != nil {
		return "", err
	}
	im, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	small, err := page.Shrink(im)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return page.Link(file, text), page.Store(to, small)
}

// drawn stores a figure of the results of r and shows it.
func (b *book) drawn(r *record, file, text string, figure func() (plot.Figure, error)) (string, error) {
	if !r.skipped {
		fig, err := figure()
		if err != nil {
			return "", fmt.Errorf("%s: %w", r.Name, err)
		}
		if err := plot.Write(filepath.Join(b.work, file), fig); err != nil {
			return "", err
		}
	}
	return b.picture(r, file, text)
}

func points(uri string) (dataset.Points, error) {
	set, err := dataset.Open(uri)
	if err != nil {
		return dataset.Points{}, err
	}
	return set.Load()
}

// sides are the data sets of a solve.
func (r *record) sides() (x, y dataset.Points, err error) {
	for _, s := range []struct {
		flag string
		to   *dataset.Points
	}{{"source", &x}, {"target", &y}} {
		uri, err := r.Flag(s.flag)
		if err != nil {
			return x, y, err
		}
		if *s.to, err = points(uri); err != nil {
			return x, y, err
		}
	}
	return x, y, nil
}

// array reads the .npy that a flag of the command names.
func (r *record) array(flag string) (*npy.Array, error) {
	path, err := r.Flag(flag)
	if err != nil {
		return nil, err
	}
	return npy.ReadFile(path)
}

// matches draws source images, the targets that the plan gives most mass, and
// the means of all their targets.
func (b *book) matches(r *record, file, text string) (string, error) {
	return b.drawn(r, file, text, func() (plot.Figure, error) {
		x, y, err := r.sides()
		if err != nil {
			return nil, err
		}
		plan, err := r.array("plan")
		if err != nil {
			return nil, err
		}
		mapped, err := r.array("map")
		if err != nil {
			return nil, err
		}
		p := plan.Float64s()
		var likely []float64
		for i := range min(shown, x.N) {
			row := p[i*y.N : (i+1)*y.N]
			likely = append(likely, y.Row(slices.Index(row, slices.Max(row)))...)
		}
		n := min(shown, x.N) * x.D
		return plot.Grid{Title: text, H: x.Image.H, W: x.Image.W, C: x.Image.C, Rows: []plot.Row{
			{Label: "source", X: x.X[:n]},
			{Label: "most likely target", X: likely},
			{Label: "mean of its targets", X: mapped.Float64s()[:n]},
		}}, nil
	})
}

// means draws the barycentric maps of several solves of one source.
func (b *book) means(file, text string, records ...*record) (string, error) {
	if len(records) == 0 {
		return "", fmt.Errorf("%s: no results", file)
	}
	return b.drawn(records[0], file, text, func() (plot.Figure, error) {
		x, _, err := records[0].sides()
		if err != nil {
			return nil, err
		}
		n := min(shown, x.N) * x.D
		fig := plot.Grid{Title: text, H: x.Image.H, W: x.Image.W, C: x.Image.C, Rows: []plot.Row{{Label: "source", X: x.X[:n]}}}
		for _, r := range records {
			mapped, err := r.array("map")
			if err != nil {
				return nil, err
			}
			eps, err := r.Flag("epsilon")
			if err != nil {
				return nil, err
			}
			fig.Rows = append(fig.Rows, plot.Row{Label: "ε = " + eps + " of the mean cost", X: mapped.Float64s()[:n]})
		}
		return fig, nil
	})
}

// growth says how a population grows in an unbalanced plan: the mass that
// leaves a source point over its weight, exp(-f/ρ).
type growth struct {
	Least  float64 `json:"least"`
	Median float64 `json:"median"`
	Most   float64 `json:"most"`
}

// growth draws the source points by their growth. The factors must add up to
// the mass that the certificate of the solve has.
func (b *book) growth(r *record, file, text string) (string, error) {
	return b.drawn(r, file, text, func() (plot.Figure, error) {
		x, y, err := r.sides()
		if err != nil {
			return nil, err
		}
		rho, err := r.Get("problem.rho_source")
		if err != nil {
			return nil, err
		}
		factors, err := r.factors("f", "a", rho)
		if err != nil {
			return nil, err
		}
		r.Growth = growthOf(factors)
		return byGrowth(text, x, y, factors), b.keep(r)
	})
}

// lineages draws the points of a node of a multimarginal plan by their growth,
// over those of the last node.
func (b *book) lineages(r *record, node int, file, text string) (string, error) {
	return b.drawn(r, file, text, func() (plot.Figure, error) {
		nodes := regexp.MustCompile(`--marginal '([^']*)'`).FindAllStringSubmatch(r.Command, -1)
		if node >= len(nodes) {
			return nil, fmt.Errorf("%d nodes, want node %d", len(nodes), node)
		}
		x, err := points(nodes[node][1])
		if err != nil {
			return nil, err
		}
		last, err := points(nodes[len(nodes)-1][1])
		if err != nil {
			return nil, err
		}
		penalty := regexp.MustCompile(fmt.Sprintf(`--rho %d=(\S+)`, node)).FindStringSubmatch(r.Command)
		if penalty == nil {
			return nil, fmt.Errorf("its command has no --rho of node %d", node)
		}
		rho, err := strconv.ParseFloat(penalty[1], 64)
		if err != nil {
			return nil, err
		}
		factors, err := r.factors(fmt.Sprintf("f%d", node), fmt.Sprintf("w%d", node), rho)
		if err != nil {
			return nil, err
		}
		if r.Lineages == nil {
			r.Lineages = map[int]*growth{}
		}
		r.Lineages[node] = growthOf(factors)
		return byGrowth(text, x, last, factors), b.keep(r)
	})
}

func growthOf(factors []float64) *growth {
	sorted := slices.Sorted(slices.Values(factors))
	return &growth{sorted[0], sorted[len(sorted)/2], sorted[len(sorted)-1]}
}

// byGrowth draws points in four groups of growth, over later ones.
func byGrowth(title string, x, later dataset.Points, factors []float64) plot.Figure {
	fig := plot.Scatter{Title: title, Clouds: []plot.Cloud{{Label: "later cells", D: later.D, X: later.X}}}
	sorted := slices.Sorted(slices.Values(factors))
	const groups = 4
	for q := range groups {
		low, high := sorted[q*len(sorted)/groups], sorted[min((q+1)*len(sorted)/groups, len(sorted)-1)]
		var c []float64
		for i, g := range factors {
			if g >= low && (g < high || q == groups-1) {
				c = append(c, x.Row(i)...)
			}
		}
		if len(c) > 0 {
			fig.Clouds = append(fig.Clouds, plot.Cloud{Label: fmt.Sprintf("× %.2g to %.2g", low, high), D: x.D, X: c})
		}
	}
	return fig
}

// factors are exp(-f/ρ) of potentials and weights of these names, checked against
// the mass of the certificate.
func (r *record) factors(potentials, weight string, rho float64) ([]float64, error) {
	path, err := r.Flag("potentials")
	if err != nil {
		return nil, err
	}
	z, err := npy.ReadNPZFile(path)
	if err != nil {
		return nil, err
	}
	f, err := z.Get(potentials)
	if err != nil {
		return nil, err
	}
	a, err := z.Get(weight)
	if err != nil {
		return nil, err
	}
	mass, err := r.Get("mass")
	if err != nil {
		return nil, err
	}
	factors, weights := f.Float64s(), a.Float64s()
	if len(factors) != len(weights) || len(factors) == 0 {
		return nil, fmt.Errorf("%s: %d potentials and %d weights", path, len(factors), len(weights))
	}
	total, source := 0., 0.
	for i, w := range weights {
		factors[i] = math.Exp(-factors[i] / rho)
		total += w * factors[i]
		source += w
	}
	// The factors and the plan's row masses differ by the residual at most,
	// which is relative to the mass of an exact marginal.
	residual, err := r.Get("residual")
	if err != nil {
		return nil, err
	}
	if !(math.Abs(total-mass) <= residual*max(source, mass)+1e-9*mass) {
		return nil, fmt.Errorf("growth factors add up to the mass %v, want %v within %v", total, mass, residual*max(source, mass))
	}
	return factors, nil
}

package bench

import (
	"fmt"
	"io"
	"strings"

	"github.com/fortet/fortet/gpu"
)

// Prediction is the limit of a GPU for a variant: what it could reach at best, by
// its data sheet. Nothing was measured, and a prediction is never a row.
type Prediction struct {
	Model     string
	Family    string
	Operation string
	Shape     string
	Size      int
	Unit      string
	Precision string
	Cost      Cost
	Limit     Limit // Fraction is 0: there is no time to compare with
}

// Predict lists what the data sheet of a GPU, one of Models, allows for every
// variant in every precision at its largest size. Where the work depends on the
// data, it is that of a usual run.
func Predict(model string) ([]Prediction, error) {
	m, err := ModelNamed(model)
	if err != nil {
		return nil, err
	}
	var all []Prediction
	for _, f := range Families() {
		for _, v := range f.Variants {
			size := v.Sizes[len(v.Sizes)-1]
			for _, dtype := range v.dtypes() {
				for _, s := range v.settings(gpu.CUDA, dtype, size) {
					cost := v.Cost(s)
					limit := m.Ceilings(s).limit(cost)
					if limit == nil { // its arrays stay in the cache
						continue
					}
					precision := v.Work(s).Precision
					if precision == "" {
						precision = s.String()
					}
					all = append(all, Prediction{
						Model: m.Name, Family: f.Name, Operation: v.Name, Shape: v.Shape, Size: size, Unit: v.Unit, Precision: precision, Cost: cost, Limit: *limit,
					})
				}
			}
		}
	}
	return all, nil
}

// WritePredictions writes predictions as a table in Markdown.
func WritePredictions(w io.Writer, all []Prediction) error {
	if len(all) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, `Predictions for %s: the least time that its data sheet allows. Nothing here was
measured.

| operation | size | precision | at least, ms | bound by | formula |
| --- | ---: | --- | ---: | --- | --- |
`, all[0].Model)
	for _, p := range all {
		if err == nil {
			_, err = fmt.Fprintf(w, "| %s | %d %s | %s | %s | %s | %s |\n", strings.TrimSpace(p.Operation+" "+p.Shape), p.Size, p.Unit, p.Precision,
				number3(1e3*p.Limit.Seconds), p.Limit.Binding, p.Limit.Formula)
		}
	}
	return err
}

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/tensor/npy"
)

// show is a command as a block of the page.
func show(records ...*record) string {
	var commands []string
	for _, r := range records {
		commands = append(commands, r.Command)
	}
	return "```sh\n" + strings.Join(commands, "\n") + "\n```"
}

// complaint is a command and what it said on standard error.
func complaint(r *record) string {
	return fmt.Sprintf("```console\n$ %s\n%s\n$ echo $?\n%d\n```", r.Command, r.Stderr, r.Exit)
}

// field is a row or column of a table: a name, where in a result, and digits.
// A digit count of 0 means text.
type field struct {
	name, path string
	digits     int
}

func (f field) of(r *record) (string, error) {
	if f.digits == 0 {
		return r.Text(f.path)
	}
	x, err := r.Get(f.path)
	return page.Num(f.digits, x), err
}

// pairs splits label, record, label, record, … as templates pass them.
func pairs(v []any) (labels []string, records []*record, err error) {
	for i := 0; i+1 < len(v); i += 2 {
		label, ok1 := v[i].(string)
		r, ok2 := v[i+1].(*record)
		if !ok1 || !ok2 {
			return nil, nil, fmt.Errorf("table: arguments %d and %d are no label and result", i, i+1)
		}
		labels, records = append(labels, label), append(records, r)
	}
	if len(records) == 0 || len(v)%2 != 0 {
		return nil, nil, fmt.Errorf("table: got %d arguments, want labels and results in turn", len(v))
	}
	return labels, records, nil
}

// certificates is a column for each solve: label, result, label, result, …
func certificates(v ...any) (string, error) {
	labels, records, err := pairs(v)
	if err != nil {
		return "", err
	}
	var rows [][]string
	for _, f := range []field{
		{"source points n", "problem.n", 6}, {"target points m", "problem.m", 6}, {"dimension d", "problem.d", 6},
		{"ε", "problem.epsilon", 4}, {"status", "status", 0},
		{"sweeps over all pairs", "iterations", 6}, {"seconds", "seconds", 3},
		{"transport cost ⟨C, P⟩", "transport_cost", 8}, {"primal", "primal", 10}, {"dual", "dual", 10}, {"gap", "gap", 2},
		{"mass", "mass", 8}, {"marginal error, source", "marginal_error.source", 2}, {"marginal error, target", "marginal_error.target", 2},
		{"residual", "residual", 2},
	} {
		row := []string{f.name}
		for _, r := range records {
			cell, err := f.of(r)
			if err != nil {
				return "", err
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return page.Table(append([]string{""}, labels...), rows), nil
}

// solves is a row for each solve.
func solves(head string, v ...any) (string, error) {
	return list(head, []field{
		{"status", "status", 0}, {"sweeps", "iterations", 6}, {"seconds", "seconds", 2},
		{"⟨C, P⟩", "transport_cost", 6}, {"primal", "primal", 6}, {"gap", "gap", 2}, {"residual", "residual", 2}, {"mass", "mass", 5},
	}, v)
}

// divergences is a row for each Sinkhorn divergence.
func divergences(head string, v ...any) (string, error) {
	return list(head, []field{
		{"divergence", "divergence", 4}, {"OT(a, b)", "terms.ab.value", 6}, {"OT(a, a)", "terms.aa.value", 6}, {"OT(b, b)", "terms.bb.value", 6},
		{"status", "status", 0}, {"seconds", "seconds", 2},
	}, v)
}

func list(head string, fields []field, v []any) (string, error) {
	labels, records, err := pairs(v)
	if err != nil {
		return "", err
	}
	heads := []string{head}
	for _, f := range fields {
		heads = append(heads, f.name)
	}
	var rows [][]string
	for i, r := range records {
		row := []string{labels[i]}
		for _, f := range fields {
			cell, err := f.of(r)
			if err != nil {
				return "", err
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return page.Table(heads, rows), nil
}

// distances is a row for each eval: the metrics beside their floors.
func distances(head string, v ...any) (string, error) {
	labels, records, err := pairs(v)
	if err != nil {
		return "", err
	}
	var rows [][]string
	for i, r := range records {
		row := []string{labels[i]}
		for _, m := range []string{"w2", "w1"} {
			x, err := r.Get("metrics." + m + ".value")
			if err != nil {
				return "", err
			}
			mean, err := r.Get("metrics." + m + ".floor.mean")
			if err != nil {
				return "", err
			}
			std, err := r.Get("metrics." + m + ".floor.std")
			if err != nil {
				return "", err
			}
			row = append(row, page.Num(4, x), page.Num(4, mean)+" ± "+page.Num(1, std))
		}
		n, err := r.Get("metrics.w2.floor.n")
		if err != nil {
			return "", err
		}
		rows = append(rows, append(row, page.Num(6, n)))
	}
	return page.Table([]string{head, "W2", "floor of W2", "W1", "floor of W1", "n of the floors"}, rows), nil
}

// stages is the way of one solve down the ladder.
func stages(r *record) (string, error) {
	list, ok := r.Result["stages"].([]any)
	if !ok {
		return "", fmt.Errorf("%s: has no stages", r.Name)
	}
	var rows [][]string
	for _, s := range list {
		stage, ok := s.(map[string]any)
		if !ok {
			return "", fmt.Errorf("%s: a stage is %v", r.Name, s)
		}
		part := &record{Name: r.Name, Result: stage}
		var row []string
		for _, f := range []field{{"", "epsilon", 4}, {"", "dtype", 0}, {"", "iterations", 6}, {"", "residual", 2}} {
			cell, err := f.of(part)
			if err != nil {
				return "", err
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return page.Table([]string{"ε", "precision", "sweeps", "residual at its end"}, rows), nil
}

// chains is a row for each multimarginal solve.
func chains(v ...any) (string, error) {
	return list("", []field{
		{"status", "status", 0}, {"sweeps", "iterations", 6}, {"seconds", "seconds", 2}, {"transport cost", "transport_cost", 6},
		{"primal", "primal", 8}, {"dual", "dual", 8}, {"gap", "gap", 2}, {"residual", "residual", 2}, {"mass", "mass", 5},
	}, v)
}

// growths is a row for each node whose growth was drawn: label, result, node, …
func growths(head string, v ...any) (string, error) {
	if len(v) == 0 || len(v)%3 != 0 {
		return "", fmt.Errorf("table: got %d arguments, want labels, results and nodes in turn", len(v))
	}
	var rows [][]string
	for i := 0; i < len(v); i += 3 {
		label, ok1 := v[i].(string)
		r, ok2 := v[i+1].(*record)
		node, ok3 := v[i+2].(int)
		if !ok1 || !ok2 || !ok3 {
			return "", fmt.Errorf("table: arguments %d to %d are no label, result and node", i, i+2)
		}
		g := r.Lineages[node]
		if g == nil {
			return "", fmt.Errorf("%s: the growth of node %d was not drawn", r.Name, node)
		}
		rows = append(rows, []string{label, page.Num(2, g.Least), page.Num(2, g.Median), page.Num(2, g.Most)})
	}
	return page.Table([]string{head, "least", "median", "most"}, rows), nil
}

// laws is a row for each step of a discrete bridge: the law of the states there.
func laws(r *record) (string, error) {
	path, err := r.Flag("out")
	if err != nil {
		return "", err
	}
	z, err := npy.ReadNPZFile(path)
	if err != nil {
		return "", err
	}
	a, err := z.Get("marginals")
	if err != nil {
		return "", err
	}
	if len(a.Shape) != 2 {
		return "", fmt.Errorf("%s: marginals of shape %s, want (steps + 1, states)", path, npy.FormatShape(a.Shape))
	}
	states, p := a.Shape[1], a.Float64s()
	head := []string{"step"}
	for i := range states {
		head = append(head, strconv.Itoa(i))
	}
	var rows [][]string
	for t := range a.Shape[0] {
		row := []string{strconv.Itoa(t)}
		for _, v := range p[t*states : (t+1)*states] {
			row = append(row, strconv.FormatFloat(v, 'f', 2, 64))
		}
		rows = append(rows, row)
	}
	return page.Table(head, rows), nil
}

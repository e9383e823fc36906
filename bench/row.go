// Package bench measures Fortet and the libraries that it is compared with. A
// suite produces rows; a row is a measurement with everything that is needed to
// judge and repeat it: where it comes from, what was done how often, how near
// to the limit of the hardware it is, and that the answer was right. A row
// whose answer is wrong fails the run. Rows are lines of JSON in
// bench/results/<suite>.jsonl, which a run of the suite replaces as a whole;
// docs/benchmarks.md is written from them and from nothing else.
package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fortet/fortet/internal/atomicfile"
)

// ErrWrong is wrapped by the error of a run in which an answer was wrong.
var ErrWrong = errors.New("wrong answer")

// Status says how a row ended.
type Status string

// The statuses.
const (
	OK        Status = "ok"
	TimeLimit Status = "time limit" // the time is a lower bound, Residual what was reached
	Stalled   Status = "stalled"    // ended above the tolerance; Residual is what was reached
	Wrong     Status = "wrong"

	// OutOfMemory: there is no answer, and the time is that until it was said.
	OutOfMemory Status = "out of memory"
)

// Row is one measurement.
type Row struct {
	Suite  string `json:"suite"`
	Name   string `json:"name"`   // what was measured: "softmin", "solve", …
	Engine string `json:"engine"` // "fortet", or the peer
	Status Status `json:"status"`

	Provenance
	Work

	// Seconds that one repetition took.
	Seconds Seconds `json:"seconds"`

	Accuracy
	Cost   *Cost   `json:"cost,omitempty"`
	Limit  *Limit  `json:"limit,omitempty"`
	Memory *Memory `json:"memory,omitempty"`

	Iterations int    `json:"iterations,omitempty"`
	Note       string `json:"note,omitempty"`
}

// Work is what was done.
type Work struct {
	N         int     `json:"n,omitempty"`
	M         int     `json:"m,omitempty"`
	D         int     `json:"d,omitempty"`         // 0, with M: a cost matrix
	K         int     `json:"k,omitempty"`         // components of a mixture, for batches of N rows
	Marginals int     `json:"marginals,omitempty"` // of a chain, each of N points
	Problems  int     `json:"problems,omitempty"`  // of N by M points each
	Epsilon   float64 `json:"epsilon,omitempty"`   // in units of the mean cost
	Precision string  `json:"precision,omitempty"`
	Workers   int     `json:"workers,omitempty"`   // of each process
	Processes int     `json:"processes,omitempty"` // that share the work
	Shards    int     `json:"shards,omitempty"`    // that they share
	Bytes     int     `json:"bytes,omitempty"`     // from each process
	Settings  string  `json:"settings,omitempty"`
}

// Seconds sums up the repetitions.
type Seconds struct {
	Repetitions int     `json:"repetitions"`
	Minimum     float64 `json:"minimum"`
	Median      float64 `json:"median"`
	Spread      float64 `json:"spread"` // (maximum - minimum) / median
}

// Accuracy is how right the answer was. Which of both is there depends on what
// was measured.
type Accuracy struct {
	// Residual is |P1 - a|₁ + |Pᵀ1 - b|₁ of the plan of the potentials that were
	// returned, by Residual, whoever returned them.
	Residual  *float64 `json:"residual,omitempty"`
	Tolerance float64  `json:"tolerance,omitempty"`
	// Error is the largest error against the definition in float64, and Budget
	// what it may be: twice the error of the definition in the row's precision.
	Error  *float64 `json:"error,omitempty"`
	Budget float64  `json:"budget,omitempty"`
}

// Limit is the least time that the hardware allows.
type Limit struct {
	Seconds  float64 `json:"seconds"`
	Fraction float64 `json:"fraction"`          // Limit.Seconds / Seconds.Minimum
	Binding  string  `json:"binding,omitempty"` // which part of the work takes that long
	Formula  string  `json:"formula"`
	// Ceilings are the rates that it was computed with.
	Ceilings *Ceilings `json:"ceilings,omitempty"`
}

// Memory is the most that a process used.
type Memory struct {
	PeakBytes int64 `json:"peak_bytes"`
	DataBytes int64 `json:"data_bytes"`
	Budget    int64 `json:"budget_bytes"` // of PeakBytes - DataBytes
}

// Sum sums up the times of repetitions in seconds.
func Sum(times []float64) Seconds {
	if len(times) == 0 {
		return Seconds{}
	}
	t := slices.Sorted(slices.Values(times))
	n := len(t)
	median := (t[(n-1)/2] + t[n/2]) / 2
	return Seconds{Repetitions: n, Minimum: t[0], Median: median, Spread: (t[n-1] - t[0]) / median}
}

// Nanoseconds a pair, by the fastest repetition.
func (r Row) PerPair() float64 {
	return r.Seconds.Minimum * 1e9 / float64(r.N) / float64(r.M)
}

// Judge fills in what follows from the rest, and calls a row wrong whose
// answer is.
func (r *Row) Judge() {
	if r.Limit != nil && r.Seconds.Minimum > 0 {
		r.Limit.Fraction = r.Limit.Seconds / r.Seconds.Minimum
		if r.Limit.Fraction > 1.05 {
			r.Note = strings.TrimPrefix(r.Note+"; faster than the limit: the machine was not quiet while that was measured", "; ")
		}
	}
	switch {
	case r.Status == Wrong:
	case r.Error != nil && !(*r.Error <= r.Budget):
		r.Status = Wrong
	case r.Residual != nil && math.IsNaN(*r.Residual):
		r.Status = Wrong
	case r.Residual != nil && r.Status == OK && !(*r.Residual <= r.Tolerance):
		r.Status = Stalled
		if r.Engine == Fortet { // it said that it had converged
			r.Status = Wrong
		}
	case r.Memory != nil && !(r.Memory.PeakBytes-r.Memory.DataBytes <= r.Memory.Budget):
		r.Status = Wrong
	}
}

// Fortet is the engine that this project is.
const Fortet = "fortet"

// Validate reports everything that a row lacks to be a result.
func (r Row) Validate() error {
	var errs []error
	want := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("row %s/%s/%s: %s", r.Suite, r.Name, r.Engine, what))
		}
	}
	want(r.Suite != "" && r.Name != "" && r.Engine != "", "suite, name or engine is missing")
	want(slices.Contains([]Status{OK, TimeLimit, Stalled, Wrong, OutOfMemory}, r.Status), fmt.Sprintf("status %q", r.Status))
	want(r.Commit != "" && !r.Date.IsZero(), "commit or date is missing")
	want(r.Device != "" && r.Processor != "" && r.Go != "", "device, processor or Go version is missing")
	want(r.Seconds.Repetitions > 0 && r.Seconds.Minimum > 0 && r.Seconds.Median >= r.Seconds.Minimum && r.Seconds.Spread >= 0, fmt.Sprintf("times %+v", r.Seconds))
	want(r.Status == Wrong || r.Status == OutOfMemory || r.Residual != nil || r.Error != nil || r.Name == startup, "neither residual nor error: nothing was checked")
	want(r.Status != OK || r.Residual == nil || *r.Residual <= r.Tolerance, "ok, but above its tolerance")
	want(r.Status != OK || r.Error == nil || *r.Error <= r.Budget, "ok, but above its error budget")
	if l := r.Limit; l != nil {
		want(l.Seconds > 0 && l.Fraction > 0 && l.Formula != "", fmt.Sprintf("limit %+v", *l))
	}
	return errors.Join(errs...)
}

// WriteRows replaces a file of rows.
func WriteRows(path string, rows []Row) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		return EncodeRows(w, rows)
	})
}

// EncodeRows writes rows, a line each. One that is no result is an error.
func EncodeRows(w io.Writer, rows []Row) error {
	for _, r := range rows {
		if err := r.Validate(); err != nil {
			return err
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// ReadRows reads a file of rows. Fields that are not a Row's are errors.
func ReadRows(path string) ([]Row, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows []Row
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r Row
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
		}
		if err := r.Validate(); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
		}
		rows = append(rows, r)
	}
	return rows, lines.Err()
}

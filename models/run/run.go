// Package run is what the training of every model has in common: a resolved
// configuration, a folder that holds all of a run, checkpoints that survive a
// kill at any instant, and the loop that drives a Trainer. It knows no model.
//
// A run is a folder:
//
//	config.yaml                            the configuration, resolved
//	metrics.jsonl                          one line for every logged step
//	times.jsonl                            wall-clock seconds at the same steps
//	checkpoints/step-000001000.safetensors all that a resume needs
//	samples/*.npy, plots/*.png, report.html, pca.safetensors
//	.lock                                  held by the process that trains
//
// # Resume
//
// A run that was interrupted or killed goes on from its newest good checkpoint
// and ends, on the same device, bit-equal to the run that was never
// interrupted: config.yaml, metrics.jsonl and checkpoints are the same bytes.
// That holds for every Trainer whose Step is a function of its State, the
// step's number and the seed. Times alone differ, which is why they have a
// file of their own.
package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/fortet/fortet/tensor"
)

// Sentinel errors. All others of this package that are the caller's to mend
// wrap ErrInvalid.
var (
	// ErrInvalid says that a configuration, a folder or a checkpoint makes no
	// sense; the text names it, what was found and what was wanted.
	ErrInvalid = errors.New("invalid run")
	// ErrExists says that the folder holds a run already.
	ErrExists = fmt.Errorf("%w: exists", ErrInvalid)
	// ErrLocked says that another process is training the run.
	ErrLocked = fmt.Errorf("%w: in use", ErrInvalid)
	// ErrDiverged says that a loss, a metric or a parameter was not finite.
	ErrDiverged = errors.New("training diverged")
	// ErrCanceled says that a run was interrupted and can be resumed.
	ErrCanceled = errors.New("training interrupted")
)

// fault is an error whose text needs no sentinel in front of it.
type fault struct {
	kind error
	text string
}

func (e *fault) Error() string { return e.text }
func (e *fault) Unwrap() error { return e.kind }

func invalid(format string, v ...any) error { return &fault{ErrInvalid, fmt.Sprintf(format, v...)} }

// Named is an array of a Trainer's state.
type Named struct {
	Name   string
	Tensor tensor.Tensor
}

// Metric is a number worth logging.
type Metric struct {
	Name  string
	Value float64
}

// Metrics is a JSON object whose keys keep their order; what is not finite is
// null.
type Metrics []Metric

// MarshalJSON writes an object.
func (m Metrics) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, x := range m {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = x.append(b); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// append writes "name":value.
func (m Metric) append(b []byte) ([]byte, error) {
	name, err := json.Marshal(m.Name)
	if err != nil {
		return nil, err
	}
	b = append(append(b, name...), ':')
	if !finite(m.Value) {
		return append(b, "null"...), nil
	}
	return strconv.AppendFloat(b, m.Value, 'g', -1, 64), nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Status says how a loop ended. An error says that it could not go on at all.
type Status int

// The ways in which a loop ends. The last two carry the words of
// solver.Status.
const (
	Done     Status = iota + 1 // all steps were made
	Canceled                   // the context was canceled; a checkpoint was written
	Diverged                   // a loss, a metric or a parameter was not finite
)

func (s Status) String() string {
	return wordOf(statusWords, int(s), "Status")
}

var statusWords = []string{Done: "done", Canceled: "canceled", Diverged: "diverged"}

// MarshalText writes the word.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Result is how a loop ended: what `fortet train` prints.
type Result struct {
	Run     string  `json:"run"` // path of the folder
	Method  Method  `json:"method"`
	Status  Status  `json:"status"`
	Steps   int     `json:"steps"`   // made so far, in all sessions
	Seconds float64 `json:"seconds"` // of training, in all sessions
	Metrics Metrics `json:"metrics"` // those logged last
	// Checkpoint is the path of the newest good checkpoint; empty: none.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Reason says what was not finite, and where, if Status is Diverged.
	Reason string `json:"reason,omitempty"`
}

// Err is nil only for Done; it wraps ErrCanceled or ErrDiverged, and says from
// where the run can go on.
func (r *Result) Err() error {
	last := "there is no checkpoint yet"
	if r.Checkpoint != "" {
		last = "the last good checkpoint is " + r.Checkpoint
	}
	switch r.Status {
	case Done:
		return nil
	case Canceled:
		return fmt.Errorf("%w after step %d: %s", ErrCanceled, r.Steps, last)
	}
	return fmt.Errorf("%w: %s; %s", ErrDiverged, r.Reason, last)
}

package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// Record is one line of metrics.jsonl: {"step":100,"loss":0.25,…}.
type Record struct {
	Step    int
	Metrics Metrics
}

// stepName begins every line, and so cannot be a metric's name.
const stepName = "step"

// append writes the line.
func (r Record) append(b []byte) ([]byte, error) {
	b = append(b, `{"`+stepName+`":`...)
	b = strconv.AppendInt(b, int64(r.Step), 10)
	for _, m := range r.Metrics {
		var err error
		if b, err = m.append(append(b, ',')); err != nil {
			return nil, err
		}
	}
	return append(b, "}\n"...), nil
}

// parseRecord reads a line without its end.
func parseRecord(line []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	token := func() json.Token {
		t, err := d.Token()
		if err != nil {
			return nil
		}
		return t
	}
	if token() != json.Delim('{') {
		return r, invalid("got %s, want an object", quote(string(line)))
	}
	for d.More() {
		name, ok := token().(string)
		value, ok2 := token().(float64)
		switch {
		case !ok || !ok2:
			return r, invalid("got %s, want names and numbers", quote(string(line)))
		case r.Step == 0:
			if r.Step = int(value); name != stepName || !(value >= 1 && value <= maxStep) || float64(r.Step) != value {
				return r, invalid("got %s: %v, want a step from 1 first", quote(name), value)
			}
		default:
			r.Metrics = append(r.Metrics, Metric{name, value})
		}
	}
	if token() != json.Delim('}') || r.Step == 0 {
		return r, invalid("got %s, want an object with a step", quote(string(line)))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, invalid("got %s, want one object", quote(string(line)))
	}
	return r, nil
}

// readJournal reads the lines up to a step, and where they end. What stands
// after them, as a line that a kill cut in two, is not looked at; a missing
// file is an empty one.
func readJournal(path string, last int) ([]Record, int64, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	case !info.Mode().IsRegular():
		return nil, 0, invalid("%s: is not a regular file", path) // a device may have no end, and a link is about to be cut
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	var records []Record
	var end int64
	var bad error
	at := int64(0)
	for number := 1; ; number++ {
		line, rest, whole := bytes.Cut(data[at:], []byte{'\n'})
		if !whole {
			break
		}
		at = int64(len(data) - len(rest))
		r, err := parseRecord(line)
		if n := len(records); err == nil && n > 0 && r.Step <= records[n-1].Step {
			err = invalid("step %d after step %d", r.Step, records[n-1].Step)
		}
		switch {
		case err == nil && r.Step <= last && bad != nil:
			return nil, 0, fmt.Errorf("%s: %w", path, bad)
		case err == nil && r.Step <= last:
			records, end = append(records, r), at
		case err != nil && bad == nil:
			bad = fmt.Errorf("line %d: %w", number, err)
		}
	}
	return records, end, nil
}

// journal appends records to a file.
type journal struct {
	file *os.File
	line []byte
	last *Record // nil: none
}

// openJournal opens the file for the steps after last: the lines of later
// steps, which are about to be written again, are cut off.
func openJournal(path string, last int) (*journal, error) {
	records, end, err := readJournal(path, last)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(end); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	j := &journal{file: file}
	if n := len(records); n > 0 {
		j.last = &records[n-1]
	}
	return j, nil
}

// add writes a line at once, so that readers see whole ones.
func (j *journal) add(r Record) (err error) {
	if j.line, err = r.append(j.line[:0]); err != nil {
		return err
	}
	if _, err := j.file.Write(j.line); err != nil {
		return err
	}
	j.last = &r
	return nil
}

// sync makes what was added last through a power cut. It comes before a
// checkpoint: a resume needs all lines up to it.
func (j *journal) sync() error { return j.file.Sync() }

func (j *journal) close() error { return errors.Join(j.file.Sync(), j.file.Close()) }

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/fortet/fortet/internal/atomicfile"
)

// number is a float64 that JSON can hold: what is not finite becomes null.
type number float64

func (x number) MarshalJSON() ([]byte, error) {
	f := float64(x)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
}

func numbers(v []float64) []number {
	out := make([]number, len(v))
	for i, x := range v {
		out[i] = number(x)
	}
	return out
}

// print writes the result of a command.
func (s *session) print(v any) error {
	e := json.NewEncoder(s.stdout)
	e.SetEscapeHTML(false)
	if s.pretty {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// outputs are the files that a command was asked to write. All are created,
// under temporary names, before the work begins, so that a path that cannot be
// written is found at once, and take their names together at the end: a
// command that fails leaves nothing.
type outputs struct {
	files []*output
}

type output struct {
	flag, path string
	file       *atomicfile.File
}

// add creates the file of a flag. An empty path is no file.
func (o *outputs) add(flag, path string) error {
	if path == "" {
		return nil
	}
	for _, f := range o.files {
		if f.path == path {
			return usagef("--%s and --%s both name %s", f.flag, flag, path)
		}
	}
	file, err := atomicfile.Create(path)
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	o.files = append(o.files, &output{flag, path, file})
	return nil
}

// write fills the file of a flag, if there is one.
func (o *outputs) write(flag string, fill func(io.Writer) error) error {
	for _, f := range o.files {
		if f.flag == flag {
			if err := fill(f.file); err != nil {
				return fmt.Errorf("--%s: %s: %w", flag, f.path, err)
			}
		}
	}
	return nil
}

func (o *outputs) commit() error {
	for _, f := range o.files {
		if err := f.file.Commit(); err != nil {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
	}
	return nil
}

// close removes what was not committed.
func (o *outputs) close() {
	for _, f := range o.files {
		f.file.Close()
	}
}

// progress shows on standard error how a long computation goes: a bar on a
// terminal, a line a minute elsewhere, nothing in the first second.
type progress struct {
	w        io.Writer
	what     string
	terminal bool
	start    time.Time
	next     time.Time
	drawn    bool
}

func (s *session) progress(what string) *progress {
	p := &progress{w: s.stderr, what: what, start: time.Now()}
	if s.quiet {
		p.w = io.Discard
	}
	if f, ok := s.stderr.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	p.next = p.start.Add(time.Second)
	if !p.terminal {
		p.next = p.start.Add(time.Minute)
	}
	return p
}

// update tells how far the work is, from 0 to 1, and a word about it.
func (p *progress) update(done float64, note string) {
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	if !p.terminal {
		p.next = now.Add(time.Minute)
		fmt.Fprintf(p.w, "fortet: %s: %s after %s\n", p.what, note, now.Sub(p.start).Round(time.Second))
		return
	}
	p.next = now.Add(100 * time.Millisecond)
	const width = 30
	bar := make([]byte, width)
	for i := range bar {
		bar[i] = '.'
		if float64(i) < done*width {
			bar[i] = '#'
		}
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s [%s] %s, %s", p.what, bar, note, now.Sub(p.start).Round(time.Second))
	p.drawn = true
}

// finish clears the bar.
func (p *progress) finish() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

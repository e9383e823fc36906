package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fortet/fortet/docs/internal/page"
)

// book is one making of the documentation.
type book struct {
	ctx        context.Context
	root, work string // the project; where commands run
	log        io.Writer
	records    map[string]*record
	page       string // that is being made

	// Machine is where this making runs.
	Machine page.Machine
}

// record is a command and what became of it, as docs/data keeps it.
type record struct {
	Name    string         `json:"-"`
	Command string         `json:"command"`
	Exit    int            `json:"exit"`
	Wall    float64        `json:"wall_seconds"`
	Machine page.Machine   `json:"machine"`
	Result  map[string]any `json:"result,omitempty"`
	Stderr  string         `json:"stderr,omitempty"`
	Growth  *growth        `json:"growth,omitempty"`
	// Lineages are the growths of nodes of a chain.
	Lineages map[int]*growth `json:"lineages,omitempty"`

	skipped bool
	page    string
}

// open finds the data, the programs and the provenance.
func (b *book) open() error {
	data := os.Getenv("FORTET_DATA")
	if data == "" {
		data = filepath.Join(b.root, "..", "shared", "data")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if err := os.Symlink(data, filepath.Join(b.work, "data")); err != nil {
		return err
	}
	if _, err := os.Stat(data); err != nil {
		fmt.Fprintln(b.log, "generate: no data sets: FORTET_DATA names no folder with cifar10/ and timecourse/; what needs them is not run")
	}
	b.Machine, err = page.Here(b.root)
	if err != nil {
		return err
	}
	return os.Chdir(b.work) // file names in commands are relative
}

// run runs a command that must succeed.
func (b *book) run(name, command string) (*record, error) { return b.execute(0, name, command) }

// fails runs a command that must end with an exit code.
func (b *book) fails(code int, name, command string) (*record, error) {
	return b.execute(code, name, command)
}

// kept is a record that was made before in this making.
func (b *book) kept(name string) (*record, error) {
	if r := b.records[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%s: no command of that name ran", name)
}

var dataFile = regexp.MustCompile(`\bdata/[\w./-]+`)

func (b *book) execute(want int, name, command string) (*record, error) {
	if b.records[name] != nil {
		return nil, fmt.Errorf("%s: two commands of one name", name)
	}
	for _, file := range dataFile.FindAllString(command, -1) {
		if _, err := os.Stat(filepath.Join(b.work, file)); err != nil {
			return b.skip(name, command, file)
		}
	}
	r := &record{Name: name, Command: command, Machine: b.Machine, page: b.page}
	r.Machine.Load = page.Load()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(b.ctx, "bash", "-c", command)
	c.Dir, c.Stdout, c.Stderr = b.work, &stdout, &stderr
	c.Env = append(os.Environ(), "PATH="+filepath.Join(b.root, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	start := time.Now()
	err := c.Run()
	r.Wall = time.Since(start).Seconds()
	fmt.Fprintf(b.log, "%7.1fs  %s\n", r.Wall, name)
	r.Stderr = strings.TrimSpace(strings.ReplaceAll(stderr.String(), b.work+string(filepath.Separator), ""))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.Exit = exit.ExitCode()
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Exit != want {
		return nil, fmt.Errorf("%s: exit code %d, want %d: %s", name, r.Exit, want, r.Stderr)
	}
	// Of several commands, the last one's object is the result.
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		if err := json.Unmarshal([]byte(last), &r.Result); err != nil {
			return nil, fmt.Errorf("%s: its output is no JSON object: %w", name, err)
		}
	}
	b.records[name] = r
	return r, b.keep(r)
}

// skip takes the kept result of a command that cannot run here.
func (b *book) skip(name, command, file string) (*record, error) {
	data, err := os.ReadFile(b.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: needs %s, which is not here, and has no kept result; set FORTET_DATA", name, file)
	} else if err != nil {
		return nil, err
	}
	r := &record{Name: name, skipped: true, page: b.page}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", b.file(name), err)
	}
	if r.Command != command {
		return nil, fmt.Errorf("%s: needs %s, which is not here, and its kept result is that of another command; set FORTET_DATA", name, file)
	}
	fmt.Fprintf(b.log, "skipped   %s: no %s; its result of commit %s stays\n", name, file, r.Machine.Commit)
	b.records[name] = r
	return r, nil
}

func (b *book) file(name string) string { return filepath.Join(b.root, "docs", "data", name+".json") }

func (b *book) keep(r *record) error { return page.Keep(b.file(r.Name), r) }

// provenance says where the figures of the page come from, machine by machine.
func (b *book) provenance() string {
	of := map[string]page.Machine{}
	for name, r := range b.records {
		if r.page == b.page {
			of[name] = r.Machine
		}
	}
	return page.Provenance(of)
}

// Get returns the number at a path of keys: marginal_error.target.
func (r *record) Get(path string) (float64, error) {
	v, err := r.at(path)
	if err != nil {
		return 0, err
	}
	if x, ok := v.(float64); ok {
		return x, nil
	}
	if v == nil { // JSON has no NaN
		return math.NaN(), nil
	}
	return 0, fmt.Errorf("%s: %s is %v, want a number", r.Name, path, v)
}

// Text returns the string at a path.
func (r *record) Text(path string) (string, error) {
	v, err := r.at(path)
	if err != nil {
		return "", err
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	return "", fmt.Errorf("%s: %s is %v, want a string", r.Name, path, v)
}

func (r *record) at(path string) (any, error) {
	var v any = r.Result
	for key := range strings.SplitSeq(path, ".") {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: nothing at %s", r.Name, path)
		}
		if v, ok = object[key]; !ok {
			return nil, fmt.Errorf("%s: nothing at %s", r.Name, path)
		}
	}
	return v, nil
}

// Flag returns what a flag of the command names, without its quotes.
func (r *record) Flag(name string) (string, error) {
	m := regexp.MustCompile(`--` + regexp.QuoteMeta(name) + `\s+(?:'([^']*)'|(\S+))`).FindStringSubmatch(r.Command)
	if m == nil {
		return "", fmt.Errorf("%s: its command has no --%s", r.Name, name)
	}
	return m[1] + m[2], nil
}

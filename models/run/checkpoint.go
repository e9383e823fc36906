package run

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
	"github.com/fortet/fortet/tensor/safetensors"
)

// maxStep is the last step that has a name.
const maxStep = 999_999_999

// The metadata of a checkpoint. The checksum is SHA-256 of all other metadata
// and, by name, of every array's name, type, shape and data.
const (
	formatKey   = "fortet-checkpoint"
	methodKey   = "method"
	stepKey     = "step"
	checksumKey = "sha256"
)

// ErrNoCheckpoint says that a folder has no checkpoint, or none that is good.
var ErrNoCheckpoint = errors.New("no checkpoint")

// Checkpoint is the state of a Trainer after a step.
type Checkpoint struct {
	Path   string
	Method Method
	Step   int
	arrays map[string]*npy.Array
}

// Damaged is a checkpoint that cannot be used.
type Damaged struct {
	Path string
	Err  error // why
}

// Restore uploads the state. It must have the arrays of the checkpoint, by
// name, element type and shape; nothing is uploaded otherwise, and the error
// lists all that differs.
func (c *Checkpoint) Restore(state []Named) error {
	var faults []error
	bad := func(format string, v ...any) {
		faults = append(faults, fmt.Errorf("%s: %w", c.Path, invalid(format, v...)))
	}
	wanted := map[string]bool{}
	for _, s := range state {
		wanted[s.Name] = true
		want, err := newArray(s.Tensor)
		if err != nil {
			bad("array %q: %v", s.Name, err)
			continue
		}
		got := c.arrays[s.Name]
		switch {
		case got == nil:
			bad("array %q: missing, want %v %s", s.Name, want.DType(), npy.FormatShape(want.Shape))
		case got.DType() != want.DType() || !slices.Equal(got.Shape, want.Shape):
			bad("array %q: got %v %s, want %v %s", s.Name, got.DType(), npy.FormatShape(got.Shape), want.DType(), npy.FormatShape(want.Shape))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.arrays)) {
		if !wanted[name] {
			bad("array %q: unknown", name)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	for _, s := range state {
		if err := upload(s.Tensor, c.arrays[s.Name].Data); err != nil {
			return fmt.Errorf("%s: array %q: %w", c.Path, s.Name, err)
		}
	}
	return nil
}

// newArray is a host array for t.
func newArray(t tensor.Tensor) (*npy.Array, error) {
	a := &npy.Array{Shape: t.Shape()}
	switch n := t.Len(); t.DType() {
	case tensor.Float32:
		a.Data = make([]float32, n)
	case tensor.Float64:
		a.Data = make([]float64, n)
	case tensor.Int32:
		a.Data = make([]int32, n)
	case tensor.Uint32:
		a.Data = make([]uint32, n)
	case tensor.Int64:
		a.Data = make([]int64, n)
	default:
		return nil, invalid("%v cannot be saved", t)
	}
	return a, nil
}

func upload(t tensor.Tensor, data any) error {
	switch v := data.(type) {
	case []float32:
		return tensor.Set(t, v)
	case []float64:
		return tensor.Set(t, v)
	case []int32:
		return tensor.Set(t, v)
	case []uint32:
		return tensor.Set(t, v)
	case []int64:
		return tensor.Set(t, v)
	}
	return invalid("%T cannot be uploaded", data)
}

func download(t tensor.Tensor, data any) error {
	switch v := data.(type) {
	case []float32:
		return tensor.Get(t, v)
	case []float64:
		return tensor.Get(t, v)
	case []int32:
		return tensor.Get(t, v)
	case []uint32:
		return tensor.Get(t, v)
	case []int64:
		return tensor.Get(t, v)
	}
	return invalid("%T cannot be downloaded", data)
}

// firstNotFinite is the index of the first element that is not finite, or -1.
func firstNotFinite(data any) int {
	switch v := data.(type) {
	case []float32:
		return slices.IndexFunc(v, func(x float32) bool { return !finite(float64(x)) })
	case []float64:
		return slices.IndexFunc(v, func(x float64) bool { return !finite(x) })
	}
	return -1
}

// snapshot is a Trainer's state on the host. Its memory is used again.
type snapshot struct {
	state  []Named
	arrays map[string]*npy.Array
}

func newSnapshot(state []Named) (*snapshot, error) {
	s := &snapshot{state, map[string]*npy.Array{}}
	for _, n := range state {
		a, err := newArray(n.Tensor)
		if err != nil {
			return nil, fmt.Errorf("state: array %q: %w", n.Name, err)
		}
		if s.arrays[n.Name] != nil {
			return nil, invalid("state: array %q appears twice", n.Name)
		}
		s.arrays[n.Name] = a
	}
	return s, nil
}

// take waits for the device and downloads the state. bad names an element that
// is not finite, if there is one.
func (s *snapshot) take() (bad string, err error) {
	for _, n := range s.state {
		data := s.arrays[n.Name].Data
		if err := download(n.Tensor, data); err != nil {
			return "", fmt.Errorf("state: array %q: %w", n.Name, err)
		}
		if i := firstNotFinite(data); i >= 0 && bad == "" {
			bad = fmt.Sprintf("element %d of %s is not finite", i, n.Name)
		}
	}
	return bad, nil
}

// write makes a checkpoint of what was taken.
func (s *snapshot) write(path string, m Method, step int) error {
	meta := map[string]string{formatKey: strconv.Itoa(FormatVersion), methodKey: m.String(), stepKey: strconv.Itoa(step)}
	sum, err := checksum(meta, s.arrays)
	if err != nil {
		return err
	}
	meta[checksumKey] = sum
	return safetensors.WriteFile(path, s.arrays, meta)
}

func checksum(meta map[string]string, arrays map[string]*npy.Array) (string, error) {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if k != checksumKey {
			fmt.Fprintf(h, "%q %q\n", k, meta[k])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(arrays)) {
		a := arrays[name]
		fmt.Fprintf(h, "%q %v %v\n", name, a.DType(), a.Shape)
		if err := npy.WriteData(h, a); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ReadCheckpoint reads a checkpoint and verifies its checksum. The error of a
// damaged one wraps ErrInvalid or npy.ErrFormat.
func ReadCheckpoint(path string) (*Checkpoint, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer file.Close() // read only
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, invalid("is not a regular file"))
	}
	c, err := decodeCheckpoint(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	c.Path = path
	return c, nil
}

func decodeCheckpoint(r io.ReaderAt, size int64) (*Checkpoint, error) {
	f, err := safetensors.NewFile(r, size)
	if err != nil {
		return nil, err
	}
	meta := f.Metadata()
	if v := meta[formatKey]; v != strconv.Itoa(FormatVersion) {
		return nil, invalid("format: got version %s, want %d", quote(v), FormatVersion)
	}
	c := &Checkpoint{arrays: map[string]*npy.Array{}}
	for _, info := range f.Infos() {
		if c.arrays[info.Name], err = f.Read(info.Name); err != nil {
			return nil, err
		}
	}
	sum, err := checksum(meta, c.arrays)
	if err != nil {
		return nil, err
	}
	if sum != meta[checksumKey] {
		return nil, invalid("checksum: got %s, want %s", quote(sum), quote(meta[checksumKey]))
	}
	if err := c.Method.UnmarshalText([]byte(meta[methodKey])); err != nil {
		return nil, invalid("method: %v", err)
	}
	if c.Step, err = strconv.Atoi(meta[stepKey]); err != nil || c.Step < 1 || c.Step > maxStep {
		return nil, invalid("step: got %s, want a whole number from 1 to %d", quote(meta[stepKey]), maxStep)
	}
	return c, nil
}

// checkpointPath is where the checkpoint of a step is.
func (f *Folder) checkpointPath(step int) string {
	return filepath.Join(f.path, checkpointsName, fmt.Sprintf("step-%09d.safetensors", step))
}

// steps lists the steps of which there are checkpoints, good or not, the
// newest first.
func (f *Folder) steps() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(f.path, checkpointsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		m := modelFile.FindStringSubmatch(e.Name())
		if m == nil || m[3] != "" || !e.Type().IsRegular() {
			continue
		}
		step, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	slices.SortFunc(steps, func(a, b int) int { return cmp.Compare(b, a) })
	return steps, nil
}

// Latest reads the newest good checkpoint. Newer ones that are damaged, or of
// another version, are reported beside it. Where there is none, the error
// wraps ErrNoCheckpoint, and names the damaged ones.
func (f *Folder) Latest() (*Checkpoint, []Damaged, error) {
	steps, err := f.steps()
	if err != nil {
		return nil, nil, fmt.Errorf("run: %w", err)
	}
	var damaged []Damaged
	for _, step := range steps {
		path := f.checkpointPath(step)
		c, err := f.read(path, step)
		if err == nil {
			return c, damaged, nil
		}
		damaged = append(damaged, Damaged{path, err})
	}
	if len(damaged) == 0 {
		return nil, nil, fmt.Errorf("run: %s: %w", f.path, ErrNoCheckpoint)
	}
	var all []error
	for _, d := range damaged {
		all = append(all, d.Err)
	}
	return nil, damaged, fmt.Errorf("run: %s: %w is good: %w", f.path, ErrNoCheckpoint, errors.Join(all...))
}

// read is ReadCheckpoint of what must be of this run and of a step.
func (f *Folder) read(path string, step int) (*Checkpoint, error) {
	c, err := ReadCheckpoint(path)
	if err != nil {
		return nil, err
	}
	if c.Method != f.config.Method {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, invalid("method: got %v, want %v", c.Method, f.config.Method))
	}
	if c.Step != step {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, invalid("step: got %d, want %d as the name says", c.Step, step))
	}
	return c, nil
}

// prune removes what a new checkpoint of a step makes superfluous: all but the
// newest keep of those that are due at multiples of every, and older ones that
// an interruption left in between. So the run that was interrupted ends with
// the files of the one that was not.
func (f *Folder) prune(step, every, keep int) error {
	steps, err := f.steps()
	if err != nil {
		return err
	}
	due := 0
	for _, s := range steps {
		if s > step {
			continue
		}
		regular := s%every == 0 || s == step
		if s%every == 0 || s == step && s == f.config.Train.Steps {
			due++
		}
		if regular && due <= keep {
			continue
		}
		if err := os.Remove(f.checkpointPath(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// setAside renames the checkpoints after a step, which are damaged or of
// another version: the loop is about to write good ones.
func (f *Folder) setAside(step int) error {
	steps, err := f.steps()
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s > step {
			path := f.checkpointPath(s)
			if err := os.Rename(path, path+".damaged"); err != nil {
				return err
			}
		}
	}
	return nil
}

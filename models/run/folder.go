package run

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The names in a run's folder.
const (
	configName  = "config.yaml"
	metricsName = "metrics.jsonl"
	timesName   = "times.jsonl"
	reportName  = "report.html"
	pcaName     = "pca.safetensors"
	lockName    = ".lock"

	checkpointsName = "checkpoints"
	samplesName     = "samples"
	plotsName       = "plots"
)

// Folder is a run on the disk. Whoever writes to it must hold its lock, which
// Create takes and Lock takes after Open; reading needs none. It is not safe
// for concurrent use.
type Folder struct {
	path   string
	config Config
	lock   *os.File // nil: not held
}

// Create makes the folder of a new run, holding its lock. The configuration
// must be resolved. A folder that holds a run is refused by ErrExists unless
// force, which removes that run: the folder must then be recognisably a run,
// that nobody is training, and hold nothing but a run's files; otherwise
// nothing is removed. A symbolic link is never followed to something to
// remove. An empty folder will do; any other is refused.
func Create(name string, c Config, force bool) (*Folder, error) {
	f, err := create(filepath.Clean(name), c, force)
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	return f, nil
}

func create(name string, c Config, force bool) (_ *Folder, err error) {
	if c.Version != FormatVersion || c.Method == 0 {
		return nil, invalid("%s: the configuration is not resolved", name)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := admit(name, force); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(name, 0o777); err != nil {
		return nil, err
	}
	f := &Folder{path: name, config: c}
	if err := f.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	// Another process may have come between.
	if err := admit(name, force); err != nil {
		return nil, err
	}
	if err := f.clear(); err != nil {
		return nil, err
	}
	for _, sub := range []string{checkpointsName, samplesName, plotsName} {
		if err := os.MkdirAll(filepath.Join(name, sub), 0o777); err != nil {
			return nil, err
		}
	}
	// The old configuration stands until all else of the old run is gone, and
	// the new one comes last: at any instant the folder is a run, or empty.
	return f, c.write(filepath.Join(name, configName))
}

// admit says why there may be no new run at name.
func admit(name string, force bool) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0 && force:
		return invalid("%s: is a symbolic link, and --force removes nothing through one", name)
	}
	if info, err := os.Stat(name); err != nil {
		return err
	} else if !info.IsDir() {
		return invalid("%s: is a file, want a folder", name)
	}
	seen, err := inspect(name)
	switch {
	case err != nil:
		return err
	case !seen.run && seen.foreign != "":
		return invalid("%s: is not empty (%s) and no run, want a new folder", name, seen.foreign)
	case !seen.run:
		return nil
	case !force:
		return &fault{ErrExists, name + ": holds a run already; --resume goes on with it, --force removes it"}
	case seen.foreign != "":
		return invalid("%s: --force removes nothing, because %s is not a run's", name, seen.foreign)
	}
	return nil
}

// contents is what a folder holds.
type contents struct {
	run     bool     // config.yaml says that it is a run
	foreign string   // something that no run has, if any
	files   []string // of a run, by slash-separated names
}

var (
	topFile     = regexp.MustCompile(`^(metrics\.jsonl|times\.jsonl|report\.html|pca\.safetensors|config\.yaml|\.lock)$`)
	sampleFile  = regexp.MustCompile(`^[^.].*\.npy$`)
	plotFile    = regexp.MustCompile(`^[^.].*\.(png|svg)$`)
	modelFile   = regexp.MustCompile(`^(step-([0-9]{9}))\.safetensors(\.damaged)?$`)
	partialFile = regexp.MustCompile(`^\..*\.fortet-partial$`) // of package atomicfile, whose writer was killed
)

// inspect looks at a folder without following symbolic links below it.
func inspect(name string) (contents, error) {
	var c contents
	err := fs.WalkDir(os.DirFS(name), ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == "." {
			return err
		}
		dir, base := path.Split(at)
		may := map[string]*regexp.Regexp{"": topFile, checkpointsName + "/": modelFile, samplesName + "/": sampleFile, plotsName + "/": plotFile}[dir]
		switch {
		case d.IsDir() && dir == "" && (base == checkpointsName || base == samplesName || base == plotsName):
			return nil
		case d.Type().IsRegular() && may != nil && (may.MatchString(base) || partialFile.MatchString(base)):
			c.files = append(c.files, at)
			return nil
		}
		c.foreign = cmp.Or(c.foreign, at)
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	c.run = isRun(name)
	if !c.run && c.foreign == "" {
		// What a killed Create leaves is as good as empty, anything else is not.
		for _, file := range c.files {
			if base := path.Base(file); base != lockName && !partialFile.MatchString(base) {
				c.foreign = file
			}
		}
	}
	return c, nil
}

// isRun recognises the configuration of a run of any version.
func isRun(name string) bool {
	file := filepath.Join(name, configName)
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxConfig {
		return false
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	var c struct {
		Version int    `yaml:"version"`
		Method  string `yaml:"method"`
		Fortet  Build  `yaml:"fortet"`
	}
	return yaml.Unmarshal(data, &c) == nil && c.Version > 0 && c.Method != "" && c.Fortet.Version != ""
}

// clear removes the files of the old run but its configuration and the lock.
// It works below an opened folder, so that nothing outside can be reached even
// if somebody puts a symbolic link in the way meanwhile.
func (f *Folder) clear() error {
	seen, err := inspect(f.path)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return err
	}
	defer root.Close() // nothing was written
	for _, file := range seen.files {
		if file == configName || file == lockName {
			continue
		}
		if err := root.Remove(filepath.FromSlash(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Open opens the folder of a run for reading.
func Open(name string) (*Folder, error) {
	name = filepath.Clean(name)
	file := filepath.Join(name, configName)
	c, err := LoadConfig(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run: %s: is no run: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if c.Version == 0 {
		return nil, fmt.Errorf("run: %w", invalid("%s: no version: this is a configuration, but of no run", file))
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("run: %s: %w", file, err)
	}
	return &Folder{path: name, config: c}, nil
}

// Lock takes the lock of a folder that was opened. The error wraps ErrLocked
// where another process holds it. The lock ends with Close, and with the
// process however it ends. Systems without flock, such as Windows, have no lock.
func (f *Folder) Lock() error {
	if f.lock != nil {
		return nil
	}
	if err := f.takeLock(); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func (f *Folder) takeLock() error {
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return err
	}
	defer root.Close() // the lock stays open
	if info, err := root.Lstat(lockName); err == nil && !info.Mode().IsRegular() {
		return invalid("%s: is not a regular file", filepath.Join(f.path, lockName)) // it is about to be written
	}
	file, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return &fs.PathError{Op: "lock", Path: filepath.Join(f.path, lockName), Err: errors.Unwrap(err)}
	}
	if !lock(file) {
		holder := make([]byte, 200)
		n, _ := file.ReadAt(holder, 0) // only tells who
		text := fmt.Sprintf("%s: it is being trained", f.path)
		if n > 0 {
			text += " (" + strings.TrimSpace(strings.ToValidUTF8(string(holder[:n]), "?")) + ")"
		}
		return errors.Join(&fault{ErrLocked, text}, file.Close())
	}
	host, _ := os.Hostname() // only tells who
	text := fmt.Sprintf("process %d on %s\n", os.Getpid(), host)
	if err := errors.Join(file.Truncate(0), writeAt(file, text)); err != nil {
		return errors.Join(err, file.Close())
	}
	f.lock = file
	return nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// Close gives up the lock. It may be called twice.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	err := f.lock.Close()
	f.lock = nil
	return err
}

// Path is where the folder is.
func (f *Folder) Path() string { return f.path }

// Config is the resolved configuration.
func (f *Folder) Config() Config { return f.config }

// Sample is the path of an array of samples: name.npy.
func (f *Folder) Sample(name string) string { return filepath.Join(f.path, samplesName, name+".npy") }

// Plot is the path of a picture, whose name ends in .png or .svg.
func (f *Folder) Plot(name string) string { return filepath.Join(f.path, plotsName, name) }

// Report is the path of the page about the run.
func (f *Folder) Report() string { return filepath.Join(f.path, reportName) }

// PCA is the path of the principal components that a run is trained on.
func (f *Folder) PCA() string { return filepath.Join(f.path, pcaName) }

// Records reads metrics.jsonl.
func (f *Folder) Records() ([]Record, error) {
	records, _, err := readJournal(filepath.Join(f.path, metricsName), maxStep)
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	return records, nil
}

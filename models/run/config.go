package run

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"go.yaml.in/yaml/v3"

	"github.com/fortet/fortet/internal/atomicfile"
)

// FormatVersion is the version of the folder's format that this package writes
// and reads.
const FormatVersion = 1

// Config is the configuration of a run. Zero means the default, which Resolve
// fills in; what a zero could otherwise mean is written "none" (see Number).
// Tags hold the keys of config.yaml and what their values may be.
type Config struct {
	Version int    `yaml:"version" range:"[1,1000000]" fixed:"true"` // FormatVersion
	Fortet  Build  `yaml:"fortet"`
	Method  Method `yaml:"method,omitempty"`
	Seed    uint64 `yaml:"seed"`            // of everything random
	Device  string `yaml:"device"`          // as gpu.Open takes it; of a run, what Name says of the device that it began on
	DType   DType  `yaml:"dtype,omitempty"` // of training
	Data    Data   `yaml:"data"`
	Train   Train  `yaml:"train"`
	Light   Light  `yaml:"light,omitempty"` // light bridges only
}

// Build is the program that began the run.
type Build struct {
	Version string `yaml:"version" fixed:"true"`
	Commit  string `yaml:"commit" fixed:"true"`
}

// Data says what is trained on.
type Data struct {
	Source string `yaml:"source"` // URI of package dataset
	Target string `yaml:"target"`
	Pool   int    `yaml:"pool" range:"[1,268435456]"` // draws of a generator kept on the device; fewer where they are too large, see Pool
	PCA    int    `yaml:"pca" range:"[0,1000000]"`    // principal components trained on; 0: the data as they are
}

// Train says how a loop runs.
type Train struct {
	Steps           int     `yaml:"steps" range:"[1,999999999]"` // in all
	Batch           int     `yaml:"batch" range:"[1,16777216]"`
	Rate            float64 `yaml:"lr" range:"(0,inf)"` // the highest learning rate
	Decay           Decay   `yaml:"schedule,omitempty"`
	Warmup          int     `yaml:"warmup" range:"[0,999999999]"` // steps in which the rate rises linearly
	Clip            Number  `yaml:"clip" range:"(0,inf)|none"`    // global norm of a gradient
	Average         float64 `yaml:"ema" range:"[0,1)"`            // decay of the moving average of parameters; 0: none is kept
	WeightDecay     float64 `yaml:"weight_decay" range:"[0,inf)"` // decoupled
	CheckpointEvery int     `yaml:"checkpoint_every" range:"[1,999999999]"`
	LogEvery        int     `yaml:"log_every" range:"[1,999999999]"`
	Keep            int     `yaml:"keep" range:"[1,1000000]"` // newest checkpoints kept
}

// Schedule is the learning rate of every step.
func (t Train) Schedule() Schedule { return Schedule{t.Rate, t.Decay, t.Warmup, t.Steps} }

// Light is what light bridges have beside: a mixture of K Gaussians with means
// r_j and covariances ε S_j as potential, time on [0, 1].
type Light struct {
	Components int        `yaml:"components" range:"[1,1048576]"` // K
	Covariance Covariance `yaml:"covariance,omitempty"`           // of S_j
	Epsilon    float64    `yaml:"epsilon" range:"(0,inf)"`        // the reference is √ε W
	Beta       Number     `yaml:"beta" range:"(0,inf]"`           // price of changing the volatility; inf: a Schrödinger bridge
	Floor      Number     `yaml:"floor" range:"(0,1]|none"`       // δ of S ≥ (1+δ)/(1+β), which keeps the transport map invertible
	InitScale  float64    `yaml:"init_scale" range:"(0,inf)"`     // of S_j above the floor
	Init       Init       `yaml:"init,omitempty"`                 // of r_j
	Outer      int        `yaml:"outer" range:"[1,1000000]"`      // iterations of the alternation, which share train.steps
	Safe       float64    `yaml:"safe" range:"(0,1)"`             // bridge matching draws t from (0, 1-safe)
}

// maxConfig bounds a configuration file, of which 2 kB are usual.
const maxConfig = 1 << 20

// LoadConfig reads a configuration file, which may leave out whatever has a
// default.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	defer f.Close() // read only
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig is LoadConfig of a file's content. The error lists all faults,
// one a line, with line numbers; it wraps ErrInvalid.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if len(data) > maxConfig {
		return c, invalid("config: more than %d bytes", maxConfig)
	}
	if err := c.parse(data); err != nil {
		return Config{}, err
	}
	return c, nil
}

// YAML writes a resolved configuration as ParseConfig reads it. Equal
// configurations give equal bytes.
func (c Config) YAML() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# A run of fortet. `fortet train METHOD --resume --out DIR` goes on with it.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return b.Bytes(), nil
}

// write replaces the file at path.
func (c Config) write(path string) error {
	text, err := c.YAML()
	if err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// module is the path under which a program's build information lists us.
const module = "github.com/fortet/fortet"

// thisBuild is what the running program says of itself.
func thisBuild() Build {
	unknown := Build{Version: "unknown", Commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	if info.Main.Path != module {
		for _, d := range info.Deps {
			if d.Path == module {
				return Build{Version: d.Version, Commit: unknown.Commit}
			}
		}
		return unknown
	}
	b := Build{Version: info.Main.Version, Commit: unknown.Commit}
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	b.Commit += changed
	if b.Version == "" {
		b.Version = unknown.Version
	}
	return b
}

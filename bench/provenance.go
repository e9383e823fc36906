package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
)

// Provenance is where a row comes from.
type Provenance struct {
	Commit    string    `json:"commit"`
	Dirty     bool      `json:"dirty"` // the working tree differed from the commit
	Date      time.Time `json:"date"`
	Device    string    `json:"device"`    // "cpu", "cuda:0"
	Processor string    `json:"processor"` // the device's model
	Features  string    `json:"features"`  // instruction level or architecture
	Driver    string    `json:"driver,omitempty"`
	Cores     int       `json:"cores"`
	Go        string    `json:"go"`
	Version   string    `json:"version,omitempty"` // of a peer
}

// provenance describes a run on a device. The commit is that of root's working
// tree, or where there is no git that of FORTET_COMMIT ("<hash>" or
// "<hash> dirty"), or what the program was built from, as it is without a root.
func provenance(dev gpu.Device, root string) Provenance {
	props := dev.Properties()
	p := Provenance{
		Date: time.Now().UTC().Truncate(time.Second), Device: dev.Name(), Processor: props.Model,
		Features: props.Features, Driver: props.Driver, Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
	p.Commit, p.Dirty = commit(root)
	return p
}

func commit(root string) (hash string, dirty bool) {
	if text := os.Getenv("FORTET_COMMIT"); text != "" {
		hash, rest, _ := strings.Cut(text, " ")
		return hash, rest == "dirty"
	}
	git := func(args ...string) (string, error) {
		if root == "" { // git would tell of the folder that the user is in
			return "", os.ErrNotExist
		}
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if hash, err := git("rev-parse", "--short=12", "HEAD"); err == nil {
		// The rows themselves do not make the tree another one.
		status, err := git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs")
		return hash, err != nil || status != ""
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", true
	}
	hash, dirty = "unknown", true
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			hash = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	return hash, dirty
}

// Title is the run of a row in words.
func (p Provenance) Title() string {
	dirty := ""
	if p.Dirty {
		dirty = " with changes"
	}
	return fmt.Sprintf("commit %s%s, %s, %s (%s), %d cores, %s", p.Commit, dirty, p.Date.Format("2006-01-02 15:04 MST"),
		p.Processor, p.Features, p.Cores, p.Go)
}

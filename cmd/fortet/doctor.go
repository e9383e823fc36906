package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/kernels/selftest"
)

var doctorCommand = command{
	name:    "doctor",
	does:    "Say what devices there are, whether they will be used, and why not; test every kernel family on each",
	usage:   "fortet doctor [--json]",
	example: "fortet doctor",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &doctor{}
		f.BoolVar(&c.json, "json", false, "print JSON")
		return c.do
	},
}

type doctor struct{ json bool }

type deviceReport struct {
	Name      string           `json:"name"`
	Available bool             `json:"available"`
	Reason    string           `json:"reason,omitempty"` // why not
	Used      bool             `json:"used_by_auto"`
	Model     string           `json:"model,omitempty"`
	Features  string           `json:"features,omitempty"`
	Workers   int              `json:"workers,omitempty"`
	Memory    int64            `json:"memory_bytes,omitempty"`
	Driver    string           `json:"driver,omitempty"`
	Library   string           `json:"library,omitempty"`
	Kernels   []selftestReport `json:"kernels,omitempty"`
}

type selftestReport struct {
	Family string `json:"family"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Millis number `json:"milliseconds"`
}

type doctorReport struct {
	Version   string         `json:"go"`
	Platform  string         `json:"platform"`
	Cores     int            `json:"cores"`
	BestLevel string         `json:"cpu_level"`
	Headers   string         `json:"kernel_headers"` // hash that a device library must match
	Auto      string         `json:"auto"`
	Devices   []deviceReport `json:"devices"`
}

func (c *doctor) do(s *session, args []string) error {
	if len(args) > 0 {
		return usagef("doctor: unexpected argument %q", args[0])
	}
	r := doctorReport{
		Version: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(),
		BestLevel: gpu.BestLevel().String(), Headers: include.Hash()[:16],
	}
	sick := 0
	for _, found := range gpu.Survey(gpu.Options{Workers: s.workers}) {
		d := deviceReport{Name: found.Name, Available: found.Err == nil}
		if found.Err != nil {
			d.Reason = found.Err.Error()
			r.Devices = append(r.Devices, d)
			continue
		}
		p := found.Device.Properties()
		d.Name, d.Model, d.Features, d.Workers = found.Device.Name(), p.Model, p.Features, p.Workers
		d.Memory, d.Driver, d.Library = p.MemoryBytes, p.Driver, p.Library
		for _, f := range selftest.Families() {
			begin := time.Now()
			err := f.Run(found.Device)
			t := selftestReport{Family: f.Name, OK: err == nil, Millis: number(float64(time.Since(begin).Microseconds()) / 1000)}
			if err != nil {
				t.Error = err.Error()
				sick++
			}
			d.Kernels = append(d.Kernels, t)
		}
		if r.Auto == "" || p.Kind == gpu.CUDA && r.Auto == "cpu" {
			r.Auto = d.Name
		}
		found.Device.Close()
		r.Devices = append(r.Devices, d)
	}
	for i := range r.Devices {
		r.Devices[i].Used = r.Devices[i].Name == r.Auto
	}
	if c.json {
		if err := s.print(r); err != nil {
			return err
		}
	} else {
		c.table(s, r)
	}
	if sick > 0 {
		return fmt.Errorf("doctor: %d self-tests failed", sick)
	}
	return nil
}

// table is the report for people: what they asked for, on standard output.
func (c *doctor) table(s *session, r doctorReport) {
	fmt.Fprintf(s.stdout, "fortet on %s, %s, %d cores, CPU level %s, kernel headers %s\n", r.Platform, r.Version, r.Cores, r.BestLevel, r.Headers)
	for _, d := range r.Devices {
		if !d.Available {
			fmt.Fprintf(s.stdout, "\n%-5s no: %s\n", d.Name, d.Reason)
			continue
		}
		use := ""
		if d.Used {
			use = ", used by --device auto"
		}
		fmt.Fprintf(s.stdout, "\n%-5s yes%s\n      %s, %s, %d workers, %.1f GiB\n", d.Name, use, d.Model, d.Features, d.Workers, float64(d.Memory)/(1<<30))
		if d.Driver != "" {
			fmt.Fprintf(s.stdout, "      driver %s\n", d.Driver)
		}
		if d.Library != "" {
			fmt.Fprintf(s.stdout, "      library %s\n", d.Library)
		}
		for _, k := range d.Kernels {
			verdict := "ok"
			if !k.OK {
				verdict = "FAILED: " + k.Error
			}
			fmt.Fprintf(s.stdout, "      %-9s %s (%.1f ms)\n", k.Family, verdict, float64(k.Millis))
		}
	}
}

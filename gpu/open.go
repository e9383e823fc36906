package gpu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// probeTimeout bounds how long a driver may take to count its devices. The
// slowest healthy start that we know of, a driver that has to load its kernel
// module, takes about two seconds.
const probeTimeout = 10 * time.Second

// Options refine Open. The zero value is the default.
type Options struct {
	Workers int   // CPU workers; 0 means all cores
	Level   Level // CPU instruction level
}

// Open opens a device by name.
//
//	"cpu"             C kernels on all cores
//	"cuda", "cuda:1"  an NVIDIA GPU; an error says why there is none
//	"emu"             the CUDA kernels, emulated; for tests
//	"auto"            the first GPU, or else the CPU; Properties().Fallback says why
//
// The environment variables FORTET_CPU_LEVEL (best, baseline, avx2, avx512),
// FORTET_CUDA_LIB and FORTET_EMU_LIB (paths of device libraries) are obeyed.
func Open(name string) (Device, error) { return OpenWith(name, Options{}) }

// OpenWith is Open with options.
func OpenWith(name string, o Options) (Device, error) {
	kind, index, _ := strings.Cut(name, ":")
	switch kind {
	case "cpu", "emu", "auto":
		if index != "" {
			return nil, fmt.Errorf("gpu: device %q: %w: %s takes no number", name, ErrInvalid, kind)
		}
	case "cuda":
	default:
		return nil, fmt.Errorf("gpu: device %q: %w: want auto, cpu, cuda, cuda:N or emu", name, ErrInvalid)
	}
	switch kind {
	case "cpu":
		return openCPU(o)
	case "emu":
		return openPlugin(Emulation, 0)
	case "cuda":
		i, err := 0, error(nil)
		if index != "" {
			i, err = strconv.Atoi(index)
		}
		if err != nil || i < 0 || strings.HasSuffix(name, ":") {
			return nil, fmt.Errorf("gpu: device %q: %w: want cuda:N with N from 0", name, ErrInvalid)
		}
		return openPlugin(CUDA, i)
	}
	d, err := openPlugin(CUDA, 0)
	if err == nil {
		return d, nil
	}
	c, cpuErr := openCPU(o)
	if cpuErr != nil {
		return nil, cpuErr
	}
	return &fallback{c, err}, nil
}

func openCPU(o Options) (Device, error) {
	if text := os.Getenv("FORTET_CPU_LEVEL"); text != "" && o.Level == Best {
		level, err := ParseLevel(text)
		if err != nil {
			return nil, fmt.Errorf("gpu: FORTET_CPU_LEVEL: %w", err)
		}
		o.Level = level
	}
	return OpenCPU(CPUOptions(o))
}

func openPlugin(kind Kind, index int) (Device, error) {
	path, tried := findLibrary(kind)
	if path == "" {
		return nil, fmt.Errorf("gpu: %v: %w: %w at %s", kind, ErrUnavailable, ErrNoLibrary, strings.Join(tried, ", "))
	}
	if kind == CUDA {
		n, err := probe(path, probeTimeout)
		if err != nil {
			return nil, fmt.Errorf("gpu: cuda: %w", err)
		}
		if index >= n {
			return nil, fmt.Errorf("gpu: cuda:%d: %w: the driver reports %d device(s)", index, ErrUnavailable, n)
		}
	}
	return openLibrary(path, index)
}

// fallback is the device that "auto" took instead of a GPU.
type fallback struct {
	Device
	why error
}

func (f *fallback) Properties() Properties {
	p := f.Device.Properties()
	p.Fallback = f.why
	return p
}

// Finding is what Survey reports of one device.
type Finding struct {
	Name   string // what Open accepts
	Err    error  // why it cannot be used; nil if it can
	Device Device // open, or nil; the caller closes it
}

// Survey opens every device that this program can: the CPU, each GPU and, where
// its library is present, the emulation. Devices that are not there are
// reported with the reason.
func Survey(o Options) []Finding {
	open := func(name string) Finding {
		d, err := OpenWith(name, o)
		return Finding{name, err, d}
	}
	found := []Finding{open("cpu"), open("cuda")}
	if found[1].Err == nil {
		n, err := deviceCount(found[1].Device.Properties().Library)
		for i := 1; err == nil && i < n; i++ {
			found = append(found, open("cuda:"+strconv.Itoa(i)))
		}
	}
	return append(found, open("emu"))
}

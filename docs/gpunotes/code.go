package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fortet/fortet/bench"
)

// machineCode is the lines of build/resources.tsv.
type machineCode []codePart

// codePart is the whole of a kernel, or one of its loops.
type codePart struct {
	source, kernel, arch, part       string
	registers, shared, stack, spills int
	threads, blocks                  int // 0: not known
	all                              float64
	count                            map[string]float64
}

func (p codePart) family() string { return filepath.Base(filepath.Dir(p.source)) }

func read(file string) (machineCode, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var code machineCode
	var titles []string
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		cells := strings.Split(line, "\t")
		if i == 0 {
			titles = cells
			continue
		}
		if len(cells) != len(titles) || len(cells) < 12 {
			return nil, fmt.Errorf("%s:%d: %d columns, want %d", file, i+1, len(cells), len(titles))
		}
		p := codePart{source: cells[0], kernel: cells[1], arch: cells[2], part: cells[3], count: map[string]float64{}}
		for k, at := range []*int{&p.registers, &p.shared, &p.stack, &p.spills, &p.threads, &p.blocks} {
			if cells[4+k] == "" {
				continue
			}
			if *at, err = strconv.Atoi(cells[4+k]); err != nil {
				return nil, fmt.Errorf("%s:%d: %s: %w", file, i+1, titles[4+k], err)
			}
		}
		if p.all, err = strconv.ParseFloat(cells[10], 64); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, i+1, titles[10], err)
		}
		for k := 11; k < len(cells); k++ {
			if p.count[titles[k]], err = strconv.ParseFloat(cells[k], 64); err != nil {
				return nil, fmt.Errorf("%s:%d: %s: %w", file, i+1, titles[k], err)
			}
		}
		code = append(code, p)
	}
	return code, nil
}

// find is the part of a kernel's sm_90 code, of those that begin as part does, that
// has the most of a class of instructions.
func (c machineCode) find(family, kernel, part, class string) (codePart, error) {
	var best codePart
	for _, p := range c {
		if p.family() == family && strings.HasPrefix(p.kernel, kernel) && p.arch == "sm_90" && strings.HasPrefix(p.part, part) && p.weight(class) > best.weight(class) {
			best = p
		}
	}
	if best.kernel == "" {
		return best, fmt.Errorf("no %s of %s in kernels/%s has any %s", part, kernel, family, class)
	}
	return best, nil
}

func (p codePart) weight(class string) float64 {
	if class == "" {
		return p.all
	}
	return p.count[class]
}

// work is what a warp executes for so many elements of each of its lanes.
type work struct {
	elements, all float64
	count         map[string]float64
	alone         float64 // cycles in which the busiest unit is assumed to idle
}

func (w *work) add(p codePart, times float64) {
	if w.count == nil {
		w.count = map[string]float64{}
	}
	w.all += times * p.all
	for class, n := range p.count {
		w.count[class] += times * n
	}
}

// cycles is how long a quarter of a multiprocessor takes for a warp at least, and
// on which unit: one instruction is issued a cycle; 32 lanes do float32
// arithmetic, 16 of which integer products; 16 do other integer operations,
// comparisons and minima; 4 do special functions.
func (w work) cycles() (float64, string) {
	n := w.count
	float := n["FFMA"] + n["FADD"] + n["FMUL"]
	busiest, unit := w.all, "issue"
	for _, u := range []struct {
		name   string
		cycles float64
	}{
		{"integers", 2 * (n["IADD"] + n["LOP"] + n["SHF"] + n["FMNMX"] + n["FSETP"] + n["FSEL"])},
		{"arithmetic", max(2*n["IMAD"], n["IMAD"]+float)},
		{"exponentials", 8 * (n["MUFU.EX2"] + n["MUFU"])},
		{"tensor cores", n["HMMA"] * hmmaCycles},
	} {
		if u.cycles > busiest {
			busiest, unit = u.cycles, u.name
		}
	}
	return busiest, unit
}

const (
	// efficiency is the share of the busiest unit's cycles that is assumed to be
	// used: warps wait for each other at barriers, and for results.
	efficiency = 0.8
	// sustained is the share of a memory's bandwidth that copies reach.
	sustained = 0.9
	// hmmaCycles is what a product of 16 × 8 × 8 TF32 numbers takes: 4 cycles of
	// a quarter's 256 a cycle, at the 0.62 of it that mma.sync reaches on Hopper, and at
	// the 1.83 GHz that the data sheet's rate for TF32 is of, where others are of 1.98.
	hmmaCycles = 4 / 0.62 * 1.98 / 1.83
)

// kernel is a kernel that something is promised of.
type kernel struct {
	name   string
	bar    float64
	models []string
	work   func(machineCode) (work, error)
	limit  func(bench.Model) float64 // elements a second
}

var hopper = []string{"H100 SXM", "H200 SXM"}

// kernels are those of the bars. Where a kernel has optional outputs or a slower way
// for arrays that are not aligned, its loop as a whole counts, which is too much.
var kernels = []kernel{
	points("softmin d=2", 2), points("softmin d=3", 3),
	products("softmin d=64, TF32", 64), products("softmin d=512, TF32", 512),
	rows("langevin step d=64", "langevin", "step<float>", "loop", 4, 12),
	rows("langevin step d=2", "langevin", "step<float>", "loop", 2, 12),
	rows("ou transition d=64", "ou", "transition<float>", "loop", 4, 12),
	rows("ou transition d=2", "ou", "transition<float>", "loop", 2, 12),
	rows("philox bits", "philox", "fill<Bits>", "path", 4, 4),
	rows("philox normals", "philox", "fill<Normal32>", "path", 4, 4),
}

// points is softmin of points whose coordinates are subtracted: an element is a
// pair, and a pair is an exponential.
func points(name string, d int) kernel {
	return kernel{
		name: name, bar: 0.6, models: []string{"H100 SXM", "A100 80GB"},
		work: func(c machineCode) (work, error) {
			var w work
			p, err := c.find("softmin", fmt.Sprintf("softmin_points<float, %d, false>", d), "path", "MUFU.EX2")
			w.add(p, 1)
			w.elements = p.count["MUFU.EX2"]
			return w, err
		},
		limit: func(m bench.Model) float64 { return 16 * float64(m.Multiprocessors) * m.Clock },
	}
}

// products is softmin by tensor cores: a warp's tile of 32 × 64 pairs is 64 of a
// lane, for each of which a slice of 32 coordinates is a turn of the inner loop.
func products(name string, d int) kernel {
	return kernel{
		name: name, bar: 0.5, models: hopper,
		work: func(c machineCode) (work, error) {
			w := work{elements: 64}
			slice, err := c.find("softmin", "softmin_tensor<(layout)1>", "path", "HMMA")
			if err != nil {
				return w, err
			}
			tile, err := c.find("softmin", "softmin_tensor<(layout)1>", "around", "MUFU.EX2")
			w.add(slice, float64((d+31)/32))
			w.add(tile, 1)
			w.alone = tile.all / 2 // while one warp ends its tile, others multiply: half of the time
			return w, err
		},
		limit: func(m bench.Model) float64 { return m.TF32 / (2 * float64(d)) },
	}
}

// rows is a kernel that is to be bound by memory.
func rows(name, family, function, part string, elements, bytes float64) kernel {
	return kernel{
		name: name, bar: 0.8, models: hopper,
		work: func(c machineCode) (work, error) {
			w := work{elements: elements}
			p, err := c.find(family, function, part, "")
			w.add(p, 1)
			return w, err
		},
		limit: func(m bench.Model) float64 { return m.Bandwidth / bytes },
	}
}

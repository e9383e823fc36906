package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// compareSuite is the suite that rows of Compare name.
const compareSuite = "compare"

// CompareOptions say what to compare. The zero value is all families in float32
// on the CPU and every GPU, in about a minute.
type CompareOptions struct {
	Device   string // "", "auto": the CPU and every GPU; "cpu"; "cuda:1", "emu": the CPU and that one
	Workers  int    // of the CPU; 0: all
	Families []string
	DTypes   []tensor.DType // nil: float32, or what else a kernel has
	Quick    bool           // small sizes and no limits, to see that everything works
	Budget   time.Duration  // about how long it may take; 0: 50 seconds, 8 if Quick
	Root     string         // the project's folder, whose commit rows name; "": what the program was built from
	// Progress is told how far the comparison is, from 0 to 1. It may be nil.
	Progress func(done float64, what string)
}

// Comparison is what a CPU and GPUs reached.
type Comparison struct {
	Devices  []Compared `json:"devices"`
	Families []Summary  `json:"families"`
	Rows     []Row      `json:"rows"`
}

// Compared is a device that takes part, or the reason why it does not.
type Compared struct {
	Name     string `json:"name"`
	Model    string `json:"model,omitempty"`
	Features string `json:"features,omitempty"`
	Workers  int    `json:"workers,omitempty"`
	Absent   string `json:"absent,omitempty"` // why it takes no part
	Note     string `json:"note,omitempty"`
}

// Summary is a variant on all devices.
type Summary struct {
	Family    string  `json:"family"`
	Operation string  `json:"operation"`
	Shape     string  `json:"shape"`
	DType     string  `json:"dtype"`
	Unit      string  `json:"unit"` // what sizes count
	Devices   []Climb `json:"devices"`
}

// Climb is what a device did over the sizes of a variant in a precision.
type Climb struct {
	Device    string  `json:"device"`
	Precision string  `json:"precision"`
	Sizes     []int   `json:"sizes"`   // that were measured
	Size      int     `json:"size"`    // the largest of them, which what follows is of
	Seconds   float64 `json:"seconds"` // fastest repetition
	Rate      float64 `json:"rate"`
	RateUnit  string  `json:"rate_unit"`

	LimitFraction *float64 `json:"limit_fraction,omitempty"`
	Limit         string   `json:"limit,omitempty"` // what it is made of
	Formula       string   `json:"formula,omitempty"`

	// Speedup is how many times faster than the CPU a GPU is at SpeedupSize, the
	// largest size that both were measured at.
	Speedup     *float64 `json:"speedup,omitempty"`
	SpeedupSize int      `json:"speedup_size,omitempty"`
	// Crossover says from which size on the GPU is faster: "always", "never", or
	// "from N", with CrossoverSize the N.
	Crossover     string `json:"crossover,omitempty"`
	CrossoverSize *int   `json:"crossover_size,omitempty"`

	seconds []float64 // of Sizes
}

// Compare measures families over their sizes on the CPU and on GPUs. Each
// answer is checked; its error wraps ErrWrong, and names the rows, where one is
// wrong, and the comparison is there even so.
func Compare(ctx context.Context, o CompareOptions) (*Comparison, error) {
	chosen, err := o.families()
	if err != nil {
		return nil, err
	}
	return o.compare(ctx, chosen)
}

func (o CompareOptions) compare(ctx context.Context, chosen []Family) (*Comparison, error) {
	if o.Budget == 0 {
		o.Budget = 50 * time.Second
		if o.Quick {
			o.Budget = 8 * time.Second
		}
	}
	found, err := o.open()
	if err != nil {
		return nil, err
	}
	c := &Comparison{}
	var sessions []*Session
	for _, f := range found {
		d := Compared{Name: f.Name}
		if f.Err != nil {
			d.Absent = f.Err.Error()
			c.Devices = append(c.Devices, d)
			continue
		}
		defer f.Device.Close()
		p := f.Device.Properties()
		d.Name, d.Model, d.Features, d.Workers = f.Device.Name(), p.Model, p.Features, p.Workers
		if p.Kind == gpu.Emulation {
			d.Note = "emulation: its times mean nothing"
		}
		c.Devices = append(c.Devices, d)
		sessions = append(sessions, &Session{
			Options: Options{Device: d.Name, Quick: o.Quick, Log: io.Discard}, Provenance: provenance(f.Device, o.Root), suite: compareSuite, dev: f.Device,
		})
	}
	if len(sessions) == 0 {
		return nil, fmt.Errorf("bench: %w: %s", gpu.ErrUnavailable, c.Devices[0].Absent)
	}
	type job struct {
		family Family
		Variant
		dtype tensor.DType
	}
	var jobs []job
	for _, f := range chosen {
		for _, v := range f.Variants {
			types := v.dtypes()
			if o.DTypes != nil {
				types = slices.DeleteFunc(slices.Clone(types), func(t tensor.DType) bool { return !slices.Contains(o.DTypes, t) })
			} else if slices.Contains(types, tensor.Float32) {
				types = []tensor.DType{tensor.Float32}
			}
			for _, t := range types {
				jobs = append(jobs, job{f, v, t})
			}
		}
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("bench: %w: no kernel of %s has such a type", gpu.ErrInvalid, strings.Join(o.Families, ", "))
	}
	for _, s := range sessions { // before what is timed, and not a part of it
		for _, j := range jobs {
			if o.Quick {
				break
			}
			if o.Progress != nil {
				o.Progress(0, "limits of "+s.Device)
			}
			if _, err := s.ceilings.of(s.dev, Setting{DType: j.dtype}); err != nil {
				return nil, err
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
	begin := time.Now()
	for i, j := range jobs {
		sum := Summary{Family: j.family.Name, Operation: j.Name, Shape: j.Shape, DType: j.dtype.String(), Unit: j.Unit}
		for k, s := range sessions {
			if o.Progress != nil {
				o.Progress(float64(i*len(sessions)+k)/float64(len(jobs)*len(sessions)), fmt.Sprintf("%v on %s", j.Variant, s.Device))
			}
			// What is left of the time, for what is left to do: where the machine is
			// busy, sizes go less far.
			left := time.Duration((len(jobs)-i)*len(sessions) - k)
			share := min(max((o.Budget-time.Since(begin))/left, o.Budget/time.Duration(5*len(jobs)*len(sessions))), 3*time.Second)
			for _, set := range j.settings(s.dev.Properties().Kind, j.dtype, 0) {
				reached, err := s.climb(ctx, j.Variant, set, share)
				if err != nil {
					return c, err
				}
				if reached != nil {
					sum.Devices = append(sum.Devices, *reached)
				}
			}
		}
		sum.compare()
		c.Families = append(c.Families, sum)
	}
	var wrong []string
	for _, s := range sessions {
		for _, r := range s.Rows {
			c.Rows = append(c.Rows, r)
			if r.Status == Wrong {
				wrong = append(wrong, fmt.Sprintf("%s %v on %s: error %.3g, at most %.3g", r.Name, strings.TrimSpace(r.Work.String()), r.Device, *r.Error, r.Budget))
			}
		}
	}
	if len(wrong) > 0 {
		return c, fmt.Errorf("bench: %w: %s", ErrWrong, strings.Join(wrong, "; "))
	}
	return c, nil
}

// families are those that are asked for.
func (o CompareOptions) families() ([]Family, error) {
	all := Families()
	if len(o.Families) == 0 {
		return all, nil
	}
	var chosen []Family
	for _, name := range o.Families {
		i := slices.IndexFunc(all, func(f Family) bool { return f.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("bench: family %q: %w: want one of %s", name, gpu.ErrInvalid, strings.Join(FamilyNames(), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// open opens the devices, the CPU first.
func (o CompareOptions) open() ([]gpu.Finding, error) {
	cpu := gpu.Options{Workers: o.Workers}
	if o.Device == "" || o.Device == "auto" {
		found := gpu.Survey(cpu)
		return slices.DeleteFunc(found, func(f gpu.Finding) bool {
			if f.Name == "emu" && f.Device != nil {
				f.Device.Close()
			}
			return f.Name == "emu"
		}), nil
	}
	var found []gpu.Finding
	for _, name := range slices.Compact([]string{"cpu", o.Device}) {
		dev, err := gpu.OpenWith(name, cpu)
		if err != nil {
			for _, f := range found {
				f.Device.Close()
			}
			return nil, err
		}
		found = append(found, gpu.Finding{Name: name, Device: dev})
	}
	return found, nil
}

// climb measures a variant from its smallest size to the largest that its share
// of the time allows. nil: the device has no such kernel.
func (s *Session) climb(ctx context.Context, v Variant, set Setting, share time.Duration) (*Climb, error) {
	reached := &Climb{Device: s.Device}
	sizes := v.Sizes
	if s.Quick {
		sizes = sizes[:min(2, len(sizes))]
	}
	var last Row
	overhead := 0.0 // of making and checking the last case
	for i, size := range sizes {
		set.Size = size
		if i > 0 {
			work, arrays := growth(*last.Cost, v.Cost(set))
			if last.Seconds.Median*work > share.Seconds()/8 || overhead*arrays > 3*share.Seconds() {
				break
			}
		}
		begin := time.Now()
		p := pace{atLeast: share / time.Duration(2*len(sizes)), most: 200}
		r, err := s.row(ctx, s.dev, v, set, p)
		if errors.Is(err, gpu.ErrUnsupported) || i > 0 && errors.Is(err, gpu.ErrOutOfMemory) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%v, %d %s, %v on %s: %w", v, size, v.Unit, set, s.Device, err)
		}
		if s.dev.Properties().Kind == gpu.CPU {
			r.Workers = s.dev.Properties().Workers
		}
		s.add(r)
		last = s.Rows[len(s.Rows)-1]
		overhead = time.Since(begin).Seconds() - float64(last.Seconds.Repetitions)*last.Seconds.Median
		reached.Sizes, reached.seconds = append(reached.Sizes, size), append(reached.seconds, last.Seconds.Minimum)
	}
	if len(reached.Sizes) == 0 {
		return nil, nil
	}
	reached.Precision = last.Precision
	reached.Size, reached.Seconds = reached.Sizes[len(reached.Sizes)-1], last.Seconds.Minimum
	reached.Rate, reached.RateUnit = last.rate()
	if l := last.Limit; l != nil {
		reached.LimitFraction, reached.Limit, reached.Formula = &l.Fraction, l.Binding, l.Formula
	}
	return reached, nil
}

// growth is how many times more work b is than a, in what grows most, and how
// many times larger its arrays are.
func growth(a, b Cost) (work, arrays float64) {
	work = 1
	for _, p := range [][2]Count{{a.Flops, b.Flops}, {a.Matrix, b.Matrix}, {a.Exps, b.Exps}, {a.Integers, b.Integers}, {a.Read, b.Read}, {a.Written, b.Written}} {
		if p[0].Number > 0 {
			work = max(work, p[1].Number/p[0].Number)
		}
	}
	return work, (b.Read.Number + b.Written.Number) / (a.Read.Number + a.Written.Number)
}

// compare fills in what a GPU gains over the CPU, which comes first.
func (s *Summary) compare() {
	if len(s.Devices) == 0 || s.Devices[0].Device != "cpu" {
		return
	}
	cpu := s.Devices[0]
	for i := range s.Devices[1:] {
		d := &s.Devices[i+1]
		from := -1
		for k := min(len(cpu.Sizes), len(d.Sizes)) - 1; k >= 0; k-- { // both begin with the smallest
			ratio := cpu.seconds[k] / d.seconds[k]
			if d.Speedup == nil {
				d.Speedup, d.SpeedupSize = &ratio, d.Sizes[k]
			}
			if ratio <= 1 {
				break
			}
			from = k
		}
		switch {
		case d.Speedup == nil:
		case from < 0:
			d.Crossover = "never"
		case from == 0:
			d.Crossover, d.CrossoverSize = "always", &d.Sizes[0]
		default:
			d.Crossover, d.CrossoverSize = fmt.Sprintf("from %d", d.Sizes[from]), &d.Sizes[from]
		}
	}
}

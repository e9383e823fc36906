package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor/npy"
)

// lab is where an experiment is made.
type lab struct {
	ctx            context.Context
	dev            gpu.Device
	work, pictures string
	data           string // FORTET_DATA
	quick          bool
	log            io.Writer
	count          *atomic.Int64 // of files and folders
}

func newLab(ctx context.Context, data, pictures string, quick bool, log io.Writer) (*lab, error) {
	dev, err := gpu.Open("cpu")
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "fortet-docs-light-")
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return &lab{ctx, dev, work, pictures, data, quick, log, &atomic.Int64{}}, nil
}

func (l *lab) close() {
	l.dev.Close()        // nothing is left on it
	os.RemoveAll(l.work) // a temporary folder
}

// few is n, or much less for a quick look.
func (l *lab) few(n int) int {
	if l.quick {
		return max(n/20, min(n, 40))
	}
	return n
}

// trained is a bridge that was just trained.
type trained struct {
	*light.Model
	certificate map[string]float64 // that of the run
	seconds     float64            // of training
}

// train runs a configuration as `fortet train` does.
func (l *lab) train(method run.Method, c run.Config) (*trained, error) {
	c.Device = "cpu"
	if err := c.Resolve(method); err != nil {
		return nil, err
	}
	c.Train.Steps = l.few(c.Train.Steps)
	c.Train.CheckpointEvery = c.Train.Steps
	dir := filepath.Join(l.work, fmt.Sprintf("run-%d", l.count.Add(1)))
	f, err := run.Create(dir, c, false)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	defer f.Close()
	r, err := light.Train(l.ctx, l.dev, f, run.Options{})
	if err != nil {
		return nil, err
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	m, err := light.Open(l.ctx, l.dev, f)
	if err != nil {
		return nil, err
	}
	out := &trained{m, map[string]float64{}, r.Seconds}
	for _, v := range r.Metrics {
		out.certificate[v.Name] = v.Value
	}
	return out, nil
}

// pool keeps points as a data set and returns its URI.
func (l *lab) pool(x []float64, d int) (string, error) {
	file := filepath.Join(l.work, fmt.Sprintf("pool-%d.npy", l.count.Add(1)))
	return "npy:" + file, npy.WriteFile(file, npy.New(x, len(x)/d, d))
}

// picture draws a figure into docs/pictures.
func (l *lab) picture(file string, fig plot.Figure) error {
	var out bytes.Buffer
	if err := plot.Encode(&out, fig, plot.PNG); err != nil {
		return err
	}
	im, err := png.Decode(&out)
	if err != nil {
		return err
	}
	small, err := page.Shrink(im)
	if err != nil {
		return err
	}
	return page.Store(filepath.Join(l.pictures, file), small)
}

// share runs jobs on labs whose devices have one worker each, as many as there
// are cores: small trainings do not fill two. The first error ends all.
func (l *lab) share(workers, jobs int, job func(l *lab, i int) error) error {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			own := *l
			own.ctx = ctx
			var err error
			if own.dev, err = gpu.OpenCPU(gpu.CPUOptions{Workers: 1}); err != nil {
				cancel(err)
				return
			}
			defer own.dev.Close()
			for i := int(next.Add(1)) - 1; i < jobs && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := job(&own, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// stream is a source of random numbers of its own.
func stream(purpose, seed uint64) *rand.Rand { return rand.New(rand.NewPCG(purpose, seed)) }

func normals(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

// price writes a β.
func price(beta float64) string {
	if math.IsInf(beta, 1) {
		return "∞"
	}
	return strconv.FormatFloat(beta, 'g', -1, 64)
}

// spread is the mean and the standard deviation of some numbers.
type spread struct {
	Mean float64 `json:"mean"`
	Std  float64 `json:"std"`
}

func spreadOf(x []float64) (s spread) {
	for _, v := range x {
		s.Mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return s
	}
	for _, v := range x {
		s.Std += (v - s.Mean) * (v - s.Mean) / float64(len(x)-1)
	}
	s.Std = math.Sqrt(s.Std)
	return s
}

// String writes mean ± std.
func (s spread) String() string {
	if s.Std == 0 {
		return page.Num(3, s.Mean)
	}
	digits := 3
	if s.Mean != 0 {
		// As many decimals as the first two digits of the deviation.
		digits = min(6, max(2, 2+int(math.Floor(math.Log10(math.Abs(s.Mean))))-int(math.Floor(math.Log10(s.Std)))))
	}
	return page.Num(digits, s.Mean) + " ± " + page.Num(2, s.Std)
}

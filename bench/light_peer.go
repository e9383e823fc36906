package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor/npy"
)

// stepPeer is the same step in PyTorch, in the ways that bench/peers/light.py
// knows. That it is the same is seen in float64, where rounding hides nothing.
func (s *Session) stepPeer(ctx context.Context, p *stepProblem) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	seconds, threads := 5.0, min(2, s.Provenance.Cores)
	if s.Quick {
		seconds = 0
	}
	if err := p.write(dir, seconds); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	out, err := s.python(limited, pyTorch, "light.py", "--problem", dir, "--out", dir, "--threads", strconv.Itoa(threads))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		fmt.Fprintf(s.Log, "%s: not done after %v\n", pyTorch, s.Limit)
		return nil
	}
	if out == nil || err != nil {
		return err
	}
	var a struct {
		Version string
		Fit     *float64 // seconds of a step of the inverse of LightSBB-M
		Answers []struct {
			Way     string
			Threads int
			Seconds []float64
		}
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("%s: %w in %q", pyTorch, err, tail(string(out)))
	}
	for _, way := range a.Answers {
		worst, single, err := p.judge(dir, way.Way)
		if err != nil {
			return fmt.Errorf("%s: %w", pyTorch, err)
		}
		note := fmt.Sprintf("the faster of 1 and %d threads; error in float32 %.1e", threads, single)
		if a.Fit != nil {
			note += fmt.Sprintf("; a step of the fit of its inverse, not counted, takes %s ms", number3(1000**a.Fit))
		}
		s.add(Row{
			Name: stepName(p.method), Engine: pyTorch, Status: OK, Seconds: Sum(way.Seconds),
			Provenance: Provenance{Version: a.Version},
			Work:       p.work(way.Way, way.Threads),
			Accuracy:   Accuracy{Error: &worst, Budget: ulp[float32]()},
			Note:       note,
		})
	}
	return nil
}

// judge compares the loss and the gradient that a way of PyTorch left in dir, in
// float64 and in float32, with their definition.
func (p *stepProblem) judge(dir, way string) (double, single float64, err error) {
	want, err := p.published(dir)
	if err != nil {
		return 0, 0, err
	}
	single32, err32 := npy.ReadFile(filepath.Join(dir, way+".f32.npy"))
	double64, err64 := npy.ReadFile(filepath.Join(dir, way+".f64.npy"))
	if err := errors.Join(err32, err64); err != nil {
		return 0, 0, err
	}
	return relative(double64.Float64s(), want), relative(single32.Float64s(), want), nil
}

// published is loss and gradient in float64, of LightSB with what its loss has
// beside ours that does not depend on the parameters, and of LightSBB-M on the
// bridge between the endpoints that its network in dir has.
func (p *stepProblem) published(dir string) (*gradient[float64], error) {
	switch p.method {
	case run.LightSBM:
		return matching[float64](&p.potential, p.bridge), nil
	case run.LightSBBM:
		bridge, err := p.pulled(dir)
		q := p.potential
		q.floor, q.raws = 0, p.logScales()
		return matching[float64](&q, bridge), err
	}
	want := likelihood[float64](&p.potential, p.terms(p.x0, p.x1, 1)...)
	square := 0.0
	for _, x := range [][]float32{p.x0, p.x1} {
		for _, v := range x {
			square += float64(v) * float64(v) / float64(p.batch)
		}
	}
	want.value[0] += square/(2*p.epsilon) + float64(p.d)/2*math.Log(2*math.Pi*p.epsilon)
	return want, nil
}

// pulled reads the bridge that was matched, and sees that it is one between the
// endpoints y0 and y1 of the network.
func (p *stepProblem) pulled(dir string) (matched, error) {
	parts := map[string][]float32{}
	for _, name := range []string{"y0", "y1", "xt", "u"} {
		a, err := npy.ReadFile(filepath.Join(dir, name+".npy"))
		if err != nil {
			return matched{}, err
		}
		if parts[name] = convert[float32](a.Float64s()); len(parts[name]) != len(p.noise) {
			return matched{}, fmt.Errorf("%s: shape %s, want (%d, %d)", name, npy.FormatShape(a.Shape), p.batch, p.d)
		}
	}
	const few = 8 // roundings of float32
	for i, n := range p.noise {
		t := float64(p.bridge.t[i/p.d])
		y0, y1, xt, u := float64(parts["y0"][i]), float64(parts["y1"][i]), float64(parts["xt"][i]), float64(parts["u"][i])
		noise := math.Sqrt(p.epsilon*t*(1-t)) * float64(n)
		size := few * ulp[float32]() * (math.Abs(y0) + math.Abs(y1) + math.Abs(noise))
		if !(math.Abs((1-t)*y0+t*y1+noise-xt) <= size) || !(math.Abs((y1-xt)/(1-t)-u) <= size/(1-t)) {
			return matched{}, fmt.Errorf("element %d of the bridge: got x = %v, u = %v between %v and %v at %v", i, xt, u, y0, y1, t)
		}
	}
	return matched{x: parts["xt"], u: parts["u"], t: p.bridge.t}, nil
}

// logScales are log S, floor or not.
func (p *stepProblem) logScales() []float32 {
	if p.floor == 0 {
		return p.raws
	}
	out := make([]float32, len(p.raws))
	for i, raw := range p.raws {
		out[i] = float32(math.Log(p.floor + math.Exp(float64(raw))))
	}
	return out
}

// relative is the largest error of a loss and its gradient, relative to the
// largest element of its part.
func relative(got []float64, want *gradient[float64]) float64 {
	worst, at := 0.0, want.p.parts()
	if len(got) != len(want.value) {
		return math.NaN()
	}
	for part := range 4 {
		var off, scale float64
		for i := at[part]; i < at[part+1]; i++ {
			off, scale = maxNaN(off, math.Abs(got[i]-want.value[i])), max(scale, math.Abs(want.value[i]))
		}
		worst = maxNaN(worst, off/scale)
	}
	return worst
}

// write writes what light.py reads.
func (p *stepProblem) write(dir string, seconds float64) error {
	spec := map[string]any{
		"method": p.method.String(), "epsilon": p.epsilon, "rate": p.rate, "safe": p.safe, "batch": p.batch,
		"block": p.block, "seconds": seconds, "clip": p.clip,
	}
	if !math.IsInf(p.beta, 1) {
		spec["beta"] = p.beta
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "problem.json"), text, 0o644)
	for _, a := range []struct {
		name string
		v    []float32
		d    int // 0: a vector
	}{
		{"source", p.source, p.d}, {"target", p.target, p.d}, {"logits", p.logits, 0}, {"means", p.means, p.d},
		{"logscales", p.logScales(), p.d}, {"x0", p.x0, p.d}, {"x1", p.x1, p.d}, {"noise", p.noise, p.d},
		{"xt", p.bridge.x, p.d}, {"u", p.bridge.u, p.d}, {"t", p.bridge.t, 0},
	} {
		shape := []int{len(a.v)}
		if a.d > 0 {
			shape = []int{len(a.v) / a.d, a.d}
		}
		err = errors.Join(err, save(filepath.Join(dir, a.name+".npy"), npy.New(a.v, shape...)))
	}
	return err
}

func convert64(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

package run

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
)

// defaults are those of a method.
//
// lightsb: the entropic OT benchmark of LightSB's programs (arXiv 2310.01174),
// which is in 2 to 128 dimensions. lightsb-m: the two-dimensional runs of
// LightSB-M (arXiv 2402.03207), with 10,000 steps where its programs make up to
// 50,000. lightsbb: our runs of the dual ascent in two dimensions. lightsbb-m: the
// programs of LightSBB-M (arXiv 2601.19312), five times 6,000 steps, and a
// floor, without which narrow modes make the transport map not invertible.
func (m Method) defaults() Config {
	c := Config{
		DType: F32, Device: "auto",
		Data: Data{Pool: 1 << 18},
		Train: Train{
			Batch: 512, Rate: 1e-3, Decay: Constant, Clip: None, Keep: 3,
		},
		Light: Light{
			Components: 50, Covariance: Diagonal, Epsilon: 0.1, Beta: Number(math.Inf(1)), Floor: None,
			InitScale: 1, Init: FromTarget, Outer: 1, Safe: 1e-2,
		},
	}
	switch m {
	case LightSB:
		c.Train.Steps, c.Train.Batch = 10_000, 128
	case LightSBM:
		c.Train.Steps = 10_000
	case LightSBB:
		c.Train.Steps, c.Train.Rate, c.Train.Decay = 3000, 0.03, Cosine
		c.Light.Epsilon, c.Light.Beta, c.Light.Floor, c.Light.InitScale = 1, 10, 1e-4, 0.2
	case LightSBBM:
		c.Train.Steps, c.Train.Clip = 30_000, 1
		c.Light.Epsilon, c.Light.Beta, c.Light.Floor, c.Light.InitScale = 1, 10, 1e-4, 0.1
		c.Light.Init, c.Light.Outer = FromSourceTarget, 5
	}
	return c
}

// bass reports whether a method controls the volatility.
func (m Method) bass() bool { return m == LightSBB || m == LightSBBM }

// Resolve fills in the defaults of a method, and which program this is, and
// then validates. A method that the configuration names must be the same.
func (c *Config) Resolve(m Method) error {
	if c.Method == 0 {
		c.Method = m
	}
	if c.Method != m {
		return invalid("config: method: got %v, want %v", c.Method, m)
	}
	from := m.defaults()
	from.Version, from.Fortet = FormatVersion, thisBuild()
	c.Version, c.Fortet = 0, Build{}
	steps := c.Train.Steps
	if steps == 0 {
		steps = from.Train.Steps
	}
	// Ten checkpoints and a hundred points of the training curve.
	from.Train.CheckpointEvery, from.Train.LogEvery = max(1, steps/10), max(1, steps/100)
	values := from.keys()
	for i, k := range c.keys() {
		if k.value.IsZero() {
			k.value.Set(values[i].value)
		}
	}
	return c.Validate()
}

// Validate reports all faults at once, one a line. Zero passes as the default
// that it is.
func (c Config) Validate() error {
	var faults []error
	bad := func(format string, v ...any) { faults = append(faults, invalid("config: "+format, v...)) }
	for _, k := range c.keys() {
		if k.value.IsZero() {
			continue
		}
		if err := k.check(fmt.Sprint(k.value.Interface())); err != nil {
			bad("%s: %v", k.name, err)
		}
	}
	for _, w := range []struct {
		name  string
		value int
		words []string
	}{
		{"method", int(c.Method), methodWords}, {"dtype", int(c.DType), dtypeWords}, {"train.schedule", int(c.Train.Decay), decayWords},
		{"light.covariance", int(c.Light.Covariance), covarianceWords}, {"light.init", int(c.Light.Init), initWords},
	} {
		if w.value < 0 || w.value >= len(w.words) {
			bad("%s: got value %d, want one of %s", w.name, w.value, strings.Join(w.words[1:], ", "))
		}
	}
	if c.Version != 0 && c.Version != FormatVersion {
		bad("version: got %d, want %d", c.Version, FormatVersion)
	}
	if c.Method == 0 {
		bad("method: missing, want one of %s", strings.Join(methodWords[1:], ", "))
	}
	if !deviceName.MatchString(c.Device) {
		bad("device: got %s, want auto, cpu, cuda, cuda:N or emu", quote(c.Device))
	}
	for _, d := range [][2]string{{"source", c.Data.Source}, {"target", c.Data.Target}} {
		if d[1] == "" {
			bad("data.%s: missing, want the URI of a data set", d[0])
		}
	}
	if t := c.Train; t.Steps > 0 && t.Warmup >= t.Steps {
		bad("train.warmup: got %d, want fewer than the %d steps", t.Warmup, t.Steps)
	}
	if c.Train.Steps > 0 && c.Light.Outer > c.Train.Steps {
		bad("light.outer: got %d, want at most the %d steps that iterations share", c.Light.Outer, c.Train.Steps)
	}
	switch l := c.Light; {
	case (c.Method == LightSB || c.Method == LightSBM) && l.Beta != 0 && !math.IsInf(float64(l.Beta), 1):
		bad("light.beta: got %v, want inf: %v leaves the volatility alone; lightsbb and lightsbb-m do not", l.Beta, c.Method)
	case c.Method.bass() && l.Floor == None && l.Beta > 0 && l.Beta <= 1:
		bad("light.beta: got %v, want more than 1 (β T > 1 with T = 1), or a floor: without one the transport map of a potential need not be invertible", l.Beta)
	}
	return errors.Join(faults...)
}

var deviceName = regexp.MustCompile(`^(auto|cpu|emu|cuda(:[0-9]{1,4})?)?$`)

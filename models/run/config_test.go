package run

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor"
)

func methods() []Method { return []Method{LightSB, LightSBM, LightSBB, LightSBBM} }

func TestDefaults(t *testing.T) {
	inf := Number(math.Inf(1))
	for _, want := range []struct {
		Method
		Train
		Light
	}{
		{LightSB, Train{10000, 128, 1e-3, Constant, 0, None, 0, 0, 1000, 100, 3}, Light{50, Diagonal, .1, inf, None, 1, FromTarget, 1, .01}},
		{LightSBM, Train{10000, 512, 1e-3, Constant, 0, None, 0, 0, 1000, 100, 3}, Light{50, Diagonal, .1, inf, None, 1, FromTarget, 1, .01}},
		{LightSBB, Train{3000, 512, .03, Cosine, 0, None, 0, 0, 300, 30, 3}, Light{50, Diagonal, 1, 10, 1e-4, .2, FromTarget, 1, .01}},
		{LightSBBM, Train{30000, 512, 1e-3, Constant, 0, 1, 0, 0, 3000, 300, 3}, Light{50, Diagonal, 1, 10, 1e-4, .1, FromSourceTarget, 5, .01}},
	} {
		c := Config{Data: Data{Source: "moons", Target: "normal"}}
		require.NoError(t, c.Resolve(want.Method))
		assert.Equal(t, want.Train, c.Train)
		assert.Equal(t, want.Light, c.Light)
		assert.Equal(t, FormatVersion, c.Version)
		assert.NotEmpty(t, c.Fortet.Version)
		assert.NotEmpty(t, c.Fortet.Commit)
		assert.Equal(t, tensor.Float32, tensor.DType(c.DType))
		assert.Equal(t, 1<<18, c.Data.Pool)
		again := c
		require.NoError(t, again.Resolve(want.Method))
		assert.Equal(t, c, again)
	}
	assert.Equal(t, []string{"lightsb", "lightsb-m", "lightsbb", "lightsbb-m"}, Methods())

	// Intervals follow the steps that are asked for, and short runs have some.
	c := Config{Data: Data{Source: "moons", Target: "normal"}, Train: Train{Steps: 5}}
	require.NoError(t, c.Resolve(LightSB))
	assert.Equal(t, 1, c.Train.CheckpointEvery)
	assert.Equal(t, 1, c.Train.LogEvery)
	require.ErrorContains(t, c.Resolve(LightSBB), "method: got lightsb, want lightsbb")
}

// Every number of the configuration says what it may be, and every default is
// that.
func TestEveryKeyIsBounded(t *testing.T) {
	for _, m := range methods() {
		c := m.defaults()
		c.Version, c.Method, c.Data.Source, c.Data.Target, c.Train.CheckpointEvery, c.Train.LogEvery = 1, m, "moons", "moons", 1, 1
		for _, k := range c.keys() {
			switch k.value.Kind() {
			case reflect.Float64, reflect.Int:
				if _, word := k.value.Interface().(fmt.Stringer); word && k.value.Kind() == reflect.Int {
					break
				}
				require.NotEqual(t, bounds{}, k.may, k.name)
				require.NoError(t, k.check(""), k.name)
				require.False(t, k.may.contains(math.NaN()), k.name)
				require.Equal(t, k.name == "light.beta", k.may.contains(math.Inf(1)), k.name)
			}
		}
	}
	for tag, want := range map[string]string{
		"(0,inf)":      "a finite number above 0",
		"[0,inf)":      "a finite number of at least 0",
		"(0,inf]":      "a number above 0, or inf",
		"(0,inf)|none": "a finite number above 0, or none",
		"[0,1)":        "a number of at least 0 and below 1",
		"(0,1]|none":   "a number above 0 and at most 1, or none",
		"[1,9999999]":  "a whole number from 1 to 9999999",
	} {
		assert.Equal(t, want, parseBounds(tag).String())
	}
	assert.Panics(t, func() { parseBounds("(0,x)") })
}

func TestConfigFile(t *testing.T) {
	for _, m := range methods() {
		c := Config{Data: Data{Source: "csv:a b.csv?columns=x1,x2&where=samples==0", Target: "moons?noise=0.1"}, Seed: math.MaxUint64}
		c.Train.Clip, c.Train.Average = 0.5, 0.999
		c.Light.Covariance = Full
		require.NoError(t, c.Resolve(m))
		text, err := c.YAML()
		require.NoError(t, err)
		again, err := ParseConfig(text)
		require.NoError(t, err, "%s", text)
		assert.Equal(t, c, again)
		require.NoError(t, again.Validate())
		path := filepath.Join(t.TempDir(), "c.yaml")
		require.NoError(t, os.WriteFile(path, text, 0o666))
		again, err = LoadConfig(path)
		require.NoError(t, err)
		assert.Equal(t, c, again)
	}

	c, err := ParseConfig([]byte(`
# what a user writes
method: lightsbb
seed: 3
dtype: f64
data: {source: moons, target: 8gaussians}
train:
  steps: 1e4
  lr: .05
  schedule: constant
light:
  beta: .inf
  floor: none
  epsilon:
`))
	require.NoError(t, err)
	assert.Equal(t, Config{
		Method: LightSBB, Seed: 3, DType: F64, Data: Data{Source: "moons", Target: "8gaussians"},
		Train: Train{Steps: 10000, Rate: 0.05, Decay: Constant}, Light: Light{Beta: Number(math.Inf(1)), Floor: None},
	}, c)
	for _, empty := range []string{"", "# nothing\n", "---\n", "train:\n", "{}"} {
		c, err := ParseConfig([]byte(empty))
		require.NoError(t, err)
		assert.Zero(t, c)
	}
}

// One error lists all faults, with their lines.
func TestConfigFaults(t *testing.T) {
	_, err := ParseConfig([]byte(`method: sinkhorn
seed: -1
data:
  source: [a, b]
train:
  steps: 1.5
  steps: 3
  lr: 0
  lrr: 1
  ema: 1
  clip: inf
  warmup: !!int 3
light:
  beta: nan
  epsilon: 1_000
  components: many
lr: 0.1
`))
	require.ErrorIs(t, err, ErrInvalid)
	assert.Equal(t, []string{
		`config: line 1: method: got "sinkhorn", want one of lightsb, lightsb-m, lightsbb, lightsbb-m`,
		`config: line 2: seed: got "-1", want a whole number from 0 to 2^64-1`,
		`config: line 4: data.source: want a single value`,
		`config: line 6: train.steps: got "1.5", want a whole number from 1 to 999999999`,
		`config: line 7: train.steps: given twice`,
		`config: line 8: train.lr: got 0, want a finite number above 0`,
		`config: line 9: unknown key "train.lrr", want one of steps, batch, lr, schedule, warmup, clip, ema, weight_decay, checkpoint_every, log_every, keep`,
		`config: line 10: train.ema: got 1, want a number of at least 0 and below 1`,
		`config: line 11: train.clip: got inf, want a finite number above 0, or none`,
		`config: line 12: train.warmup: want a single value`,
		`config: line 14: light.beta: got "nan", want a number, inf or none`,
		`config: line 15: light.epsilon: got "1_000", want a finite number above 0`,
		`config: line 16: light.components: got "many", want a whole number from 1 to 1048576`,
		`config: line 17: unknown key "lr", want one of version, fortet, method, seed, device, dtype, data, train, light`,
	}, strings.Split(err.Error(), "\n"))

	for text, want := range map[string]string{
		"- a":                                 "line 1: the document: want keys and values",
		"train: 3":                            "line 1: train: want keys and values",
		"a: b: c":                             "mapping values are not allowed",
		"seed: 1\n---\nseed: 2":               "more than one document",
		"data: &a {}\ntrain: *a":              "line 2: train: want keys and values",
		"? [a]\n: b":                          "unknown key",
		"version: 2\nfuture: 1":               "version: got 2, want 1: another version of fortet wrote this",
		"version: 0":                          "version: got 0",
		"device: \"a\\nb\"":                   "want text of one line",
		"train.lr: 3":                         `unknown key "train.lr"`,
		"light:\n  floor: 0":                  "light.floor: got 0, want a number above 0 and at most 1, or none",
		"\xff":                                "config: ",
		strings.Repeat("#", 1<<20+1):          "more than 1048576 bytes",
		"method: " + strings.Repeat("x", 100): "x…\", want one of",
	} {
		_, err := ParseConfig([]byte(text))
		require.ErrorIs(t, err, ErrInvalid, "%.40s", text)
		require.ErrorContains(t, err, want)
	}
	_, err = ParseConfig([]byte(strings.Repeat("a: 1\n", 1000)))
	assert.Len(t, strings.Split(err.Error(), "\n"), 51)
	assert.ErrorContains(t, err, "config: line 51: more faults")
	_, err = LoadConfig(filepath.Join(t.TempDir(), "missing.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = LoadConfig(t.TempDir())
	require.Error(t, err)
}

func TestSet(t *testing.T) {
	var c Config
	for _, s := range []string{
		"train.lr=0.01", "steps = 1e3", "light.beta=inf", "floor=none", "covariance=full", "source=csv:a=b.csv?where=x==1",
		"init=source-target", "dtype=f64", "seed=18446744073709551615", "ema=0.5", "schedule=cosine", "method=lightsbb-m",
	} {
		require.NoError(t, c.Set(s), s)
	}
	assert.Equal(t, Config{
		Method: LightSBBM, Seed: math.MaxUint64, DType: F64, Data: Data{Source: "csv:a=b.csv?where=x==1"},
		Train: Train{Rate: 0.01, Steps: 1000, Average: 0.5, Decay: Cosine},
		Light: Light{Beta: Number(math.Inf(1)), Floor: None, Covariance: Full, Init: FromSourceTarget},
	}, c)
	before := c
	for s, want := range map[string]string{
		"lr":              `config: got "lr", want key=value`,
		"lr=fast":         `config: train.lr: got "fast", want a finite number above 0`,
		"train.epsilon=1": `config: unknown key "train.epsilon", want one of train.steps, train.batch, train.lr, `,
		"learning_rate=1": `config: unknown key "learning_rate", want one of version, fortet.version, fortet.commit, method, seed, `,
		"version=1":       "config: version: is written by the program and cannot be set",
		"commit=x":        "config: fortet.commit: is written by the program and cannot be set",
		"epsilon=0":       "config: light.epsilon: got 0, want a finite number above 0",
		"epsilon=-1":      "config: light.epsilon: got -1, want a finite number above 0",
		"epsilon=NaN":     `config: light.epsilon: got "NaN", want a finite number above 0`,
		"epsilon=1e999":   `config: light.epsilon: got "1e999", want a finite number above 0`,
		"beta=0":          "config: light.beta: got 0, want a number above 0, or inf",
		"beta=none":       "config: light.beta: got none, want a number above 0, or inf",
		"beta=-inf":       `config: light.beta: got "-inf", want a number, inf or none`,
		"components=0":    "config: light.components: got 0, want a whole number from 1 to 1048576",
		"steps=1e300":     `config: train.steps: got "1e300", want a whole number from 1 to 999999999`,
		"target=a\x00b":   "want text of one line",
		"target=\xff":     "want text of one line",
		"init=":           `config: light.init: got "", want one of target, source-target, random, kmeans++`,
		"":                "want key=value",
		"=":               `unknown key "", want one of`,
	} {
		err := c.Set(s)
		require.ErrorIs(t, err, ErrInvalid, s)
		require.ErrorContains(t, err, want)
		require.Equal(t, before, c, "%s changed something", s)
	}
	_, err := find([]string{"a.rate", "b.rate", "c"}, "rate")
	require.EqualError(t, err, `key "rate" could be a.rate or b.rate`)
	i, err := find([]string{"a.version", "version"}, "version")
	require.NoError(t, err)
	assert.Equal(t, 1, i)
}

func TestValidate(t *testing.T) {
	c := config(t)
	nan := math.NaN()
	c.DType, c.Method, c.Device, c.Data = 9, -1, "tpu", Data{Source: "a\nb", Pool: -1, PCA: -1}
	c.Version = 3
	c.Train = Train{Steps: -1, Batch: -2, Rate: nan, Decay: 7, Clip: -1, Average: 1, WeightDecay: math.Inf(1), Keep: -1}
	c.Light = Light{Components: -1, Covariance: 3, Epsilon: math.Inf(1), Beta: Number(nan), Floor: 2, InitScale: -1, Init: 9, Outer: -1, Safe: 1}
	err := c.Validate()
	require.ErrorIs(t, err, ErrInvalid)
	for _, want := range []string{
		"dtype: got value 9, want one of f32, f64", "method: got value -1, want one of", `device: got "tpu", want auto, cpu, cuda, cuda:N or emu`,
		"data.source: got \"a\\nb\", want text of one line", "data.target: missing", "data.pool: got -1", "data.pca: got -1", "version: got 3, want 1",
		"train.steps: got -1", "train.batch: got -2", "train.lr: got NaN", "train.schedule: got value 7", "train.clip: got -1",
		"train.ema: got 1", "train.weight_decay: got +Inf", "train.keep: got -1",
		"light.components: got -1", "light.covariance: got value 3", "light.epsilon: got +Inf", "light.beta: got NaN", "light.floor: got 2",
		"light.init_scale: got -1", "light.init: got value 9", "light.outer: got -1", "light.safe: got 1",
	} {
		assert.ErrorContains(t, err, "config: "+want)
	}
	assert.Len(t, strings.Split(err.Error(), "\n"), 25)

	for _, test := range []struct {
		method Method
		set    []string
		want   string
	}{
		{LightSB, []string{"beta=10"}, "light.beta: got 10, want inf: lightsb leaves the volatility alone; lightsbb and lightsbb-m do not"},
		{LightSB, []string{"warmup=10", "steps=10"}, "train.warmup: got 10, want fewer than the 10 steps"},
		{LightSBB, []string{"beta=0.8", "floor=none"}, "light.beta: got 0.8, want more than 1 (β T > 1 with T = 1), or a floor"},
		{LightSBBM, []string{"outer=11", "steps=10"}, "light.outer: got 11, want at most the 10 steps"},
		{LightSBB, []string{"beta=0.8"}, ""},
		{LightSBB, []string{"beta=2", "floor=none"}, ""},
		{LightSBB, []string{"beta=inf"}, ""},
		{0, nil, "method: missing, want one of lightsb, "},
	} {
		c := Config{Data: Data{Source: "moons", Target: "moons"}}
		for _, s := range test.set {
			require.NoError(t, c.Set(s))
		}
		err := c.Resolve(test.method)
		if test.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "config: "+test.want)
	}
	for device, ok := range map[string]bool{"auto": true, "cpu": true, "emu": true, "cuda": true, "cuda:12": true, "cuda:": false, "cpu:1": false, "cuda:x": false, "CPU": false} {
		assert.Equal(t, ok, deviceName.MatchString(device), device)
	}
}

func TestWordsAndNumbers(t *testing.T) {
	assert.Equal(t, "Method(9)", Method(9).String())
	assert.Equal(t, "Covariance(0)", Covariance(0).String())
	_, err := Decay(5).MarshalText()
	require.ErrorIs(t, err, ErrInvalid)
	assert.Equal(t, "f64 cosine full random", fmt.Sprint(F64, " ", Cosine, " ", Full, " ", Random))
	for text, want := range map[string]Number{"none": None, "inf": Number(math.Inf(1)), "1e-3": 1e-3, "NONE": None, "+Inf": Number(math.Inf(1)), "7": 7} {
		var x Number
		require.NoError(t, x.UnmarshalText([]byte(text)))
		assert.Equal(t, want, x)
		var again Number
		require.NoError(t, again.UnmarshalText([]byte(x.String())))
		assert.Equal(t, x, again)
	}
	assert.Equal(t, 0.0, None.Or(0))
	assert.Equal(t, 3.0, Number(3).Or(0))
	assert.False(t, None > 0)
}

// FuzzConfig: whatever is read is valid in each value, is written and read
// again as it was, and Set never panics.
func FuzzConfig(f *testing.F) {
	c := Config{Data: Data{Source: "moons", Target: "normal"}}
	require.NoError(f, c.Resolve(LightSBB))
	text, err := c.YAML()
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte("train: {lr: 1e-3, clip: none}\nlight: {beta: .inf}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("train.lr=3"))
	f.Add([]byte("data:\n  source: \"\\u2028 #: null\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Config
		if err := s.Set(string(data)); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		c, err := ParseConfig(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, k := range c.keys() {
			if !k.value.IsZero() && k.check("") != nil {
				t.Fatalf("%s: %v", k.name, k.value)
			}
		}
		text, err := c.YAML()
		require.NoError(t, err)
		if c.Version == 0 { // zero is written, but may not be given
			text = []byte(strings.Replace(string(text), "\nversion: 0\n", "\n", 1))
		}
		again, err := ParseConfig(text)
		if err != nil && strings.Contains(err.Error(), "got 0,") {
			return
		}
		require.NoError(t, err, "%s", text)
		require.Equal(t, c, again, "%s", text)
	})
}

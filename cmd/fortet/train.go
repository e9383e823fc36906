package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
)

var trainCommand = command{
	name:    "train",
	does:    "Train a bridge into a run folder, or go on with one",
	usage:   "fortet train METHOD --source URI --target URI --out DIR [flags]\n  METHOD is " + strings.Join(run.Methods(), ", "),
	example: "fortet train lightsbb --source normal --target 8gaussians --beta 10 --out run && fortet sample run --n 2000 --out points.npy --plot points.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &train{flags: f}
		f.StringVar(&c.out, "out", "", "folder of the run")
		f.BoolVar(&c.resume, "resume", false, "go on from the newest good checkpoint of --out")
		f.BoolVar(&c.force, "force", false, "remove the run that --out holds")
		c.distribution.declare(f)
		f.Lookup("distributed").Usage = "make every step together with the processes that were started beside this one, through mpi or nccl (mpirun -np 2 fortet train …): each opens the data sets, process 0 alone reads and writes --out; none: this process alone"
		f.BoolVar(&c.fast, "fast-sum", false, "with --distributed, add gradients up in any order: any --batch will do, but results are no longer those of one process, bit for bit")
		f.StringVar(&c.config, "config", "", "YAML file of settings, as config.yaml of a run; flags override it")
		f.StringArrayVar(&c.set, "set", nil, "one more setting, key=value, as train.ema=0.999; may be repeated")
		for _, k := range trainKeys {
			f.String(k.flag, "", k.does)
		}
		return c.do
	},
}

// trainKeys are the settings that have a flag of their own.
var trainKeys = []struct{ flag, key, does string }{
	{"source", "data.source", "data set of the source, as fortet data --help lists them"},
	{"target", "data.target", "data set of the target"},
	{"pca", "data.pca", "train on so many principal components of both sets; 0: on the data as they are"},
	{"epsilon", "light.epsilon", "the reference is a Brownian motion of variance epsilon on [0, 1]"},
	{"beta", "light.beta", "price of changing the volatility: a number, or inf for a Schrödinger bridge"},
	{"components", "light.components", "Gaussians of the potential"},
	{"covariance", "light.covariance", "diagonal or full"},
	{"steps", "train.steps", "training steps"},
	{"batch", "train.batch", "rows of a minibatch of each set"},
	{"lr", "train.lr", "highest learning rate"},
}

type train struct {
	distribution
	fast          bool
	out, config   string
	resume, force bool
	set           []string
	flags         *pflag.FlagSet
}

func (c *train) do(s *session, args []string) error {
	if len(args) != 1 {
		return usagef("train: got %d arguments, want one method of %s", len(args), strings.Join(run.Methods(), ", "))
	}
	var method run.Method
	if err := method.UnmarshalText([]byte(args[0])); err != nil {
		return usagef("train: METHOD: %v", err)
	}
	switch {
	case c.out == "":
		return usagef("--out is missing, want a folder for the run")
	case c.resume && c.force:
		return usagef("--resume and --force exclude each other")
	case c.fast && c.through == "none":
		return usagef("--fast-sum: got no --distributed, want mpi or nccl")
	}
	var config run.Config
	var err error
	if !c.resume {
		config, err = c.settings(s) // which may name the device
	}
	if c.through == "none" && err != nil {
		return err
	}
	if err := s.join(c.distribution); err != nil {
		return err
	}
	if err := s.agree(err); err != nil {
		return err
	}
	err = c.train(s, method, config)
	var agreed *verdict
	switch {
	case s.joined == nil || errors.As(err, &agreed):
		return err
	case errors.Is(err, run.ErrElsewhere): // which says why
		return cmp.Or(s.agree(nil), err)
	case err == nil || errors.Is(err, run.ErrCanceled) || errors.Is(err, run.ErrDiverged) || run.Known(err):
		return s.agree(err)
	}
	return err
}

// train is what the processes of a group do together.
func (c *train) train(s *session, method run.Method, config run.Config) error {
	var f *run.Folder
	var options run.Options
	var err error
	if s.lead() {
		f, options, err = c.folder(s, method, config)
	}
	if f != nil {
		defer f.Close()
	}
	if err := s.agree(err); err != nil {
		return err
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	if options.Group, options.Fast = s.group(), c.fast; options.Group != nil {
		if f, err = configure(f, options.Group, dev); err != nil {
			return err
		}
	}
	bar := s.progress(method.String())
	options.Progress = func(p run.Progress) {
		bar.update(float64(p.Step)/float64(p.Steps), fmt.Sprintf("step %d of %d, loss %.6g", p.Step, p.Steps, p.Loss))
	}
	// An interruption ends the loop, which then still writes its checkpoint.
	result, err := light.Train(s.ctx, dev, f, options)
	bar.finish()
	if err != nil {
		return err
	}
	if err := s.print(result); err != nil {
		return err
	}
	return result.Err()
}

// configure gives the processes that have no folder the configuration of the one
// that has.
func configure(f *run.Folder, group collective.Group, dev gpu.Device) (*run.Folder, error) {
	var text []byte
	var err error
	if f != nil {
		text, err = f.Config().YAML()
	}
	if err := run.Agree(group, dev, err); err != nil {
		return nil, err
	}
	if text, err = run.Share(group, dev, text); err != nil || f != nil {
		return f, err
	}
	config, err := run.ParseConfig(text)
	return run.Follower(config), err
}

// folder makes the folder of a new run, or opens that of an old one.
func (c *train) folder(s *session, method run.Method, config run.Config) (*run.Folder, run.Options, error) {
	if c.resume {
		return c.reopen(s, method)
	}
	if err := config.Resolve(method); err != nil {
		return nil, run.Options{}, err
	}
	if err := light.Check(config); err != nil {
		return nil, run.Options{}, err
	}
	// A device that is not there must not cost an old run, and a run stays on
	// the device that it began on.
	dev, err := s.open()
	if err != nil {
		return nil, run.Options{}, err
	}
	config.Device = dev.Name()
	f, err := run.Create(c.out, config, c.force)
	return f, run.Options{}, err
}

// settings are those of the file, the flags and --set, the later the stronger.
func (c *train) settings(s *session) (run.Config, error) {
	var config run.Config
	if c.config != "" {
		var err error
		if config, err = run.LoadConfig(c.config); err != nil {
			return config, fmt.Errorf("--config: %w", err)
		}
	}
	var assignments []string
	for _, k := range trainKeys {
		if c.flags.Changed(k.flag) {
			v, err := c.flags.GetString(k.flag)
			if err != nil {
				return config, err
			}
			assignments = append(assignments, k.key+"="+v)
		}
	}
	for flag, v := range map[string]string{"seed": fmt.Sprint(s.seed), "device": s.device, "dtype": s.dtype} {
		if c.flags.Changed(flag) && v != "auto" {
			assignments = append(assignments, flag+"="+v)
		}
	}
	for _, a := range append(assignments, c.set...) {
		if err := config.Set(a); err != nil {
			return config, err
		}
	}
	if !c.flags.Changed("device") && config.Device != "" {
		s.device = config.Device
	}
	return config, nil
}

func (c *train) reopen(s *session, method run.Method) (*run.Folder, run.Options, error) {
	fixed := []string{"config", "set", "seed", "dtype"}
	for _, k := range trainKeys {
		fixed = append(fixed, k.flag)
	}
	for _, name := range fixed {
		if c.flags.Changed(name) {
			return nil, run.Options{}, usagef("--%s: a run that is resumed keeps the settings in %s", name, c.out)
		}
	}
	f, err := run.Open(c.out)
	if err != nil {
		return nil, run.Options{}, err
	}
	if f.Config().Method != method {
		return nil, run.Options{}, usagef("%s is a run of %v, want %v as said", c.out, f.Config().Method, method)
	}
	began := f.Config().Device
	switch {
	case c.flags.Changed("device"):
	case s.dev == nil:
		s.device = began
	case kindOf(s.dev.Name()) != kindOf(began):
		return nil, run.Options{}, usagef("--device: got %s, want %s, on which %s began", s.dev.Name(), kindOf(began), c.out)
	}
	if err := f.Lock(); err != nil {
		return nil, run.Options{}, err
	}
	latest, damaged, err := f.Latest()
	for _, d := range damaged {
		fmt.Fprintf(s.stderr, "fortet: %s\n", oneLine(d.Err))
	}
	switch {
	case errors.Is(err, run.ErrNoCheckpoint) && len(damaged) == 0:
		return f, run.Options{}, nil // it was stopped before its first checkpoint
	case err != nil:
		return nil, run.Options{}, errors.Join(err, f.Close())
	}
	if len(damaged) > 0 {
		fmt.Fprintf(s.stderr, "fortet: going on from %s\n", latest.Path)
	}
	return f, run.Options{From: latest}, nil
}

// kindOf is a device's name without its number.
func kindOf(device string) string {
	kind, _, _ := strings.Cut(device, ":")
	return kind
}

// openModel opens a run for what reads it.
func openModel(ctx context.Context, s *session, path string) (*light.Model, *run.Folder, error) {
	f, err := run.Open(path)
	if err != nil {
		return nil, nil, err
	}
	config := f.Config()
	if !slices.Contains(run.Methods(), config.Method.String()) {
		return nil, nil, usagef("%s: a run of %v, want one of %s", path, config.Method, strings.Join(run.Methods(), ", "))
	}
	latest, damaged, err := f.Latest()
	for _, d := range damaged {
		fmt.Fprintf(s.stderr, "fortet: %s\n", oneLine(d.Err))
	}
	if err != nil {
		return nil, nil, err
	}
	if len(damaged) > 0 {
		fmt.Fprintf(s.stderr, "fortet: reading %s in its place\n", latest.Path)
	}
	dev, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	m, err := light.OpenAt(ctx, dev, f, latest)
	return m, f, err
}

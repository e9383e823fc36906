// Command light makes docs/light-bridges.md: it trains light bridges on
// problems whose answers are known, keeps what it measures in docs/data and its
// pictures in docs/pictures, and fills in docs/template/light-bridges.md.tmpl.
// `make docs-long` calls it.
//
// Experiments are made one by one: -only names some, and those that are not
// made keep the results that they have, with the commit and the machine that
// they come from. -quick makes small versions of them, to see that they run;
// their results go elsewhere.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/fortet/fortet/docs/internal/page"
)

// experiment is a part of the page.
type experiment struct {
	name string
	data string // folder of FORTET_DATA that it needs; "": none
	run  func(*lab) (any, error)
}

func experiments() []experiment {
	return []experiment{
		{"gaussian", "", wrap(gaussians)},
		{"point", "", wrap(points)},
		{"bimodal", "", wrap(bimodal)},
		{"student", "", wrap(students)},
		{"plane", "", wrap(plane)},
		{"plans", "", wrap(plans)},
		{"latent", "", wrap(latents)},
		{"images", "cifar10", wrap(images)},
		{"cells", "timecourse", wrap(cells)},
	}
}

func wrap[T any](f func(*lab) (T, error)) func(*lab) (any, error) {
	return func(l *lab) (any, error) { return f(l) }
}

// kept is a result as docs/data has it.
type kept[T any] struct {
	Seconds float64      `json:"seconds"`
	Machine page.Machine `json:"machine"`
	Result  T            `json:"result"`
}

// book is what the template sees; what was never made is nil.
type book struct {
	Gaussian *kept[gaussianResult]
	Point    *kept[pointResult]
	Bimodal  *kept[bimodalResult]
	Student  *kept[studentResult]
	Plane    *kept[planeResult]
	Plans    *kept[planResult]
	Latent   *kept[planResult]
	Images   *kept[imageResult]
	Cells    *kept[cellResult]

	from map[string]page.Machine
}

// Provenance says where the figures come from.
func (b *book) Provenance() string { return page.Provenance(b.from) }

func main() { page.Main("light", generate) }

func generate(ctx context.Context, args []string, log io.Writer) error {
	var names []string
	for _, e := range experiments() {
		names = append(names, e.name)
	}
	f := flag.NewFlagSet("light", flag.ContinueOnError)
	f.SetOutput(log)
	root := f.String("root", ".", "folder of the project")
	only := f.String("only", "", "make these experiments, of "+strings.Join(names, ",")+"; none: make only the page; default: all")
	quick := f.Bool("quick", false, "small versions of the experiments; needs -out")
	out := f.String("out", "", "folder for the page, data and pictures; default: docs")
	if err := f.Parse(args); err != nil {
		return err
	}
	top, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	to := *out
	switch {
	case to == "" && *quick:
		return errors.New("-quick: its results must not replace those of the page: want -out")
	case to == "":
		to = filepath.Join(top, "docs")
	}
	for _, dir := range []string{"data", "pictures"} {
		if err := os.MkdirAll(filepath.Join(to, dir), 0o777); err != nil {
			return err
		}
	}
	wanted := names
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if name != "none" && !slices.Contains(names, name) {
			return fmt.Errorf("-only: got %q, want some of %s", name, strings.Join(names, ","))
		}
	}
	if err := perform(ctx, top, to, wanted, *quick, log); err != nil {
		return err
	}
	text, err := render(filepath.Join(top, "docs", "template", "light-bridges.md.tmpl"), filepath.Join(to, "data"))
	if err != nil {
		return err
	}
	return page.Store(filepath.Join(to, "light-bridges.md"), text)
}

// perform makes experiments and keeps their results.
func perform(ctx context.Context, root, to string, wanted []string, quick bool, log io.Writer) error {
	data := os.Getenv("FORTET_DATA")
	if data == "" {
		data = filepath.Join(root, "..", "shared", "data")
	}
	for _, e := range experiments() {
		if !slices.Contains(wanted, e.name) {
			continue
		}
		if e.data != "" {
			if _, err := os.Stat(filepath.Join(data, e.data)); err != nil {
				fmt.Fprintf(log, "skipped   %s: FORTET_DATA names no folder with %s; its kept result stays\n", e.name, e.data)
				continue
			}
		}
		machine, err := page.Here(root)
		if err != nil {
			return err
		}
		l, err := newLab(ctx, data, filepath.Join(to, "pictures"), quick, log)
		if err != nil {
			return err
		}
		start := time.Now()
		result, err := e.run(l)
		l.close()
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		seconds := time.Since(start).Seconds()
		fmt.Fprintf(log, "%7.1fs  %s\n", seconds, e.name)
		if err := page.Keep(dataFile(filepath.Join(to, "data"), e.name), kept[any]{seconds, machine, result}); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func dataFile(dir, name string) string { return filepath.Join(dir, "light_"+name+".json") }

// load reads a kept result; one that is not there is nil.
func load[T any](b *book, to **kept[T], dir, name string) error {
	text, err := os.ReadFile(dataFile(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	k := &kept[T]{}
	if err := json.Unmarshal(text, k); err != nil {
		return fmt.Errorf("%s: %w", dataFile(dir, name), err)
	}
	*to = k
	b.from[name] = k.Machine
	return nil
}

// render fills in the template with the results in a folder.
func render(file, dir string) ([]byte, error) {
	b := &book{from: map[string]page.Machine{}}
	if err := errors.Join(
		load(b, &b.Gaussian, dir, "gaussian"), load(b, &b.Point, dir, "point"), load(b, &b.Bimodal, dir, "bimodal"),
		load(b, &b.Student, dir, "student"), load(b, &b.Plane, dir, "plane"), load(b, &b.Plans, dir, "plans"),
		load(b, &b.Latent, dir, "latent"), load(b, &b.Images, dir, "images"), load(b, &b.Cells, dir, "cells"),
	); err != nil {
		return nil, err
	}
	t, err := template.New(filepath.Base(file)).Option("missingkey=error").Funcs(template.FuncMap{
		"num":     page.Num,
		"picture": page.Link,
	}).ParseFiles(file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Command generate makes docs/solve.md, docs/static.md, docs/timecourse.md and
// the figures of README.md from templates: it runs the commands that a page
// shows, keeps what they print in docs/data and their pictures in docs/pictures.
// docs/make.sh calls it.
//
// Where a command needs data that this machine lacks, its kept result is shown,
// which carries the commit and the machine that it comes from.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/fortet/fortet/docs/internal/page"
)

func main() { page.Main("generate", generate) }

func generate(ctx context.Context, args []string, log io.Writer) error {
	f := flag.NewFlagSet("generate", flag.ContinueOnError)
	f.SetOutput(log)
	root := f.String("root", ".", "folder of the project")
	only := f.String("only", "", "make these pages, of "+strings.Join(pages, ",")+"; default: all")
	if err := f.Parse(args); err != nil {
		return err
	}
	wanted := pages
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(pages, name) {
			return fmt.Errorf("-only: got %q, want some of %s", name, strings.Join(pages, ","))
		}
	}
	top, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(top, "docs", "template")); err != nil {
		return fmt.Errorf("-root: %s is not the project's folder: %w", *root, err)
	}
	work, err := os.MkdirTemp("", "fortet-docs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &book{ctx: ctx, root: top, work: work, log: log, records: map[string]*record{}}
	if err := b.open(); err != nil {
		return err
	}
	for _, name := range wanted {
		b.page = name
		text, err := b.render(name + ".md.tmpl")
		if err != nil {
			return err
		}
		if err := page.Store(filepath.Join(top, "docs", name+".md"), text); err != nil {
			return err
		}
	}
	if !slices.Contains(wanted, pages[0]) {
		return nil
	}
	figures, err := b.render("readme.md.tmpl")
	if err != nil {
		return err
	}
	readme := filepath.Join(top, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	if text, err = replace(text, figures); err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return page.Store(readme, text)
}

// pages are those that are made from commands; the figures of README.md come with
// the first.
var pages = []string{"solve", "static", "timecourse"}

// render executes a template of docs/template. Executing it runs its commands.
func (b *book) render(name string) ([]byte, error) {
	t, err := template.New(name).Funcs(b.functions()).Option("missingkey=error").
		ParseFiles(filepath.Join(b.root, "docs", "template", name))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (b *book) functions() template.FuncMap {
	return template.FuncMap{
		"run":          b.run,
		"fails":        b.fails,
		"kept":         b.kept,
		"show":         show,
		"complaint":    complaint,
		"certificates": certificates,
		"distances":    distances,
		"divergences":  divergences,
		"solves":       solves,
		"stages":       stages,
		"num":          page.Num,
		"provenance":   b.provenance,
		"picture":      b.picture,
		"matches":      b.matches,
		"means":        b.means,
		"growth":       b.growth,
		"chains":       chains,
		"growths":      growths,
		"laws":         laws,
		"lineages":     b.lineages,
	}
}

// The part of the README that is made from results stands between these.
const (
	begin = "<!-- figures of docs/template/readme.md.tmpl: begin -->\n"
	end   = "<!-- figures of docs/template/readme.md.tmpl: end -->\n"
)

// replace puts figures between the marks of a text.
func replace(text, figures []byte) ([]byte, error) {
	before, rest, found := strings.Cut(string(text), begin)
	if !found {
		return nil, fmt.Errorf("has no line %q", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return nil, fmt.Errorf("has no line %q after its beginning", strings.TrimSpace(end))
	}
	return []byte(before + begin + strings.TrimSpace(string(figures)) + "\n" + end + after), nil
}

// Package kernels_test checks that every folder of kernels is a complete
// thought: adding an operation touches one folder, and nothing central lists
// what it must hold but this.
package kernels_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// support are the folders that hold no operation.
var support = map[string]bool{"include": true, "kerneltest": true, "selftest": true}

// complete answers what the folder of an operation lacks.
func complete(folder string) ([]string, error) {
	op := filepath.Base(folder)
	var faults []string
	lacks := func(format string, v ...any) { faults = append(faults, fmt.Sprintf(format, v...)) }

	texts := map[string]string{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue // testdata
		}
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		texts[e.Name()] = string(text)
	}
	for _, suffix := range []string{".h", ".cu", "_cpu.c", ".go", "_cgo.go", "_nocgo.go", "_test.go"} {
		if _, ok := texts[op+suffix]; !ok {
			lacks("no %s", op+suffix)
		}
	}

	// The contract: the header, embedded by Go and exported once by the CUDA source.
	exported := 0
	for name, text := range texts {
		if filepath.Ext(name) == ".cu" {
			exported += strings.Count(text, "FORTET_CONTRACT("+op+")")
		}
	}
	if exported != 1 {
		lacks("FORTET_CONTRACT(%s) stands %d times in its .cu, want once", op, exported)
	}
	if !strings.Contains(texts[op+"_cgo.go"], "//go:embed "+op+".h") {
		lacks("%s_cgo.go does not embed %s.h", op, op)
	}
	if header := texts[op+".h"]; !regexp.MustCompile(`(?s)^/\* ` + op + `\.h - .{40,}\*/`).MatchString(header) {
		lacks("%s.h does not begin with its contract", op)
	}
	if !strings.Contains(texts[op+"_nocgo.go"], "//go:build !cgo") {
		lacks("%s_nocgo.go is not for builds without cgo", op)
	}

	documented := false
	has := map[string]bool{}
	files := token.NewFileSet()
	for name, text := range texts {
		if filepath.Ext(name) != ".go" {
			continue
		}
		file, err := parser.ParseFile(files, name, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if name == op+".go" {
			for _, imported := range file.Imports {
				if imported.Path.Value == `"C"` {
					lacks("%s imports C: checks must not need cgo", name)
				}
			}
			documented = strings.HasPrefix(file.Doc.Text(), "Package "+op+" ")
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			if f.Name.Name == "init" {
				lacks("%s has an init function", name)
			}
			if !strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, kind := range []string{"Test", "Benchmark", "Example", "Fuzz"} {
				if strings.HasPrefix(f.Name.Name, kind) {
					has[kind] = true
				}
			}
			if strings.HasPrefix(f.Name.Name, "Example") && !strings.Contains(text, "// Output:") {
				lacks("%s shows no output", f.Name.Name)
			}
		}
	}
	if !documented {
		lacks("%s.go does not begin with a comment \"Package %s …\"", op, op)
	}
	for _, kind := range []string{"Test", "Benchmark", "Example", "Fuzz"} {
		if !has[kind] {
			lacks("no %s function", kind)
		}
	}
	return faults, nil
}

func TestFoldersAreComplete(t *testing.T) {
	folders, err := os.ReadDir(".")
	require.NoError(t, err)
	found := 0
	for _, f := range folders {
		if !f.IsDir() || support[f.Name()] || f.Name() == "testdata" {
			continue
		}
		found++
		t.Run(f.Name(), func(t *testing.T) {
			faults, err := complete(f.Name())
			require.NoError(t, err)
			for _, fault := range faults {
				t.Error(fault)
			}
		})
	}
	require.Positive(t, found, "no folder found: the test is vacuous")
}

// The check catches what it is for.
func TestIncompleteFolderIsCaught(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "op")
	require.NoError(t, os.Mkdir(folder, 0o777))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o666))
	}
	write("op.h", "/* op.h - what it computes, and what its argument struct holds. */\n")
	write("op.cu", "FORTET_CONTRACT(op)\nFORTET_EXPORT int fortet_op(void *, const void *) { return 0; }\n")
	write("op_cpu.c", "")
	write("op.go", "// Package op is one.\npackage op\n")
	write("op_cgo.go", "package op\n\n//go:embed op.h\n")
	write("op_nocgo.go", "//go:build !cgo\n\npackage op\n")
	write("op_test.go", "package op\n\nfunc TestIt() {}\nfunc BenchmarkIt() {}\nfunc FuzzIt() {}\nfunc ExampleIt() {\n\t// Output:\n}\n")
	faults, err := complete(folder)
	require.NoError(t, err)
	require.Empty(t, faults)

	for _, broken := range []struct{ name, text, fault string }{
		{"op.cu", "", "stands 0 times"},
		{"op.cu", "FORTET_CONTRACT(op) FORTET_CONTRACT(op)", "stands 2 times"},
		{"op.h", "#include <x>\n", "does not begin with its contract"},
		{"op.go", "package op\n", "does not begin with a comment"},
		{"op.go", "// Package op is one.\npackage op\n\nimport \"C\"\n", "imports C"},
		{"op.go", "// Package op is one.\npackage op\n\nfunc init() {}\n", "init function"},
		{"op_cgo.go", "package op\n", "does not embed"},
		{"op_nocgo.go", "package op\n", "not for builds without cgo"},
		{"op_test.go", "package op\n\nfunc TestIt() {}\n", "no Benchmark function"},
	} {
		before, err := os.ReadFile(filepath.Join(folder, broken.name))
		require.NoError(t, err)
		write(broken.name, broken.text)
		faults, err := complete(folder)
		require.NoError(t, err)
		require.Contains(t, strings.Join(faults, "\n"), broken.fault)
		write(broken.name, string(before))
	}
	require.NoError(t, os.Remove(filepath.Join(folder, "op_cpu.c")))
	faults, err = complete(folder)
	require.NoError(t, err)
	require.Equal(t, []string{"no op_cpu.c"}, faults)
}

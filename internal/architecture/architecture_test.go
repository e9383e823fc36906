// Package architecture holds the tests that keep the house as it was drawn.
package architecture

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/fortet/fortet/"

// rooms lists the rooms from the ground up: a room imports only itself and
// what stands before it. The shared headers of kernels stand below gpu, which
// compares their hash with a device library's; internal/ serves every room
// above tensor, and examples and docs stand on top.
var rooms = []string{"kernels/include", "gpu", "tensor", "kernels", "solver", "models", "bench", "cmd"}

func level(path string) int {
	if path == "kernels/include" {
		return 0
	}
	top, _, _ := strings.Cut(path, "/")
	for i, room := range rooms {
		if room == top {
			return i
		}
	}
	return -1
}

func TestImportsGoOneWay(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	seen := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		from := level(filepath.ToSlash(dir))
		if from < 0 {
			return nil
		}
		seen[rooms[from]] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if to := level(strings.TrimPrefix(name, module)); strings.HasPrefix(name, module) && to > from {
				t.Errorf("%s/%s imports %s: imports go %s", dir, filepath.Base(path), name, strings.Join(rooms, " <- "))
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(seen), 6, "the walk found too few rooms to have looked at the project: %v", seen)
}

// Nothing but tests may need the programs of a device library to build.
func TestNoDriverImports(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.Contains(path, "gorgoniacu") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			if strings.Contains(spec.Path.Value, "gorgonia.org/cu") {
				t.Errorf("%s imports gorgonia.org/cu, whose init needs a driver", path)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, files, 50)
}

package atomicfile_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fortet/fortet/internal/atomicfile"
)

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "checkpoint")

	for _, failure := range []error{nil, errors.New("interrupted")} {
		err := atomicfile.Write(path, func(w io.Writer) error {
			fmt.Fprintf(w, "written with error %v", failure)
			return failure
		})
		fmt.Println(err != nil)
	}
	content, err := os.ReadFile(path)
	fmt.Println(string(content), err)
	// Output:
	// false
	// true
	// written with error <nil> <nil>
}

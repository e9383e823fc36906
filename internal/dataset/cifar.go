package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A record of CIFAR-10's binary format is a label and the planes R, G, B of
// 32 rows of 32 bytes (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html).
const (
	cifarPixels = 32 * 32
	cifarRecord = 1 + 3*cifarPixels
)

func cifarClasses() []string {
	return strings.Split("airplane automobile bird cat deer dog frog horse ship truck", " ")
}

func openCIFAR(folder string, o *options) (*table, error) {
	t := &table{d: 3 * cifarPixels, divisor: 255, classes: cifarClasses(), image: Shape{32, 32, 3}}
	keep := o.chosen(t.classes)
	split := o.word("split", "train", "test", "all")
	if o.err != nil {
		return nil, o.err
	}
	files, err := cifarFiles(folder, split)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := t.appendCIFAR(raw, keep); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	if t.n == 0 {
		return nil, fmt.Errorf("option class: no picture of class %q in %d files", o.text("class", ""), len(files))
	}
	return t, nil
}

// cifarFiles lists the files of a split, by name.
func cifarFiles(folder, split string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []string
	var total int64
	for _, e := range entries {
		train, _ := filepath.Match("data_batch_*.bin", e.Name())
		test := e.Name() == "test_batch.bin"
		if !(train && split != "test" || test && split != "train") {
			continue
		}
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := checkCIFARSize(info); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		total += info.Size()
		files = append(files, filepath.Join(folder, e.Name()))
	}
	if len(files) == 0 {
		return nil, errors.New("no file of the split " + split + ", want data_batch_*.bin or test_batch.bin")
	}
	if total > maxValues {
		return nil, fmt.Errorf("%d bytes of pictures, want at most %d", total, maxValues)
	}
	return files, nil
}

func checkCIFARSize(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if n := info.Size(); n == 0 || n%cifarRecord != 0 {
		return fmt.Errorf("%d bytes, want a positive multiple of %d", n, cifarRecord)
	}
	return nil
}

// appendCIFAR adds the records of the kept classes.
func (t *table) appendCIFAR(raw []byte, keep []bool) error {
	if len(raw)%cifarRecord != 0 {
		return fmt.Errorf("%d bytes, want a multiple of %d", len(raw), cifarRecord)
	}
	for i := 0; i < len(raw); i += cifarRecord {
		label, planes := int(raw[i]), raw[i+1:i+cifarRecord]
		if label >= len(keep) {
			return fmt.Errorf("record %d (from 0): label %d, want 0 to %d", i/cifarRecord, label, len(keep)-1)
		}
		if !keep[label] {
			continue
		}
		for k := range cifarPixels {
			t.bytes = append(t.bytes, planes[k], planes[cifarPixels+k], planes[2*cifarPixels+k])
		}
		t.labels = append(t.labels, label)
		t.n++
	}
	return nil
}

package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// DigitsAttribution names the source and the licence of the embedded digits.
const DigitsAttribution = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998, CC BY 4.0"

//go:embed digits.csv.gz
var digitsCSV []byte

func openDigits(_ string, o *options) (*table, error) {
	classes := strings.Split("0 1 2 3 4 5 6 7 8 9", " ")
	keep := o.chosen(classes)
	if o.err != nil {
		return nil, o.err
	}
	r, err := gzip.NewReader(bytes.NewReader(digitsCSV))
	if err != nil {
		return nil, err
	}
	t := &table{d: 64, divisor: 16, classes: classes, image: Shape{8, 8, 1}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ",")
		if len(fields) != 65 {
			return nil, fmt.Errorf("embedded digits: %d fields, want 65", len(fields))
		}
		var row [65]byte
		for k, f := range fields {
			v, err := strconv.ParseUint(f, 10, 8)
			if err != nil || v > 16 || k == 64 && v > 9 {
				return nil, fmt.Errorf("embedded digits: %q, want 0 to 16 and a class 0 to 9", f)
			}
			row[k] = byte(v)
		}
		if label := int(row[64]); keep[label] {
			t.bytes = append(t.bytes, row[:64]...)
			t.labels = append(t.labels, label)
			t.n++
		}
	}
	return t, lines.Err()
}

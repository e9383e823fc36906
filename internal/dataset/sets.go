package dataset

import (
	"fmt"
	"strings"
)

// set is what the package knows about a name. Exactly one of generator and
// table is set.
type set struct {
	name      string
	path      string // what the path names, "file" or "folder"; empty: no path
	about     string
	options   []option
	generator func(*options) *generator
	table     func(path string, o *options) (*table, error)
}

type option struct{ name, about string }

// commonOptions are what every set takes.
func commonOptions() []option {
	return []option{
		{"n", "generator: points to load (1000); finite set: rows to keep (all)"},
		{"seed", "generator: seed of the points (0); finite set: keep a random n rows, else the first"},
		{"scale", "multiplies every coordinate (1)"},
	}
}

// sets lists what Open knows.
func sets() []set {
	stretch := []option{
		{"stretch_x", "multiplies the first coordinate (1)"},
		{"stretch_y", "multiplies the second coordinate (1)"},
	}
	plane := func(own ...option) []option { return append(own, stretch...) }
	class := option{"class", "classes to keep, by number or name: 3 or 3,5 (all)"}
	dim := func(d string) option { return option{"d", "dimension (" + d + ", or the length of a list)"} }
	return []set{
		{
			name: "8gaussians", about: "eight round Gaussians on a circle", generator: eightGaussians,
			options: plane(
				option{"noise", "code: covariance √0.1·I, standard deviation .5623, as the published programs draw (default); paper: variance 0.1, standard deviation .3162; or the standard deviation"},
				option{"radius", "of the circle (5)"}),
		},
		{
			name: "moons", about: "two half circles, times 3, minus 1", generator: moons,
			options: plane(option{"noise", "code: one uniform number in [0, 0.2) added to both coordinates, as the published programs draw (default); or the standard deviation of independent Gaussian noise; both before times 3, minus 1"}),
		},
		{
			name: "swissroll", about: "a spiral of Gaussian noise: (t cos t, t sin t)/7.5, t uniform on [1.5π, 4.5π]", generator: swissRoll,
			options: plane(option{"noise", "standard deviation before the division by 7.5 (0.8)"}),
		},
		{
			name: "spiral", about: "a spiral that thins out: 0.4 (t+π)(cos t, sin t), t = 3π√u − π/2", generator: spiral,
			options: plane(option{"noise", "standard deviation before the factor 0.4 (0.25)"}),
		},
		{
			name: "checkerboard", about: "uniform where sin x sin y < 0 on (−2π, 2π)²", generator: checkerboard,
			options: plane(),
		},
		{
			name: "normal", about: "independent normal coordinates", generator: normal,
			options: []option{dim("2"), {"mean", "a number, or one for each coordinate: 0,5 (0)"}, {"std", "standard deviation, a number or one for each coordinate (1)"}},
		},
		{
			name: "student-t", about: "independent Student t coordinates", generator: studentT,
			options: []option{{"d", "dimension (1)"}, {"df", "degrees of freedom, any positive number (3)"}},
		},
		{
			name: "delta", about: "one point, again and again", generator: delta,
			options: []option{dim("1"), {"at", "the point, a number or one for each coordinate (0)"}},
		},
		{
			name: "digits", about: "1797 handwritten digits, 8x8x1, grey values 0 to 16 divided by 16 (embedded; " + DigitsAttribution + ")",
			options: []option{class}, table: openDigits,
		},
		{
			name: "npy", path: "file", about: "a NumPy array (n, …), flattened to (n, d); a vector is (n, 1)", table: openNPY,
		},
		{
			name: "npz", path: "file", about: "one array of a NumPy archive, as npy", table: openNPZ,
			options: []option{{"array", "its name (needed where there are several)"}},
		},
		{
			name: "csv", path: "file", about: "a table separated by commas, tabs or semicolons; .gz is decompressed", table: openCSV,
			options: []option{
				{"columns", "names (all but those that where fixes by == and the label)"},
				{"where", "rows to keep: column op value, op one of == != < <= > >=; more joined by ' and ' or by a further where="},
				{"label", "column whose distinct values become the labels"},
				{"header", "yes (default), or no: columns are then named 0, 1, 2, …"},
			},
		},
		{
			name: "cifar10", path: "folder", about: "CIFAR-10's binary files, 32x32x3, values divided by 255; the planes R, G, B of the files become the last axis", table: openCIFAR,
			options: []option{class, {"split", "train (data_batch_*.bin, default), test (test_batch.bin) or all"}},
		},
		{
			name: "images", path: "folder", about: "the .png, .jpg and .jpeg files of a folder, by name, 8 bits a channel, values divided by 255, transparency over white", table: openImages,
			options: []option{
				{"size", "side, or height x width as 32x48: pictures are cropped to that ratio about the centre and resampled (as they are; all must agree)"},
				{"channels", "3 (default) or 1, luminance"},
			},
		},
	}
}

// form shows how the set is written.
func (s set) form() string {
	if s.path == "" {
		return s.name
	}
	return s.name + ":" + s.path
}

func (s set) optionNames() []string {
	var names []string
	for _, o := range append(s.options[:len(s.options):len(s.options)], commonOptions()...) {
		names = append(names, o.name)
	}
	return names
}

// find returns the set that an address names.
func find(a address) (set, error) {
	var forms []string
	for _, s := range sets() {
		if s.name == a.name {
			return s, nil
		}
		forms = append(forms, s.form())
	}
	return set{}, fmt.Errorf("name %q: unknown, want one of %s", a.name, strings.Join(forms, ", "))
}

// Help describes every set and option, for a program's help text.
func Help() string {
	var b strings.Builder
	write := func(options []option) {
		for _, o := range options {
			fmt.Fprintf(&b, "    %-10s %s\n", o.name, o.about)
		}
	}
	for _, s := range sets() {
		fmt.Fprintf(&b, "%s\n    %s\n", s.form(), s.about)
		write(s.options)
	}
	b.WriteString("every set\n")
	write(commonOptions())
	return b.String()
}

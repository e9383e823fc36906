package dataset

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	table := file("t.csv", "day,a,b\n0,1,2\n1,3,4\n")
	for uri, want := range map[string]string{
		"":                                              "no name",
		"?n=3":                                          "no name",
		"9gaussians":                                    `"9gaussians": unknown, want one of 8gaussians, moons`,
		"moons?nois=1":                                  `"nois": unknown, want one of noise, stretch_x, stretch_y, n, seed, scale`,
		"moons:here":                                    "want none",
		"csv":                                           "want a file: the form is csv:file",
		"cifar10:":                                      "want a folder",
		"moons?n":                                       "want option=value",
		"moons?n=%zz":                                   "invalid URL escape",
		"moons?n=1&n=2":                                 "given twice",
		"moons?n=0":                                     "from 1 to",
		"moons?n=9999999999":                            "from 1 to",
		"moons?n=99999999999999999999":                  "from 1 to",
		"moons?seed=-1":                                 "from 0 to 2^64-1",
		"moons?scale=0":                                 "other than 0",
		"moons?scale=nan":                               "finite",
		"moons?stretch_x=inf":                           "finite",
		"moons?noise=paper":                             "code or a standard deviation",
		"8gaussians?noise=-1":                           "code, paper or a standard deviation",
		"8gaussians?noise=NaN":                          "code, paper or a standard deviation",
		"spiral?noise=x":                                "a standard deviation",
		"normal?std=-1":                                 "at least 0",
		"normal?std=1,,2":                               "without empty elements",
		"normal?d=3&mean=1,2":                           "1 or 3 numbers",
		"normal?mean=1,2&std=1,2,3":                     "1 or 3 numbers",
		"normal?d=0":                                    "from 1 to",
		"normal?d=16777216&n=33":                        "from 1 to 32",
		"student-t?df=0":                                "above 0",
		"digits?class=10":                               "0 to 9",
		"digits?class=three":                            "0 to 9",
		"digits?n=1798":                                 "at most the 1797 rows",
		"digits?class=3&n=184":                          "at most the 183 rows",
		"npy:" + dir + "/none.npy":                      "no such file",
		"csv:" + dir + "/none.csv":                      "no such file",
		"csv:" + dir:                                    "is a directory",
		"cifar10:" + dir:                                "no file of the split train",
		"cifar10:" + dir + "?split=some":                "one of train, test, all",
		"cifar10:" + dir + "?class=cow":                 "one of airplane",
		"images:" + dir:                                 "no picture",
		"images:" + dir + "?size=0":                     "a side from 1",
		"images:" + dir + "?size=3x":                    "height x width",
		"images:" + dir + "?channels=2":                 "1 or 3",
		"images:" + dir + "/none":                       "no such file",
		"csv:" + table + "?columns=c":                   `column "c": not there, want one of ["day" "a" "b"]`,
		"csv:" + table + "?columns=":                    "without empty elements",
		"csv:" + table + "?where=day=1":                 "column op value",
		"csv:" + table + "?where=day":                   "column op value",
		"csv:" + table + "?where===1":                   "column op value",
		"csv:" + table + "?where=day<x":                 "a number after",
		"csv:" + table + "?where=c==1":                  "not there",
		"csv:" + table + "?where=day==7":                "no row kept of 2",
		"csv:" + table + "?label=c":                     "not there",
		"csv:" + table + "?header=no":                   `line 1, column "0": got "day"`,
		"csv:" + table + "?header=maybe":                "one of yes, no",
		"csv:" + table + "?header=no&columns=3":         `column "3"`,
		"csv:" + file("empty.csv", ""):                  "empty file",
		"csv:" + file("head.csv", "a,b\n"):              "no row kept of 0",
		"csv:" + file("numbers.csv", "1,2\n"):           "want column names",
		"csv:" + file("ragged.csv", "a,b\n1\n"):         "line 2: wrong number of fields",
		"csv:" + file("quote.csv", "a,b\n\"1,2\n"):      `extraneous or missing " in quoted-field`,
		"csv:" + file("nan.csv", "a,b\n\n1,2\n3,NaN\n"): `line 4, column "b": got "NaN", want a finite number`,
		"csv:" + file("inf.csv", "a,b\n1,-Inf\n"):       `line 2, column "b": got "-Inf"`,
		"csv:" + file("big.csv", "a,b\n1,1e999\n"):      `line 2, column "b": got "1e999"`,
		"csv:" + file("void.csv", "a,b\n1,\n"):          `line 2, column "b": got ""`,
		"csv:" + file("word.csv", "a,b\n1,two\n"):       `line 2, column "b": got "two"`,
		"csv:" + file("twice.csv", "a,a\n1,2\n") + "?columns=a":               "more than once",
		"csv:" + file("one.csv", "a\n1\n") + "?where=a==1":                    "no column is left",
		"csv:" + file("fake.csv.gz", "a,b\n1,2\n3,4\n5,6\n"):                  "gzip",
		"csv:" + file("order.csv", "a,b\nx,2\n") + "?where=a<1":               `line 2, column "a": got "x"`,
		"csv:" + file("long.csv", "a\n"+strings.Repeat("1", maxRecord+1<<21)): "a record of more than",
	} {
		_, err := Open(uri)
		require.ErrorIs(t, err, ErrInvalid, uri)
		require.Contains(t, err.Error(), want, uri)
		require.Contains(t, err.Error(), uri)
		require.NotContains(t, err.Error(), "\n", uri)
	}
	_, err := Open("csv:" + dir + "/none.csv")
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, uri := range []string{
		"a\nb", "csv:a\nb", "moons?n=\n", "moons?a\n=1", "moons?n=%0a", "moons?%0a=1", "digits?class=%0a",
		"csv:" + file("lines.csv", "\"a\nb\",c\n1,\"2\n\"\n") + "?columns=d%0a", "csv:" + dir + "/lines.csv?where=c==%0a",
	} {
		_, err = Open(uri)
		require.ErrorIs(t, err, ErrInvalid, uri)
		require.NotContains(t, err.Error(), "\n", uri)
	}
}

// TestHelp: every set and every option is described, once.
func TestHelp(t *testing.T) {
	help := Help()
	names := map[string]bool{}
	for _, s := range sets() {
		require.False(t, names[s.name], "%s twice", s.name)
		names[s.name] = true
		require.Contains(t, help, "\n    "+s.about+"\n")
		require.NotEqual(t, s.generator == nil, s.table == nil, s.name)
		require.Regexp(t, "(?m)^"+regexp.QuoteMeta(s.form())+"$", help)
		for _, o := range s.options {
			require.NotEmpty(t, o.about, "%s: %s", s.name, o.name)
		}
	}
}

func TestDigits(t *testing.T) {
	p := load(t, "digits")
	require.Equal(t, []int{1797, 64}, []int{p.N, p.D})
	require.Equal(t, Shape{8, 8, 1}, p.Image)
	// The counts that the data set's own description gives.
	want := []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}
	count := make([]int, 10)
	for _, label := range p.Labels {
		count[label]++
	}
	require.Equal(t, want, count)
	var low, high float64
	for _, v := range p.X {
		low, high = min(low, v), max(high, v)
		require.Equal(t, v*16, float64(int(v*16)))
	}
	require.Equal(t, []float64{0, 1}, []float64{low, high})
	require.Equal(t, []float64{0, 0, 5. / 16, 13. / 16, 9. / 16, 1. / 16, 0, 0}, p.Row(0)[:8])

	some := load(t, "digits?class=3,5&scale=16")
	require.Equal(t, want[3]+want[5], some.N)
	k := 0
	for i, label := range p.Labels {
		if label != 3 && label != 5 {
			continue
		}
		require.Equal(t, label, some.Labels[k])
		require.Equal(t, p.Row(i)[20]*16, some.Row(k)[20])
		k++
	}
}

// TestSubset: n takes the first rows, n and seed nested random ones without
// repetition, seed alone a permutation.
func TestSubset(t *testing.T) {
	all := load(t, "digits")
	require.Equal(t, all.X[:50*64], load(t, "digits?n=50").X)
	forty, ten := load(t, "digits?n=40&seed=5"), load(t, "digits?n=10&seed=5")
	require.Equal(t, forty.X[:10*64], ten.X)
	require.NotEqual(t, forty.X, load(t, "digits?n=40&seed=6").X)
	require.NotEqual(t, forty.X, all.X[:40*64])

	rows := func(p Points) map[string]int {
		m := map[string]int{}
		for i := range p.N {
			var b strings.Builder
			for _, v := range p.Row(i) {
				b.WriteByte(byte(v * 16))
			}
			m[b.String()]++
		}
		return m
	}
	shuffled := load(t, "digits?seed=5")
	require.Equal(t, rows(all), rows(shuffled))
	require.NotEqual(t, all.X, shuffled.X)
	s, err := Open("digits?n=40&seed=5")
	require.NoError(t, err)
	n, ok := s.Finite()
	require.True(t, ok)
	require.Equal(t, 40, n)
	// Sampling stays inside the subset, and reaches all of it: with 1000 draws
	// a row of 40 is missed with probability 40·e^−25.
	drawn, err := s.Sample(1000, 1)
	require.NoError(t, err)
	inside := rows(forty)
	for row := range rows(drawn) {
		require.Contains(t, inside, row)
	}
	require.Len(t, rows(drawn), len(inside))
}

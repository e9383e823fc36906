package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

func writeFile(t *testing.T, content string, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func TestCSV(t *testing.T) {
	dir := t.TempDir()
	table := "day,name,x1,x2,x3\n0, a ,1,2,3\n1,b,4,5,6\n\n1,\"c,d\",7,8,9\n10,b,-1e1,.5,+2\n"
	comma := writeFile(t, table, dir, "t.csv")
	bom := writeFile(t, "\xef\xbb\xbf"+strings.ReplaceAll(table, "\n", "\r\n"), dir, "bom.csv")
	tabs := writeFile(t, strings.NewReplacer("\"c,d\"", "c,d", ",", "\t").Replace(strings.ReplaceAll(table, "\"c,d\"", "c.d")), dir, "t.tsv")
	semi := writeFile(t, strings.ReplaceAll(strings.ReplaceAll(table, "\"c,d\"", "c.d"), ",", ";"), dir, "s.csv")
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	_, err := zw.Write([]byte(table))
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	zipped := writeFile(t, z.String(), dir, "t.csv.gz")

	for _, path := range []string{comma, bom, tabs, semi, zipped} {
		p := load(t, "csv:"+path+"?columns=x3,x1")
		require.Equal(t, []string{"x3", "x1"}, p.Names)
		require.Equal(t, []float64{3, 1, 6, 4, 9, 7, 2, -10}, p.X)
		require.Nil(t, p.Labels)

		p = load(t, "csv:"+path+"?columns=x1,x2,x3&where=day==1")
		require.Equal(t, []float64{4, 5, 6, 7, 8, 9}, p.X)
	}
	for query, want := range map[string][]float64{
		"columns=x1&where=day!=1":                     {1, -10},
		"columns=x1&where=day<10":                     {1, 4, 7},
		"columns=x1&where=day<=1.0 and day>0":         {4, 7},
		"columns=x1&where=day>=1&where=x2<8":          {4, -10},
		"columns=x1&where=day>=1&where=x2<8&n=1":      {4},
		"columns=x1&where=name==b":                    {4, -10},
		"columns=x1&where=name!=b":                    {1, 7},
		"columns=x1&where=name==c%2Cd":                {7},
		"columns=x1&where=name==1":                    nil,
		"columns=x1&where=name!=1":                    {1, 4, 7, -10},
		"columns=x1&where= day == 1e+0 and name == b": {4},
		"columns=x1, x1&where=day==0":                 {1, 1},
		"columns=x1&where=day==0&scale=-2":            {-2},
		"where=name==b&where=day==1":                  {4, 5, 6},
		"where=day==10&label=name":                    {-10, .5, 2},
	} {
		if want == nil {
			_, err := Open("csv:" + comma + "?" + query)
			require.ErrorIs(t, err, ErrInvalid, query)
			continue
		}
		require.Equal(t, want, load(t, "csv:"+comma+"?"+query).X, query)
	}
	p := load(t, "csv:"+comma+"?columns=x1&label=day")
	require.Equal(t, []int{0, 1, 1, 2}, p.Labels)
	require.Equal(t, []string{"0", "1", "10"}, p.Classes)
	p = load(t, "csv:"+comma+"?columns=x1&label=name")
	require.Equal(t, []int{0, 1, 2, 1}, p.Labels)
	require.Equal(t, []string{"a", "b", "c,d"}, p.Classes)

	plain := writeFile(t, "1,2,3\n4,5,6\n", dir, "plain.csv")
	p = load(t, "csv:"+plain+"?header=no")
	require.Equal(t, []float64{1, 2, 3, 4, 5, 6}, p.X)
	p = load(t, "csv:"+plain+"?header=no&columns=2,0&where=1>2")
	require.Equal(t, []float64{6, 4}, p.X)

	// A file cut short inside gzip is an error, not a smaller set.
	writeFile(t, z.String()[:z.Len()-9], dir, "cut.csv.gz")
	_, err = Open("csv:" + filepath.Join(dir, "cut.csv.gz") + "?columns=x1")
	require.ErrorIs(t, err, ErrInvalid)
}

func TestArrays(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, a *npy.Array) string {
		path := filepath.Join(dir, name)
		require.NoError(t, npy.WriteFile(path, a))
		return path
	}
	p := load(t, "npy:"+save("f32.npy", npy.New([]float32{1, 2, 3, 4, 5, 6}, 3, 2)))
	require.Equal(t, []int{3, 2}, []int{p.N, p.D})
	require.Equal(t, []float64{1, 2, 3, 4, 5, 6}, p.X)
	p = load(t, "npy:"+save("cube.npy", npy.New([]int64{1, 2, 3, 4, 5, 6, 7, 8}, 2, 2, 2))+"?scale=.5")
	require.Equal(t, []int{2, 4}, []int{p.N, p.D})
	require.Equal(t, []float64{.5, 1, 1.5, 2, 2.5, 3, 3.5, 4}, p.X)
	p = load(t, "npy:"+save("bytes.npy", npy.New([]uint8{0, 255, 7}, 3)))
	require.Equal(t, []int{3, 1}, []int{p.N, p.D})
	require.Equal(t, []float64{0, 255, 7}, p.X)

	nan := save("nan.npy", npy.New([]float64{1, 2, 3, 0, 5, 6}, 3, 2))
	raw, err := os.ReadFile(nan)
	require.NoError(t, err)
	raw[len(raw)-17], raw[len(raw)-18] = 0x7f, 0xf8 // element (1, 1) becomes NaN
	require.NoError(t, os.WriteFile(nan, raw, 0o600))
	for uri, want := range map[string]string{
		"npy:" + nan: "row 1, column 1 (from 0): NaN",
		"npy:" + save("scalar.npy", npy.Scalar(1.0)):            "a scalar",
		"npy:" + save("none.npy", npy.New([]float64{}, 0, 2)):   "want 1 to",
		"npy:" + save("empty.npy", npy.New([]float64{}, 3, 0)):  "want 1 to",
		"npy:" + writeFile(t, string(raw[:90]), dir, "cut.npy"): "npy",
		"npy:" + writeFile(t, "no array", dir, "text.npy"):      "npy",
		"npz:" + writeFile(t, "no archive", dir, "text.npz"):    "npz",
		"npz:" + filepath.Join(dir, "two.npz"):                  `want the option array to name one of ["x" "y"]`,
		"npz:" + filepath.Join(dir, "two.npz") + "?array=z":     `no array "z"`,
	} {
		var z npy.Archive
		z.Set("x", npy.New([]float64{1, 2}, 2))
		z.Set("y", npy.New([]float64{3, 4, 5}, 1, 3))
		require.NoError(t, npy.WriteNPZFile(filepath.Join(dir, "two.npz"), &z, npy.Stored))
		_, err := Open(uri)
		require.ErrorIs(t, err, ErrInvalid, uri)
		require.Contains(t, err.Error(), want, uri)
		require.NotContains(t, err.Error(), "\n")
	}
	require.Equal(t, []float64{3, 4, 5}, load(t, "npz:"+filepath.Join(dir, "two.npz")+"?array=y").X)
	var z npy.Archive
	z.Set("only", npy.New([]float64{1, 2}, 2))
	require.NoError(t, npy.WriteNPZFile(filepath.Join(dir, "one.npz"), &z, npy.Deflated))
	require.Equal(t, []float64{1, 2}, load(t, "npz:"+filepath.Join(dir, "one.npz")).X)
}

// cifarFile makes records whose pixel k of plane c is label + k·c modulo 256.
func cifarFile(labels ...byte) string {
	var b bytes.Buffer
	for _, label := range labels {
		b.WriteByte(label)
		for c := range 3 {
			for k := range cifarPixels {
				b.WriteByte(label + byte(k*c))
			}
		}
	}
	return b.String()
}

func TestCIFAR(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, cifarFile(3, 5, 3), dir, "data_batch_1.bin")
	writeFile(t, cifarFile(9), dir, "data_batch_2.bin")
	writeFile(t, cifarFile(3, 0), dir, "test_batch.bin")
	writeFile(t, "airplane\n", dir, "batches.meta.txt")
	for query, want := range map[string][]int{
		"":                       {3, 5, 3, 9},
		"?split=test":            {3, 0},
		"?split=all":             {3, 5, 3, 9, 3, 0},
		"?class=cat":             {3, 3},
		"?class=truck,5":         {5, 9},
		"?class=3&split=all":     {3, 3, 3},
		"?class=3&split=all&n=2": {3, 3},
	} {
		p := load(t, "cifar10:"+dir+query)
		require.Equal(t, want, p.Labels, query)
		require.Equal(t, Shape{32, 32, 3}, p.Image)
		require.Equal(t, p.Image.Size(), p.D)
		for i, label := range p.Labels {
			for _, pixel := range []int{0, 1, 77, 1023} {
				for c := range 3 {
					require.Equal(t, float64(byte(label+pixel*c))/255, p.Row(i)[3*pixel+c])
				}
			}
		}
	}
	for name, content := range map[string]string{
		"want a positive multiple of 3073": cifarFile(1)[:3000],
		"0 bytes":                          "",
		"data_batch_1.bin: record 1 (from 0): label 10": cifarFile(1, 10),
	} {
		writeFile(t, content, dir, "data_batch_1.bin")
		_, err := Open("cifar10:" + dir)
		require.ErrorIs(t, err, ErrInvalid)
		require.Contains(t, err.Error(), name)
	}
	_, err := Open("cifar10:" + dir + "?split=test&class=dog")
	require.ErrorContains(t, err, `no picture of class "dog"`)
}

func TestImages(t *testing.T) {
	dir := t.TempDir()
	picture := func(w, h int, at func(x, y int) color.Color) image.Image {
		m := image.NewNRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				m.Set(x, y, at(x, y))
			}
		}
		return m
	}
	save := func(name string, m image.Image) {
		var b bytes.Buffer
		if strings.HasSuffix(name, "png") {
			require.NoError(t, png.Encode(&b, m))
		} else {
			require.NoError(t, jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}))
		}
		writeFile(t, b.String(), dir, name)
	}
	uri := "images:" + dir
	save("b.png", picture(3, 2, func(x, y int) color.Color { return color.NRGBA{uint8(50 * x), uint8(100 * y), 7, 255} }))
	save("a.png", picture(3, 2, func(x, y int) color.Color { return color.NRGBA{0, 0, 0, uint8(255 * (x % 2))} }))
	writeFile(t, "not a picture", dir, "notes.txt")
	p := load(t, uri)
	require.Equal(t, []int{2, 18}, []int{p.N, p.D})
	require.Equal(t, Shape{2, 3, 3}, p.Image)
	for i, v := range p.Row(0) { // white, black, white
		require.Equal(t, float64(1-i/3%3%2), v)
	}
	for i, v := range p.Row(1) {
		x, y, c := i/3%3, i/9, i%3
		require.Equal(t, float64([]int{50 * x, 100 * y, 7}[c])/255, v)
	}
	p = load(t, uri+"?channels=1&n=1")
	require.Equal(t, Shape{2, 3, 1}, p.Image)
	require.Equal(t, []float64{1, 0, 1, 1, 0, 1}, p.X)

	// A picture of one colour keeps it, whatever the size; JPEG is lossy, a
	// level or two.
	save("c.jpg", picture(40, 64, func(x, y int) color.Color { return color.Gray{77} }))
	_, err := Open(uri)
	require.ErrorContains(t, err, "c.jpg: 64x40x3, want 2x3x3")
	for query, shape := range map[string]Shape{"?size=4": {4, 4, 3}, "?size=5x9&channels=1": {5, 9, 1}, "?size=1": {1, 1, 3}} {
		p = load(t, uri+query)
		require.Equal(t, 3, p.N)
		require.Equal(t, shape, p.Image)
		for _, v := range p.Row(2) {
			require.InDelta(t, 77./255, v, 2.5/255)
		}
		for _, v := range p.X {
			require.True(t, v >= 0 && v <= 1)
		}
	}
	// The crop is about the centre: of a wide picture the sides are cut off.
	require.NoError(t, os.Remove(filepath.Join(dir, "c.jpg")))
	save("a.png", picture(12, 4, func(x, y int) color.Color { return color.Gray{uint8(255 * b2i(x < 4 || x >= 8))} }))
	save("b.png", picture(4, 12, func(x, y int) color.Color { return color.Gray{uint8(255 * b2i(y < 4 || y >= 8))} }))
	for _, v := range load(t, uri+"?size=4").X {
		require.Equal(t, 0., v)
	}

	writeFile(t, "\x89PNG\r\n\x1a\nbroken", dir, "d.png")
	_, err = Open(uri + "?size=4")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "d.png")
	// A header that promises 2^31-1 squared pixels is refused before decoding.
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, picture(1, 1, func(x, y int) color.Color { return color.Black })))
	huge := b.Bytes()
	copy(huge[16:], "\x00\x01\x00\x00\x00\x01\x00\x00")
	fixCRC(huge[12:33])
	writeFile(t, string(huge), dir, "d.png")
	_, err = Open(uri + "?size=4")
	require.ErrorContains(t, err, "65536 x 65536 pixels, want")
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fixCRC sets the checksum that ends a PNG chunk (without its length).
func fixCRC(chunk []byte) {
	n := len(chunk) - 4
	binary.BigEndian.PutUint32(chunk[n:], crc32.ChecksumIEEE(chunk[:n]))
}

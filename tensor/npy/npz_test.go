package npy

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
)

func readArchive(b []byte, limit int64) (*Archive, error) {
	return ReadNPZ(bytes.NewReader(b), int64(len(b)), limit)
}

func sampleArchive() *Archive {
	var z Archive
	z.Set("f", New([]float64{0, 1, 2}))
	z.Set("g", cube(float))
	z.Set("epsilon", Scalar(0.1))
	return &z
}

func sameArchive(t testing.TB, want, got *Archive) {
	t.Helper()
	require.Equal(t, want.Names(), got.Names())
	for name, a := range want.All() {
		b, err := got.Get(name)
		require.NoError(t, err)
		same(t, a, b)
	}
}

func TestReadsNumPyArchives(t *testing.T) {
	for _, name := range []string{"stored", "deflated"} {
		got, err := ReadNPZFile(filepath.Join("testdata", name+".npz"))
		require.NoError(t, err)
		sameArchive(t, sampleArchive(), got)
	}
}

func TestArchiveRoundTrip(t *testing.T) {
	z := sampleArchive()
	for name, a := range samples() {
		z.Set("types/"+name, a)
	}
	z.Set("größe", Scalar(1.0))
	for _, archive := range []*Archive{z, {}} {
		for _, method := range []Method{Stored, Deflated} {
			var first, second bytes.Buffer
			require.NoError(t, WriteNPZ(&first, archive, method))
			got, err := readArchive(first.Bytes(), 0)
			require.NoError(t, err)
			sameArchive(t, archive, got)
			require.NoError(t, WriteNPZ(&second, got, method))
			assert.Equal(t, first.Bytes(), second.Bytes(), "writing is not deterministic")
		}
	}
}

func TestArchiveFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	require.NoError(t, WriteNPZFile(path, sampleArchive(), Deflated))
	got, err := ReadNPZFile(path)
	require.NoError(t, err)
	sameArchive(t, sampleArchive(), got)

	_, err = ReadNPZFile(filepath.Dir(path))
	require.ErrorIs(t, err, gpu.ErrInvalid)
	_, err = ReadNPZFile(path + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = ReadFile(path)
	require.EqualError(t, err, "npy: "+path+": header: this is a zip archive, want .npy; read it as .npz")
	require.NoError(t, WriteFile(path, Scalar(1.0)))
	_, err = ReadNPZFile(path)
	require.EqualError(t, err, "npy: "+path+": archive: this is a single array, want a zip archive; read it as .npy")
}

func TestArchiveOrder(t *testing.T) {
	var z Archive
	assert.False(t, z.Has("a"))
	assert.Empty(t, z.Names())
	z.Set("b", Scalar(1.0))
	z.Set("a", Scalar(2.0))
	z.Set("b", Scalar(3.0))
	assert.Equal(t, []string{"b", "a"}, z.Names())
	b, err := z.Get("b")
	require.NoError(t, err)
	assert.Equal(t, []float64{3}, b.Data)
	_, err = z.Get("c")
	require.ErrorIs(t, err, gpu.ErrInvalid)
	for name := range z.All() {
		assert.Equal(t, "b", name)
		break
	}
}

func TestUnwritableArchives(t *testing.T) {
	dir := t.TempDir()
	one := Scalar(1.0)
	for _, c := range []struct {
		name   string
		a      *Array
		method Method
		want   string
	}{
		{"a", one, 99, "method: 99, want Stored or Deflated"},
		{"", one, Stored, "archive: an array's name is empty"},
		{"../a", one, Stored, `archive: name "../a", want one that stays inside a folder`},
		{"/a", one, Stored, `archive: name "/a", want one that stays inside a folder`},
		{`a\b`, one, Stored, `archive: name "a\\b", want one that stays inside a folder`},
		{"a/", one, Stored, `archive: name "a/", want one that stays inside a folder`},
		{"a", nil, Stored, `array "a": array is nil`},
		{"a", New([]BFloat16{1}), Stored, `array "a": data: bfloat16, want a type that .npy files can hold`},
	} {
		var z Archive
		z.Set(c.name, c.a)
		require.EqualError(t, WriteNPZ(io.Discard, &z, c.method), "npy: "+c.want+": invalid argument")
		path := filepath.Join(dir, "a.npz")
		require.EqualError(t, WriteNPZFile(path, &z, c.method), "npy: "+path+": "+c.want+": invalid argument")
		require.NoFileExists(t, path)
	}
}

type member struct {
	name string
	data []byte
}

func zipped(t testing.TB, method uint16, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		f, err := w.CreateHeader(&zip.FileHeader{Name: m.name, Method: method})
		require.NoError(t, err)
		_, err = f.Write(m.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestHostileArchives(t *testing.T) {
	one := encode(t, New([]float64{1, 2, 3}))
	for _, c := range []struct {
		members []member
		want    string
	}{
		{[]member{{"a.npy", one}, {"b.npy", one}, {"a.npy", one}}, `archive: member "a.npy" appears twice`},
		{[]member{{"../a.npy", one}}, `archive: name "../a", want one that stays inside a folder`},
		{[]member{{"/etc/a.npy", one}}, `archive: name "/etc/a", want one that stays inside a folder`},
		{[]member{{`C:\a.npy`, one}}, `archive: name "C:\\a", want one that stays inside a folder`},
		{[]member{{"a/../b.npy", one}}, `archive: name "a/../b", want one that stays inside a folder`},
		{[]member{{".npy", one}}, `archive: an array's name is empty`},
		{[]member{{"readme.txt", nil}}, `archive: member "readme.txt", want a name that ends in .npy`},
		{[]member{{"folder/", nil}}, `archive: member "folder/", want a name that ends in .npy`},
		{[]member{{"a.npy", nil}}, `member "a.npy": header: cut short after 0 bytes, want at least 8`},
		{[]member{{"a.npy", one[:len(one)-1]}}, `member "a.npy": data: 23 bytes, want 24 for float64 of shape (3,)`},
		{[]member{{"a.npy", append(one[:len(one):len(one)], 0)}}, `member "a.npy": data: 25 bytes, want 24 for float64 of shape (3,)`},
	} {
		for _, method := range []uint16{zip.Store, zip.Deflate} {
			_, err := readArchive(zipped(t, method, c.members...), 0)
			require.ErrorIs(t, err, ErrFormat)
			assert.Equal(t, "npy: "+c.want, err.Error())
		}
	}
	for content, want := range map[string]string{
		"":            `archive: begins with "\x00\x00\x00\x00\x00\x00", want a zip archive`,
		"PK\x03\x04x": "archive: damaged or cut short: zip: not a valid zip file",
	} {
		_, err := readArchive([]byte(content), 0)
		require.EqualError(t, err, "npy: "+want)
		require.ErrorIs(t, err, ErrFormat)
	}
}

// Whatever byte is changed or cut off, the answer is an error or an array: the
// checksums make it an error wherever the data is concerned.
func TestDamagedArchives(t *testing.T) {
	for _, method := range []Method{Stored, Deflated} {
		var buffer bytes.Buffer
		require.NoError(t, WriteNPZ(&buffer, sampleArchive(), method))
		b := buffer.Bytes()
		for n := range b {
			_, err := readArchive(b[:n], 0)
			require.ErrorIs(t, err, ErrFormat, "cut after %d bytes", n)
			damaged := bytes.Clone(b)
			damaged[n] ^= 0x10
			got, err := readArchive(damaged, 0)
			if err != nil {
				continue
			}
			for _, a := range got.All() {
				require.NoError(t, a.Validate())
			}
			for _, name := range sampleArchive().Names() {
				if a, err := got.Get(name); err == nil {
					want, err := sampleArchive().Get(name)
					require.NoError(t, err)
					same(t, want, a)
				}
			}
		}
	}
}

func TestBombs(t *testing.T) {
	// 8 MiB of zeros deflate to 8 kB.
	big := New(make([]uint8, 8<<20))
	var buffer bytes.Buffer
	var z Archive
	z.Set("zeros", big)
	require.NoError(t, WriteNPZ(&buffer, &z, Deflated))
	b := buffer.Bytes()
	require.Less(t, len(b), 10_000)
	var err error
	got := allocated(func() { _, err = readArchive(b, 1<<20) })
	require.ErrorIs(t, err, ErrLimit)
	assert.Less(t, got, uint64(4<<20))
	assert.Equal(t, `npy: archive: member "zeros.npy" claims 8388736 bytes, limit 1048576 for all together: array file exceeds the limit`, err.Error())

	// Members that are small one by one count together.
	small := zipped(t, zip.Store, member{"a.npy", encode(t, New(make([]uint8, 100)))}, member{"b.npy", encode(t, New(make([]uint8, 100)))})
	_, err = readArchive(small, 2*228)
	require.NoError(t, err)
	_, err = readArchive(small, 2*228-1)
	require.ErrorIs(t, err, ErrLimit)

	// A central directory that promises less than the data inflates to.
	lie := bytes.Clone(b)
	at := bytes.LastIndex(lie, []byte("PK\x01\x02"))
	require.Positive(t, at)
	copy(lie[at+24:], []byte{0, 1, 0, 0}) // uncompressed size 256
	got = allocated(func() { _, err = readArchive(lie, 0) })
	require.ErrorIs(t, err, ErrFormat)
	assert.Less(t, got, uint64(4<<20))
	// One that promises more, with a header to match.
	copy(lie[at+24:], []byte{0, 0, 0, 0x7f})
	_, err = readArchive(lie, 0)
	require.ErrorIs(t, err, ErrFormat)
}

func TestUnreadableMembers(t *testing.T) {
	b := zipped(t, zip.Store, member{"a.npy", encode(t, Scalar(1.0))})
	at := bytes.LastIndex(b, []byte("PK\x01\x02"))
	encrypted := bytes.Clone(b)
	encrypted[at+8] |= 1
	_, err := readArchive(encrypted, 0)
	require.EqualError(t, err, `npy: member "a.npy": is encrypted`)
	require.ErrorIs(t, err, ErrFormat)
	packed := bytes.Clone(b)
	packed[at+10] = 12
	_, err = readArchive(packed, 0)
	require.EqualError(t, err, `npy: member "a.npy": compression method 12, want stored or deflated`)
}

func TestLongNamesAreCutInErrors(t *testing.T) {
	_, err := readArchive(zipped(t, zip.Store, member{strings.Repeat("x", 60000), nil}), 0)
	require.ErrorIs(t, err, ErrFormat)
	assert.Less(t, len(err.Error()), 300)
}

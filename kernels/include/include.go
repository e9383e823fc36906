// Package include holds the C headers that every kernel source shares, and
// their hash: a device library carries the hash of the headers it was built
// from, and a program refuses a library built from others.
package include

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
)

//go:embed *.h
var headers embed.FS

// Hash is the SHA-256 of the shared headers, concatenated in the order of
// their names, in hexadecimal. build.sh computes the same.
func Hash() string { return hash("") }

// Contract is the hash of the shared headers followed by an operation's own
// header.
func Contract(header string) string { return hash(header) }

func hash(tail string) string {
	h := sha256.New()
	names, err := fs.Glob(headers, "*.h") // sorted
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for _, name := range names {
		text, err := headers.ReadFile(name)
		if err != nil {
			panic(err) // listed a moment ago
		}
		h.Write(text)
	}
	h.Write([]byte(tail))
	return hex.EncodeToString(h.Sum(nil))
}

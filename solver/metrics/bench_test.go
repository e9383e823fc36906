package metrics

import (
	"fmt"
	"math"
	"os"
	"testing"
)

// BenchmarkCompute times a value without its floor, and fails where the answer
// is not a number. FORTET_LONG=1 adds ten thousand points.
func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		for _, d := range []int{2, 64} {
			x, y := normals(1, n, d), moved(normals(2, n, d), .5, 1.5)
			for _, m := range All() {
				b.Run(fmt.Sprintf("%s/n=%d/d=%d", m.Name, n, d), func(b *testing.B) {
					if n > 1000 && os.Getenv("FORTET_LONG") != "1" {
						b.Skip("FORTET_LONG=1 runs this size")
					}
					o := Options{Directions: defaultDirections, Centres: make([]float64, d)}
					for b.Loop() {
						v, err := m.measure(background, x, y, o)
						if err != nil || math.IsNaN(v[0].value) {
							b.Fatal(v, err)
						}
					}
				})
			}
		}
	}
}

// BenchmarkFrechet is the size of Inception features.
func BenchmarkFrechet(b *testing.B) {
	for _, d := range []int{64, 512, 2048} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			if d > 512 && os.Getenv("FORTET_LONG") != "1" {
				b.Skip("FORTET_LONG=1 runs this size")
			}
			x, y := normals(1, d+100, d), normals(2, d+100, d)
			for b.Loop() {
				if v, err := FID(background, x, y); err != nil || !(v > 0) {
					b.Fatal(v, err)
				}
			}
		})
	}
}

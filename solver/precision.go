package solver

import "fmt"

// Precision says which arithmetic does the iterations. Certificates are always
// float64.
type Precision int

// The precisions.
const (
	Ladder Precision = iota // float32 while it makes progress, then float64
	Single                  // float32 only
	Double                  // float64 only
)

func (p Precision) String() string {
	switch p {
	case Ladder:
		return "ladder"
	case Single:
		return "f32"
	case Double:
		return "f64"
	}
	return fmt.Sprintf("Precision(%d)", int(p))
}

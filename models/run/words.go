package run

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fortet/fortet/tensor"
)

// The types of choices below are written as words. Their zero value means the
// default, which Resolve fills in.

// Method says what is trained.
type Method int

// The methods.
const (
	LightSB   Method = iota + 1 // light Schrödinger bridge by maximum likelihood
	LightSBM                    // light Schrödinger bridge by bridge matching
	LightSBB                    // Schrödinger–Bass bridge by dual ascent
	LightSBBM                   // Schrödinger–Bass bridge by the published alternation
)

var methodWords = []string{LightSB: "lightsb", LightSBM: "lightsb-m", LightSBB: "lightsbb", LightSBBM: "lightsbb-m"}

// Methods lists all methods by name.
func Methods() []string { return slices.Clone(methodWords[1:]) }

func (m Method) String() string               { return wordOf(methodWords, int(m), "Method") }
func (m Method) MarshalText() ([]byte, error) { return textOf(methodWords, int(m)) }
func (m *Method) UnmarshalText(text []byte) (err error) {
	*m, err = parseWord[Method](methodWords, text)
	return
}

// DType is the element type of training, tensor.Float32 or tensor.Float64.
type DType tensor.DType

// The element types.
const (
	F32 = DType(tensor.Float32)
	F64 = DType(tensor.Float64)
)

var dtypeWords = []string{F32: "f32", F64: "f64"}

func (d DType) String() string               { return wordOf(dtypeWords, int(d), "DType") }
func (d DType) MarshalText() ([]byte, error) { return textOf(dtypeWords, int(d)) }
func (d *DType) UnmarshalText(text []byte) (err error) {
	*d, err = parseWord[DType](dtypeWords, text)
	return
}

// Decay says how the learning rate goes after the warm-up.
type Decay int

// The kinds of Decay.
const (
	Constant Decay = iota + 1
	Cosine         // to zero after the last step
)

var decayWords = []string{Constant: "constant", Cosine: "cosine"}

func (d Decay) String() string               { return wordOf(decayWords, int(d), "Decay") }
func (d Decay) MarshalText() ([]byte, error) { return textOf(decayWords, int(d)) }
func (d *Decay) UnmarshalText(text []byte) (err error) {
	*d, err = parseWord[Decay](decayWords, text)
	return
}

// Covariance is the kind of S of a mixture.
type Covariance int

// The kinds of Covariance.
const (
	Diagonal Covariance = iota + 1
	Full
)

var covarianceWords = []string{Diagonal: "diagonal", Full: "full"}

func (c Covariance) String() string               { return wordOf(covarianceWords, int(c), "Covariance") }
func (c Covariance) MarshalText() ([]byte, error) { return textOf(covarianceWords, int(c)) }
func (c *Covariance) UnmarshalText(text []byte) (err error) {
	*c, err = parseWord[Covariance](covarianceWords, text)
	return
}

// Init says where the means of a mixture begin.
type Init int

// The kinds of Init.
const (
	FromTarget       Init = iota + 1 // samples of the target
	FromSourceTarget                 // half of them samples of the source
	Random                           // N(0, I)
	Spread                           // samples of the target far from each other (k-means++)
)

var initWords = []string{FromTarget: "target", FromSourceTarget: "source-target", Random: "random", Spread: "kmeans++"}

func (i Init) String() string               { return wordOf(initWords, int(i), "Init") }
func (i Init) MarshalText() ([]byte, error) { return textOf(initWords, int(i)) }
func (i *Init) UnmarshalText(text []byte) (err error) {
	*i, err = parseWord[Init](initWords, text)
	return
}

// wordOf is the word of a value, whose type's name serves what is none.
func wordOf(words []string, value int, kind string) string {
	if value < 1 || value >= len(words) {
		return fmt.Sprintf("%s(%d)", kind, value)
	}
	return words[value]
}

func textOf(words []string, value int) ([]byte, error) {
	if value < 1 || value >= len(words) {
		return nil, invalid("got value %d, want one of %s", value, strings.Join(words[1:], ", "))
	}
	return []byte(words[value]), nil
}

func parseWord[T ~int | ~uint8](words []string, text []byte) (T, error) {
	if i := slices.Index(words, string(text)); i > 0 {
		return T(i), nil
	}
	return 0, invalid("got %s, want one of %s", quote(string(text)), strings.Join(words[1:], ", "))
}

// Number is a real number, or infinite, or none. Zero means the default.
type Number float64

// None is the Number that switches something off. It is below all others, so
// that x > 0 asks whether x is on.
var None = Number(math.Inf(-1))

// Or is the number itself, or another in the place of None.
func (x Number) Or(none float64) float64 {
	if x == None {
		return none
	}
	return float64(x)
}

func (x Number) String() string {
	switch {
	case x == None:
		return "none"
	case math.IsInf(float64(x), 1):
		return "inf"
	}
	return strconv.FormatFloat(float64(x), 'g', -1, 64)
}

// MarshalYAML writes a number, inf or none.
func (x Number) MarshalYAML() (any, error) {
	if math.IsInf(float64(x), 0) {
		return x.String(), nil
	}
	return float64(x), nil
}

// UnmarshalText reads what String writes.
func (x *Number) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "none":
		*x = None
		return nil
	case "inf", "+inf", ".inf", "+.inf":
		*x = Number(math.Inf(1))
		return nil
	}
	v, err := parseFloat(string(text))
	if err != nil || !finite(v) {
		return invalid("got %s, want a number, inf or none", quote(string(text)))
	}
	*x = Number(v)
	return nil
}

// parseFloat reads a decimal number; ParseFloat alone also takes words,
// hexadecimals and underscores.
func parseFloat(text string) (float64, error) {
	if strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(text, 64)
}

// quote shortens and quotes what a user gave.
func quote(text string) string { return strconv.Quote(shorten(text)) }

func shorten(text string) string {
	const limit = 60
	n := 0
	for i := range text {
		if n++; n > limit {
			return text[:i] + "…"
		}
	}
	return text
}

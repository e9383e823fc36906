package exact

import (
	"fmt"
	"math"
)

// masses are the weights of a problem as integers, on the points that have any.
//
// Integers make the simplex exact: a pivot is degenerate or it is not, and the
// plan's marginals are met to the last unit. Where all weights of a side are
// small multiples of its smallest (uniform weights, counts), the integers are
// those multiples, so that ties stay ties. Otherwise a unit is 2⁻⁶⁰ of the
// total, finer than float64 itself.
type masses struct {
	total          float64   // Σ a: what the integers' sum stands for
	a, b           []float64 // all weights, b rescaled
	source, sink   []int     // points that carry mass
	supply, demand []int64   // their masses in units; equal sums
	units          int64     // Σ supply
}

func (w *masses) mass(units int64) float64 {
	return float64(units) / float64(w.units) * w.total
}

const (
	imbalance  = 1e-9    // largest relative difference of the two sums
	unitsBits  = 60      // general weights are rounded to 2⁻⁶⁰ of their sum
	multiple   = 0x1p-50 // a weight counts as a multiple of another within this relative distance
	maxCount   = 1 << 40 // largest sum of one side in multiples
	weightsMin = 0x1p-1000
)

func newMasses(a, b []float64, n, m int) (*masses, error) {
	w := &masses{}
	var err error
	var sumA, sumB float64
	if w.a, w.source, sumA, err = checkWeights("a", a, n); err != nil {
		return nil, err
	}
	if w.b, w.sink, sumB, err = checkWeights("b", b, m); err != nil {
		return nil, err
	}
	if !(math.Abs(sumA-sumB) <= imbalance*max(sumA, sumB)) {
		return nil, fmt.Errorf("exact: weights: %w: a sums to %g and b to %g, want equal sums", ErrInvalid, sumA, sumB)
	}
	w.total = sumA
	if sumA != sumB {
		scaled := make([]float64, m)
		for j, v := range w.b {
			scaled[j] = v * (sumA / sumB)
		}
		w.b = scaled
	}

	supply, countA := multiples(w.a, w.source)
	demand, countB := multiples(w.b, w.sink)
	if supply != nil && demand != nil {
		g := gcd(countA, countB)
		if countA/g <= (1<<62)/countB {
			for i := range supply {
				supply[i] *= countB / g
			}
			for j := range demand {
				demand[j] *= countA / g
			}
			w.supply, w.demand, w.units = supply, demand, countA/g*countB
			return w, nil
		}
	}
	w.units = 1 << unitsBits
	w.supply = apportion(w.a, w.source, sumA, w.units)
	w.demand = apportion(w.b, w.sink, sumA, w.units)
	return w, nil
}

// checkWeights returns the weights, the indices of those above zero, and the sum.
func checkWeights(name string, w []float64, n int) (all []float64, positive []int, sum float64, err error) {
	var total accumulator
	if w == nil {
		w = make([]float64, n)
		for i := range w {
			w[i] = 1 / float64(n)
		}
	}
	if len(w) != n {
		return nil, nil, 0, fmt.Errorf("exact: %s: %w: got %d weights, want %d", name, ErrInvalid, len(w), n)
	}
	for i, x := range w {
		if !(x >= 0) || math.IsInf(x, 1) {
			return nil, nil, 0, fmt.Errorf("exact: %s[%d]: %w: got %g, want a finite weight that is not negative", name, i, ErrInvalid, x)
		}
		if x > 0 {
			positive = append(positive, i)
		}
		total.add(x)
	}
	sum = total.value()
	if !(sum >= weightsMin) || math.IsInf(sum, 1) {
		return nil, nil, 0, fmt.Errorf("exact: %s: %w: weights sum to %g, want a positive finite sum", name, ErrInvalid, sum)
	}
	return w, positive, sum, nil
}

// multiples writes weights as multiples of the smallest, where they are.
func multiples(w []float64, positive []int) (counts []int64, sum int64) {
	unit := math.Inf(1)
	for _, i := range positive {
		unit = min(unit, w[i])
	}
	counts = make([]int64, len(positive))
	for k, i := range positive {
		q := w[i] / unit
		r := math.Round(q)
		if !(r <= maxCount) || !(math.Abs(q-r) <= multiple*r) {
			return nil, 0
		}
		counts[k] = int64(r)
		if sum += counts[k]; sum > maxCount {
			return nil, 0
		}
	}
	return counts, sum
}

// apportion rounds weights to units of total/units, at least one each; what is
// left over goes to the largest.
func apportion(w []float64, positive []int, total float64, units int64) []int64 {
	out := make([]int64, len(positive))
	rest, largest := units, 0
	for k, i := range positive {
		out[k] = max(1, int64(math.Round(w[i]/total*float64(units))))
		rest -= out[k]
		if out[k] > out[largest] {
			largest = k
		}
	}
	out[largest] += rest
	return out
}

// accumulator is a sum with Neumaier's compensation: its error does not grow
// with the number of terms.
type accumulator struct{ sum, rest float64 }

func (s *accumulator) add(x float64) {
	t := s.sum + x
	if math.Abs(s.sum) >= math.Abs(x) {
		s.rest += (s.sum - t) + x
	} else {
		s.rest += (x - t) + s.sum
	}
	s.sum = t
}

func (s *accumulator) value() float64 { return s.sum + s.rest }

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

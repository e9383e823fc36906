package bench

import (
	"math"
	"math/bits"

	"github.com/fortet/fortet/solver/geometry"
)

// Link is what carries a gather between processes.
type Link struct {
	Latency   float64 // seconds of a gather of next to nothing between two
	Bandwidth float64 // bytes a second that a process receives
}

// Scaling is what the time of a sweep on several processes follows from. A sweep
// over n by m pairs on P processes, each with the rows of its shards, takes
//
//	T(P) = r m Pair + (n + m) Point + Launch + B_moved / Memory + T_link
//	T_link = ⌈log₂ P⌉ Latency + (P - 1) B_sent / Bandwidth
//
// where r is the rows of the process that has most, B_sent what a process sends
// and B_moved what it copies and adds up, as geometry.ShareOf has them: about
// n/P rows and one sum over m columns. T(1) is that of the geometry that is not
// shared, without the last two terms.
//
// Pairs are all that is divided. Speed-up is T(1)/T(P), and efficiency that over
// P.
type Scaling struct {
	Name    string
	Pair    float64 // seconds a pair, both halves of a sweep
	Point   float64 // seconds a point of n + m: vectors, which every process handles as a whole
	Launch  float64 // seconds a sweep, however small
	Memory  float64 // bytes a second of copying and adding
	Link    Link
	Element int  // bytes of an element of potentials
	Assumed bool // not measured: a prediction
}

// shardsOf is geometry.Sharded's default.
func shardsOf(ranks int) int { return max(8, 1<<bits.Len(uint(ranks-1))) }

// Sweep is T(ranks), in seconds.
func (s Scaling) Sweep(n, m, ranks int) float64 {
	own := float64(n+m)*s.Point + s.Launch
	if ranks == 1 {
		return float64(n)*float64(m)*s.Pair + own
	}
	share := geometry.ShareOf(n, m, shardsOf(ranks), ranks, s.Element)
	link := float64(bits.Len(uint(ranks-1)))*s.Link.Latency + float64(ranks-1)*float64(share.Sent)/s.Link.Bandwidth
	return float64(share.Rows)*float64(m)*s.Pair + own + float64(share.Moved)/s.Memory + link
}

// SpeedUp is T(1)/T(ranks) for n by n pairs.
func (s Scaling) SpeedUp(n, ranks int) float64 { return s.Sweep(n, n, 1) / s.Sweep(n, n, ranks) }

// Efficiency is the speed-up over the number of processes.
func (s Scaling) Efficiency(n, ranks int) float64 { return s.SpeedUp(n, ranks) / float64(ranks) }

// Smallest is the least n, to three digits, from which on the efficiency is at
// least as wanted; ok is false where there is none up to 10⁹.
func (s Scaling) Smallest(ranks int, efficiency float64) (n int, ok bool) {
	// Rows that do not divide cost less as n grows: whole shards are looked at.
	step := shardsOf(ranks) * ranks
	at := func(k int) bool { return s.Efficiency(k*step, ranks) >= efficiency }
	low, high := 0, 1
	for !at(high) {
		low, high = high, 2*high
		if high*step > 1e9 {
			return 0, false
		}
	}
	for high-low > max(1, high/1000) {
		if middle := (low + high) / 2; at(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high * step, true
}

// gpuScaling are H100s as they are assumed to be: no figure here was measured.
//
//   - Pair: a sweep takes two exponentials a pair, at 60 % of 132 SMs × 16 special
//     function units × 1.98 GHz; in 64 dimensions two products of 2·64 operations,
//     at 50 % of the TF32 rate (NVIDIA H100 SXM data sheet: 494.7 TFLOP/s dense).
//   - Memory: 80 % of 3.35 TB/s (the same data sheet).
//   - Launch: 60 µs, of about ten launches and copies (the CUDA programming guide
//     has launches at some microseconds).
//   - Point: that of the CPU that was measured, since solvers keep their vectors on
//     the host, and 16 bytes over PCIe 5.0 x16 at 50 GB/s.
//   - NVLink: 450 GB/s a direction and GPU (data sheet: 900 GB/s both), of which
//     nccl-tests on HGX H100 reaches about 80 %; 15 µs for a small gather there.
//   - Network: 400 Gb/s a GPU (ConnectX-7, NDR InfiniBand), of which 90 % is
//     reached; 30 µs for a small gather.
func gpuScaling(d int, point float64) []Scaling {
	exponentials := 0.6 * 132 * 16 * 1.98e9
	pair := 2 / exponentials
	if d > 8 {
		pair = max(pair, 2*2*float64(d)/(0.5*494.7e12))
	}
	base := Scaling{Pair: pair, Point: point + 16/50e9, Launch: 60e-6, Memory: 0.8 * 3.35e12, Element: 4, Assumed: true}
	nvlink, network := base, base
	nvlink.Name, nvlink.Link = "H100, NVLink", Link{15e-6, 0.8 * 450e9}
	network.Name, network.Link = "H100, 400 Gb/s network", Link{30e-6, 0.9 * 50e9}
	return []Scaling{nvlink, network}
}

// fitLink reads latency and bandwidth off gathers between two processes: seconds
// by bytes of each.
func fitLink(seconds map[int]float64) (Link, bool) {
	if len(seconds) < 2 {
		return Link{}, false
	}
	least, most := math.MaxInt, 0
	for n := range seconds {
		least, most = min(least, n), max(most, n)
	}
	link := Link{Latency: seconds[least], Bandwidth: float64(most-least) / (seconds[most] - seconds[least])}
	return link, link.Latency > 0 && link.Bandwidth > 0 && !math.IsInf(link.Bandwidth, 0)
}

package collective

import (
	"context"
	"fmt"
	"math"
	"time"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// Cost is what a group's exchanges take, by the number of bytes that a rank
// brings: in of Gather, v of Sum.
type Cost struct {
	Gather Line `json:"gather"`
	Sum    Line `json:"sum"`
}

// Line is a time that grows with a number of bytes:
//
//	seconds = Latency + PerByte · bytes
//
// (Hockney, "The communication challenge for MPP", 1994.)
type Line struct {
	Latency float64 `json:"latency_s"`
	PerByte float64 `json:"s_per_byte"`
}

// Seconds is the time for so many bytes.
func (l Line) Seconds(bytes int) float64 { return l.Latency + l.PerByte*float64(bytes) }

// sweep is the sizes that Measure takes, in bytes, and how many calls of each
// make a round: from all latency to all bandwidth.
var sweep = []struct{ bytes, calls int }{
	{64, 16}, {512, 16}, {4 << 10, 16}, {32 << 10, 8}, {256 << 10, 4}, {2 << 20, 2},
}

// rounds of each size are timed; the fastest counts, for what else a machine
// does only adds to a time.
const rounds = 7

// Measure finds out what the exchanges of a group cost, in less than a second
// on a machine that does nothing else. All ranks must call it, with the
// devices of their groups; all get the same figures, those of rank 0. It stops
// between sizes once the context of any rank is done.
func Measure(ctx context.Context, g Group, dev gpu.Device) (Cost, error) {
	largest := sweep[len(sweep)-1].bytes
	m := meter{ctx: ctx, Group: g, dev: dev}
	all, err := dev.Alloc(largest*g.Size() + 8)
	if err != nil {
		return Cost{}, fmt.Errorf("%s: measure: %w", g.Name(), err)
	}
	defer dev.Free(all)
	m.word, m.out = all.Slice(largest*g.Size(), 8), all.Slice(0, largest*g.Size())
	m.mine = m.out.Slice(g.Rank()*largest, largest)
	// Zeros stay zeros, however often they are added.
	if err := dev.Upload(all, make([]byte, all.Bytes)); err != nil {
		return Cost{}, fmt.Errorf("%s: measure: %w", g.Name(), err)
	}
	var c Cost
	if c.Gather, err = m.line(func(bytes int) error {
		out := m.out.Slice(0, bytes*g.Size())
		return g.Gather(out, out.Slice(g.Rank()*bytes, bytes))
	}); err == nil {
		c.Sum, err = m.line(func(bytes int) error { return g.Sum(m.mine.Slice(0, bytes), Float32) })
	}
	if err != nil {
		return Cost{}, fmt.Errorf("%s: measure: %w", g.Name(), err)
	}
	return c, nil
}

type meter struct {
	Group
	ctx             context.Context
	dev             gpu.Device
	out, mine, word gpu.Buffer
}

// line times a call at all sizes.
func (m *meter) line(call func(bytes int) error) (Line, error) {
	var bytes, seconds []float64
	for _, s := range sweep {
		if err := m.wanted(); err != nil {
			return Line{}, err
		}
		best := math.Inf(1) // and at least what no clock can tell from nothing
		for range rounds {
			t, err := m.time(func() error {
				for range s.calls {
					if err := call(s.bytes); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return Line{}, err
			}
			best = min(best, t/float64(s.calls))
		}
		bytes, seconds = append(bytes, float64(s.bytes)), append(seconds, max(best, 1e-12))
	}
	l := fit(bytes, seconds)
	var err error
	if l.Latency, err = m.ofRankZero(l.Latency); err == nil {
		l.PerByte, err = m.ofRankZero(l.PerByte)
	}
	return l, err
}

// time is how long f takes, and what it queues.
func (m *meter) time(f func() error) (float64, error) {
	if err := m.Barrier(); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	if err := m.dev.Sync(); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// wanted asks all ranks whether one of them was told to stop: none may go on
// alone.
func (m *meter) wanted() error {
	stop, err := 0.0, m.ctx.Err()
	if err != nil {
		stop = 1
	}
	total, exchanged := m.exchange(stop, func() error { return m.Sum(m.word, Float64) })
	switch {
	case exchanged != nil:
		return exchanged
	case err != nil:
		return err
	case total > 0:
		return fmt.Errorf("%w: on another rank", context.Canceled)
	}
	return nil
}

func (m *meter) ofRankZero(x float64) (float64, error) {
	return m.exchange(x, func() error { return m.Broadcast(m.word, 0) })
}

// exchange calls f with x in word, and returns what is there after.
func (m *meter) exchange(x float64, f func() error) (float64, error) {
	word := unsafe.Slice((*byte)(unsafe.Pointer(&x)), 8)
	if err := m.dev.Upload(m.word, word); err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	err := m.dev.Download(word, m.word)
	return x, err
}

// fit is the line whose relative errors have the least sum of squares, among
// those that neither begin below zero nor fall.
func fit(bytes, seconds []float64) Line {
	// With weights w = 1/t² the normal equations of a + b x = t.
	var s, x, xx, t, xt float64
	for i := range bytes {
		w := 1 / (seconds[i] * seconds[i])
		s += w
		x += w * bytes[i]
		xx += w * bytes[i] * bytes[i]
		t += w * seconds[i]
		xt += w * bytes[i] * seconds[i]
	}
	b := (s*xt - x*t) / (s*xx - x*x)
	a := (t - b*x) / s
	switch {
	case b < 0:
		return Line{Latency: t / s}
	case a < 0:
		return Line{PerByte: xt / xx}
	}
	return Line{Latency: a, PerByte: b}
}

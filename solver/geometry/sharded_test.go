package geometry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// everyRank runs body on ranks of a local group, each with a device of its own,
// and fails the test where one returns an error.
func everyRank(t *testing.T, device string, ranks int, body func(ctx context.Context, dev gpu.Device, team *Team) error) {
	t.Helper()
	for r, err := range attempt(t, t.Context(), device, ranks, body) {
		require.NoError(t, err, "rank %d of %d", r, ranks)
	}
}

func attempt(t *testing.T, ctx context.Context, device string, ranks int, body func(ctx context.Context, dev gpu.Device, team *Team) error) []error {
	t.Helper()
	var devs []gpu.Device
	for range ranks {
		dev, err := gpu.OpenWith(device, gpu.Options{Workers: 2})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		devs = append(devs, dev)
	}
	return on(ctx, devs, body)
}

func on(ctx context.Context, devs []gpu.Device, body func(ctx context.Context, dev gpu.Device, team *Team) error) []error {
	errs := make([]error, len(devs))
	var all sync.WaitGroup
	for r, group := range collective.Local(len(devs), devs...) {
		all.Go(func() {
			team, agreed := Join(ctx, devs[r], group)
			if errs[r] = body(agreed, devs[r], team); errs[r] != nil {
				group.Close() // as the end of a process would
			}
		})
	}
	all.Wait()
	return errs
}

// answers are all that an operator and its transpose say.
type answers struct {
	softmin, out, mass, mean, r, grad, back []float64
	col                                     []float64
}

func (a answers) each() map[string][]float64 {
	return map[string][]float64{"softmin": a.softmin, "out": a.out, "col": a.col, "mass": a.mass, "mean": a.mean, "r": a.r, "grad": a.grad, "back": a.back}
}

// ask asks g everything.
func ask(dev gpu.Device, g Geometry, dtype tensor.DType, o Options, epsilon float64) (a answers, err error) {
	n, m := g.Size()
	const k = 3
	op, err := g.Open(dev, dtype, o)
	if err != nil {
		return a, err
	}
	defer op.Close()
	put := func(v []float64, shape ...int) (t tensor.Tensor) {
		if err == nil {
			t, err = tensor.FromFloat64s(dev, dtype, v, shape...)
		}
		return t
	}
	empty := func(dtype tensor.DType, shape ...int) (t tensor.Tensor) {
		if err == nil {
			t, err = tensor.New(dev, dtype, shape...)
		}
		return t
	}
	loga, logb := make([]float64, n), make([]float64, m)
	loga[n/2], logb[m/2] = math.Inf(-1), math.Inf(-1)
	gT, f, la, lb, v := put(normals(11, m, 0), m), put(normals(12, n, 0), n), put(loga, n), put(logb, m), put(normals(13, m*k, 0), m, k)
	softmin, out, col := empty(dtype, n), empty(dtype, n), empty(tensor.Float64, m)
	mass, mean, r, back := empty(dtype, n), empty(dtype, n), empty(dtype, n, k), empty(dtype, m)
	var grad tensor.Tensor
	if g.Dim() > 0 {
		grad = empty(dtype, n, g.Dim())
	}
	defer func() {
		for _, t := range []tensor.Tensor{gT, f, la, lb, v, softmin, out, col, mass, mean, r, back, grad} {
			t.Free()
		}
	}()
	if err != nil {
		return a, err
	}
	if err := op.Softmin(softmin, gT, lb, epsilon); err != nil {
		return a, err
	}
	if err := op.Sweep(out, col, gT, la, lb, 0.9, epsilon); err != nil {
		return a, err
	}
	if err := op.Apply(Apply{F: f, G: gT, LogB: lb, V: v, Mass: mass, Mean: mean, R: r, Grad: grad}, epsilon); err != nil {
		return a, err
	}
	t, err := op.Transposed()
	if err != nil {
		return a, err
	}
	if err := t.Softmin(back, f, la, epsilon); err != nil {
		return a, err
	}
	if again, err := t.Transposed(); err != nil || again != op && !sameKind(again, op) {
		return a, fmt.Errorf("the transpose of the transpose: %v, %v", again, err)
	}
	for _, x := range []struct {
		to *[]float64
		tensor.Tensor
	}{{&a.softmin, softmin}, {&a.out, out}, {&a.col, col}, {&a.mass, mass}, {&a.mean, mean}, {&a.r, r}, {&a.back, back}, {&a.grad, grad}} {
		if x.IsZero() {
			continue
		}
		if *x.to, err = tensor.Float64s(x.Tensor); err != nil {
			return a, err
		}
	}
	return a, nil
}

// sameKind: pairs make a new one.
func sameKind(a, b Operator) bool {
	_, ok1 := a.(*pairs)
	_, ok2 := b.(*pairs)
	return ok1 && ok2
}

func cases(t *testing.T, n, m int) map[string]Geometry {
	const d = 3
	out := map[string]Geometry{}
	for cost := SqEuclidean; cost <= Cosine; cost++ {
		p, err := NewPoints(normals(1, n*d, 0.3), normals(2, m*d, -0.2), d, cost)
		require.NoError(t, err)
		out[cost.String()] = p
	}
	c := normals(3, n*m, 0)
	out["matrix"] = Matrix{c, n, m}
	return out
}

// Whatever the number of processes, all answers have the same bits; they are those
// of the whole geometry to the rounding of sums over rows.
func TestShardedBits(t *testing.T) {
	for _, device := range []string{"cpu", "emu"} {
		sizes, shards, dtypes := [][2]int{{1, 5}, {7, 40}, {131, 67}}, []int{0, 1, 5, 16}, []tensor.DType{tensor.Float32, tensor.Float64}
		if device == "emu" {
			sizes, shards, dtypes = [][2]int{{11, 6}}, []int{0}, dtypes[:1]
		}
		for _, size := range sizes {
			for name, g := range cases(t, size[0], size[1]) {
				if device == "emu" && name != "sqeuclidean" && name != "matrix" {
					continue
				}
				for _, dtype := range dtypes {
					t.Run(fmt.Sprintf("%s/%d×%d/%s/%v", device, size[0], size[1], name, dtype), func(t *testing.T) {
						dev, err := gpu.OpenWith(device, gpu.Options{Workers: 2})
						require.NoError(t, err)
						t.Cleanup(func() { dev.Close() })
						want, err := ask(dev, g, dtype, Options{}, 0.7)
						require.NoError(t, err)
						for _, s := range shards {
							compareRanks(t, device, g, dtype, s, want)
						}
					})
				}
			}
		}
	}
}

func compareRanks(t *testing.T, device string, g Geometry, dtype tensor.DType, shards int, whole answers) {
	var first answers
	counts := []int{1, 2, 3, 4, 8}
	if device == "emu" {
		counts = []int{1, 3}
	}
	for _, ranks := range counts {
		all := make([]answers, ranks)
		everyRank(t, device, ranks, func(_ context.Context, dev gpu.Device, team *Team) (err error) {
			s := Sharded{Geometry: g, Team: team, Shards: shards}
			all[team.Rank()], err = ask(dev, s, dtype, Options{}, 0.7)
			return err
		})
		if ranks == 1 {
			first = all[0]
			for what, v := range first.each() {
				// Rows are computed as those of the whole, in blocks that begin
				// elsewhere; sums over rows in another order.
				unit := 0x1p-20
				if dtype == tensor.Float64 {
					unit = 0x1p-48
				}
				scale := 0.0
				for _, x := range whole.each()[what] {
					scale = max(scale, math.Abs(x))
				}
				require.NoError(t, kerneltest.Within(v, whole.each()[what], unit*(1+scale)), "%s, %d shards", what, shards)
			}
		}
		for r, a := range all {
			for what, v := range a.each() {
				require.NoError(t, kerneltest.BitEqual(v, first.each()[what]), "%s, %d shards, rank %d of %d", what, shards, r, ranks)
			}
		}
	}
}

// Fast sums have the same bits on all ranks, and are right.
func TestShardedFast(t *testing.T) {
	g := cases(t, 61, 45)["sqeuclidean"]
	dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 2})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	want, err := ask(dev, g, tensor.Float64, Options{}, 0.7)
	require.NoError(t, err)
	for _, ranks := range []int{1, 2, 3, 5} {
		all := make([]answers, ranks)
		everyRank(t, "cpu", ranks, func(_ context.Context, dev gpu.Device, team *Team) (err error) {
			all[team.Rank()], err = ask(dev, Sharded{Geometry: g, Team: team, Fast: true, Shards: 4}, tensor.Float64, Options{}, 0.7)
			return err
		})
		for _, a := range all {
			for what, v := range a.each() {
				require.NoError(t, kerneltest.Within(v, want.each()[what], 1e-12*61), what)
				require.NoError(t, kerneltest.BitEqual(v, all[0].each()[what]), what)
			}
		}
	}
}

// Every row has one owner, in order, and groups of shards do not straddle ranks.
func TestCuts(t *testing.T) {
	for _, n := range []int{1, 7, 100, 1 << 40} {
		for shards := 1; shards <= 33; shards += 1 + shards/9 {
			for ranks := 1; ranks <= 20; ranks += 1 + ranks/9 {
				c := cuts{n, shards, ranks}
				rows, shard, groups := 0, 0, 0
				size := c.group()
				require.True(t, size > 0 && size&(size-1) == 0)
				for r := range ranks {
					s, w, g := c.of(r), c.rowsOf(r), c.groups(r)
					require.Equal(t, shard, s.low)
					require.Equal(t, rows, w.low)
					shard, rows = s.high, w.high
					if s.len() > 0 {
						require.Equal(t, groups, g.low, "%+v rank %d", c, r)
						groups = g.high
						require.Equal(t, s.low, g.low*size)
						require.True(t, g.high*size >= s.high && (g.high-1)*size < s.high)
					} else {
						require.Zero(t, g.len())
					}
					require.LessOrEqual(t, s.len(), (shards+ranks-1)/ranks)
				}
				require.Equal(t, n, rows)
				require.Equal(t, shards, shard)
				require.Equal(t, (shards+size-1)/size, groups)
				for s := range shards {
					require.LessOrEqual(t, c.rows(s).len(), (n+shards-1)/shards)
				}
			}
		}
	}
	require.Equal(t, 4, cuts{100, 8, 2}.group())
	require.Equal(t, 8, cuts{100, 8, 1}.group())
	require.Equal(t, 1, cuts{100, 8, 3}.group())
}

func TestPieces(t *testing.T) {
	for ranks, want := range map[int]int{1: 8, 3: 8, 8: 8, 9: 16, 16: 16, 17: 32} {
		devs := make([]gpu.Device, ranks)
		dev, err := gpu.Open("cpu")
		require.NoError(t, err)
		for i := range devs {
			devs[i] = dev
		}
		team, _ := Join(t.Context(), dev, collective.Local(ranks, devs...)[0])
		require.Equal(t, want, Sharded{Team: team}.Pieces())
		require.Equal(t, 5, Sharded{Team: team, Shards: 5}.Pieces())
		require.NoError(t, dev.Close())
	}
}

// counted counts what a group carries.
type counted struct {
	collective.Group
	sent *int
}

func (c counted) Gather(out, in gpu.Buffer) error {
	*c.sent += in.Bytes
	return c.Group.Gather(out, in)
}

// What a sweep sends is what ShareOf says.
func TestShareOf(t *testing.T) {
	const n, m = 130, 70
	p, err := NewPoints(normals(1, n, 0), normals(2, m, 0), 1, SqEuclidean)
	require.NoError(t, err)
	for _, ranks := range []int{1, 2, 3, 5} {
		for _, shards := range []int{0, 4, 24} {
			sent := make([]int, ranks)
			everyRank(t, "cpu", ranks, func(ctx context.Context, dev gpu.Device, team *Team) error {
				mine := &sent[team.Rank()]
				team, _ = Join(ctx, dev, counted{team.group, mine})
				s := Sharded{Geometry: p, Team: team, Shards: shards}
				op, err := s.Open(dev, tensor.Float32, Options{})
				if err != nil {
					return err
				}
				defer op.Close()
				var all []tensor.Tensor
				for _, of := range []struct {
					n     int
					dtype tensor.DType
				}{{n, tensor.Float32}, {m, tensor.Float64}, {m, tensor.Float32}, {n, tensor.Float32}} {
					v, err := tensor.FromFloat64s(dev, of.dtype, make([]float64, of.n), of.n)
					if err != nil {
						return err
					}
					defer v.Free()
					all = append(all, v)
				}
				*mine = 0
				if err := op.Sweep(all[0], all[1], all[2], all[3], all[2], 1, 1); err != nil {
					return err
				}
				share := ShareOf(n, m, s.Pieces(), ranks, 4)
				if *mine != share.Sent || share.Rows < (n+ranks-1)/ranks || share.Moved < 8*m+8*n {
					return fmt.Errorf("%d bytes sent, share %+v", *mine, share)
				}
				return nil
			})
		}
	}
	// Two ranks with half of the shards each send one sum and half of the rows.
	share := ShareOf(1024, 512, 8, 2, 4)
	require.Equal(t, Share{Rows: 512, Sent: 256 + 8*512 + 4*512, Moved: 2*4*1024 + 8*512*(2+5+1)}, share)
}

// Moments have the bits of the whole geometry.
func TestShardedMoments(t *testing.T) {
	const n, m = 29, 17
	a := normals(5, n, 0)
	for i := range a {
		a[i] = math.Abs(a[i])
	}
	for name, g := range cases(t, n, m) {
		mean, err := g.Mean(t.Context(), a, nil)
		require.NoError(t, err)
		std, err := g.Std(t.Context(), a, nil)
		require.NoError(t, err)
		for _, ranks := range []int{1, 3, 4} {
			everyRank(t, "cpu", ranks, func(ctx context.Context, _ gpu.Device, team *Team) error {
				s := Sharded{Geometry: g, Team: team}
				got, err := s.Mean(ctx, a, nil)
				if err != nil || got != mean {
					return fmt.Errorf("%s: mean %v, want %v: %w", name, got, mean, err)
				}
				got, err = s.Std(ctx, a, nil)
				if err != nil || got != std {
					return fmt.Errorf("%s: std %v, want %v: %w", name, got, std, err)
				}
				return nil
			})
		}
	}
}

// Costs are cached by the shard, whatever the number of processes, and each holds
// only its own.
func TestShardedCache(t *testing.T) {
	const n, m, d = 64, 50, 16 // 12800 bytes of costs in float32
	p, err := NewPoints(normals(1, n*d, 0), normals(2, m*d, 0), d, SqEuclidean)
	require.NoError(t, err)
	for _, c := range []struct {
		bytes  int64
		cached bool
	}{{0, true}, {-1, false}, {4 * n * m, true}, {4*n*m - 8, false}} {
		for _, ranks := range []int{1, 2, 4} {
			everyRank(t, "cpu", ranks, func(_ context.Context, dev gpu.Device, team *Team) error {
				before := dev.Memory().InUse
				op, err := Sharded{Geometry: p, Team: team}.Open(dev, tensor.Float32, Options{CacheBytes: c.bytes})
				if err != nil {
					return err
				}
				defer op.Close()
				if op.Cached() != c.cached {
					return fmt.Errorf("%d bytes: cached %v", c.bytes, op.Cached())
				}
				held := dev.Memory().InUse - before
				limit := int64(4*m*d) + int64(4*n*d/ranks) + 16*256
				if c.cached {
					limit += int64(4 * n * m / ranks)
				}
				if held > limit {
					return fmt.Errorf("%d ranks hold %d bytes each, want %d at most", ranks, held, limit)
				}
				return nil
			})
		}
	}
}

// All ranks stop in the same sweep, though one alone was told to.
func TestShardedStop(t *testing.T) {
	g := cases(t, 40, 30)["euclidean"]
	const ranks, at = 3, 5
	var sweeps [ranks]int
	everyRank(t, "cpu", ranks, func(_ context.Context, dev gpu.Device, first *Team) error {
		own, cancel := context.WithCancel(t.Context())
		defer cancel()
		team, agreed := Join(own, dev, first.group)
		s := Sharded{Geometry: g, Team: team}
		op, err := s.Open(dev, tensor.Float64, Options{})
		if err != nil {
			return err
		}
		defer op.Close()
		v, err := tensor.FromFloat64s(dev, tensor.Float64, make([]float64, 30), 30)
		if err != nil {
			return err
		}
		defer v.Free()
		out, err := tensor.New(dev, tensor.Float64, 40)
		if err != nil {
			return err
		}
		defer out.Free()
		for agreed.Err() == nil {
			sweeps[team.Rank()]++
			if sweeps[team.Rank()] == at && team.Rank() == 1 {
				cancel()
				if agreed.Err() != nil {
					return fmt.Errorf("done before the others know")
				}
			}
			if err := op.Softmin(out, v, v, 0.5); err != nil {
				return err
			}
		}
		if _, err := s.Mean(agreed, nil, nil); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("mean: %v", err)
		}
		return nil
	})
	require.Equal(t, [ranks]int{at, at, at}, sweeps)
}

// What one rank cannot open, none opens, and all say whose fault it is.
func TestShardedOpenFails(t *testing.T) {
	g := cases(t, 40, 30)["sqeuclidean"]
	fails := func(t *testing.T, ranks int, is error, text string, open func(dev gpu.Device, team *Team) error) {
		for r, err := range attempt(t, t.Context(), "cpu", ranks, func(_ context.Context, dev gpu.Device, team *Team) error {
			err := open(dev, team)
			if used := dev.Memory().InUse; used != 0 {
				return fmt.Errorf("%d bytes are left: %w", used, err)
			}
			return err
		}) {
			require.ErrorIs(t, err, is, "rank %d", r)
			require.ErrorContains(t, err, text, "rank %d", r)
		}
	}
	t.Run("data", func(t *testing.T) {
		fails(t, 3, solver.ErrInvalid, "rank 2 has other data or settings than rank 0", func(dev gpu.Device, team *Team) error {
			p := g.(Points)
			if team.Rank() == 2 {
				p.X = append([]float64(nil), p.X...)
				p.X[7] = math.Nextafter(p.X[7], 9)
			}
			_, err := Sharded{Geometry: p, Team: team}.Open(dev, tensor.Float32, Options{})
			return err
		})
	})
	t.Run("shards", func(t *testing.T) {
		fails(t, 2, solver.ErrInvalid, "rank 1 has other data or settings than rank 0", func(dev gpu.Device, team *Team) error {
			_, err := Sharded{Geometry: g, Team: team, Shards: 8 << team.Rank()}.Open(dev, tensor.Float32, Options{})
			return err
		})
	})
	t.Run("invalid", func(t *testing.T) {
		fails(t, 2, solver.ErrInvalid, "rank 1: geometry: source: invalid problem: point 0, coordinate 1 is NaN", func(dev gpu.Device, team *Team) error {
			p := g.(Points)
			if team.Rank() == 1 {
				p.X = append([]float64(nil), p.X...)
				p.X[1] = math.NaN()
			}
			_, err := Sharded{Geometry: p, Team: team}.Open(dev, tensor.Float64, Options{})
			return err
		})
	})
	t.Run("kind", func(t *testing.T) {
		fails(t, 2, solver.ErrInvalid, "a geometry.Grid, want points or a cost matrix", func(dev gpu.Device, team *Team) error {
			grid, err := NewGrid(SqEuclidean, []float64{1, 2})
			if err == nil {
				_, err = Sharded{Geometry: grid, Team: team}.Open(dev, tensor.Float64, Options{})
			}
			return err
		})
	})
	require.ErrorIs(t, Sharded{Geometry: g}.Validate(), solver.ErrInvalid)
}

// A rank that runs out of memory, whenever it does, is an error of all ranks, and
// leaves nothing behind.
func TestShardedOutOfMemory(t *testing.T) {
	g := cases(t, 40, 30)["sqeuclidean"]
	elsewhere, calls := 0, 1
	for k := 0; k <= calls; k++ {
		var devs []gpu.Device
		var failing *fake.Device
		for r := range 3 {
			dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 1})
			require.NoError(t, err)
			t.Cleanup(func() { dev.Close() })
			if r == 1 {
				failing = fake.New(dev, fake.Fail{Alloc: k})
				dev = failing
			}
			devs = append(devs, dev)
		}
		errs := on(t.Context(), devs, func(_ context.Context, dev gpu.Device, team *Team) error {
			_, err := ask(dev, Sharded{Geometry: g, Team: team}, tensor.Float32, Options{}, 0.7)
			return err
		})
		if k == 0 {
			calls = failing.Counts().Alloc
			require.Greater(t, calls, 15)
		}
		for r, err := range errs {
			if k == 0 {
				require.NoError(t, err)
				continue
			}
			require.Error(t, err, "rank %d, allocation %d", r, k)
			if r == 1 {
				require.ErrorIs(t, err, gpu.ErrOutOfMemory, "allocation %d", k)
			} else if strings.Contains(err.Error(), "rank 1") && !errors.Is(err, collective.ErrExchange) {
				elsewhere++
			}
		}
		for r, dev := range devs {
			require.Zero(t, dev.Memory().InUse, "rank %d, allocation %d", r, k)
		}
	}
	require.GreaterOrEqual(t, elsewhere, calls/2) // told, and not by a rank that is gone
}

// ExampleSharded shares a geometry with whoever else was started.
func ExampleSharded() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	// A program that mpirun started says collective.Open("mpi", dev).
	team, ctx := Join(context.Background(), dev, collective.Self(dev))
	points, err := NewPoints([]float64{0, 1, 2}, []float64{1, 3}, 1, SqEuclidean)
	if err != nil {
		fmt.Println(err)
		return
	}
	shared := Sharded{Geometry: points, Team: team}
	mean, err := shared.Mean(ctx, nil, nil)
	fmt.Printf("%d shards, mean cost %.4f, %v\n", shared.Pieces(), mean, err)
	// Output:
	// 8 shards, mean cost 2.6667, <nil>
}
